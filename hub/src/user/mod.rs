//! One user's live state: grants' machines, the board that devices see, sessions, and who waits.
//!
//! Everything here is behind one short lock that is never held across an await. A user with a flooding device or a dead
//! provider holds up nobody else.

mod board;
mod poller;
mod registry;
#[cfg(test)]
pub(crate) mod sample;
mod show;
mod waiter;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use lockstep_engine::{
    grant::{Candidate, Grant, WaiterId},
    record::{GrantRecord, Health as Durable},
    time::Mono,
};
use lockstep_protocol::{Close, DeviceId, GrantName, Seq, SessionId, UserId};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, OnceCell};

pub use board::{Board, Entry, Shows};
pub use poller::Poller;
pub use registry::Registry;
pub use show::{Face, Shown};
pub use waiter::Waiter;

use crate::{provider::Permit, session::Session, spool::Reserved};

/// The most grants of one user that devices may bring about: each change of one looks at all of them.
const MOST_GRANTS: usize = 1000;

/// One user.
pub struct User {
    /// Whose state this is.
    pub id: UserId,
    inner: Mutex<Inner>,
    /// Set once the store was read; whoever comes meanwhile waits for the same read.
    pub(crate) loaded: OnceCell<()>,
    /// Wakes long-polls when the board moved.
    pub changed: Notify,
}

/// What the lock guards.
pub struct Inner {
    /// What devices see.
    pub board: Arc<Board>,
    /// The grants.
    pub slots: BTreeMap<GrantName, Slot>,
    /// Records that came before one with a lower seq: shown once the gap is closed.
    held_back: BTreeMap<Seq, (GrantName, Box<GrantRecord>)>,
    /// Changes above the board's seq that are not to be shown: no gap.
    left_out: BTreeSet<Seq>,
    /// Live sessions, one a device.
    pub sessions: Vec<Arc<Session>>,
    /// Devices that long-poll.
    pub pollers: HashMap<DeviceId, Poller>,
    /// Who waits for an answer.
    pub waiters: HashMap<WaiterId, (GrantName, Waiter)>,
    /// Since when nobody has been here.
    pub idle_since: Option<Mono>,
}

/// One grant.
pub struct Slot {
    /// Its rules.
    pub machine: Grant,
    /// When the hub's timer will wake it.
    pub armed: Option<Mono>,
    /// The rights to redeem that its machine was told of, or is about to be: as a rule one.
    pub tickets: Vec<Ticket>,
    /// The last passing word.
    pub passing: Option<Word>,
}

/// A passing word: it stands until its time is over, or until there is news of its grant.
pub struct Word {
    /// The frame.
    pub frame: Bytes,
    /// The grant's seq that it is about.
    pub seq: Seq,
    /// When it ends by itself.
    pub until: Mono,
}

/// The right to redeem: held from before the claim until the machine gives it back.
pub struct Ticket {
    /// Its provider's permit, if the provider is known.
    pub permit: Option<Permit>,
    /// Room for the result in the spool.
    pub room: Reserved,
}

impl Ticket {
    /// Nothing was redeemed with it: the provider's rate has room for others instead.
    pub fn unused(self) {
        if let Some(permit) = self.permit {
            permit.unused();
        }
    }
}

impl User {
    /// A user of whom nothing is known yet.
    pub fn new(id: UserId) -> Self {
        Self {
            id,
            inner: Mutex::new(Inner {
                board: Arc::default(),
                slots: BTreeMap::new(),
                held_back: BTreeMap::new(),
                left_out: BTreeSet::new(),
                sessions: Vec::new(),
                pollers: HashMap::new(),
                waiters: HashMap::new(),
                idle_since: None,
            }),
            loaded: OnceCell::new(),
            changed: Notify::new(),
        }
    }

