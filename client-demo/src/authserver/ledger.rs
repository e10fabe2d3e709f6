//! The rules of rotation: which refresh token is good, and what a second use costs.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;

use super::minted::{AccessClaims, Generation, GrantId, RefreshClaims};

/// What happens when a used refresh token comes again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Grace {
    /// The family is revoked.
    #[default]
    None,
    /// Within this span after its first use it brings another new pair (as Auth0's leeway does); later, revocation.
    NewPair(Duration),
    /// Within this span after its first use it brings the pair of that first use again; later, revocation.
    SamePair(Duration),
}

impl Grace {
    fn span_ms(self) -> u64 {
        match self {
            Self::None => 0,
            Self::NewPair(span) | Self::SamePair(span) => u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// How the ledger treats refresh tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) grace: Grace,
    pub(crate) rotate: bool,
    pub(crate) kill_old_access: bool,
    pub(crate) access_ttl_ms: u64,
}

/// A pair that the ledger allows to be issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) access: AccessClaims,
    /// `None`: the client keeps the refresh token that it has.
    pub(crate) refresh: Option<RefreshClaims>,
}

/// What a good refresh token brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redeemed {
    /// A new pair.
    Rotated(Pair),
    /// A used token within its grace brought another new pair.
    Grace(Pair),
    /// A used token within its grace brought the same pair again.
    Same(Pair),
}

/// Why a refresh token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No such family.
    Unknown,
    /// Used before: the family is revoked from now on.
    Reused,
    /// The family was revoked before.
    Revoked,
    /// The token belongs to another client.
    OtherClient,
}

/// Why an access token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessRefused {
    #[error("not a token of this server")]
    Unknown,
    #[error("the token expired")]
    Expired,
    #[error("the token's family was revoked")]
    Revoked,
    #[error("the token was killed by a rotation or by control")]
    Killed,
}

/// Generations counted one by one per family; calls above are in the totals only.
const COUNTED_GENERATIONS: usize = 1 << 20;
/// Refresh tokens of one family that may wait, used within grace or never used; older ones count as reused.
const MOST_OUTSTANDING: usize = 64;

/// A refresh token that is good, or is still within its grace.
#[derive(Debug, Clone, Copy)]
struct Outstanding {
    generation: Generation,
    used: Option<Use>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    at: u64,
    brought: Pair,
}

#[derive(Debug)]
struct Family {
    client_id: Option<String>,
    newest: Generation,
    outstanding: Vec<Outstanding>,
    /// Access tokens of generations below this one are dead.
    access_floor: Generation,
    revoked: bool,
    reuses: u32,
    /// How often each generation's refresh token was presented.
    presented: Vec<u32>,
}

/// What became of a grant.
#[derive(Debug, Clone, Serialize)]
pub struct FamilyView {
    /// The grant's name.
    pub grant: String,
    /// The newest generation.
    pub generation: u32,
    /// Whether the family is revoked.
    pub revoked: bool,
    /// How often a used refresh token came again and was not forgiven.
    pub reuses: u32,
    /// How often the refresh token of each generation was presented, generation 0 first.
    pub redeems: Vec<u32>,
}

/// All families.
#[derive(Debug)]
pub(crate) struct Ledger {
    rules: Rules,
    families: HashMap<GrantId, Family>,
    last: u64,
}

