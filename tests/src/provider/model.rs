//! What the authorization server knows: families of tokens, and which of them are good.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::fault::Reply;

/// How the server treats tokens.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Lifetime of access tokens; with none, answers have no `expires_in` and tokens live for ever.
    pub ttl: Option<Duration>,
    /// Whether a redeem uses the refresh token up. Without, answers carry no refresh token.
    pub rotate: bool,
    /// How long the previous refresh token is answered with the identical pair.
    pub grace: Duration,
    /// Whether a redeem kills the previous access token at once.
    pub kills_access: bool,
    /// The answer to a refresh token that is used up, revoked or unknown.
    pub refusal: Reply,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            ttl: Some(Duration::from_secs(3600)),
            rotate: true,
            grace: Duration::ZERO,
            kills_access: false,
            refusal: Reply::oauth(400, "invalid_grant"),
        }
    }
}

/// One pair of tokens as the server issued it.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The grant that the pair belongs to.
    pub family: String,
    /// 1 for the first login's pair, one more with each rotation or login.
    pub generation: u64,
    /// Rises with each login: what a rotation supersedes is of the same one.
    pub login: u64,
    /// The access token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: String,
    /// What the server says of the lifetime.
    pub expires_in: Option<u64>,
}

impl Pair {
    /// The pair as the body of a login at the hub.
    pub fn login(&self) -> Value {
        let mut body = json!({"access_token": self.access_token, "refresh_token": self.refresh_token});
        if let Some(expires_in) = self.expires_in {
            body["expires_in"] = expires_in.into();
        }
        body
    }
}

/// What became of a redeem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not decided yet, or never: a fault came first.
    NotProcessed,
    /// A new pair.
    Issued,
    /// The same pair again, inside the grace.
    Again,
    /// A used token: the family was revoked.
    Reused,
    /// A token of a revoked family, or an unknown one.
    Refused,
}

struct Issued {
    pair: Pair,
    dies_at: Option<Instant>,
    used_at: Option<Instant>,
}

/// All families.
pub(super) struct Model {
    pub(super) rules: Rules,
    pairs: Vec<Issued>,
    by_refresh: HashMap<String, usize>,
    by_access: HashMap<String, usize>,
    revoked: HashSet<String>,
}

impl Model {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            pairs: Vec::new(),
            by_refresh: HashMap::new(),
            by_access: HashMap::new(),
            revoked: HashSet::new(),
        }
    }

    /// A login: a family's first pair, or a new one for a family whose user logs in again.
    pub(super) fn login(&mut self, family: &str) -> Pair {
        let of_family = || {
            self.pairs
                .iter()
                .map(|issued| &issued.pair)
                .filter(|pair| pair.family == family)
        };
        let generation = of_family().map(|pair| pair.generation).max().unwrap_or(0) + 1;
        let login = of_family().map(|pair| pair.login).max().unwrap_or(0) + 1;
        self.revoked.remove(family);
        self.issue(family, generation, login, None)
    }

    /// A refresh token grant (RFC 6749 section 6).
    pub(super) fn redeem(&mut self, refresh_token: &str) -> (Outcome, Option<Pair>) {
        let Some(&index) = self.by_refresh.get(refresh_token) else {
            return (Outcome::Refused, None);
        };
        let presented = self.pairs[index].pair.clone();
        if self.revoked.contains(&presented.family) {
            return (Outcome::Refused, None);
        }
        if !self.rules.rotate {
            let pair = self.issue(
                &presented.family,
                presented.generation + 1,
                presented.login,
                Some(presented.refresh_token),
            );
            return (Outcome::Issued, Some(pair));
        }
        match self.pairs[index].used_at {
            None => {
                self.pairs[index].used_at = Some(Instant::now());
                if self.rules.kills_access {
                    self.pairs[index].dies_at = Some(Instant::now());
                }
                let pair = self.issue(&presented.family, presented.generation + 1, presented.login, None);
                (Outcome::Issued, Some(pair))
            }
            Some(used_at) if used_at.elapsed() < self.rules.grace => (Outcome::Again, self.successor(&presented)),
            Some(_) => {
                self.revoke(&presented.family);
                (Outcome::Reused, None)
            }
        }
    }

    /// Ends a family and all its tokens.
    pub(super) fn revoke(&mut self, family: &str) {
        self.revoked.insert(family.to_owned());
    }

    pub(super) fn is_revoked(&self, family: &str) -> bool {
        self.revoked.contains(family)
    }

    /// Whether a resource server would accept the token now.
    pub(super) fn is_live(&self, access_token: &str) -> bool {
        self.by_access.get(access_token).is_some_and(|&index| {
            let issued = &self.pairs[index];
            !self.revoked.contains(&issued.pair.family) && issued.dies_at.is_none_or(|dies| Instant::now() < dies)
        })
    }

    pub(super) fn pair_of_refresh(&self, refresh_token: &str) -> Option<&Pair> {
        self.by_refresh.get(refresh_token).map(|&index| &self.pairs[index].pair)
    }

    pub(super) fn pair_of_access(&self, access_token: &str) -> Option<&Pair> {
        self.by_access.get(access_token).map(|&index| &self.pairs[index].pair)
    }

    pub(super) fn newest(&self, family: &str) -> Option<&Pair> {
        self.pairs
            .iter()
            .rev()
            .map(|issued| &issued.pair)
            .find(|pair| pair.family == family)
    }

    /// Every token ever issued.
    pub(super) fn tokens(&self) -> Vec<String> {
        let of = |issued: &Issued| [issued.pair.access_token.clone(), issued.pair.refresh_token.clone()];
        self.pairs.iter().flat_map(of).collect()
    }

    fn successor(&self, of: &Pair) -> Option<Pair> {
        let next = |issued: &&Issued| issued.pair.family == of.family && issued.pair.generation == of.generation + 1;
        self.pairs.iter().find(next).map(|issued| issued.pair.clone())
    }

    fn issue(&mut self, family: &str, generation: u64, login: u64, refresh_token: Option<String>) -> Pair {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        let pair = Pair {
            family: family.to_owned(),
            generation,
            login,
            access_token: format!("at-{family}-{generation}-{}", random()),
            refresh_token: refresh_token.unwrap_or_else(|| format!("rt-{family}-{generation}-{}", random())),
            expires_in: self.rules.ttl.map(|ttl| ttl.as_secs()),
        };
        self.by_access.insert(pair.access_token.clone(), self.pairs.len());
        self.by_refresh.insert(pair.refresh_token.clone(), self.pairs.len());
        self.pairs.push(Issued {
            pair: pair.clone(),
            dies_at: self.rules.ttl.map(|ttl| Instant::now() + ttl),
            used_at: None,
        });
        pair
    }
}
