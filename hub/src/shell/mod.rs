//! The shell around the engine: the one place where inputs go in and commands are executed.
//!
//! [`Hub::tell`] gives a grant's machine an input under the user's lock and carries out at once what needs no waiting:
//! showing, answering, asking for candidates, sending to one session. What waits (store, provider, spool) runs in a task
//! of its own ([`effects`]) and comes back as the next input.

mod direct;
mod effects;
mod seal;
pub(crate) mod timers;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use lockstep_engine::{
    entropy::Entropy,
    grant::{Command, Grant, Input, Note, Passing, Reply},
    time::{Mono, Now},
};
use lockstep_protocol::{
    Cursor, GrantName, HubFrame, LeaseId, Seq, SessionId, Version, encode,
    frame::{Health, Status},
};

pub use timers::Timers;

use crate::{
    app::Hub,
    audit::{By, Event},
    clock,
    cluster::Fact,
    telemetry,
    transport::text,
    user::{Inner, Shown, Slot, User, Waiter, Word},
};

/// The operating system's randomness.
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn bits(&mut self) -> u64 {
        rand::random()
    }
}

/// What is left to do once the lock is released.
#[derive(Default)]
struct After {
    moved: bool,
    gap: bool,
    wanted: bool,
    announce: Vec<(Bytes, Seq)>,
    answers: Vec<(Waiter, Reply)>,
    direct: Vec<(SessionId, HubFrame)>,
    effects: Vec<Command>,
    notes: Vec<Note>,
    redeems: Vec<Redeemed>,
    arm: Option<Mono>,
}

/// A redeem that came to an end, for the audit log.
struct Redeemed {
    version: Version,
    lease: LeaseId,
    by: By,
    outcome: &'static str,
}

impl Hub {
    /// Tells a grant's machine something, and does what it orders.
    pub fn tell(self: &Arc<Self>, user: &Arc<User>, grant: &GrantName, input: Input) {
        let now = clock::now();
        let mut after = After::default();
        self.decide(&mut user.lock(), grant, input, now, &mut after);
        for note in &after.notes {
            telemetry::note(&user.id, grant, note);
        }
        for redeemed in after.redeems {
            self.audit.record(Event::Redeem {
                user: user.id.clone(),
                grant: grant.clone(),
                version: redeemed.version,
                lease: redeemed.lease,
                by: redeemed.by,
                outcome: redeemed.outcome.to_owned(),
            });
        }
        if after.moved {
            user.fan_out(now.mono);
            self.bus.tell(Fact::Moved {
                user: user.id.clone(),
                seq: user.board().seq,
            });
        }
        for (word, seq) in &after.announce {
            user.announce(word, *seq);
        }
        for (session, frame) in &after.direct {
            if let Some(session) = user.session(*session) {
                session.say(frame);
            }
        }
        if !after.answers.is_empty() {
            let board = user.board();
            for (waiter, reply) in after.answers {
                waiter.answer(&board, grant, reply, now.mono);
            }
        }
        for command in after.effects {
            self.start(user, grant, command);
        }
        if after.gap {
            self.reload(user);
        }
        if after.wanted {
            self.bus.tell(Fact::Wanted {
                user: user.id.clone(),
                grant: grant.clone(),
            });
        }
        if let Some(at) = after.arm {
            self.timers.arm(at, user.id.clone(), grant.clone());
        }
    }

    fn decide(&self, inner: &mut Inner, grant: &GrantName, input: Input, now: Now, after: &mut After) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.slot(inner, grant).machine.handle(input, now, &mut OsEntropy);
            while let Some(command) = self.slot(inner, grant).machine.next_command() {
                self.carry_out(inner, grant, command, now, after, &mut inputs);
            }
        }
        let slot = self.slot(inner, grant);
        slot.passing.take_if(|_| !slot.machine.is_refreshing());
        let due = slot.machine.next_timeout();
        if due.is_some_and(|at| slot.armed.is_none_or(|armed| at < armed)) {
            slot.armed = due;
            after.arm = due;
        }
    }

    /// The grant's slot, made if it is new.
    pub fn slot<'a>(&self, inner: &'a mut Inner, grant: &GrantName) -> &'a mut Slot {
        // Looked up twice, because a name is cloned only for a new slot.
        if !inner.slots.contains_key(grant) {
            let slot = Slot {
                machine: Grant::new(self.me.clone(), self.policy(grant)),
                armed: None,
                tickets: Vec::new(),
                passing: None,
            };
            inner.slots.insert(grant.clone(), slot);
        }
        #[expect(clippy::expect_used, reason = "inserted just above, under the same lock")]
        inner.slots.get_mut(grant).expect("slot exists")
    }

    /// Does at once what needs no waiting; the rest is left for after the lock.
    fn carry_out(
        &self,
        inner: &mut Inner,
        grant: &GrantName,
        command: Command,
        now: Now,
        after: &mut After,
        inputs: &mut VecDeque<Input>,
    ) {
        match command {
            Command::Push(record) => match self.show(inner, grant, record, now) {
                Shown::Moved => after.moved = true,
                Shown::Gap => after.gap = true,
                Shown::Old => {}
            },
            Command::Unshown(seq) => inner.leave_out(seq),
            Command::Announce(passing) => {
                if let Some(word) = self.passing_word(inner, grant, &passing, now.mono) {
                    after.announce.push((word.frame.clone(), inner.board.seq));
                    self.slot(inner, grant).passing = Some(word);
                }
            }
            Command::Answer { waiter, reply } => {
                if let Some((_, who)) = inner.waiters.remove(&waiter) {
                    after.answers.push((who, reply));
                }
            }
            Command::ReturnPermit => drop(self.slot(inner, grant).tickets.pop()),
            Command::AskCandidates => {
                let here = inner.candidates(now.mono);
                let others = self.bus.others_live();
                inputs.push_back(Input::Candidates { here, others });
            }
            Command::Note(note) => {
                after.redeems.extend(self.take_down(inner, grant, &note));
                after.notes.push(note);
            }
            Command::Wanted => after.wanted = true,
            Command::Elect { .. } | Command::Hand { .. } | Command::Extended { .. } | Command::Refuse { .. } => {
                after.direct.extend(self.direct(grant, command));
            }
            waits => after.effects.push(waits),
        }
    }

    /// What is worth a record in the audit log.
    fn take_down(&self, inner: &mut Inner, grant: &GrantName, note: &Note) -> Option<Redeemed> {
        let Note::Redeemed { lease, outcome, .. } = note else {
            return None;
        };
        let record = self.slot(inner, grant).machine.record()?;
        let handed_to = record.claim.as_ref().and_then(|claim| claim.handed_to);
        Some(Redeemed {
            version: record.version,
            lease: *lease,
            by: handed_to.map_or(By::Hub, By::Device),
            outcome,
        })
    }

    fn passing_word(&self, inner: &Inner, grant: &GrantName, passing: &Passing, now: Mono) -> Option<Word> {
        let entry = inner.board.entry(grant)?;
        let status = HubFrame::Status(Status {
            grant: grant.clone(),
            version: entry.version,
            seq: entry.seq,
            cursor: Cursor {
                epoch: self.epoch(),
                seq: entry.seq,
            },
            health: Health::Refreshing,
            refreshing_by: passing.refreshing_by,
            lease_expires_in: Some(passing.lease_expires_in.as_secs().max(1)),
            reason: None,
            retry_at: None,
            login_url: None,
        });
        Some(Word {
            frame: text::framed(&encode(&status)),
            seq: entry.seq,
            until: now + passing.lease_expires_in,
        })
    }
}
