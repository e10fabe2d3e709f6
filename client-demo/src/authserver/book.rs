//! The server's one shared state: ledger, codes, faults and calls behind one lock, with its clock and its mint.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use lockstep_protocol::Secret;
use serde::Serialize;

use super::{
    FaultError, FaultSpec, Settings,
    calls::{Call, Calls, Outcome, Stats},
    fault::{Faults, Plan},
    ledger::{AccessRefused, FamilyView, Ledger, Pair, Redeemed, Refused, Rules},
    minted::{AccessClaims, GrantId, Mint, pkce_challenge, random_text},
    oauth_error::OauthError,
    request::TokenRequest,
};

/// Codes that may wait at a time; more are refused.
const MOST_CODES: usize = 10_000;
/// How long an authorization code is good, in milliseconds (RFC 6749 section 4.1.2: ten minutes at most).
const CODE_TTL_MS: u64 = 60_000;

/// A successful answer of the token endpoint (RFC 6749 section 5.1).
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TokenAnswer {
    pub(crate) access_token: Secret,
    pub(crate) token_type: &'static str,
    pub(crate) expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_token: Option<Secret>,
    pub(crate) scope: String,
}

/// A grant made without a browser.
#[derive(Debug, Clone, Serialize)]
pub struct Granted {
    /// Its name at this server.
    pub grant: String,
    /// The first access token.
    pub access_token: Secret,
    /// The first refresh token.
    pub refresh_token: Secret,
    /// Seconds until the access token expires.
    pub expires_in: u64,
}

/// What an authorization code stands for.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) client_id: String,
    pub(crate) redirect_uri: Option<String>,
    pub(crate) challenge: Option<Challenge>,
    pub(crate) scope: String,
}

/// A PKCE challenge (RFC 7636).
#[derive(Debug)]
pub(crate) enum Challenge {
    Plain(String),
    S256(String),
}

#[derive(Debug)]
struct PendingCode {
    code: Code,
    made_at: u64,
    /// The family that it brought.
    brought: Option<GrantId>,
}

#[derive(Debug)]
struct Shelves {
    ledger: Ledger,
    codes: HashMap<String, PendingCode>,
    faults: Faults,
    calls: Calls,
    scopes: HashMap<GrantId, String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) addr: SocketAddr,
    pub(crate) settings: Settings,
    mint: Mint,
    started: (Instant, u64),
    shelves: Mutex<Shelves>,
}

impl Book {
    pub(crate) fn new(addr: SocketAddr, settings: Settings) -> Self {
        let rules = Rules {
            grace: settings.grace,
            rotate: settings.rotate,
            kill_old_access: settings.kill_old_access,
            access_ttl_ms: u64::try_from(settings.access_ttl.as_millis()).unwrap_or(u64::MAX),
        };
        Self {
            addr,
            mint: Mint::new(settings.access_bytes),
            settings,
            started: (Instant::now(), unix_ms()),
            shelves: Mutex::new(Shelves {
                ledger: Ledger::new(rules),
                codes: HashMap::new(),
                faults: Faults::default(),
                calls: Calls::default(),
                scopes: HashMap::new(),
            }),
        }
    }

