//! A redeem, from permit to outcome: at most one at a time on a node.

use std::time::Duration;

use lockstep_protocol::{
    Code, LeaseId, Version,
    limits::{REFRESHING_AFTER, SEND_WITHIN},
};

use super::{
    ClaimAnswer, Command, Cx, Grant, Note, Passing, PermitAnswer, ProviderReply, Reply, Trouble,
    outcome::{Outcome, classify},
    plan::{Ended, Next},
    schedule::Timer,
    settle::Ending,
};
use crate::{
    entropy::{lease_id, up_to},
    record::{GrantRecord, Purpose},
    time::Mono,
};

/// A redeem on its way.
#[derive(Debug)]
pub(super) struct Flight {
    /// The version to redeem.
    pub(super) from: Version,
    pub(super) purpose: Purpose,
    /// The claim that is asked for or held.
    pub(super) lease: Option<LeaseId>,
    /// Before the newest write was asked for that shows the lease to be held.
    pub(super) proof: Mono,
    /// When a renewal that is not answered yet was asked for.
    pub(super) renewing: Option<Mono>,
    /// Whether the lease was lost: nothing more may be sent.
    pub(super) lost: bool,
    /// Redeems sent in this round.
    pub(super) tries: u32,
    /// How many were refused for an unknown cause.
    pub(super) refusals: u32,
    /// When the present redeem was sent.
    pub(super) sent: Mono,
    /// Whether devices rejected the version (rather than let it expire).
    pub(super) rejected: bool,
    pub(super) stage: Stage,
}

/// Where a flight is.
#[derive(Debug)]
pub(super) enum Stage {
    /// A permit is asked for, or to be asked for again.
    Permit,
    /// A claim is asked for.
    Claiming,
    /// The answer to the claim was lost; the record is read again.
    ClaimUnknown,
    /// The lease is renewed before another try.
    Proving,
    /// The refresh token is with the provider.
    Redeeming,
    /// Between two tries.
    Resting,
    /// Somebody else redeemed it: the record is read again.
    Conflict(String),
    /// The result is being committed.
    Landing,
    /// The verdict is being written.
    Settling(Box<Ending>),
}

/// A redeem whose version was overtaken while it was under way. Its result, if any, is late.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) lease: LeaseId,
    pub(super) from: Version,
    pub(super) sent: Mono,
}

/// What slows further redeems of a version down. Forgotten when there is a newer one.
#[derive(Debug, Default)]
pub(super) struct Brakes {
    /// Rounds that came to nothing in a row.
    pub(super) rounds: u32,
    /// Replays within the grace window.
    replays: u32,
    /// The provider named a time: nobody may insist before it.
    obey: Option<Mono>,
    /// No new flight before this.
    not_before: Option<Mono>,
}

impl Brakes {
    pub(super) fn must_obey(&self, now: Mono) -> bool {
        self.obey.is_some_and(|until| until > now)
    }

    /// Until when nothing new may be started.
    pub(super) fn holds_back(&self, now: Mono) -> Option<Mono> {
        self.not_before.filter(|at| *at > now)
    }

    /// A race was lost, or the store does not agree that a claim has lapsed.
    pub(super) fn lost_race(&mut self, now: Mono) {
        self.not_before = Some(now + LOST_PAUSE);
    }
}

/// Redeems in a round.
const TRIES: u32 = 3;
/// The first pause between two tries of a round is drawn from zero to this; the next from twice as much.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest `Retry-After` that is waited for within a round.
const SHORT_RETRY_AFTER: Duration = Duration::from_secs(5);
/// A refusal of unknown cause is tried again after half to all of this.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// How long before the lease lapses a redeem must be over.
const LEASE_MARGIN: Duration = Duration::from_secs(3);
/// How long after its deadline a redeem's answer is still waited for: the shell's own timer comes first.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);
/// After a lost race nothing is claimed for this long.
const LOST_PAUSE: Duration = Duration::from_secs(1);
/// A wait for a permit that askers sit out.
const SHORT_PERMIT: Duration = Duration::from_secs(5);
/// A late result of somebody else's redeem, or a login, may come within this after a conflict.
const CONFLICT_WAIT: Duration = Duration::from_secs(3);
/// Our settings are wrong: askers are held off for this long.
const MISCONFIGURED_WAIT: Duration = Duration::from_secs(60);
/// The longest first wait after a round that came to nothing; doubles with each.
const ROUND_WAIT: Duration = Duration::from_secs(5);
/// The longest wait after a round.
const LONGEST_ROUND_WAIT: Duration = Duration::from_secs(300);
/// The longest `Retry-After` believed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

