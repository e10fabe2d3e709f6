//! What there is to do for somebody who wants a newer version: a pure function of the record, the policy and the time.
//!
//! This is the second half of the design's section 4: how doubt is resolved.

use lockstep_protocol::LeaseId;

use super::broken::Broken;
use crate::{
    policy::Policy,
    record::{Claim, Doubt, GrantRecord, Health, Holder, Purpose},
    time::Unix,
};

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it is deleted.
    Gone,
    /// Nothing: somebody must log in again.
    LogIn,
    /// Wait: another's claim stands until then.
    Blocked { lease: LeaseId, until: Unix },
    /// Wait: the last round failed, or the provider said so.
    Later { case: Case, at: Unix },
    /// Nothing: there is no refresh token, and the access token lives.
    NoRefreshToken { case: Case },
    /// Nothing: in doubt, and the access token is good. Nothing is replayed.
    Serve { case: Case },
    /// Wait for a late result, a login, or the end of hope.
    AwaitLate { case: Case, until: Unix },
    /// Redeem.
    Redeem { case: Case, purpose: Purpose },
    /// All is tried.
    GiveUp { case: Case, reason: String },
}

/// What the record says once claims without outcome are taken into account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Case {
    /// The claim without outcome that this judges; it is to be replaced or ended.
    pub(super) over: Option<LeaseId>,
    /// The doubt that there is.
    pub(super) doubt: Option<Doubt>,
    /// Whether the alternate's refresh token may be used up.
    pub(super) drop_alternate: bool,
}

/// A claim by this run of this node whose redeem came to an end without success: what it means while it stands, or should
/// it turn up later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) lease: LeaseId,
    pub(super) left: Left,
    pub(super) drop_alternate: bool,
}

/// What a redeem left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: the doubt is what the record says once the claim is in it.
    AsRecorded,
    /// This doubt, the record's included.
    Doubt(Doubt),
}

/// What the machine knows beyond the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) record: &'a GrantRecord,
    pub(super) me: &'a Holder,
    pub(super) policy: &'a Policy,
    pub(super) now: Unix,
    /// What became of this machine's own redeems.
    pub(super) ended: &'a [Ended],
    /// Whether devices found the access token dead.
    pub(super) dead: bool,
    /// The claim of another that was waited for longer than any lease lasts, as it was when first seen.
    pub(super) outwaited: Option<(LeaseId, Unix)>,
    /// Whether a redeem is wanted in spite of `retry_at`.
    pub(super) insist: bool,
    /// The mistake to make, in tests.
    pub(super) broken: Option<Broken>,
}

/// How far before the end of a grace window the last replay leaves, as a part of the window.
const GRACE_MARGIN: u32 = 10;

