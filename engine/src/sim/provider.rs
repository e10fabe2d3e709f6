//! An authorization server, written from RFC 6749 and from what the vendors' pages say of rotation. It decides what was
//! legal, so it shares no code with the engine.

use std::collections::BTreeMap;

/// How refresh tokens rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// Each works once; a second use revokes the whole family (Okta, Auth0 without leeway).
    Strict,
    /// Each works once; a second use is refused, and that is all.
    Once,
    /// The previous one works for this many milliseconds more and gets the identical pair again (Atlassian, FAPI 2).
    GraceSame(u64),
    /// The previous one works for this many milliseconds more and gets a pair of its own (Okta's leeway, Supabase).
    GraceFresh(u64),
    /// The refresh token never changes, and the answer has none (Google).
    Never,
}

/// What the provider decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It issued a pair.
    Issued(Pair),
    /// `invalid_grant`.
    Invalid,
}

/// An access token, and the refresh token that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) access: String,
    pub(crate) refresh: Option<String>,
}

/// One refresh token and what became of it.
#[derive(Debug, Clone)]
struct Issued {
    family: usize,
    generation: u32,
    first_used: Option<u64>,
    answer: Option<Pair>,
    /// A later one of the family was used: this one's grace is over.
    passed: bool,
}

/// The server.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    rotation: Rotation,
    families: Vec<Family>,
    tokens: BTreeMap<String, Issued>,
    /// Redeems that were processed, by refresh token.
    pub(crate) processed: BTreeMap<String, u32>,
}

#[derive(Debug, Default, Clone)]
struct Family {
    revoked: bool,
    issued: u32,
}

impl Provider {
    pub(crate) fn new(rotation: Rotation) -> Self {
        Self {
            rotation,
            families: Vec::new(),
            tokens: BTreeMap::new(),
            processed: BTreeMap::new(),
        }
    }

    /// Somebody logs in: a new family.
    pub(crate) fn log_in(&mut self) -> Pair {
        self.families.push(Family::default());
        self.issue(self.families.len() - 1)
    }

    /// A refresh token arrives.
    pub(crate) fn redeem(&mut self, token: &str, now: u64) -> Decision {
        let Some(issued) = self.tokens.get(token).cloned() else {
            return Decision::Invalid;
        };
        if self.families[issued.family].revoked {
            return Decision::Invalid;
        }
        match (self.rotation, issued.first_used) {
            (Rotation::Never, _) => {
                let access = self.name("at", issued.family);
                self.count(token);
                Decision::Issued(Pair { access, refresh: None })
            }
            (_, None) => {
                let pair = self.issue(issued.family);
                self.count(token);
                self.used(token, &pair, now);
                Decision::Issued(pair)
            }
            (Rotation::GraceSame(grace), Some(first)) if now < first + grace && !issued.passed => {
                self.count(token);
                issued.answer.map_or(Decision::Invalid, Decision::Issued)
            }
            (Rotation::GraceFresh(grace), Some(first)) if now < first + grace && !issued.passed => {
                let pair = self.issue(issued.family);
                self.count(token);
                Decision::Issued(pair)
            }
            (Rotation::Once, Some(_)) => Decision::Invalid,
            (_, Some(_)) => {
                self.families[issued.family].revoked = true;
                Decision::Invalid
            }
        }
    }

    fn count(&mut self, token: &str) {
        *self.processed.entry(token.to_owned()).or_default() += 1;
    }

    fn used(&mut self, token: &str, pair: &Pair, now: u64) {
        let Some(issued) = self.tokens.get_mut(token) else {
            return;
        };
        issued.first_used = Some(now);
        issued.answer = Some(pair.clone());
        let (family, generation) = (issued.family, issued.generation);
        let before = self.tokens.values_mut();
        for other in before.filter(|other| other.family == family && other.generation < generation) {
            other.passed = true;
        }
    }

    fn issue(&mut self, family: usize) -> Pair {
        let access = self.name("at", family);
        let refresh = access.replacen("at", "rt", 1);
        let issued = Issued {
            family,
            generation: self.families[family].issued,
            first_used: None,
            answer: None,
            passed: false,
        };
        self.tokens.insert(refresh.clone(), issued);
        Pair {
            access,
            refresh: Some(refresh),
        }
    }

    fn name(&mut self, what: &str, family: usize) -> String {
        let issued = &mut self.families[family].issued;
        *issued += 1;
        format!("{what}{}.{issued}", family + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(rotation: Rotation) -> (Provider, String) {
        let mut provider = Provider::new(rotation);
        let pair = provider.log_in();
        (provider, pair.refresh.unwrap())
    }

    #[test]
    fn a_strict_one_revokes_the_family_at_the_second_use() {
        let (mut provider, token) = first(Rotation::Strict);
        let Decision::Issued(Pair { refresh, .. }) = provider.redeem(&token, 0) else {
            panic!("the first use is good");
        };
        assert_eq!(provider.redeem(&token, 1), Decision::Invalid);
        assert_eq!(
            provider.redeem(&refresh.unwrap(), 2),
            Decision::Invalid,
            "the winner's is gone too"
        );
    }

    #[test]
    fn a_graceful_one_gives_the_same_pair_until_the_grace_is_over() {
        let (mut provider, token) = first(Rotation::GraceSame(1000));
        let pair = provider.redeem(&token, 0);
        assert_eq!(provider.redeem(&token, 999), pair);
        assert_eq!(provider.redeem(&token, 1000), Decision::Invalid);
    }

    #[test]
    fn the_use_of_the_successor_ends_the_grace_of_its_predecessor_only() {
        let (mut provider, token) = first(Rotation::GraceFresh(1000));
        let Decision::Issued(Pair { refresh, .. }) = provider.redeem(&token, 0) else {
            panic!("the first use is good");
        };
        assert!(matches!(provider.redeem(&refresh.unwrap(), 1), Decision::Issued(_)));
        assert_eq!(provider.redeem(&token, 2), Decision::Invalid);
    }

    #[test]
    fn one_that_never_rotates_answers_without_a_refresh_token() {
        let (mut provider, token) = first(Rotation::Never);
        for at in 0..3 {
            assert!(matches!(
                provider.redeem(&token, at),
                Decision::Issued(Pair { refresh: None, .. })
            ));
        }
        assert_eq!(provider.processed[&token], 3);
    }
}
