//! A device redeems: elected, accepted, handed the refresh token, in this order.

use std::time::Duration;

use lockstep_protocol::{
    Code, DeviceId, LeaseId, SessionId,
    limits::{ACCEPT_WITHIN, REFRESHING_AFTER, SEND_WITHIN},
};

use super::{
    Candidate, Command, Cx, Grant, Input, Note, ProviderReply, Reply, Trouble, WaiterId,
    broken::Broken,
    election::elect,
    flight::{Flight, Stage},
    outcome::{Outcome, classify},
    plan::Next,
    read::unknown_grant,
    schedule::Timer,
};

/// How long another node has to take up an election before the hub itself redeems.
const WANTED_WITHIN: Duration = Duration::from_secs(2);
/// With nobody to redeem, those who ask are put off for this long.
const NOBODY_WAIT: Duration = Duration::from_secs(10);

impl Grant {
    pub(super) fn seek_candidate(&mut self) {
        self.in_stage(Stage::Candidates);
        self.order(Command::AskCandidates);
    }

    pub(super) fn on_candidates(&mut self, here: &[Candidate], others: bool, cx: &mut Cx<'_>) {
        let waits = |flight: &&mut Flight| matches!(flight.stage, Stage::Candidates);
        let Some(flight) = self.flight.as_mut().filter(waits) else {
            return;
        };
        flight.by = elect(here, &flight.passed_over, cx.now.mono, cx.entropy);
        let is_fresh = flight.passed_over.is_empty() && flight.tries == 0;
        if flight.by.is_some() {
            self.seek_permit(cx);
        } else if self.for_other_node && self.waiters.is_empty() {
            // Its wish is no reason to go on, and neither is it one later on.
            self.for_other_node = false;
            self.wanted = None;
            self.end_flight();
        } else if others && is_fresh {
            self.in_stage(Stage::Wanted { is_over: false });
            self.timers.set(Timer::Wanted, cx.now.mono + WANTED_WITHIN);
            self.order(Command::Wanted);
        } else {
            self.hub_last(cx);
        }
    }

    /// No device is left: the hub itself, if it may.
    pub(super) fn hub_last(&mut self, cx: &mut Cx<'_>) {
        if self.policy.hub_may_redeem {
            return self.seek_permit(cx);
        }
        let next = self.record().map(|record| self.view(record, cx.now).next());
        if !matches!(next, Some(Next::Redeem { .. })) {
            // Somebody else came to an end with it meanwhile.
            return self.end_flight();
        }
        let at = cx.now.unix + NOBODY_WAIT;
        self.settle_later("no device that may redeem is connected", at, Some(at), cx);
    }

    /// No other node took the election up, as far as is known: looks once more.
    pub(super) fn on_unwanted(&mut self) {
        self.in_stage(Stage::Wanted { is_over: true });
        self.load();
    }

    /// Looked once more: another node's claim stands, or it is the hub's turn.
    pub(super) fn after_wanted(&mut self, cx: &mut Cx<'_>) {
        let claim = self.record().and_then(|record| record.claim.as_ref());
        if claim.is_some_and(|claim| claim.holder.node != self.me.node) {
            self.end_flight();
        } else {
            self.hub_last(cx);
        }
    }