    /// Unix milliseconds on a clock that never goes back.
    pub(crate) fn now(&self) -> u64 {
        let (instant, unix) = self.started;
        unix + u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a grant.
    pub(crate) fn grant(&self, client_id: Option<String>, scope: Option<String>) -> Granted {
        let now = self.now();
        let mut shelves = self.shelves();
        let (grant, pair) = shelves.ledger.open(client_id, now);
        if let Some(scope) = scope {
            shelves.scopes.insert(grant, scope);
        }
        drop(shelves);
        Granted {
            grant: grant.to_string(),
            access_token: self.mint.access(pair.access),
            refresh_token: pair.refresh.map_or_else(|| Secret::new(""), |r| self.mint.refresh(r)),
            expires_in: seconds_left(pair.access, now),
        }
    }

    /// Notes a call and takes the faults that wait for it.
    pub(crate) fn arrive(
        &self,
        request: Option<&TokenRequest>,
        client: SocketAddr,
        user_agent: Option<String>,
    ) -> (u64, Plan) {
        let token = request
            .and_then(|r| r.refresh_token.as_ref())
            .and_then(|t| self.mint.read_refresh(t));
        let time_ms = self.now();
        let mut shelves = self.shelves();
        let plan = shelves.faults.plan(token);
        let n = shelves.calls.arrive(Call {
            n: 0,
            time_ms,
            grant_type: request.and_then(|r| r.grant_type.clone()),
            grant: token.map(|t| t.grant.to_string()),
            generation: token.map(|t| t.generation),
            committed: false,
            outcome: Outcome::Undecided,
            fault: plan.name,
            status: None,
            client,
            user_agent,
            client_id: request.and_then(|r| r.client_id.clone()),
        });
        (n, plan)
    }

    /// Applies the rules to call `n`.
    pub(crate) fn decide(&self, n: u64, request: &Result<TokenRequest, OauthError>) -> Result<TokenAnswer, OauthError> {
        let (outcome, grant, answer) = match request {
            Err(error) => (Outcome::BadRequest, None, Err(*error)),
            Ok(request) => self.decide_readable(request),
        };
        self.shelves().calls.decided(n, outcome, grant.map(|g| g.to_string()));
        answer
    }

    /// Notes what call `n` was answered.
    pub(crate) fn answered(&self, n: u64, status: u16) {
        self.shelves().calls.answered(n, status);
    }

    fn decide_readable(&self, request: &TokenRequest) -> (Outcome, Option<GrantId>, Result<TokenAnswer, OauthError>) {
        let known = self
            .settings
            .client
            .as_ref()
            .is_none_or(|client| request.is_from(client));
        if !known {
            return (Outcome::ClientRefused, None, Err(OauthError::InvalidClient));
        }
        match request.grant_type.as_deref() {
            Some("refresh_token") => self.refresh(request),
            Some("authorization_code") => self.exchange(request),
            Some(_) => (Outcome::BadRequest, None, Err(OauthError::UnsupportedGrantType)),
            None => bad_request("grant_type is missing"),
        }
    }

    fn refresh(&self, request: &TokenRequest) -> (Outcome, Option<GrantId>, Result<TokenAnswer, OauthError>) {
        let Some(token) = &request.refresh_token else {
            return bad_request("refresh_token is missing");
        };
        let Some(claims) = self.mint.read_refresh(token) else {
            return (
                Outcome::Unknown,
                None,
                Err(OauthError::InvalidGrant("not a refresh token of this server")),
            );
        };
        let now = self.now();
        let mut shelves = self.shelves();
        let redeemed = shelves.ledger.redeem(claims, request.client_id.as_deref(), now);
        let scope = shelves.scopes.get(&claims.grant).cloned();
        drop(shelves);
        let (outcome, answer) = match redeemed {
            Ok(Redeemed::Rotated(pair)) => (Outcome::Rotated, Ok(self.answer(pair, now, scope))),
            Ok(Redeemed::Grace(pair)) => (Outcome::Grace, Ok(self.answer(pair, now, scope))),
            Ok(Redeemed::Same(pair)) => (Outcome::GraceIdentical, Ok(self.answer(pair, now, scope))),
            Err(refused) => refusal(refused),
        };
        (outcome, Some(claims.grant), answer)
    }

    fn exchange(&self, request: &TokenRequest) -> (Outcome, Option<GrantId>, Result<TokenAnswer, OauthError>) {
        let Some(text) = &request.code else {
            return bad_request("code is missing");
        };
        let now = self.now();
        let mut shelves = self.shelves();
        let refused = |why| (Outcome::CodeRefused, None, Err(OauthError::InvalidGrant(why)));
        let Some(pending) = shelves.codes.get_mut(text.expose()) else {
            return refused("not a code of this server");
        };
        if let Some(grant) = pending.brought {
            // RFC 6749 section 4.1.2: a code that comes twice was stolen.
            shelves.ledger.revoke(grant);
            return refused("the code was used before: all its tokens are revoked");
        }
        if let Err(why) = pending.check(request, now) {
            shelves.codes.remove(text.expose());
            return refused(why);
        }
        let (client_id, scope) = (pending.code.client_id.clone(), pending.code.scope.clone());
        let (grant, pair) = shelves.ledger.open(Some(client_id), now);
        shelves.scopes.insert(grant, scope.clone());
        if let Some(pending) = shelves.codes.get_mut(text.expose()) {
            pending.brought = Some(grant);
        }
        drop(shelves);
        (Outcome::Code, Some(grant), Ok(self.answer(pair, now, Some(scope))))
    }

    fn answer(&self, pair: Pair, now: u64, scope: Option<String>) -> TokenAnswer {
        TokenAnswer {
            access_token: self.mint.access(pair.access),
            token_type: "Bearer",
            expires_in: seconds_left(pair.access, now),
            refresh_token: pair.refresh.map(|claims| self.mint.refresh(claims)),
            scope: scope.unwrap_or_else(|| "demo".into()),
        }
    }

    /// Makes a code; `None` when too many wait.
    pub(crate) fn issue_code(&self, code: Code) -> Option<String> {
        let now = self.now();
        let mut shelves = self.shelves();
        shelves
            .codes
            .retain(|_, pending| now - pending.made_at < 2 * CODE_TTL_MS);
        if shelves.codes.len() >= MOST_CODES {
            return None;
        }
        let text = random_text();
        shelves.codes.insert(
            text.clone(),
            PendingCode {
                code,
                made_at: now,
                brought: None,
            },
        );
        Some(text)
    }

    /// What the resource server does with an access token.
    pub(crate) fn check_access(&self, token: &Secret) -> Result<AccessClaims, AccessRefused> {
        let claims = self.mint.read_access(token).ok_or(AccessRefused::Unknown)?;
        let now = self.now();
        self.shelves().ledger.check_access(claims, now)?;
        Ok(claims)
    }

    /// Revokes the family of a refresh or access token of this server (RFC 7009), if it is one.
    pub(crate) fn revoke_token(&self, token: &Secret) {
        let grant = self
            .mint
            .read_refresh(token)
            .map(|claims| claims.grant)
            .or_else(|| self.mint.read_access(token).map(|claims| claims.grant));
        if let Some(grant) = grant {
            self.shelves().ledger.revoke(grant);
        }
    }

    pub(crate) fn revoke(&self, grant: &str) -> bool {
        grant.parse().is_ok_and(|grant| self.shelves().ledger.revoke(grant))
    }

    pub(crate) fn kill_access(&self, grant: &str) -> bool {
        grant
            .parse()
            .is_ok_and(|grant| self.shelves().ledger.kill_access(grant))
    }

    pub(crate) fn family(&self, grant: &str) -> Option<FamilyView> {
        self.shelves().ledger.view(grant.parse().ok()?)
    }

    pub(crate) fn families(&self) -> Vec<FamilyView> {
        self.shelves().ledger.views().collect()
    }

    pub(crate) fn add_fault(&self, spec: FaultSpec) -> Result<(), FaultError> {
        self.shelves().faults.add(spec)
    }

    pub(crate) fn clear_faults(&self) {
        self.shelves().faults.clear();
    }

    pub(crate) fn calls_after(&self, n: u64) -> Vec<Call> {
        self.shelves().calls.after(n)
    }

    pub(crate) fn stats(&self) -> Stats {
        let shelves = self.shelves();
        let (families, revoked_families) = shelves.ledger.count();
        Stats {
            families,
            revoked_families,
            most_redeems_of_one_generation: shelves.ledger.most_presented(),
            ..shelves.calls.stats()
        }
    }
}

impl PendingCode {
    fn check(&self, request: &TokenRequest, now: u64) -> Result<(), &'static str> {
        if now - self.made_at > CODE_TTL_MS {
            return Err("the code expired");
        }
        if request.client_id.as_ref() != Some(&self.code.client_id) {
            return Err("the code belongs to another client");
        }
        if request.redirect_uri != self.code.redirect_uri {
            return Err("redirect_uri is not that of the authorization request");
        }
        let verifier = request.code_verifier.as_ref().map(Secret::expose);
        let proven = match (&self.code.challenge, verifier) {
            (None, None) => true,
            (Some(Challenge::Plain(challenge)), Some(verifier)) => challenge == verifier,
            (Some(Challenge::S256(challenge)), Some(verifier)) => *challenge == pkce_challenge(verifier),
            // RFC 9700 section 2.1.1: a verifier without a challenge is a downgrade.
            (None, Some(_)) | (Some(_), None) => false,
        };
        if proven {
            Ok(())
        } else {
            Err("code_verifier does not match")
        }
    }
}

fn bad_request(why: &'static str) -> (Outcome, Option<GrantId>, Result<TokenAnswer, OauthError>) {
    (Outcome::BadRequest, None, Err(OauthError::InvalidRequest(why)))
}

fn refusal(refused: Refused) -> (Outcome, Result<TokenAnswer, OauthError>) {
    let (outcome, why) = match refused {
        Refused::Unknown => (Outcome::Unknown, "no such grant"),
        Refused::Reused => (
            Outcome::Reuse,
            "the refresh token was used before: the family is revoked",
        ),
        Refused::Revoked => (Outcome::Revoked, "the family is revoked"),
        Refused::OtherClient => (Outcome::ClientRefused, "the refresh token belongs to another client"),
    };
    (outcome, Err(OauthError::InvalidGrant(why)))
}

fn seconds_left(access: AccessClaims, now: u64) -> u64 {
    access.expires_at.saturating_sub(now) / 1000
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
