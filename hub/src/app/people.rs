//! Users coming and going: loading, marking, evicting.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use lockstep_engine::{grant::Input, record::GrantRecord};
use lockstep_protocol::{Cursor, DeviceId, GrantName, UserId};

use super::Hub;
use crate::{
    clock,
    session::Session,
    store::StoreError,
    user::{Shown, User},
};

/// How long a user with nothing to do stays resident.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// In how many parts everything that is connected is marked: all at once would hold up pushes for tens of milliseconds.
const PARTS: usize = 30;

/// Residents whose connected devices are yet to be marked in this round, and how many parts of it are left.
#[derive(Default)]
pub(super) struct Round {
    users: Vec<Weak<User>>,
    parts: usize,
}

impl Round {
    /// The next part of the round; the first of a new one begins with `all`.
    fn next(&mut self, all: impl FnOnce() -> Vec<Arc<User>>) -> Vec<Arc<User>> {
        if self.parts == 0 {
            self.users = all().iter().map(Arc::downgrade).collect();
            self.parts = PARTS;
        }
        let some = self.users.len().div_ceil(self.parts);
        self.parts -= 1;
        let left = self.users.len() - some;
        self.users.drain(left..).filter_map(|user| user.upgrade()).collect()
    }
}

impl Hub {
    /// A user, resident and read from the store. Whoever asks meanwhile waits for the same read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn user(self: &Arc<Self>, id: &UserId) -> Result<Arc<User>, StoreError> {
        let user = self.users.get(id);
        user.loaded.get_or_try_init(|| self.read(&user)).await?;
        Ok(user)
    }

    /// Reads a user again, because a change is missing between those that are known, or a fact told of one.
    pub fn reload(self: &Arc<Self>, user: &Arc<User>) {
        let (hub, user) = (Arc::clone(self), Arc::clone(user));
        self.tasks.spawn(async move {
            if let Err(error) = hub.read(&user).await {
                tracing::warn!(user = %user.id, %error, "a user could not be read again; the sweep will");
            }
        });
    }

    /// Reads a user again if a device says that it holds more than is known here: another node was quicker. False: the
    /// store cannot be asked, so the device may well be right.
    pub async fn catch_up(self: &Arc<Self>, user: &Arc<User>, cursor: Option<&str>) -> bool {
        let cursor: Option<Cursor> = cursor.and_then(|cursor| cursor.parse().ok());
        let is_ahead = cursor.is_some_and(|cursor| cursor.epoch == self.epoch() && cursor.seq > user.board().seq);
        if !is_ahead {
            return true;
        }
        let read = self.read(user).await;
        if let Err(error) = &read {
            tracing::warn!(user = %user.id, %error, "a device holds more than is known here, and the store cannot be asked");
        }
        read.is_ok()
    }

    async fn read(self: &Arc<Self>, user: &Arc<User>) -> Result<(), StoreError> {
        let state = self.store.user(&user.id).await?.unwrap_or_default();
        let opened = state.grants.into_iter().filter_map(|(grant, row)| {
            // One that cannot be opened is named in the log and harms no other.
            let record = self.open_record(&user.id, &grant, row).ok()?;
            Some((grant, *record))
        });
        let records: Vec<(GrantName, GrantRecord)> = opened.collect();
        let now = clock::now();
        let shown = self.show_all(&mut user.lock(), state.seq, &records, now);
        if shown == Shown::Moved {
            user.fan_out(now.mono);
        }
        for (grant, record) in records {
            self.tell(user, &grant, Input::Seen(Box::new(record)));
        }
        Ok(())
    }

    /// A device is here.
    pub fn arrived(&self, user: &User, device: DeviceId) {
        self.mark_used(user);
        self.mark_seen(device, lockstep_protocol::Seq(0));
    }

    /// A session ended.
    pub fn left(&self, user: &User, session: &Session) {
        self.mark_used(user);
        self.mark_seen(session.device, session.acked());
    }

    /// Marks a part of what is connected as used and seen: everything once in [`PARTS`] calls.
    pub(super) fn mark_connected(&self) {
        let now = clock::mono();
        let part = self.round.lock().next(|| self.users.all());
        for user in part {
            let inner = user.lock();
            for session in &inner.sessions {
                self.mark_seen(session.device, session.acked());
            }
            for (device, poller) in inner.pollers.iter().filter(|(_, p)| p.is_connected(now)) {
                self.mark_seen(*device, poller.acked);
            }
            if inner.connected(now) > 0 {
                self.mark_used(&user);
            }
        }
    }

    /// Counts the connected devices, and those that have not acked everything.
    pub(super) fn count_devices(&self) -> (usize, usize) {
        let now = clock::mono();
        let (mut connected, mut behind) = (0, 0);
        for user in self.users.all() {
            let inner = user.lock();
            let seq = inner.board.seq;
            connected += inner.connected(now);
            behind += inner.sessions.iter().filter(|session| session.acked() < seq).count();
            let polling = inner.pollers.values().filter(|poller| poller.is_connected(now));
            behind += polling.filter(|poller| poller.acked < seq).count();
        }
        (connected, behind)
    }

    /// Evicts users with nothing to do.
    pub(super) fn evict(&self) -> usize {
        let now = clock::mono();
        self.users.evict(|user| {
            let mut inner = user.lock();
            inner.pollers.retain(|_, poller| poller.is_connected(now));
            if !inner.is_idle(now) {
                inner.idle_since = None;
                return false;
            }
            now.since(*inner.idle_since.get_or_insert(now)) >= IDLE_FOR
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_everybody_once_however_few_there_are() {
        for many in [0, 1, 3, 29, 30, 31, 100] {
            let name = |n: usize| format!("user-{n}").parse().expect("a user");
            let all: Vec<_> = (0..many).map(|n| Arc::new(User::new(name(n)))).collect();
            let mut round = Round::default();
            let mut seen: Vec<_> = (0..PARTS)
                .flat_map(|_| round.next(|| all.clone()))
                .map(|user| user.id.clone())
                .collect();
            assert_eq!(seen.len(), many);
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), many, "nobody twice");
            assert_eq!(round.parts, 0, "and then anew");
        }
    }
}