impl View<'_> {
    /// What there is to do.
    pub(super) fn next(&self) -> Next {
        match self.record.health {
            Health::Deleted => return Next::Gone,
            Health::ReauthRequired => return Next::LogIn,
            Health::Ok | Health::Suspect => {}
        }
        let case = match self.judge() {
            Ok(case) => case,
            Err(blocked) => return blocked,
        };
        if !self.is_refreshable() {
            return self.unrefreshable(case);
        }
        if let Some(at) = self.record.retry_at.filter(|at| *at > self.now && !self.insist) {
            return Next::Later { case, at };
        }
        match case.doubt.clone() {
            Some(doubt) => self.in_doubt(case, &doubt),
            None => redeem(case, Purpose::Redeem),
        }
    }

    /// Whether there is a claim without outcome that can be judged now.
    pub(super) fn is_to_be_judged(&self) -> bool {
        self.record.claim.is_some() && self.judge().is_ok()
    }

    /// What the record says, unless another's claim stands.
    pub(super) fn case(&self) -> Option<Case> {
        self.judge().ok()
    }

    /// Takes the claim that stands into account, or says that it blocks.
    fn judge(&self) -> Result<Case, Next> {
        let mut case = self.judge_claim()?;
        if case.doubt.is_none() && self.record.health == Health::Suspect {
            case.doubt = Some(self.unexplained());
        }
        if let Some(doubt) = &mut case.doubt {
            doubt.dead |= self.dead;
        }
        Ok(case)
    }

    fn judge_claim(&self) -> Result<Case, Next> {
        let Some(claim) = &self.record.claim else {
            return Ok(self.as_recorded(None));
        };
        if let Some(ended) = self.ended.iter().find(|ended| ended.lease == claim.lease) {
            let doubt = match &ended.left {
                Left::AsRecorded => self.record.doubt.clone(),
                Left::Doubt(doubt) => Some(doubt.clone()),
            };
            return Ok(Case {
                over: Some(claim.lease),
                doubt,
                drop_alternate: ended.drop_alternate,
            });
        }
        // A predecessor on this node is dead, and what it sent with it. A device that it gave the token to is not.
        let is_predecessors = claim.holder.node == self.me.node && claim.holder.incarnation < self.me.incarnation;
        let has_lapsed = claim.expires_at <= self.now || self.outwaited == Some((claim.lease, claim.expires_at));
        let is_free = has_lapsed || is_predecessors && claim.handed_to.is_none();
        if !is_free {
            return Err(Next::Blocked {
                lease: claim.lease,
                until: claim.expires_at,
            });
        }
        if claim.for_device && claim.handed_to.is_none() || self.broken == Some(Broken::ForgetDoubt) {
            return Ok(self.as_recorded(Some(claim.lease)));
        }
        Ok(Case {
            over: Some(claim.lease),
            doubt: Some(self.doubt_of(claim, why(claim))),
            drop_alternate: claim.purpose == Purpose::Alternate,
        })
    }

    fn as_recorded(&self, over: Option<LeaseId>) -> Case {
        Case {
            over,
            doubt: self.record.doubt.clone(),
            drop_alternate: false,
        }
    }

    /// The record's doubt with that of a claim without outcome.
    pub(super) fn doubt_of(&self, claim: &Claim, reason: String) -> Doubt {
        let elsewhere = claim.handed_to.is_some() || claim.holder.node != self.me.node;
        let late_until = elsewhere.then(|| self.now + self.policy.late_wait);
        let last_try = matches!(claim.purpose, Purpose::LastTry | Purpose::Alternate);
        match &self.record.doubt {
            Some(doubt) => Doubt {
                since: if self.broken == Some(Broken::GraceFromNewest) {
                    claim.taken_at
                } else {
                    doubt.since.min(claim.taken_at)
                },
                late_until: doubt.late_until.max(late_until),
                last_try: doubt.last_try || last_try,
                reason: if last_try { reason } else { doubt.reason.clone() },
                ..doubt.clone()
            },
            None => Doubt {
                since: claim.taken_at,
                late_until,
                last_try,
                conflict: false,
                dead: false,
                reason,
            },
        }
    }

    /// The doubt of a grant that is suspect without more: the store went back in time.
    fn unexplained(&self) -> Doubt {
        Doubt {
            since: Unix(0),
            late_until: None,
            last_try: false,
            conflict: false,
            dead: false,
            reason: self.record.reason.clone().unwrap_or_default(),
        }
    }

    /// The record's doubt, or the beginning of one.
    pub(super) fn doubt_now(&self) -> Doubt {
        let since = self.record.claim.as_ref().map_or(self.now, |claim| claim.taken_at);
        self.record.doubt.clone().unwrap_or(Doubt {
            since,
            ..self.unexplained()
        })
    }

    fn in_doubt(&self, case: Case, doubt: &Doubt) -> Next {
        let waits = doubt.late_until.filter(|until| *until > self.now);
        if doubt.conflict {
            return match waits {
                _ if self.has_alternate(&case) => redeem(case, Purpose::Alternate),
                Some(until) => Next::AwaitLate { case, until },
                None => give_up(case, doubt),
            };
        }
        if !doubt.last_try && self.in_grace(doubt) {
            return redeem(case, Purpose::Grace);
        }
        if self.access_lives() && !doubt.dead && self.broken != Some(Broken::ReplayInDoubt) {
            return Next::Serve { case };
        }
        match waits {
            Some(until) => Next::AwaitLate { case, until },
            None if !doubt.last_try => redeem(case, Purpose::LastTry),
            None if self.has_alternate(&case) => redeem(case, Purpose::Alternate),
            None => give_up(case, doubt),
        }
    }

    /// The end of the grace window of a doubt, with a margin: the request has to arrive before the provider's own end.
    pub(super) fn grace_end(&self, doubt: &Doubt) -> Unix {
        doubt.since + (self.policy.grace - self.policy.grace / GRACE_MARGIN)
    }

    fn in_grace(&self, doubt: &Doubt) -> bool {
        // A claim from the future: a clock went back, and nothing is known of how long ago it was.
        doubt.since <= self.now && self.now < self.grace_end(doubt)
    }

    fn unrefreshable(&self, case: Case) -> Next {
        if self.access_lives() {
            return Next::NoRefreshToken { case };
        }
        if self.has_alternate(&case) {
            return redeem(case, Purpose::Alternate);
        }
        Next::GiveUp {
            case,
            reason: "the access token has expired, and there is no refresh token".to_owned(),
        }
    }

    fn is_refreshable(&self) -> bool {
        self.record.tokens.as_ref().is_some_and(|t| t.refresh_token.is_some())
    }

    fn has_alternate(&self, case: &Case) -> bool {
        let refreshable = |t: &crate::record::TokenSet| t.refresh_token.is_some();
        !case.drop_alternate && self.record.alternate.as_ref().is_some_and(refreshable)
    }

    pub(super) fn access_lives(&self) -> bool {
        let tokens = self.record.tokens.as_ref();
        tokens.is_some_and(|t| t.access_token.is_some()) && self.record.expires_at.is_none_or(|at| at > self.now)
    }
}

/// Why a claim without outcome leaves doubt.
fn why(claim: &Claim) -> String {
    match claim.handed_to {
        Some(_) => "a device was given the refresh token and did not report back".to_owned(),
        None => format!(
            "a redeem by node {} was cut short, and its outcome is unknown",
            claim.holder.node
        ),
    }
}

fn redeem(case: Case, purpose: Purpose) -> Next {
    Next::Redeem { case, purpose }
}

fn give_up(case: Case, doubt: &Doubt) -> Next {
    let reason = if doubt.reason.is_empty() {
        "the grant is in doubt, and nothing is left to try".to_owned()
    } else {
        doubt.reason.clone()
    };
    Next::GiveUp { case, reason }
}
