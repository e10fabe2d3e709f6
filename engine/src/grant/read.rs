//! Reading the record, and what follows when it is news.

use std::{collections::VecDeque, time::Duration};

use lockstep_protocol::{Code, Version, frame::Cause};

use super::{Command, Cx, Grant, Input, Note, Reply, Trouble, WaiterId, broken::Broken, schedule::Timer};
use crate::{
    entropy::up_to,
    record::{GrantRecord, Health},
};

/// Reading, and what waits for it.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Reads {
    /// A [`Command::Load`] is not answered yet.
    pending: bool,
    /// How many came to nothing in a row.
    failures: u32,
    /// What came before the record was known.
    deferred: VecDeque<Input>,
    /// What names a version or lease that is not known: to be judged once the store was read again.
    again: Vec<Input>,
    /// That was done just now.
    is_fresh: bool,
}

impl Reads {
    /// How many inputs wait for the first reading, and how many asks for another.
    const MOST: usize = 16_384;
    /// How often a reading is tried before those who wait for it are told.
    const TRIES: u32 = 3;

    pub(super) fn is_idle(&self) -> bool {
        !self.pending && self.deferred.is_empty() && self.again.is_empty()
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }
}

impl Grant {
    /// Puts off an input that cannot be judged before the record is known.
    pub(super) fn after_read(&mut self, input: Input) -> Option<Input> {
        let needs_record = matches!(
            input,
            Input::Ask(_)
                | Input::Login { .. }
                | Input::Publish { .. }
                | Input::Failed { .. }
                | Input::FromSpool { .. }
        );
        if self.known.read || !needs_record {
            return Some(input);
        }
        self.load();
        if self.reads.deferred.len() < Reads::MOST {
            self.reads.deferred.push_back(input);
        } else if let Some(waiter) = waiter_of(&input) {
            self.answer(
                waiter,
                Reply::failed(Code::Unavailable, "too many requests wait for this grant"),
            );
        }
        None
    }

    /// Reads the record, unless that is under way.
    pub(super) fn load(&mut self) {
        if !self.reads.pending {
            self.reads.pending = true;
            self.timers.stop(Timer::Load);
            self.order(Command::Load);
        }
    }

    /// Reads the record and judges `input` once more then: it names something that is not known. Gives the input back when
    /// the record was read for its sake already.
    pub(super) fn read_again_for(&mut self, input: Input) -> Option<Input> {
        if self.reads.is_fresh {
            return Some(input);
        }
        self.load();
        if self.reads.again.len() < Reads::MOST {
            self.reads.again.push(input);
        } else if let Some(waiter) = waiter_of(&input) {
            self.answer(
                waiter,
                Reply::failed(Code::Unavailable, "too many requests wait for this grant"),
            );
        }
        None
    }

    /// Forgets what `waiter` put off.
    pub(super) fn forget_deferred(&mut self, waiter: WaiterId) {
        let is_other = |input: &Input| !matches!(input, Input::Ask(ask) if ask.waiter == Some(waiter));
        self.reads.deferred.retain(is_other);
        self.reads.again.retain(is_other);
    }

    pub(super) fn on_read(&mut self, answer: Result<Option<Box<GrantRecord>>, Trouble>, cx: &mut Cx<'_>) {
        self.reads.pending = false;
        match answer {
            Ok(record) => {
                self.reads.failures = 0;
                self.known.read = true;
                match record {
                    Some(record) => self.absorb(record, cx),
                    None => self.known.record = None,
                }
                self.after_reading(cx);
            }
            Err(trouble) => self.on_unreadable(&trouble, cx),
        }
    }

    /// A reading that nobody ordered. It may be older than what the one under way is to tell: that is still waited for.
    pub(super) fn on_seen(&mut self, record: Box<GrantRecord>, cx: &mut Cx<'_>) {
        if self.reads.pending || self.timers.is_set(Timer::Load) {
            self.absorb(record, cx);
        } else {
            self.on_read(Ok(Some(record)), cx);
        }
    }

    fn after_reading(&mut self, cx: &mut Cx<'_>) {
        self.flight_after_reading(cx);
        self.landings_after_reading(cx);
        self.login_after_reading(cx);
        self.reads.is_fresh = true;
        for input in std::mem::take(&mut self.reads.again) {
            self.take(input, cx);
        }
        self.reads.is_fresh = false;
        for input in std::mem::take(&mut self.reads.deferred) {
            self.take(input, cx);
        }
    }

