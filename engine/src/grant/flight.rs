//! A redeem on its way, from permit to claim: at most one at a time on a node.

use std::time::Duration;

use lockstep_protocol::{Code, DeviceId, LeaseId, Version};

use super::{
    Candidate, ClaimAnswer, Command, Cx, Grant, Note, PermitAnswer, Reply, Trouble,
    ending::Ending,
    plan::{Ended, Left, Next},
    schedule::Timer,
};
use crate::{
    entropy::lease_id,
    policy::Refresher,
    record::{GrantRecord, Purpose},
    time::{Mono, Unix},
};

/// A redeem on its way.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Flight {
    /// The version to redeem.
    pub(super) from: Version,
    pub(super) purpose: Purpose,
    /// The device that redeems; none: the hub itself.
    pub(super) by: Option<Candidate>,
    /// Devices that were elected in this flight and came to nothing.
    pub(super) passed_over: Vec<DeviceId>,
    /// The claim that is asked for or held.
    pub(super) lease: Option<LeaseId>,
    /// Before the newest write was asked for that shows the lease to be held.
    pub(super) proof: Mono,
    /// When the lease lapses, by the newest write that made it stand longer.
    pub(super) lapses: Mono,
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
#[cfg_attr(test, derive(Clone))]
pub(super) enum Stage {
    /// The connected devices that may redeem are asked for.
    Candidates,
    /// There is none here; another node may have one.
    Wanted { is_over: bool },
    /// A permit is asked for, or to be asked for again.
    Permit,
    /// A claim is asked for.
    Claiming,
    /// The answer to the claim was lost; the record is read again.
    ClaimUnknown,
    /// A device was elected and has to accept.
    Offered,
    /// It accepted; that it is given the refresh token is being written. `gone`: it left meanwhile.
    HandingOut { gone: bool },
    /// The lease is renewed before another try.
    Proving,
    /// The refresh token is with the provider, or with the device.
    Redeeming,
    /// Between two tries: what was sent was not processed, and why.
    Resting(String),
    /// Somebody else redeemed it: the record is read again.
    Conflict(String),
    /// The result is being committed.
    Landing,
    /// The verdict is being written.
    Settling(Box<Ending>),
}

/// A redeem by this node whose version was overtaken while it was under way. Its result, if any, is late.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Orphan {
    pub(super) lease: LeaseId,
    pub(super) from: Version,
    pub(super) sent: Mono,
}

/// What slows further redeems of a version down. Forgotten when there is a newer one.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Brakes {
    /// Rounds that came to nothing in a row.
    pub(super) rounds: u32,
    /// Replays within the grace window that came to nothing.
    pub(super) replays: u32,
    /// The provider named a time: nobody may insist before it.
    pub(super) obey: Option<Mono>,
    /// Nothing new before this.
    pub(super) not_before: Option<Mono>,
    /// The claim of another that blocks, as it was first seen.
    blocker: Option<(LeaseId, Unix, Mono)>,
}

/// After a lost race nothing is claimed for this long.
const LOST_PAUSE: Duration = Duration::from_secs(1);
/// How many claims of ours that came to nothing are remembered.
const MOST_ENDED: usize = 8;
/// A wait for a permit that askers sit out.
const SHORT_PERMIT: Duration = Duration::from_secs(5);
/// The longest lease there is: a claim that was not renewed for longer has lapsed, whatever the clocks say.
const LONGEST_LEASE: Duration = Duration::from_secs(61);

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

    /// A claim blocks: when it must have lapsed, unless it is renewed.
    pub(super) fn blocked_by(&mut self, lease: LeaseId, expires_at: Unix, now: Mono) -> Mono {
        match self.blocker {
            Some((l, e, since)) if (l, e) == (lease, expires_at) => since + LONGEST_LEASE,
            _ => {
                self.blocker = Some((lease, expires_at, now));
                now + LONGEST_LEASE
            }
        }
    }

    /// The claim that was waited for longer than any lease lasts.
    pub(super) fn outwaited(&self, now: Mono) -> Option<(LeaseId, Unix)> {
        let (lease, expires_at, since) = self.blocker?;
        (since + LONGEST_LEASE <= now).then_some((lease, expires_at))
    }
}