impl Flight {
    /// A flight that has come as far as `stage`.
    pub(super) fn new(from: Version, now: Mono, stage: Stage) -> Self {
        Self {
            from,
            purpose: Purpose::Redeem,
            lease: None,
            proof: now,
            renewing: None,
            lost: false,
            tries: 0,
            refusals: 0,
            sent: now,
            rejected: false,
            stage,
        }
    }
}

impl Grant {
    /// Starts a flight.
    pub(super) fn launch(&mut self, purpose: Purpose, cx: &mut Cx<'_>) {
        self.flight = Some(Flight {
            purpose,
            rejected: self.evidence.rejected,
            ..Flight::new(self.newest(), cx.now.mono, Stage::Permit)
        });
        if self.permit {
            self.claim(cx);
        } else {
            self.order(Command::AskPermit);
        }
    }

    pub(super) fn on_permit(&mut self, answer: PermitAnswer, cx: &mut Cx<'_>) {
        let waits = matches!(&self.flight, Some(flight) if matches!(flight.stage, Stage::Permit));
        match answer {
            PermitAnswer::Granted if self.permit => self.order(Command::ReturnPermit),
            PermitAnswer::Granted => {
                self.permit = true;
                if waits {
                    self.claim(cx);
                }
            }
            PermitAnswer::After(_) if !waits => {}
            PermitAnswer::After(span) if span > SHORT_PERMIT => {
                let at = cx.now.unix + span;
                self.end_flight();
                self.rest(&Reply::failed_until(
                    Code::Unavailable,
                    "the provider's limit is reached",
                    at,
                ));
            }
            PermitAnswer::After(span) => self.timers.set(Timer::Permit, cx.now.mono + span),
        }
    }

    /// Permit in hand: looks again at what there is to do, and claims.
    fn claim(&mut self, cx: &mut Cx<'_>) {
        let Some(record) = self.record() else {
            return self.end_flight();
        };
        let Next::Redeem { case, purpose } = self.view(record, cx.now).next() else {
            return self.end_flight();
        };
        let lease = lease_id(cx.entropy);
        let from_version = record.version;
        let Some(flight) = &mut self.flight else {
            return;
        };
        flight.from = from_version;
        flight.purpose = purpose;
        flight.lease = Some(lease);
        flight.proof = cx.now.mono;
        let (over, doubt) = (case.over, case.doubt);
        flight.stage = Stage::Claiming;
        self.order(Command::Claim {
            lease,
            from_version,
            over,
            ttl: self.policy.lease,
            purpose,
            for_device: false,
            doubt,
        });
    }

    pub(super) fn on_claimed(&mut self, lease: LeaseId, answer: ClaimAnswer, cx: &mut Cx<'_>) {
        let mine = |flight: &Flight| flight.lease == Some(lease) && matches!(flight.stage, Stage::Claiming);
        if !self.flight.as_ref().is_some_and(mine) {
            if let ClaimAnswer::Won(record) | ClaimAnswer::Lost(record) = answer {
                self.absorb(record, cx);
            }
            return;
        }
        match answer {
            ClaimAnswer::Won(record) => {
                self.ended = None;
                self.absorb(record, cx);
                self.claimed(cx);
            }
            ClaimAnswer::Lost(record) => {
                self.brakes.lost_race(cx.now.mono);
                self.end_flight();
                self.absorb(record, cx);
            }
            ClaimAnswer::Gone => {
                self.end_flight();
                self.known.record = None;
            }
            ClaimAnswer::Trouble(Trouble::Refused(why)) => self.store_trouble(&why, cx),
            ClaimAnswer::Trouble(Trouble::Unknown(_)) => {
                self.in_stage(Stage::ClaimUnknown);
                self.load();
            }
        }
    }