    fn on_unreadable(&mut self, trouble: &Trouble, cx: &mut Cx<'_>) {
        self.reads.failures += 1;
        let wait = Duration::from_millis(100) * 2_u32.pow(self.reads.failures.min(6));
        self.timers
            .set(Timer::Load, cx.now.mono + wait / 2 + up_to(cx.entropy, wait / 2));
        if self.reads.failures < Reads::TRIES {
            return;
        }
        self.flight_without_reading(cx);
        self.landings_without_reading(cx);
        self.login_without_reading(cx);
        let reply = Reply::failed_until(
            Code::Unavailable,
            trouble.to_string(),
            cx.now.unix + Duration::from_secs(2),
        );
        self.fail_waiters(&reply);
        let deferred = std::mem::take(&mut self.reads.deferred);
        let again = std::mem::take(&mut self.reads.again);
        let waiters = deferred.iter().chain(&again).filter_map(waiter_of);
        for waiter in waiters.collect::<Vec<_>>() {
            self.answer(waiter, reply.clone());
        }
        // What waits without a voice (a spooled result) keeps the reading going.
        self.reads
            .deferred
            .extend(deferred.into_iter().filter(|input| waiter_of(input).is_none()));
        if !self.needs_reading() {
            self.timers.stop(Timer::Load);
        }
    }

    fn needs_reading(&self) -> bool {
        let deferred = !self.reads.deferred.is_empty();
        deferred || self.flight.is_some() || !self.landings.is_empty() || !self.logins.is_idle()
    }

    /// Takes in a record, if it is newer than the one known.
    pub(super) fn absorb(&mut self, record: Box<GrantRecord>, cx: &mut Cx<'_>) {
        let before = self.known.record.as_ref().map(|known| (known.revision, known.version));
        let is_old = before.is_some_and(|(revision, _)| revision >= record.revision);
        if is_old && !self.is_broken(Broken::BelieveOldReadings) {
            return;
        }
        let moved = before.is_none_or(|(_, version)| version != record.version);
        let gone = record.health == Health::Deleted;
        let adopted = moved && before.is_some() && self.flight.is_some() && !self.is_ours(&record);
        let version = record.version;
        self.known.record = Some(record);
        if moved || gone {
            self.flight_overtaken(version, gone);
        }
        if moved {
            self.evidence.new_version(cx.now.mono);
            self.brakes = super::flight::Brakes::default();
        }
        if adopted {
            self.note(Note::Adopted { version });
        }
        self.push();
        self.answer_satisfied();
    }

    fn is_ours(&self, record: &GrantRecord) -> bool {
        let by = record.committed_by;
        by.is_some() && self.flight.as_ref().is_some_and(|flight| flight.lease == by)
    }

    /// Tells the devices, if there is something that they were not told.
    fn push(&mut self) {
        let Some(record) = &self.known.record else {
            return;
        };
        if self.known.pushed.is_some_and(|seq| seq >= record.seq) {
            return;
        }
        if is_half(record) {
            let seq = record.seq;
            return self.order(Command::Unshown(seq));
        }
        self.known.pushed = Some(record.seq);
        let record = record.clone();
        self.order(Command::Push(record));
    }

    fn answer_satisfied(&mut self) {
        let Some(record) = &self.known.record else {
            return;
        };
        if record.health == Health::Deleted {
            self.wanted = None;
            self.fail_waiters(&unknown_grant());
            return;
        }
        if record.tokens.as_ref().is_none_or(|t| t.access_token.is_none()) {
            return;
        }
        let version = record.version;
        self.wanted = self.wanted.filter(|wanted| *wanted >= version);
        for waiter in self.waiters.satisfied(version) {
            self.answer(waiter, Reply::Done(version));
        }
    }

    /// The newest version, 0 when there is no grant.
    pub(super) fn newest(&self) -> Version {
        self.record().map_or(Version(0), |record| record.version)
    }
}

/// Half a login: only a refresh token came, and is redeemed at once. What devices hold is better than that.
fn is_half(record: &GrantRecord) -> bool {
    let has_access = record.tokens.as_ref().is_some_and(|t| t.access_token.is_some());
    record.health == Health::Ok && record.cause == Cause::Login && !has_access && record.reason.is_none()
}

pub(super) fn unknown_grant() -> Reply {
    Reply::failed(Code::UnknownGrant, "there is no such grant")
}

fn waiter_of(input: &Input) -> Option<WaiterId> {
    match input {
        Input::Ask(ask) => ask.waiter,
        Input::Login { waiter, .. } | Input::Publish { waiter, .. } | Input::Failed { waiter, .. } => Some(*waiter),
        _ => None,
    }
}