impl Ledger {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            families: HashMap::new(),
            last: 0,
        }
    }

    /// Makes a family and its first pair.
    pub(crate) fn open(&mut self, client_id: Option<String>, now: u64) -> (GrantId, Pair) {
        self.last += 1;
        let grant = GrantId(self.last);
        self.families.insert(
            grant,
            Family {
                client_id,
                newest: 0,
                outstanding: vec![Outstanding {
                    generation: 0,
                    used: None,
                }],
                access_floor: 0,
                revoked: false,
                reuses: 0,
                presented: Vec::new(),
            },
        );
        let pair = Pair {
            access: self.rules.access(grant, 0, now),
            refresh: Some(RefreshClaims { grant, generation: 0 }),
        };
        (grant, pair)
    }

    /// Redeems a genuine refresh token.
    pub(crate) fn redeem(
        &mut self,
        token: RefreshClaims,
        client_id: Option<&str>,
        now: u64,
    ) -> Result<Redeemed, Refused> {
        let family = self.families.get_mut(&token.grant).ok_or(Refused::Unknown)?;
        if family.client_id.is_some() && family.client_id.as_deref() != client_id {
            return Err(Refused::OtherClient);
        }
        family.count(token.generation);
        family.redeem(&self.rules, token, now)
    }

    /// Whether a genuine access token is good.
    pub(crate) fn check_access(&self, token: AccessClaims, now: u64) -> Result<(), AccessRefused> {
        let family = self.families.get(&token.grant).ok_or(AccessRefused::Unknown)?;
        if family.revoked {
            Err(AccessRefused::Revoked)
        } else if token.generation < family.access_floor {
            Err(AccessRefused::Killed)
        } else if token.expires_at <= now {
            Err(AccessRefused::Expired)
        } else {
            Ok(())
        }
    }

    /// Revokes a family; `false` when there is none.
    pub(crate) fn revoke(&mut self, grant: GrantId) -> bool {
        self.families
            .get_mut(&grant)
            .map(|family| family.revoked = true)
            .is_some()
    }

    /// Kills all access tokens issued so far, ahead of their expiry; `false` when there is no such family.
    pub(crate) fn kill_access(&mut self, grant: GrantId) -> bool {
        self.families
            .get_mut(&grant)
            .map(|family| family.access_floor = family.newest + 1)
            .is_some()
    }

    pub(crate) fn view(&self, grant: GrantId) -> Option<FamilyView> {
        self.families.get(&grant).map(|family| family.view(grant))
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = FamilyView> {
        self.families.iter().map(|(grant, family)| family.view(*grant))
    }

    /// The most often that one and the same refresh token was presented.
    pub(crate) fn most_presented(&self) -> u32 {
        let all = self.families.values().flat_map(|family| &family.presented);
        all.copied().max().unwrap_or(0)
    }

    /// Families, and how many of them are revoked.
    pub(crate) fn count(&self) -> (usize, usize) {
        let revoked = self.families.values().filter(|family| family.revoked).count();
        (self.families.len(), revoked)
    }
}

impl Rules {
    fn access(&self, grant: GrantId, generation: Generation, now: u64) -> AccessClaims {
        AccessClaims {
            grant,
            generation,
            expires_at: now + self.access_ttl_ms,
        }
    }

    fn in_grace(&self, used: Use, now: u64) -> bool {
        self.grace != Grace::None && now.saturating_sub(used.at) <= self.grace.span_ms()
    }
}

impl Family {
    fn redeem(&mut self, rules: &Rules, token: RefreshClaims, now: u64) -> Result<Redeemed, Refused> {
        if self.revoked {
            return Err(Refused::Revoked);
        }
        if !rules.rotate {
            return Ok(Redeemed::Rotated(self.next_pair(rules, token.grant, now)));
        }
        let known = self.outstanding.iter().position(|o| o.generation == token.generation);
        let Some(place) = known else {
            return Err(self.reused());
        };
        match self.outstanding[place].used {
            None => {
                let pair = self.next_pair(rules, token.grant, now);
                self.outstanding[place].used = Some(Use { at: now, brought: pair });
                self.forget(rules, now);
                Ok(Redeemed::Rotated(pair))
            }
            Some(used) if rules.in_grace(used, now) => Ok(match rules.grace {
                Grace::SamePair(_) => Redeemed::Same(used.brought),
                Grace::NewPair(_) | Grace::None => Redeemed::Grace(self.next_pair(rules, token.grant, now)),
            }),
            Some(_) => Err(self.reused()),
        }
    }

    fn next_pair(&mut self, rules: &Rules, grant: GrantId, now: u64) -> Pair {
        self.newest += 1;
        let generation = self.newest;
        if rules.kill_old_access {
            self.access_floor = generation;
        }
        if rules.rotate {
            self.outstanding.push(Outstanding { generation, used: None });
        }
        Pair {
            access: rules.access(grant, generation, now),
            refresh: rules.rotate.then_some(RefreshClaims { grant, generation }),
        }
    }

    fn reused(&mut self) -> Refused {
        self.reuses += 1;
        self.revoked = true;
        Refused::Reused
    }

    /// What is not outstanding was used long ago.
    fn forget(&mut self, rules: &Rules, now: u64) {
        self.outstanding
            .retain(|o| o.used.is_none_or(|used| rules.in_grace(used, now)));
        let surplus = self.outstanding.len().saturating_sub(MOST_OUTSTANDING);
        self.outstanding.drain(..surplus);
    }

    fn count(&mut self, generation: Generation) {
        let Ok(index) = usize::try_from(generation) else { return };
        if index < COUNTED_GENERATIONS {
            if self.presented.len() <= index {
                self.presented.resize(index + 1, 0);
            }
            self.presented[index] += 1;
        }
    }