    /// The state. Never hold it across an await.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// What devices see now.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.lock().board)
    }

    /// Adds a session and ends the device's former one: the newer connection is the living one.
    pub fn register(&self, session: &Arc<Session>) {
        let mut inner = self.lock();
        let former = inner.sessions.iter().position(|s| s.device == session.device);
        if let Some(former) = former {
            inner.sessions.swap_remove(former).link.close(Close::Replaced);
        }
        inner.sessions.push(Arc::clone(session));
        inner.idle_since = None;
    }

    /// Removes a session by its own id, so that a late disconnect cannot evict its replacement.
    pub fn unregister(&self, session: SessionId) {
        self.lock().sessions.retain(|s| s.id != session);
    }

    /// Offers the newest board to every session, and wakes the long-polls.
    pub fn fan_out(&self, now: Mono) {
        let (board, sessions) = {
            let inner = self.lock();
            (Arc::clone(&inner.board), inner.sessions.clone())
        };
        for session in &sessions {
            session.link.offer(&board, now);
        }
        self.changed.notify_waiters();
    }

    /// Tells every session that was welcomed a passing word about what stood at `seq`.
    pub fn announce(&self, word: &Bytes, seq: Seq) {
        let sessions = self.lock().sessions.clone();
        for session in &sessions {
            session.link.mention(word, seq);
        }
    }

    /// Ends every session of a device.
    pub fn close_device(&self, device: DeviceId, close: Close) {
        let mut inner = self.lock();
        for session in inner.sessions.iter().filter(|s| s.device == device) {
            session.link.close(close);
        }
        if inner.pollers.remove(&device).is_some() {
            self.changed.notify_waiters();
        }
    }

    /// Ends every session.
    pub fn close_all(&self, close: Close) {
        for session in &self.lock().sessions {
            session.link.close(close);
        }
        self.changed.notify_waiters();
    }

    /// One session.
    pub fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.lock().sessions.iter().find(|s| s.id == id).cloned()
    }
}

impl Inner {
    /// The timer's entry for `at` has come up. False: it is not the one that counts.
    pub fn disarm(&mut self, grant: &GrantName, at: Mono) -> bool {
        let armed = self.slots.get_mut(grant).map(|slot| &mut slot.armed);
        armed.is_some_and(|armed| armed.take_if(|armed| *armed == at).is_some())
    }

    /// Whether there is such a grant. Devices need not have been shown it: half a login is shown when it is whole.
    pub fn knows(&self, grant: &GrantName) -> bool {
        let is_shown = self.board.entry(grant).is_some_and(|entry| entry.shows != Shows::Gone);
        is_shown
            || self
                .record(grant)
                .is_some_and(|record| record.health != Durable::Deleted)
    }

    /// Whether a device may not bring this grant, because it would be one too many. Tombstones count: they stay.
    pub fn is_full_for(&self, grant: &GrantName) -> bool {
        self.slots.len() >= MOST_GRANTS && !self.slots.contains_key(grant)
    }

    /// What its machine knows of a grant; of a deleted one its tombstone.
    pub fn record(&self, grant: &GrantName) -> Option<&GrantRecord> {
        self.slots.get(grant)?.machine.record()
    }

    /// The connected devices that may redeem.
    pub fn candidates(&self, now: Mono) -> Vec<Candidate> {
        // One that was not welcomed yet would take an election for a breach of protocol.
        let able = self.sessions.iter().filter(|s| s.redeemer && s.link.is_live());
        able.map(|s| Candidate {
            device: s.device,
            session: s.id,
            last_active: s.last_active(now),
            priority: s.priority,
        })
        .collect()
    }

    /// The passing words that stand.
    pub fn passing(&self, now: Mono) -> Vec<Bytes> {
        let standing = self.slots.keys().filter_map(|grant| self.word(grant, now));
        standing.map(|word| word.frame.clone()).collect()
    }

    /// The passing word about a grant, if it stands.
    pub fn word(&self, grant: &GrantName, now: Mono) -> Option<&Word> {
        let word = self.slots.get(grant)?.passing.as_ref()?;
        let is_newest = self.board.entry(grant).is_some_and(|entry| entry.seq == word.seq);
        (is_newest && word.until > now).then_some(word)
    }

    /// Drops the waiters of a session that is gone, and tells whom to tell.
    pub fn forget_waiters_of(&mut self, session: &Arc<Session>) -> Vec<(WaiterId, GrantName)> {
        let gone = self.waiters.extract_if(|_, (_, waiter)| waiter.is_of(session));
        gone.map(|(id, (grant, _))| (id, grant)).collect()
    }

    /// How many devices are connected now, by either transport. One that changes from one to the other counts once.
    pub fn connected(&self, now: Mono) -> usize {
        let has_session = |device: &DeviceId| self.sessions.iter().any(|s| s.device == *device);
        let polling = self.pollers.iter().filter(|(_, poller)| poller.is_connected(now));
        self.sessions.len() + polling.filter(|(device, _)| !has_session(device)).count()
    }

    /// Whether nothing here would be missed.
    pub fn is_idle(&self, now: Mono) -> bool {
        self.sessions.is_empty()
            && self.waiters.is_empty()
            && self.held_back.is_empty()
            && !self.pollers.values().any(|p| p.is_connected(now))
            && self
                .slots
                .values()
                .all(|slot| slot.tickets.is_empty() && slot.machine.is_idle())
    }
}
