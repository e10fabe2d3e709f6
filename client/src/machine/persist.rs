//! What is on disk, and what an ack may therefore say.

use lockstep_protocol::{Cursor, GrantName, Seq};

use super::{Command, Machine, held::Register};
use crate::{
    clock::{HubClock, Now, Unix},
    event::Event,
};

/// What is worth keeping of the machine.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) cursor: Option<Cursor>,
    pub(crate) clock: HubClock,
    /// Until when WebSockets are taken to be blocked here.
    pub(crate) blocked_until: Option<Unix>,
    pub(crate) grants: Vec<(GrantName, Register)>,
    pub(crate) taken: Now,
}

#[derive(Debug)]
pub(crate) struct Persist {
    on: bool,
    dirty: bool,
    /// The write under way: its mark, and the seq that it holds.
    writing: Option<(u64, Seq)>,
    last: u64,
    durable: Seq,
}

impl Persist {
    pub(crate) const fn new(on: bool) -> Self {
        Self {
            on,
            dirty: false,
            writing: None,
            last: 0,
            durable: Seq(0),
        }
    }

    /// Something that is worth keeping changed.
    pub(crate) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// How far an ack may go.
    pub(crate) fn durable(&self, newest: Seq) -> Seq {
        if self.on { self.durable.min(newest) } else { newest }
    }

    /// The mark of the write that will hold everything of now; none when that is on disk already.
    pub(crate) const fn pending(&self) -> Option<u64> {
        match (self.on, self.dirty, &self.writing) {
            (false, ..) | (true, false, None) => None,
            (true, false, Some((mark, _))) => Some(*mark),
            // The write under way is one behind.
            (true, true, _) => Some(self.last + 1),
        }
    }
}

impl Machine {
    /// Starts a write if there is something to write and none is under way: the newest only, never a queue.
    pub(super) fn persist(&mut self, now: Now, out: &mut Vec<Command>) {
        let persist = &mut self.persist;
        if !persist.on || !persist.dirty || persist.writing.is_some() || self.held.cursor().is_none() {
            return;
        }
        persist.dirty = false;
        persist.last += 1;
        persist.writing = Some((persist.last, self.held.newest()));
        out.push(Command::Persist {
            mark: persist.last,
            snapshot: Box::new(Snapshot {
                cursor: self.held.cursor(),
                blocked_until: self.route.blocked_until(),
                grants: self.held.iter().map(|(name, r)| (name.clone(), r.clone())).collect(),
                clock: self.held.clock,
                taken: now,
            }),
        });
    }

    pub(super) fn persisted(&mut self, mark: u64, kept: Result<(), String>, now: Now, out: &mut Vec<Command>) {
        if let Some((writing, seq)) = self.persist.writing
            && writing == mark
        {
            self.persist.writing = None;
            // Without a disk the device still holds it; not to ack would only end the session.
            self.persist.durable = seq;
            self.poller.persisted(mark, now);
        }
        if let Err(reason) = kept {
            out.push(Command::Event(Event::CacheTrouble { reason }));
        }
    }
}
