//! Somebody wants a newer version.

use std::time::Duration;

use lockstep_protocol::{Code, DeviceId, LeaseId};

use super::{
    Ask, Asker, Cx, Grant, Input, Note, Reply, WaiterId,
    broken::Broken,
    plan::{Next, View},
    read::unknown_grant,
    schedule::Timer,
    view,
    waiters::Waiter,
};
use crate::{
    policy::Refresher,
    record::{GrantRecord, Health},
    time::{Now, Unix},
};

/// A wait for a late result that askers sit out; they are told of a longer one.
const SHORT_WAIT: Duration = Duration::from_secs(5);
/// How much later than by this node's reckoning another's claim is tried: the store's own clock decides.
const LAPSE_MARGIN: Duration = Duration::from_millis(300);

impl Grant {
    pub(super) fn on_ask(&mut self, ask: Ask, cx: &mut Cx<'_>) {
        let Some(record) = self.record() else {
            return self.reply(ask.waiter, unknown_grant());
        };
        if record.health == Health::Deleted {
            return self.reply(ask.waiter, unknown_grant());
        }
        let newest = record.version;
        let usable = view::is_servable(record, cx.now.unix);
        match ask.rejected {
            // Not evidence: the store knows better, or went back in time.
            Some(rejected) if rejected > newest => {
                return match self.read_again_for(Input::Ask(ask)) {
                    None => {}
                    Some(_) => self.reply(ask.waiter, Reply::Done(newest)),
                };
            }
            Some(rejected) if rejected < newest && usable => return self.reply(ask.waiter, Reply::Done(newest)),
            _ if ask.by == Asker::Node && self.policy.refresher == Refresher::Hub => return,
            None if ask.by == Asker::Scheduler && record.due_at.is_none_or(|at| at > cx.now.unix) => {
                return self.reply(ask.waiter, Reply::Done(newest));
            }
            _ => {}
        }
        if let Asker::Device {
            device,
            acked,
            connected,
        } = ask.by
            && let Some(at) = self.weigh(device, acked.then_some(connected), cx.now)
        {
            self.note(Note::Limited { device });
            let message = "a newer token was committed only just now; it is not replaced so soon";
            return self.reply(ask.waiter, Reply::failed_until(Code::RateLimited, message, at));
        }
        self.enlist(&ask, cx);
    }

    /// Weighs a device's word against the newest version. Some: too soon, and when it would not be.
    fn weigh(&mut self, device: DeviceId, acked_of: Option<usize>, now: Now) -> Option<Unix> {
        let record = self.known.record.as_deref()?;
        if !view::is_servable(record, now.unix) || self.flight.is_some() {
            return None;
        }
        if record.health == Health::Suspect || record.doubt.is_some() {
            if let Some(connected) = acked_of {
                self.evidence.witness(device, connected);
            }
            return None;
        }
        let too_soon = self.evidence.too_soon(record, &self.policy, now);
        self.evidence.rejected |= too_soon.is_none();
        too_soon
    }

    fn enlist(&mut self, ask: &Ask, cx: &mut Cx<'_>) {
        let newest = self.newest();
        let is_wanted = self.wanted.is_some() || !self.waiters.is_empty();
        self.for_other_node = ask.by == Asker::Node && (self.for_other_node || !is_wanted);
        let Some(id) = ask.waiter else {
            self.wanted = Some(newest);
            return;
        };
        self.wait_beyond(newest, id, ask.by, cx);
    }

    /// Lets `id` wait for a version above `beyond`.
    pub(super) fn wait_beyond(&mut self, beyond: lockstep_protocol::Version, id: WaiterId, by: Asker, cx: &mut Cx<'_>) {
        let until = cx.now.mono + self.patience();
        let waiter = Waiter { id, by, beyond, until };
        if let Err(id) = self.waiters.add(waiter) {
            let reply = Reply::failed(Code::Unavailable, "too many wait for this grant");
            return self.answer(id, reply);
        }
        if !self.timers.is_set(Timer::Waiters) {
            self.timers.set(Timer::Waiters, until);
        }
    }

    /// How long a waiter waits: another's lease, then a round of our own.
    fn patience(&self) -> Duration {
        self.policy.lease + self.policy.timeout * 3 + Duration::from_secs(15)
    }

    pub(super) fn on_left(&mut self, waiter: WaiterId) {
        if self.waiters.remove(waiter) && self.flight.is_none() {
            // Whatever was started for it goes on; if that is a wait for another's claim, so does that.
            self.wanted = self.wanted.or(self.record().map(|record| record.version));
        }
        self.forget_deferred(waiter);
    }

    fn reply(&mut self, waiter: Option<WaiterId>, reply: Reply) {
        if let Some(waiter) = waiter {
            self.answer(waiter, reply);
        }
    }

    pub(super) fn fail_waiters(&mut self, reply: &Reply) {
        for waiter in self.waiters.all() {
            self.answer(waiter, reply.clone());
        }
        self.timers.stop(Timer::Waiters);
    }

    pub(super) fn expire_waiters(&mut self, cx: &mut Cx<'_>) {
        let overdue = self.waiters.overdue(cx.now.mono);
        if !overdue.is_empty() && self.timers.is_set(Timer::Lapse) {
            self.note(Note::LeaseWaitTimeout);
        }
        for waiter in overdue {
            let again = cx.now.unix + SHORT_WAIT;
            let reply = Reply::failed_until(Code::Unavailable, "the redeem takes too long to wait for", again);
            self.answer(waiter, reply);
        }
        if let Some(at) = self.waiters.next() {
            self.timers.set(Timer::Waiters, at);
        }
    }

