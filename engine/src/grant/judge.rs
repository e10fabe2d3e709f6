//! A redeem is over: what came of it, by the table of outcomes, and what follows.

use std::time::Duration;

use lockstep_protocol::LeaseId;

use super::{
    Cx, Grant, Note,
    broken::Broken,
    flight::Stage,
    outcome::Outcome,
    plan::{Ended, Left},
    schedule::Timer,
};
use crate::{entropy::up_to, record::Purpose};

/// Redeems in a round.
const TRIES: u32 = 3;
/// The first pause between two tries of a round is drawn from zero to twice this; the next from twice as much.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest `Retry-After` that is waited for within a round.
const SHORT_RETRY_AFTER: Duration = Duration::from_secs(5);
/// The longest `Retry-After` believed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
/// A 429 that names no time.
const LIMITED_WAIT: Duration = Duration::from_secs(30);
/// A refusal of unknown cause is tried again after half to all of this.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// A late result of somebody else's redeem, or a login, may come within this after a conflict.
const CONFLICT_WAIT: Duration = Duration::from_secs(3);
/// Our settings are wrong: askers are held off for this long.
const MISCONFIGURED_WAIT: Duration = Duration::from_secs(60);
/// The longest wait after a first round that came to nothing; doubles with each.
const ROUND_WAIT: Duration = Duration::from_secs(5);
/// The longest wait after a round.
const LONGEST_ROUND_WAIT: Duration = Duration::from_secs(300);

impl Grant {
    /// The flight's redeem is over: the table of outcomes.
    pub(super) fn judge(&mut self, lease: LeaseId, outcome: Outcome, took: Duration, cx: &mut Cx<'_>) {
        self.note_outcome(lease, &outcome, took);
        self.timers.stop(Timer::Deadline);
        self.timers.stop(Timer::Announce);
        match outcome {
            Outcome::Committed(issued) => {
                self.in_stage(Stage::Landing);
                self.timers.stop_flight();
                let from = self.flight.as_ref().map_or(self.newest(), |flight| flight.from);
                self.land_issued(lease, from, *issued, took, cx);
            }
            Outcome::NotProcessed { .. } | Outcome::Misconfigured { .. } if self.is_broken(Broken::BlameTheGrant) => {
                self.end_refused("unavailable".to_owned(), None, cx);
            }
            Outcome::NotProcessed { retry_after, detail } => self.again_or_later(retry_after, &detail, cx),
            Outcome::RateLimited { retry_after } => {
                let span = retry_after.unwrap_or(LIMITED_WAIT);
                self.end_later(Some(span), "the provider limits us (HTTP 429)", cx);
            }
            Outcome::Unknown { detail } => self.end_unknown(lease, &detail, false, cx),
            Outcome::Conflict { detail } => {
                self.in_stage(Stage::Conflict(detail));
                self.load();
            }
            Outcome::Misconfigured { detail } => self.end_misconfigured(detail, cx),
            Outcome::Refused { detail } => self.once_more_or_never(&detail, cx),
        }
    }

    pub(super) fn note_outcome(&mut self, lease: LeaseId, outcome: &Outcome, took: Duration) {
        let (outcome, detail) = outcome.told();
        self.note(Note::Redeemed {
            lease,
            outcome,
            detail,
            took,
        });
    }

    /// Not processed: three tries in a round.
    fn again_or_later(&mut self, retry_after: Option<Duration>, detail: &str, cx: &mut Cx<'_>) {
        let Some(flight) = &self.flight else {
            return;
        };
        let is_short = retry_after.is_none_or(|span| span <= SHORT_RETRY_AFTER);
        let reason = format!("the provider is unavailable: {detail}");
        if flight.tries < TRIES && is_short && !flight.lost {
            let most = PAUSE * 2_u32.pow(flight.tries);
            let pause = retry_after.unwrap_or_else(|| up_to(cx.entropy, most));
            self.pause(pause, reason, cx);
        } else {
            self.end_later(retry_after, &reason, cx);
        }
    }

    /// Refused, cause unknown: once more later, then never.
    fn once_more_or_never(&mut self, detail: &str, cx: &mut Cx<'_>) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        flight.refusals += 1;
        let reason = format!("the provider refuses the refresh: {detail}");
        if flight.refusals == 1 && !flight.lost {
            let pause = REFUSED_PAUSE / 2 + up_to(cx.entropy, REFUSED_PAUSE / 2);
            self.pause(pause, reason, cx);
        } else {
            self.end_refused(reason, None, cx);
        }
    }

    /// Not processed, and to be tried again after `pause`: by this flight, or by whoever finds it due if this node goes.
    fn pause(&mut self, pause: Duration, reason: String, cx: &mut Cx<'_>) {
        if self.leaving {
            return self.put_off(pause, &reason, cx);
        }
        self.in_stage(Stage::Resting(reason));
        self.timers.set(Timer::Rest, cx.now.mono + pause);
    }