    /// The claim for an election stands: tells the winner.
    pub(super) fn offer(&mut self, cx: &mut Cx<'_>) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        let (Some(candidate), Some(lease)) = (&flight.by, flight.lease) else {
            return;
        };
        let (device, session, from_version) = (candidate.device, candidate.session, flight.from);
        flight.stage = Stage::Offered;
        self.timers.set(Timer::Accept, cx.now.mono + ACCEPT_WITHIN);
        self.note(Note::Elected { device });
        self.order(Command::Elect {
            session,
            lease,
            expires_in: self.policy.lease,
            renew_every: self.policy.lease / 3,
            from_version,
        });
    }

    /// Whether a device was told of its election under this lease, and has not answered.
    pub(super) fn is_only_offered(&self, lease: LeaseId) -> bool {
        let flight = self.flight.as_ref().filter(|flight| flight.lease == Some(lease));
        flight.is_some_and(|flight| matches!(flight.stage, Stage::Offered))
    }

    pub(super) fn on_accept(&mut self, device: DeviceId, session: SessionId, lease: LeaseId, cx: &mut Cx<'_>) {
        let offered = |flight: &&mut Flight| {
            let to_it = flight.by.as_ref().is_some_and(|candidate| candidate.device == device);
            to_it && flight.lease == Some(lease) && matches!(flight.stage, Stage::Offered)
        };
        let Some(flight) = self.flight.as_mut().filter(offered) else {
            return self.order(Command::Refuse {
                session,
                lease,
                code: Code::NotElected,
            });
        };
        if let Some(candidate) = &mut flight.by {
            candidate.session = session;
        }
        flight.proof = cx.now.mono;
        flight.stage = Stage::HandingOut { gone: false };
        self.timers.stop(Timer::Accept);
        self.order(Command::HandOut { lease, device });
        if self.is_broken(Broken::HandBeforeDurable) {
            self.hand(cx);
        }
    }

    pub(super) fn on_handed_out(&mut self, lease: LeaseId, held: Result<bool, Trouble>, cx: &mut Cx<'_>) {
        let Some(flight) = self.flight.as_ref().filter(|flight| flight.lease == Some(lease)) else {
            return;
        };
        let Stage::HandingOut { gone } = flight.stage else {
            return;
        };
        let in_time = cx.now.mono.since(flight.proof) < SEND_WITHIN;
        match held {
            Ok(true) if !gone && in_time => self.hand(cx),
            // Written, but it was not given: nothing can have been sent.
            Ok(true) | Err(Trouble::Unknown(_)) => self.pass_over(),
            Ok(false) => {
                self.nothing_sent_under(lease);
                self.end_flight();
                self.load();
            }
            Err(Trouble::Refused(why)) => {
                self.nothing_sent_under(lease);
                self.end_later(None, &why, cx);
            }
        }
    }

    /// That the device is given the refresh token is durable: gives it.
    fn hand(&mut self, cx: &mut Cx<'_>) {
        let Some(ticket) = self.ticket(cx) else {
            return;
        };
        let Some(flight) = &mut self.flight else {
            return;
        };
        let Some(session) = flight.by.as_ref().map(|candidate| candidate.session) else {
            return;
        };
        flight.tries += 1;
        flight.sent = cx.now.mono;
        flight.stage = Stage::Redeeming;
        let from_version = flight.from;
        // The frame may be on its way for as long as the request may wait to leave.
        let deadline = self.policy.timeout.min(ticket.left.saturating_sub(SEND_WITHIN));
        self.timers.set(Timer::Deadline, cx.now.mono + deadline + SEND_WITHIN);
        self.timers.set(Timer::Announce, cx.now.mono + REFRESHING_AFTER);
        self.order(Command::Hand {
            session,
            lease: ticket.lease,
            from_version,
            refresh_token: ticket.refresh_token,
            scope: ticket.scope,
            send_within: ticket.send_within,
            deadline,
        });
    }

    /// The elected device came to nothing before it was given anything: the next.
    pub(super) fn pass_over(&mut self) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        let lease = flight.lease;
        if let Some(candidate) = flight.by.take() {
            flight.passed_over.push(candidate.device);
            self.note(Note::Declined {
                device: candidate.device,
            });
        }
        if let Some(lease) = lease {
            self.nothing_sent_under(lease);
        }
        self.timers.stop(Timer::Accept);
        self.timers.stop(Timer::Deadline);
        self.timers.stop(Timer::Announce);
        self.seek_candidate();
    }

    pub(super) fn on_session_left(&mut self, session: SessionId) {
        let silence_is_no = self.is_broken(Broken::SilenceIsNo);
        let its = |flight: &&mut Flight| flight.by.as_ref().is_some_and(|candidate| candidate.session == session);
        let Some(flight) = self.flight.as_mut().filter(its) else {
            return;
        };
        match &mut flight.stage {
            Stage::Offered => self.pass_over(),
            Stage::HandingOut { gone } => *gone = true,
            // It has the refresh token: a disconnect is no outcome.
            Stage::Redeeming if silence_is_no => self.pass_over(),
            _ => {}
        }
    }

    /// A device asks for more time. Not past the deadline, which is not moved.
    pub(super) fn on_renew(&mut self, device: DeviceId, session: SessionId, lease: LeaseId, cx: &mut Cx<'_>) {
        let its = |flight: &&mut Flight| {
            let by_it = flight.by.as_ref().is_some_and(|candidate| candidate.device == device);
            let may = matches!(flight.stage, Stage::HandingOut { .. } | Stage::Redeeming);
            by_it && may && flight.lease == Some(lease)
        };
        let Some(flight) = self.flight.as_mut().filter(its) else {
            return self.order(Command::Refuse {
                session,
                lease,
                code: Code::NotElected,
            });
        };
        if let Some(candidate) = &mut flight.by {
            candidate.session = session;
        }
        self.renew(cx);
    }

    /// The answer to a renewal for a device.
    pub(super) fn extended(&mut self, held: &Result<bool, Trouble>, cx: &mut Cx<'_>) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        let (Some(candidate), Some(lease)) = (&flight.by, flight.lease) else {
            return;
        };
        let session = candidate.session;
        let asked = flight.renewing.take().unwrap_or(cx.now.mono);
        match held {
            Ok(true) => {
                flight.lapses = asked + self.policy.lease;
                let expires_in = flight.lapses.since(cx.now.mono);
                self.order(Command::Extended {
                    session,
                    lease,
                    expires_in,
                });
            }
            Ok(false) => {
                flight.lost = true;
                self.order(Command::Refuse {
                    session,
                    lease,
                    code: Code::NotElected,
                });
            }
            Err(_) => self.order(Command::Refuse {
                session,
                lease,
                code: Code::Unavailable,
            }),
        }
    }

    /// A device says that its redeem, or its election, came to nothing.
    pub(super) fn on_failed(&mut self, failure: Failure, cx: &mut Cx<'_>) {
        let Failure {
            waiter, device, lease, ..
        } = failure;
        let its = |flight: &&Flight| {
            let by_it = flight.by.as_ref().is_some_and(|candidate| candidate.device == device);
            by_it && flight.lease == Some(lease)
        };
        let Some(flight) = self.flight.as_ref().filter(its) else {
            return self.fail_elsewhere(failure);
        };
        let took = cx.now.mono.since(flight.sent);
        let stage = &flight.stage;
        let (is_offered, is_redeeming) = (matches!(stage, Stage::Offered), matches!(stage, Stage::Redeeming));
        let is_handing_out = matches!(stage, Stage::HandingOut { .. });
        self.answer(waiter, Reply::Done(self.newest()));
        let not_sent = matches!(failure.reply, ProviderReply::NotSent(_));
        if is_offered || is_redeeming && not_sent {
            self.pass_over();
        } else if is_handing_out {
            self.in_stage(Stage::HandingOut { gone: true });
        } else if is_redeeming {
            let outcome = match classify(&failure.reply) {
                // A success is published, not reported as a failure.
                Outcome::Committed(_) => Outcome::Unknown {
                    detail: "the device reports a failure with a good answer".to_owned(),
                },
                outcome => outcome,
            };
            self.judge(lease, outcome, took, cx);
        }
    }

    /// A failure under a lease that this run of this node does not hold. What the provider said is left to the rules of
    /// doubt; that nothing was sent ends the claim of a former run.
    fn fail_elsewhere(&mut self, failure: Failure) {
        let (waiter, lease) = (failure.waiter, failure.lease);
        let Some(record) = self.record() else {
            return self.answer(waiter, unknown_grant());
        };
        let version = record.version;
        let is_known = record.leases.contains(&lease) || record.former_leases.contains(&lease);
        let is_its_own = record.claim.as_ref().is_some_and(|claim| {
            let is_here = claim.holder.node == self.me.node;
            is_here && claim.lease == lease && claim.handed_to == Some(failure.device)
        });
        if is_its_own && matches!(failure.reply, ProviderReply::NotSent(_)) {
            self.nothing_sent_under(lease);
        }
        if is_known {
            return self.answer(waiter, Reply::Done(version));
        }
        if self.read_again_for(failure.into_input()).is_some() {
            self.answer(waiter, Reply::failed(Code::NotElected, "this lease was not handed out"));
        }
    }

    /// The next try of a round: the hub shows that it holds the lease, a device is elected anew.
    pub(super) fn after_rest(&mut self, cx: &mut Cx<'_>) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        let lease = flight.lease;
        if flight.by.take().is_none() {
            return self.prove(cx);
        }
        if let Some(lease) = lease {
            self.nothing_sent_under(lease);
        }
        self.seek_candidate();
    }
}

/// A device's `failed`.
pub(super) struct Failure {
    pub(super) waiter: WaiterId,
    pub(super) device: DeviceId,
    pub(super) lease: LeaseId,
    pub(super) reply: ProviderReply,
}

impl Failure {
    fn into_input(self) -> Input {
        Input::Failed {
            waiter: self.waiter,
            device: self.device,
            lease: self.lease,
            reply: self.reply,
        }
    }
}