    /// The claim stands.
    fn claimed(&mut self, cx: &mut Cx<'_>) {
        let Some((lease, from_version)) = self
            .flight
            .as_ref()
            .and_then(|flight| Some((flight.lease?, flight.from)))
        else {
            return;
        };
        self.note(Note::Claimed { lease, from_version });
        self.redeem(cx);
    }

    /// The scheduler claimed in a batch.
    pub(super) fn on_claimed_ahead(&mut self, record: Box<GrantRecord>, asked: Mono, cx: &mut Cx<'_>) {
        if self.permit {
            self.order(Command::ReturnPermit);
        }
        self.permit = true;
        let claim = record.claim.as_ref().map(|claim| (claim.lease, claim.purpose));
        let doubt = record.doubt.clone();
        self.absorb(record, cx);
        let stands = |record: &GrantRecord| record.claim.as_ref().map(|c| c.lease) == claim.map(|(lease, _)| lease);
        let Some((lease, purpose)) = claim.filter(|_| self.record().is_some_and(stands)) else {
            return;
        };
        self.end_flight();
        // Nothing was sent under it: whatever there is to do may be done over it.
        self.ended = Some(Ended {
            lease,
            doubt,
            drop_alternate: false,
        });
        let is_plain = self.record().is_some_and(
            |record| matches!(self.view(record, cx.now).next(), Next::Redeem { purpose: p, .. } if p == purpose),
        );
        if !is_plain || !self.landings.is_empty() {
            return;
        }
        self.ended = None;
        self.flight = Some(Flight {
            purpose,
            lease: Some(lease),
            ..Flight::new(self.newest(), asked, Stage::Permit)
        });
        self.claimed(cx);
    }

    /// Sends the refresh token, if the lease was shown to be held less than [`SEND_WITHIN`] ago.
    fn redeem(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let Some((flight, record)) = self.flight.as_mut().zip(self.known.record.as_deref()) else {
            return;
        };
        let Some(lease) = flight.lease else {
            return;
        };
        let age = now.since(flight.proof);
        if age >= SEND_WITHIN {
            return self.prove(cx);
        }
        let tokens = match flight.purpose {
            Purpose::Alternate => record.alternate.as_ref(),
            Purpose::Redeem | Purpose::Grace | Purpose::LastTry => record.tokens.as_ref(),
        };
        let Some((refresh_token, scope)) = tokens.and_then(|t| Some((t.refresh_token.clone()?, t.scope.clone())))
        else {
            return self.end_flight();
        };
        flight.tries += 1;
        flight.sent = now;
        flight.stage = Stage::Redeeming;
        let left = self.policy.lease.saturating_sub(age + LEASE_MARGIN);
        let deadline = self.policy.timeout.min(left);
        self.timers.set(Timer::Deadline, now + deadline + DEADLINE_SLACK);
        self.timers.set(Timer::Renew, flight.proof + self.policy.lease / 3);
        self.timers.set(Timer::Announce, now + REFRESHING_AFTER);
        self.order(Command::Redeem {
            lease,
            refresh_token,
            scope,
            send_within: SEND_WITHIN - age,
            deadline,
        });
    }

    /// Shows that the lease is still held, before another try.
    fn prove(&mut self, cx: &mut Cx<'_>) {
        self.in_stage(Stage::Proving);
        self.renew(cx);
    }

