//! The hub redeems by itself.

use std::time::Duration;

use lockstep_protocol::{
    LeaseId, Secret,
    limits::{REFRESHING_AFTER, SEND_WITHIN},
};

use super::{
    Command, Cx, Grant, Passing, ProviderReply, Trouble,
    broken::Broken,
    flight::{Flight, Orphan, Stage},
    outcome::{Outcome, classify},
    schedule::Timer,
};
use crate::record::Purpose;

/// How long before the lease lapses a redeem must be over.
const LEASE_MARGIN: Duration = Duration::from_secs(3);
/// How long after its deadline a redeem's answer is still waited for: the shell's own timer comes first.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);
/// A renewal that the store could not write is tried again after this.
const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// What a redeem is sent with.
pub(super) struct Ticket {
    pub(super) lease: LeaseId,
    pub(super) refresh_token: Secret,
    pub(super) scope: Option<String>,
    /// The request must leave within this.
    pub(super) send_within: Duration,
    /// What is left of the lease, less a margin: the redeem has to be over by then.
    pub(super) left: Duration,
}

impl Grant {
    /// Sends the refresh token, if the lease was shown to be held less than [`SEND_WITHIN`] ago.
    pub(super) fn redeem(&mut self, cx: &mut Cx<'_>) {
        let Some(ticket) = self.ticket(cx) else {
            return;
        };
        if ticket.send_within.is_zero() {
            return self.prove(cx);
        }
        let now = cx.now.mono;
        let deadline = self.policy.timeout.min(ticket.left);
        let Some(flight) = &mut self.flight else {
            return;
        };
        flight.tries += 1;
        flight.sent = now;
        flight.stage = Stage::Redeeming;
        self.timers.set(Timer::Deadline, now + deadline + DEADLINE_SLACK);
        self.timers.set(Timer::Renew, flight.proof + self.policy.lease / 3);
        self.timers.set(Timer::Announce, now + REFRESHING_AFTER);
        self.order(Command::Redeem {
            lease: ticket.lease,
            refresh_token: ticket.refresh_token,
            scope: ticket.scope,
            send_within: ticket.send_within,
            deadline,
        });
    }

    /// What the redeem of this flight is sent with. None: the flight is over, because the claim or the token is gone.
    pub(super) fn ticket(&mut self, cx: &Cx<'_>) -> Option<Ticket> {
        let ticket = self.ticket_of(cx);
        if ticket.is_none() {
            self.end_flight();
        }
        ticket
    }

    fn ticket_of(&self, cx: &Cx<'_>) -> Option<Ticket> {
        let (flight, record) = (self.flight.as_ref()?, self.record()?);
        let lease = flight.lease.filter(|lease| self.holds(*lease))?;
        let tokens = match flight.purpose {
            Purpose::Alternate => record.alternate.as_ref()?,
            Purpose::Redeem | Purpose::Grace | Purpose::LastTry => record.tokens.as_ref()?,
        };
        let age = cx.now.mono.since(flight.proof);
        let mut send_within = SEND_WITHIN.saturating_sub(age);
        if self.is_broken(Broken::SendLate) {
            send_within = SEND_WITHIN;
        }
        if let (Purpose::Grace, Some(doubt)) = (flight.purpose, &record.doubt) {
            let left = self.view(record, cx.now).grace_end(doubt).since(cx.now.unix);
            send_within = send_within.min(left);
        }
        let left = flight.lapses.since(cx.now.mono).saturating_sub(LEASE_MARGIN);
        Some(Ticket {
            lease,
            refresh_token: tokens.refresh_token.clone()?,
            scope: tokens.scope.clone(),
            send_within,
            left,
        })
    }

    /// Shows that the lease is still held, before another try.
    pub(super) fn prove(&mut self, cx: &mut Cx<'_>) {
        let in_grace = self.record().is_some_and(|record| {
            let grace_is_over = |doubt| self.view(record, cx.now).grace_end(doubt) <= cx.now.unix;
            !record.doubt.as_ref().is_some_and(grace_is_over)
        });
        let Some(flight) = &self.flight else {
            return;
        };
        if flight.purpose == Purpose::Grace && !in_grace {
            // This try was not processed, and there is no time for another: the doubt is what it was.
            if let Some(lease) = flight.lease {
                self.nothing_sent_under(lease);
            }
            return self.end_flight();
        }
        self.in_stage(Stage::Proving);
        self.renew(cx);
    }

    pub(super) fn renew(&mut self, cx: &mut Cx<'_>) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        // An answer shows only as much as was asked for by it: one at a time.
        let Some(lease) = flight.lease.filter(|_| !flight.lost && flight.renewing.is_none()) else {
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
        if flight.by.is_some() {
            return self.extended(&held, cx);
        }
        let proving = matches!(flight.stage, Stage::Proving);
        let asked = flight.renewing.take();
        match held {
            Ok(true) => {
                flight.proof = asked.unwrap_or(flight.proof);
                flight.lapses = flight.proof + self.policy.lease;
                let next = flight.proof + self.policy.lease / 3;
                if proving {
                    self.redeem(cx);
                } else if matches!(flight.stage, Stage::Redeeming | Stage::Resting(_)) {
                    self.timers.set(Timer::Renew, next);
                }
            }
            Ok(false) => {
                flight.lost = true;
                if proving || matches!(flight.stage, Stage::Resting(_)) {
                    // Nothing is on its way, and somebody judged this claim: see what became of the grant.
                    self.end_flight();
                    self.load();
                }
            }
            Err(trouble) if proving => self.end_later(None, &trouble.to_string(), cx),
            Err(_) => self.timers.set(Timer::Renew, cx.now.mono + RENEW_PAUSE),
        }
    }

    pub(super) fn on_redeemed(&mut self, lease: LeaseId, reply: &ProviderReply, cx: &mut Cx<'_>) {
        let outcome = classify(reply);
        let current = |flight: &&Flight| flight.lease == Some(lease) && matches!(flight.stage, Stage::Redeeming);
        if let Some(flight) = self.flight.as_ref().filter(current) {
            let took = cx.now.mono.since(flight.sent);
            return self.judge(lease, outcome, took, cx);
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

    /// The redeem takes longer than is usual: a passing word.
    pub(super) fn announce(&mut self, cx: &mut Cx<'_>) {
        let Some(flight) = &self.flight else {
            return;
        };
        let left = flight.lapses.since(cx.now.mono);
        let refreshing_by = flight.by.as_ref().map(|candidate| candidate.device);
        self.order(Command::Announce(Passing {
            refreshing_by,
            lease_expires_in: left,
        }));
    }

    /// The shell, or the device, did not tell what came of the redeem in time.
    pub(super) fn on_deadline(&mut self, cx: &mut Cx<'_>) {
        let redeeming = |flight: &&Flight| matches!(flight.stage, Stage::Redeeming);
        let Some(flight) = self.flight.as_ref().filter(redeeming) else {
            return;
        };
        let (from, sent, by_device) = (flight.from, flight.sent, flight.by.is_some());
        let Some(lease) = flight.lease else {
            return;
        };
        if by_device {
            return self.end_unknown(lease, "the device that redeems did not report back", true, cx);
        }
        self.orphans.push(Orphan { lease, from, sent });
        self.end_unknown(lease, "no answer within the deadline", false, cx);
    }
}