    /// Does what there is to do, for those who wait or because a claim is to be judged.
    pub(super) fn pursue(&mut self, cx: &mut Cx<'_>) {
        if self.is_busy(cx) {
            return;
        }
        let Some(record) = self.record() else {
            if self.known.read {
                self.wanted = None;
                self.fail_waiters(&unknown_grant());
            }
            return;
        };
        let view = self.view(record, cx.now);
        if self.waiters.is_empty() && self.wanted.is_none() && !view.is_to_be_judged() {
            return;
        }
        let next = view.next();
        let reason = record.reason.clone();
        self.timers.stop(Timer::Lapse);
        if let Some(at) = self.brakes.holds_back(cx.now.mono) {
            return self.timers.set(Timer::Again, at);
        }
        match next {
            Next::Gone => self.rest(&unknown_grant()),
            Next::LogIn => self.rest(&log_in(reason)),
            Next::Blocked { lease, until } => self.await_lapse(lease, until, cx),
            Next::Redeem { purpose, .. } => self.launch(purpose, cx),
            Next::Later { case, at } => {
                let reason = reason.unwrap_or_else(|| "the provider is unavailable".to_owned());
                self.stand_still(&case, &Reply::failed_until(Code::Unavailable, reason, at), cx);
            }
            Next::NoRefreshToken { case } => {
                let reply = Reply::failed(Code::ReauthRequired, "the grant has no refresh token");
                self.stand_still(&case, &reply, cx);
            }
            Next::Serve { case } => self.serve(case, cx),
            Next::AwaitLate { case, until } => self.await_late(case, until, cx),
            Next::GiveUp { case, reason } => self.give_up(case, reason, cx),
        }
    }

    /// Whether something is under way whose end decides what comes next.
    fn is_busy(&mut self, cx: &Cx<'_>) -> bool {
        if self.is_kept_waiting() || self.is_settling_again() {
            let at = cx.now.unix + SHORT_WAIT;
            let reply = "what came of a redeem waits for the store to take writes again";
            self.rest(&Reply::failed_until(Code::Unavailable, reply, at));
        }

        let landing = !self.landings.is_empty() || !self.deletes.is_empty() || !self.logins.is_idle();
        landing || self.flight.is_some() || self.reads.is_pending()
    }

    pub(super) fn view<'a>(&'a self, record: &'a GrantRecord, now: Now) -> View<'a> {
        View {
            record,
            me: &self.me,
            policy: &self.policy,
            now: now.unix,
            ended: &self.ended,
            dead: self.evidence.dead,
            outwaited: self.brakes.outwaited(now.mono),
            broken: self.broken(),
            insist: self.waiters.has_operator() && !self.brakes.must_obey(now.mono),
        }
    }

    /// Nothing is to be done: tells those who wait.
    pub(super) fn rest(&mut self, reply: &Reply) {
        self.wanted = None;
        if self.is_broken(Broken::ForgetWaiters) {
            let _ = self.waiters.all();
        }
        self.fail_waiters(reply);
    }

    fn await_lapse(&mut self, lease: LeaseId, until: Unix, cx: &mut Cx<'_>) {
        self.wanted = self.wanted.or(self.record().map(|record| record.version));
        let by_clock = cx.now.mono + until.since(cx.now.unix) + LAPSE_MARGIN;
        let by_waiting = self.brakes.blocked_by(lease, until, cx.now.mono);
        self.timers.set(Timer::Lapse, by_clock.min(by_waiting));
    }

    fn await_late(&mut self, case: super::plan::Case, until: Unix, cx: &mut Cx<'_>) {
        let span = until.since(cx.now.unix);
        let is_conflict = case.doubt.as_ref().is_some_and(|doubt| doubt.conflict);
        let is_short = is_conflict && span <= SHORT_WAIT;
        let reply = suspect(case.doubt.as_ref().map(|doubt| doubt.reason.clone()), Some(until));
        if self.must_settle(&case) {
            return self.settle_doubt(case, Some(until), is_short, reply, cx);
        }
        if !is_short {
            self.fail_waiters(&reply);
        }
        self.wanted = self.record().map(|record| record.version);
        self.timers.set(Timer::Doubt, cx.now.mono + span);
    }

    fn serve(&mut self, case: super::plan::Case, cx: &mut Cx<'_>) {
        let until = self.record().and_then(|record| record.expires_at);
        let reply = suspect(case.doubt.as_ref().map(|doubt| doubt.reason.clone()), until);
        if self.must_settle(&case) {
            return self.settle_doubt(case, until, false, reply, cx);
        }
        self.rest(&reply);
    }
}

fn log_in(reason: Option<String>) -> Reply {
    let reason = reason.unwrap_or_else(|| "somebody must log in again".to_owned());
    Reply::failed(Code::ReauthRequired, reason)
}

fn suspect(reason: Option<String>, until: Option<Unix>) -> Reply {
    Reply::Failed {
        code: Code::Suspect,
        message: reason.unwrap_or_else(|| "the outcome of a redeem is unknown".to_owned()),
        retry_at: until,
    }
}