    fn view(&self, grant: GrantId) -> FamilyView {
        FamilyView {
            grant: grant.to_string(),
            generation: self.newest,
            revoked: self.revoked,
            reuses: self.reuses,
            redeems: self.presented.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Rules = Rules {
        grace: Grace::None,
        rotate: true,
        kill_old_access: false,
        access_ttl_ms: 1000,
    };

    fn opened(rules: Rules) -> (Ledger, Pair) {
        let mut ledger = Ledger::new(rules);
        let (_, pair) = ledger.open(None, 0);
        (ledger, pair)
    }

    fn next(redeemed: Result<Redeemed, Refused>) -> Pair {
        match redeemed {
            Ok(Redeemed::Rotated(pair) | Redeemed::Grace(pair) | Redeemed::Same(pair)) => pair,
            Err(refused) => panic!("refused: {refused:?}"),
        }
    }

    fn refresh(pair: Pair) -> RefreshClaims {
        pair.refresh.expect("a rotating server gives a refresh token")
    }

    #[test]
    fn a_refresh_token_works_once_and_brings_its_successor() {
        let (mut ledger, first) = opened(STRICT);
        let second = next(ledger.redeem(refresh(first), None, 10));
        assert_eq!(refresh(second).generation, 1);
        let third = next(ledger.redeem(refresh(second), None, 20));
        assert_eq!(refresh(third).generation, 2);
        assert_eq!(ledger.view(GrantId(1)).expect("exists").redeems, [1, 1]);
    }

    #[test]
    fn a_second_use_revokes_the_family_with_its_access_tokens() {
        let (mut ledger, first) = opened(STRICT);
        let second = next(ledger.redeem(refresh(first), None, 10));
        assert_eq!(ledger.check_access(second.access, 11), Ok(()));
        assert_eq!(ledger.redeem(refresh(first), None, 10), Err(Refused::Reused));
        assert_eq!(ledger.check_access(second.access, 12), Err(AccessRefused::Revoked));
        assert_eq!(ledger.redeem(refresh(second), None, 13), Err(Refused::Revoked));
        assert_eq!(ledger.count(), (1, 1));
    }

    #[test]
    fn within_grace_a_used_token_brings_another_pair_and_both_successors_live() {
        let (mut ledger, first) = opened(Rules {
            grace: Grace::NewPair(Duration::from_millis(100)),
            ..STRICT
        });
        let second = next(ledger.redeem(refresh(first), None, 0));
        let sibling = ledger.redeem(refresh(first), None, 100);
        assert!(matches!(sibling, Ok(Redeemed::Grace(_))));
        next(ledger.redeem(refresh(next(sibling)), None, 150));
        next(ledger.redeem(refresh(second), None, 150));
        assert_eq!(ledger.redeem(refresh(first), None, 150), Err(Refused::Reused));
    }

    #[test]
    fn identical_grace_brings_the_very_same_pair() {
        let (mut ledger, first) = opened(Rules {
            grace: Grace::SamePair(Duration::from_millis(100)),
            ..STRICT
        });
        let second = next(ledger.redeem(refresh(first), None, 0));
        assert_eq!(ledger.redeem(refresh(first), None, 50), Ok(Redeemed::Same(second)));
        assert_eq!(ledger.redeem(refresh(first), None, 101), Err(Refused::Reused));
    }

    #[test]
    fn a_rotation_can_kill_the_access_token_before_it() {
        let (mut ledger, first) = opened(Rules {
            kill_old_access: true,
            ..STRICT
        });
        let second = next(ledger.redeem(refresh(first), None, 10));
        assert_eq!(ledger.check_access(first.access, 11), Err(AccessRefused::Killed));
        assert_eq!(ledger.check_access(second.access, 11), Ok(()));
    }

    #[test]
    fn access_tokens_expire_and_can_be_killed_early() {
        let (mut ledger, first) = opened(STRICT);
        assert_eq!(ledger.check_access(first.access, 999), Ok(()));
        assert_eq!(ledger.check_access(first.access, 1000), Err(AccessRefused::Expired));
        assert!(ledger.kill_access(GrantId(1)));
        assert_eq!(ledger.check_access(first.access, 1), Err(AccessRefused::Killed));
        let second = next(ledger.redeem(refresh(first), None, 10));
        assert_eq!(ledger.check_access(second.access, 11), Ok(()));
    }

    #[test]
    fn without_rotation_the_refresh_token_stays_good_and_is_not_repeated() {
        let (mut ledger, first) = opened(Rules {
            rotate: false,
            ..STRICT
        });
        for _ in 0..3 {
            assert_eq!(next(ledger.redeem(refresh(first), None, 10)).refresh, None);
        }
    }

    #[test]
    fn a_refresh_token_is_bound_to_its_client() {
        let mut ledger = Ledger::new(STRICT);
        let (_, pair) = ledger.open(Some("app".into()), 0);
        assert_eq!(
            ledger.redeem(refresh(pair), Some("other"), 1),
            Err(Refused::OtherClient)
        );
        assert!(ledger.redeem(refresh(pair), Some("app"), 1).is_ok());
    }
}