    fn renew(&mut self, cx: &mut Cx<'_>) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        let Some(lease) = flight.lease.filter(|_| !flight.lost) else {
            return;
        };
        flight.renewing = Some(cx.now.mono);
        self.order(Command::Renew {
            lease,
            ttl: self.policy.lease,
        });
    }

    pub(super) fn on_renewed(&mut self, lease: LeaseId, held: Result<bool, Trouble>, cx: &mut Cx<'_>) {
        let Some(flight) = self.flight.as_mut().filter(|flight| flight.lease == Some(lease)) else {
            return;
        };
        let proving = matches!(flight.stage, Stage::Proving);
        let asked = flight.renewing.take();
        match held {
            Ok(true) => {
                flight.proof = asked.unwrap_or(flight.proof);
                let next = flight.proof + self.policy.lease / 3;
                if proving {
                    self.redeem(cx);
                } else if matches!(flight.stage, Stage::Redeeming | Stage::Resting) {
                    self.timers.set(Timer::Renew, next);
                }
            }
            Ok(false) => {
                flight.lost = true;
                if proving {
                    // Somebody judged this claim: see what became of the grant.
                    self.end_flight();
                    self.load();
                }
            }
            Err(trouble) if proving => self.end_later(None, &trouble.to_string(), cx),
            Err(_) => self.timers.set(Timer::Renew, cx.now.mono + Duration::from_secs(1)),
        }
    }

    pub(super) fn on_redeemed(&mut self, lease: LeaseId, reply: &ProviderReply, cx: &mut Cx<'_>) {
        let outcome = classify(reply);
        let current = |flight: &&Flight| flight.lease == Some(lease) && matches!(flight.stage, Stage::Redeeming);
        if let Some(flight) = self.flight.as_ref().filter(current) {
            let took = cx.now.mono.since(flight.sent);
            self.note_outcome(lease, &outcome, took);
            self.timers.stop(Timer::Deadline);
            self.timers.stop(Timer::Announce);
            return self.judge(lease, outcome, cx);
        }
        let Some(index) = self.orphans.iter().position(|orphan| orphan.lease == lease) else {
            return;
        };
        let orphan = self.orphans.swap_remove(index);
        let took = cx.now.mono.since(orphan.sent);
        self.note_outcome(lease, &outcome, took);
        if let Outcome::Committed(issued) = outcome {
            self.land_issued(lease, orphan.from, *issued, took, cx);
        }
    }

    fn note_outcome(&mut self, lease: LeaseId, outcome: &Outcome, took: Duration) {
        let (outcome, detail) = match outcome {
            Outcome::Committed(_) => ("committed", String::new()),
            Outcome::NotProcessed { detail, .. } => ("not_processed", detail.clone()),
            Outcome::RateLimited { .. } => ("rate_limited", String::new()),
            Outcome::Unknown { detail } => ("unknown", detail.clone()),
            Outcome::Conflict { detail } => ("conflict", detail.clone()),
            Outcome::Misconfigured { detail } => ("misconfigured", detail.clone()),
            Outcome::Refused { detail } => ("refused", detail.clone()),
        };
        self.note(Note::Redeemed {
            lease,
            outcome,
            detail,
            took,
        });
    }

    /// The table of outcomes.
    fn judge(&mut self, lease: LeaseId, outcome: Outcome, cx: &mut Cx<'_>) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        match outcome {
            Outcome::Committed(issued) => {
                let (from, took) = (flight.from, cx.now.mono.since(flight.sent));
                flight.stage = Stage::Landing;
                self.timers.stop_flight();
                self.land_issued(lease, from, *issued, took, cx);
            }
            Outcome::NotProcessed { retry_after, detail } => {
                let short = retry_after.is_none_or(|span| span <= SHORT_RETRY_AFTER);
                if flight.tries < TRIES && short && !flight.lost {
                    let most = FIRST_PAUSE * 2_u32.pow(flight.tries);
                    let pause = retry_after.unwrap_or_else(|| up_to(cx.entropy, most));
                    self.pause(pause, cx);
                } else {
                    self.end_later(retry_after, &format!("the provider is unavailable: {detail}"), cx);
                }
            }
            Outcome::RateLimited { retry_after } => {
                let span = retry_after.unwrap_or(Duration::from_secs(30)).min(LONGEST_RETRY_AFTER);
                self.end_later(Some(span), "the provider limits us (HTTP 429)", cx);
            }
            Outcome::Unknown { detail } => self.end_unknown(lease, &detail, cx),
            Outcome::Conflict { detail } => {
                flight.stage = Stage::Conflict(detail);
                self.load();
            }
            Outcome::Misconfigured { detail } => self.end_misconfigured(detail, cx),
            Outcome::Refused { detail } => {
                flight.refusals += 1;
                if flight.refusals == 1 && !flight.lost {
                    let pause = REFUSED_PAUSE / 2 + up_to(cx.entropy, REFUSED_PAUSE / 2);
                    self.pause(pause, cx);
                } else {
                    self.end_refused(lease, format!("the provider refuses the refresh: {detail}"), None, cx);
                }
            }
        }
    }

    fn pause(&mut self, pause: Duration, cx: &mut Cx<'_>) {
        self.in_stage(Stage::Resting);
        self.timers.set(Timer::Rest, cx.now.mono + pause);
    }

    /// The round came to nothing, and nothing was processed.
    fn end_later(&mut self, retry_after: Option<Duration>, reason: &str, cx: &mut Cx<'_>) {
        self.brakes.rounds += 1;
        let wait = match retry_after {
            Some(span) => {
                let span = span.min(LONGEST_RETRY_AFTER);
                self.brakes.obey = Some(cx.now.mono + span);
                span
            }
            None => {
                let most = (ROUND_WAIT * 2_u32.pow(self.brakes.rounds.min(8) - 1)).min(LONGEST_ROUND_WAIT);
                most / 2 + up_to(cx.entropy, most / 2)
            }
        };
        let at = cx.now.unix + wait;
        self.settle_later(reason, at, Some(at), cx);
    }

    fn end_misconfigured(&mut self, detail: String, cx: &mut Cx<'_>) {
        let reason = format!("the provider says that the hub's settings for it are wrong: {detail}");
        self.note(Note::Misconfigured { detail });
        self.settle_later(&reason, cx.now.unix + MISCONFIGURED_WAIT, None, cx);
    }

    /// Nobody knows what came of the redeem: what that means is for the plan to say.
    fn end_unknown(&mut self, lease: LeaseId, detail: &str, cx: &mut Cx<'_>) {
        let Some((record, flight)) = self.known.record.as_deref().zip(self.flight.as_ref()) else {
            return;
        };
        let claim = record.claim.as_ref().filter(|claim| claim.lease == lease);
        let reason = format!("the outcome of a redeem is unknown: {detail}");
        let doubt = claim.map(|claim| self.view(record, cx.now).doubt_of(claim, reason));
        if flight.purpose == Purpose::Grace {
            // The first replay is at once; those that follow are paced.
            self.brakes.replays += 1;
            let most = FIRST_PAUSE * 2_u32.pow(self.brakes.replays.min(4));
            self.brakes.not_before = Some(cx.now.mono + up_to(cx.entropy, most));
        }
        self.ended = Some(Ended {
            lease,
            drop_alternate: self
                .flight
                .as_ref()
                .is_some_and(|flight| flight.purpose == Purpose::Alternate),
            doubt,
        });
        self.end_flight();
    }

    /// The refresh token is of no use any more.
    fn end_refused(&mut self, lease: LeaseId, reason: String, wait: Option<Duration>, cx: &mut Cx<'_>) {
        let Some((record, flight)) = self.known.record.as_deref().zip(self.flight.as_ref()) else {
            return;
        };
        let drop_alternate = flight.purpose == Purpose::Alternate;
        let wait = wait.filter(|_| flight.purpose == Purpose::Redeem || flight.purpose == Purpose::Grace);
        let mut doubt = self.view(record, cx.now).doubt_now();
        doubt.conflict = true;
        doubt.reason = match &record.doubt {
            Some(before) if !before.reason.is_empty() => format!("{}; then {reason}", before.reason),
            _ => reason,
        };
        doubt.late_until = doubt.late_until.max(wait.map(|span| cx.now.unix + span));
        self.ended = Some(Ended {
            lease,
            drop_alternate,
            doubt: Some(doubt),
        });
        self.end_flight();
    }

    /// The store takes no writes: nothing is redeemed that could not be kept.
    fn store_trouble(&mut self, why: &str, cx: &mut Cx<'_>) {
        self.end_flight();
        let at = cx.now.unix + Duration::from_secs(2);
        self.rest(&Reply::failed_until(Code::Unavailable, why, at));
    }

    pub(super) fn end_flight(&mut self) {
        self.flight = None;
        self.timers.stop_flight();
    }

    pub(super) fn in_stage(&mut self, stage: Stage) {
        if let Some(flight) = &mut self.flight {
            flight.stage = stage;
        }
    }

    /// The version moved, or the grant is gone, while a flight was under way.
    pub(super) fn flight_overtaken(&mut self, version: Version, gone: bool) {
        self.ended = None;
        let Some(flight) = self.flight.as_ref().filter(|flight| gone || flight.from != version) else {
            return;
        };
        if let (Stage::Redeeming, Some(lease)) = (&flight.stage, flight.lease) {
            self.orphans.push(Orphan {
                lease,
                from: flight.from,
                sent: flight.sent,
            });
        }
        self.end_flight();
    }

    pub(super) fn flight_after_reading(&mut self, cx: &mut Cx<'_>) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        let claim = self.known.record.as_ref().and_then(|record| record.claim.as_ref());
        let stands = claim.is_some_and(|claim| Some(claim.lease) == flight.lease);
        match &flight.stage {
            Stage::ClaimUnknown if stands => {
                self.ended = None;
                self.claimed(cx);
            }
            Stage::ClaimUnknown => self.end_flight(),
            Stage::Conflict(detail) => {
                let reason = format!("the provider refused the refresh token: {detail}");
                if let Some(lease) = flight.lease {
                    self.end_refused(lease, reason, Some(CONFLICT_WAIT), cx);
                }
            }
            Stage::Settling(ending) if ending.is_unknown && stands => self.settle_again(cx),
            Stage::Settling(ending) if ending.is_unknown => self.end_flight(),
            _ => {}
        }
    }

    pub(super) fn flight_without_reading(&mut self, cx: &mut Cx<'_>) {
        if matches!(&self.flight, Some(flight) if matches!(flight.stage, Stage::ClaimUnknown)) {
            // Nothing was sent under it; should it stand after all, it may be replaced without doubt.
            let lease = self.flight.as_ref().and_then(|flight| flight.lease);
            let doubt = self.record().and_then(|record| record.doubt.clone());
            self.ended = lease.map(|lease| Ended {
                lease,
                doubt,
                drop_alternate: false,
            });
            self.store_trouble("the store cannot be read", cx);
        }
    }

    fn announce(&mut self, cx: &mut Cx<'_>) {
        let Some(flight) = &self.flight else {
            return;
        };
        let left = (flight.proof + self.policy.lease).since(cx.now.mono);
        self.order(Command::Announce(Passing {
            refreshing_by: None,
            lease_expires_in: left,
        }));
    }

    pub(super) fn on_tick(&mut self, cx: &mut Cx<'_>) {
        while let Some(timer) = self.timers.take_due(cx.now.mono) {
            match timer {
                Timer::Load | Timer::Lapse => self.load(),
                Timer::Permit => self.order(Command::AskPermit),
                Timer::Rest => self.prove(cx),
                Timer::Renew => self.renew(cx),
                Timer::Deadline => self.on_deadline(cx),
                Timer::Announce => self.announce(cx),
                Timer::Settle => self.settle_again(cx),
                Timer::Land => self.land_again(cx),
                Timer::Waiters => self.expire_waiters(cx),
                Timer::Accept | Timer::Wanted | Timer::Doubt | Timer::Again => {}
            }
        }
    }

    /// The shell did not tell what came of the redeem in time.
    fn on_deadline(&mut self, cx: &mut Cx<'_>) {
        let redeeming = |flight: &&Flight| matches!(flight.stage, Stage::Redeeming);
        let Some(flight) = self.flight.as_ref().filter(redeeming) else {
            return;
        };
        let (from, sent) = (flight.from, flight.sent);
        let Some(lease) = flight.lease else {
            return;
        };
        self.orphans.push(Orphan { lease, from, sent });
        self.end_unknown(lease, "no answer within the deadline", cx);
    }
}