impl Flight {
    /// A flight that has come as far as `stage`.
    pub(super) fn new(from: Version, now: Mono, stage: Stage) -> Self {
        Self {
            from,
            purpose: Purpose::Redeem,
            by: None,
            passed_over: Vec::new(),
            lease: None,
            proof: now,
            lapses: now,
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
        match self.policy.refresher {
            Refresher::Hub => self.seek_permit(cx),
            Refresher::Device => self.seek_candidate(),
        }
    }

    /// Who redeems is settled: permit, then claim.
    pub(super) fn seek_permit(&mut self, cx: &mut Cx<'_>) {
        if self.permit {
            return self.claim(cx);
        }
        self.in_stage(Stage::Permit);
        self.order(Command::AskPermit);
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
            PermitAnswer::After(_) | PermitAnswer::Refused { .. } if !waits => {}
            PermitAnswer::Refused { why, again } => {
                let reply = Reply::failed_until(Code::Unavailable, why, cx.now.unix + again);
                self.end_flight();
                self.rest(&reply);
            }
            PermitAnswer::After(span) if span > SHORT_PERMIT => {
                let at = cx.now.unix + span;
                let reply = Reply::failed_until(Code::Unavailable, "the provider's limit is reached", at);
                self.end_flight();
                self.rest(&reply);
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
        let (from_version, fence) = (record.version, record.fence);
        let Some(flight) = &mut self.flight else {
            return;
        };
        flight.from = from_version;
        flight.purpose = purpose;
        flight.lease = Some(lease);
        flight.proof = cx.now.mono;
        flight.lapses = cx.now.mono + self.policy.lease;
        // What may still be asked of a former lease says nothing of this one.
        flight.renewing = None;
        flight.lost = false;
        flight.stage = Stage::Claiming;
        let for_device = flight.by.is_some();
        self.order(Command::Claim {
            lease,
            from_version,
            over: case.over,
            fence,
            ttl: self.policy.lease,
            purpose,
            for_device,
            doubt: case.doubt,
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
                self.ended.clear();
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

    /// The claim stands, unless something newer than the answer says otherwise.
    fn claimed(&mut self, cx: &mut Cx<'_>) {
        let Some(flight) = &self.flight else {
            return;
        };
        let Some(lease) = flight.lease.filter(|lease| self.holds(*lease)) else {
            return self.end_flight();
        };
        let (from_version, is_for_device) = (flight.from, flight.by.is_some());
        self.note(Note::Claimed { lease, from_version });
        if is_for_device {
            self.offer(cx);
        } else {
            self.redeem(cx);
        }
    }

    /// Whether the newest record known has this claim.
    pub(super) fn holds(&self, lease: LeaseId) -> bool {
        let claim = self.record().and_then(|record| record.claim.as_ref());
        claim.is_some_and(|claim| claim.lease == lease)
    }

    /// The scheduler claimed in a batch, with a permit that comes along.
    pub(super) fn on_claimed_ahead(&mut self, record: Box<GrantRecord>, asked: Mono, cx: &mut Cx<'_>) {
        if self.permit {
            self.order(Command::ReturnPermit);
        }
        self.permit = true;
        let claim = record.claim.as_ref().map(|claim| (claim.lease, claim.purpose));
        self.absorb(record, cx);
        let Some((lease, purpose)) = claim.filter(|(lease, _)| self.holds(*lease)) else {
            return;
        };
        self.abandon_flight();
        self.nothing_sent_under(lease);
        let is_plain = self.record().is_some_and(|record| {
            let next = self.view(record, cx.now).next();
            matches!(next, Next::Redeem { purpose: p, .. } if p == purpose)
        });
        // Otherwise whatever there is to do is done over it.
        if is_plain && self.landings.is_empty() && self.policy.refresher == Refresher::Hub {
            self.ended.clear();
            self.flight = Some(Flight {
                purpose,
                lease: Some(lease),
                lapses: asked + self.policy.lease,
                ..Flight::new(self.newest(), asked, Stage::Claiming)
            });
            self.claimed(cx);
        }
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

    /// Ends the flight; what it has under way is late from now on.
    pub(super) fn abandon_flight(&mut self) {
        if let Some(flight) = &self.flight
            && let (Stage::Redeeming, Some(lease), None) = (&flight.stage, flight.lease, &flight.by)
        {
            self.orphans.push(Orphan {
                lease,
                from: flight.from,
                sent: flight.sent,
            });
        }
        self.end_flight();
    }

    pub(super) fn in_stage(&mut self, stage: Stage) {
        if let Some(flight) = &mut self.flight {
            flight.stage = stage;
        }
    }

    /// Certainly nothing was sent under this claim of ours, or what was sent was certainly not processed: it may be replaced
    /// without further doubt.
    pub(super) fn nothing_sent_under(&mut self, lease: LeaseId) {
        self.ends(Ended {
            lease,
            left: Left::AsRecorded,
            drop_alternate: false,
        });
    }

    /// Remembers what became of a claim of ours, beside others that may still stand or turn up.
    pub(super) fn ends(&mut self, ended: Ended) {
        self.ended.retain(|other| other.lease != ended.lease);
        if self.ended.len() >= MOST_ENDED {
            // It is judged as a claim without outcome, once it has lapsed.
            self.ended.remove(0);
        }
        self.ended.push(ended);
    }

    /// The version moved, or the grant is gone, while a flight was under way.
    pub(super) fn flight_overtaken(&mut self, version: Version, gone: bool) {
        self.ended.clear();
        if self
            .flight
            .as_ref()
            .is_some_and(|flight| gone || flight.from != version)
        {
            self.abandon_flight();
        }
    }

    pub(super) fn flight_after_reading(&mut self, cx: &mut Cx<'_>) {
        let Some(flight) = &self.flight else {
            return;
        };
        let stands = flight.lease.is_some_and(|lease| self.holds(lease));
        match &flight.stage {
            Stage::ClaimUnknown if stands => {
                self.ended.clear();
                self.claimed(cx);
            }
            Stage::ClaimUnknown => {
                self.brakes.lost_race(cx.now.mono);
                self.claim_not_seen();
            }
            Stage::Conflict(detail) => {
                let reason = format!("the provider refused the refresh token: {detail}");
                self.end_conflict(reason, cx);
            }
            Stage::Wanted { is_over: true } => self.after_wanted(cx),
            Stage::Settling(ending) if ending.is_unknown && stands => self.settle_again(),
            Stage::Settling(ending) if ending.is_unknown => self.end_flight(),
            _ => {}
        }
    }

    pub(super) fn flight_without_reading(&mut self, cx: &mut Cx<'_>) {
        match self.flight.as_ref().map(|flight| &flight.stage) {
            Some(Stage::ClaimUnknown) => {
                self.claim_not_seen();
                self.store_trouble("the store cannot be read", cx);
            }
            Some(Stage::Wanted { is_over: true }) => self.store_trouble("the store cannot be read", cx),
            _ => {}
        }
    }

    /// The claim was asked for and not seen. Nothing was sent under it; should it turn up after all, it may be replaced.
    fn claim_not_seen(&mut self) {
        if let Some(lease) = self.flight.as_ref().and_then(|flight| flight.lease) {
            self.nothing_sent_under(lease);
        }
        self.end_flight();
    }
}