    /// The node goes away: it waits for no further try. A claim between two of them is given back, because left behind it
    /// would say that the outcome is unknown, and the outcome is known: nothing was processed.
    pub(super) fn on_leave(&mut self, cx: &mut Cx<'_>) {
        self.leaving = true;
        let reason = match self.flight.as_ref().map(|flight| &flight.stage) {
            Some(Stage::Resting(reason)) => reason.clone(),
            Some(Stage::Redeeming) if self.is_broken(Broken::LeaveUnderWay) => String::new(),
            _ => return,
        };
        self.put_off(self.timers.left(Timer::Rest, cx.now.mono), &reason, cx);
    }

    fn put_off(&mut self, span: Duration, reason: &str, cx: &mut Cx<'_>) {
        let at = cx.now.unix + span;
        self.settle_later(reason, at, Some(at), cx);
    }

    /// The round came to nothing, and nothing was processed.
    pub(super) fn end_later(&mut self, retry_after: Option<Duration>, reason: &str, cx: &mut Cx<'_>) {
        self.brakes.rounds += 1;
        let wait = if let Some(span) = retry_after {
            let span = span.min(LONGEST_RETRY_AFTER);
            self.brakes.obey = Some(cx.now.mono + span);
            span
        } else {
            let most = (ROUND_WAIT * 2_u32.pow(self.brakes.rounds.min(8) - 1)).min(LONGEST_ROUND_WAIT);
            most / 2 + up_to(cx.entropy, most / 2)
        };
        let at = cx.now.unix + wait;
        self.settle_later(reason, at, Some(at), cx);
    }

    fn end_misconfigured(&mut self, detail: String, cx: &mut Cx<'_>) {
        let reason = format!("the provider says that the hub's settings for it are wrong: {detail}");
        self.note(Note::Misconfigured { detail });
        self.settle_later(&reason, cx.now.unix + MISCONFIGURED_WAIT, None, cx);
    }

    /// Nobody knows what came of the redeem: what that means is for the plan to say. `may_come`: whether a late result may.
    pub(super) fn end_unknown(&mut self, lease: LeaseId, detail: &str, may_come: bool, cx: &mut Cx<'_>) {
        let Some((record, flight)) = self.record().zip(self.flight.as_ref()) else {
            return;
        };
        let reason = format!("the outcome of a redeem is unknown: {detail}");
        let claim = record.claim.as_ref().filter(|claim| claim.lease == lease);
        let mut doubt = claim.map(|claim| self.view(record, cx.now).doubt_of(claim, reason));
        if let Some(doubt) = &mut doubt {
            // The record known may not say yet that a device holds it.
            let late_until = may_come.then(|| cx.now.unix + self.policy.late_wait);
            let before = record.doubt.as_ref().and_then(|before| before.late_until);
            doubt.late_until = before.max(late_until);
        }
        let purpose = flight.purpose;
        let ended = doubt.map(|doubt| Ended {
            lease,
            left: Left::Doubt(doubt),
            drop_alternate: purpose == Purpose::Alternate,
        });
        if purpose == Purpose::Grace {
            // The first replay is at once; those that follow are paced.
            self.brakes.replays += 1;
            let most = PAUSE * 2_u32.pow(self.brakes.replays.min(4));
            self.brakes.not_before = Some(cx.now.mono + up_to(cx.entropy, most));
        }
        if let Some(ended) = ended {
            self.ends(ended);
        }
        self.end_flight();
    }

    /// Somebody else redeemed it: a late result or a login may come shortly.
    pub(super) fn end_conflict(&mut self, reason: String, cx: &mut Cx<'_>) {
        let purpose = self.flight.as_ref().map(|flight| flight.purpose);
        let may_come = matches!(purpose, Some(Purpose::Redeem | Purpose::Grace));
        self.end_refused(reason, may_come.then_some(CONFLICT_WAIT), cx);
    }

    /// The refresh token is of no use any more.
    fn end_refused(&mut self, reason: String, wait: Option<Duration>, cx: &mut Cx<'_>) {
        let Some((record, flight)) = self.record().zip(self.flight.as_ref()) else {
            return;
        };
        let Some(lease) = flight.lease else {
            return;
        };
        let drop_alternate = flight.purpose == Purpose::Alternate;
        let mut doubt = self.view(record, cx.now).doubt_now();
        doubt.conflict = true;
        doubt.late_until = doubt.late_until.max(wait.map(|span| cx.now.unix + span));
        doubt.reason = match &record.doubt {
            Some(before) if !before.reason.is_empty() => format!("{}; then {reason}", before.reason),
            _ => reason,
        };
        self.ends(Ended {
            lease,
            left: Left::Doubt(doubt),
            drop_alternate,
        });
        self.end_flight();
    }
}
