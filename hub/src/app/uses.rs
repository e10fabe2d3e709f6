//! What is to be written of use, lazily: when a user's grants were last needed, when a device was last seen.

use std::{collections::HashMap, hash::Hash};

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, GrantName, Seq, UserId};
use parking_lot::Mutex;

use super::Hub;
use crate::{
    clock,
    store::{Seen, StoreError},
    user::User,
};

/// The most devices whose last sight waits to be written; above it the write is left to the next sight.
const MOST_SEEN: usize = 100_000;
/// How many are written at once: all in one would hold up pushes for tens of milliseconds.
const WRITTEN_AT_ONCE: usize = 200;

/// What waits to be written.
#[derive(Default)]
pub(super) struct Uses {
    users: Marks<UserId, Unix>,
    devices: Marks<DeviceId, Seen>,
}

/// The newest mark of each.
struct Marks<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Marks<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Marks<K, V> {
    fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Some of them, to be written.
    fn take(&self) -> Vec<(K, V)> {
        self.0.lock().extract_if(|_, _| true).take(WRITTEN_AT_ONCE).collect()
    }

    /// They could not be written. A mark made since then is newer.
    fn put_back(&self, marks: Vec<(K, V)>) {
        let mut all = self.0.lock();
        for (key, mark) in marks {
            all.entry(key).or_insert(mark);
        }
    }
}

impl Hub {
    /// A user's grants are in use now.
    pub fn mark_used(&self, user: &User) {
        self.uses.users.0.lock().insert(user.id.clone(), clock::unix());
    }

    /// A device was seen now, and holds everything up to `acked`.
    pub fn mark_seen(&self, device: DeviceId, acked: Seq) {
        let mut devices = self.uses.devices.0.lock();
        if devices.len() < MOST_SEEN || devices.contains_key(&device) {
            let at = clock::unix();
            let seen = devices.entry(device).or_insert(Seen { device, at, acked });
            seen.at = at;
            seen.acked = seen.acked.max(acked);
        }
    }

    /// What was seen of a device and is not written yet.
    pub fn unwritten(&self, device: DeviceId) -> Option<Seen> {
        self.uses.devices.0.lock().get(&device).copied()
    }

    /// Writes what was seen of use. What the store does not take waits for the next time.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(super) async fn write_uses(&self) -> Result<(), StoreError> {
        // What is marked meanwhile is for the next time: this one comes to an end.
        for _ in 0..self.uses.users.len().div_ceil(WRITTEN_AT_ONCE) {
            let users = self.uses.users.take();
            if let Err(error) = self.store.used(self.uses_of(&users)).await {
                self.uses.users.put_back(users);
                return Err(error);
            }
            tokio::task::yield_now().await;
        }
        for _ in 0..self.uses.devices.len().div_ceil(WRITTEN_AT_ONCE) {
            let devices = self.uses.devices.take();
            if let Err(error) = self.store.seen(devices.iter().map(|(_, seen)| *seen).collect()).await {
                self.uses.devices.put_back(devices);
                return Err(error);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The grants of these users, each with its user's mark. Who is not resident any more was written before.
    fn uses_of(&self, users: &[(UserId, Unix)]) -> Vec<(UserId, GrantName, Unix)> {
        let mut uses = Vec::new();
        for (id, at) in users {
            if let Some(user) = self.users.resident(id) {
                let inner = user.lock();
                uses.extend(inner.slots.keys().map(|grant| (id.clone(), grant.clone(), *at)));
            }
        }
        uses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_written_waits_and_gives_way_to_newer_marks() {
        let marks = Marks::default();
        marks.0.lock().extend([("a", 1), ("b", 1)]);
        let taken = marks.take();
        assert_eq!((taken.len(), marks.len()), (2, 0));
        marks.0.lock().insert("b", 2);
        marks.put_back(taken);
        let mut all = marks.take();
        all.sort_unstable();
        assert_eq!(all, [("a", 1), ("b", 2)]);
    }

    #[test]
    fn so_many_are_taken_and_the_rest_stays() {
        let marks = Marks::default();
        marks.0.lock().extend((0..=WRITTEN_AT_ONCE).map(|n| (n, ())));
        assert_eq!((marks.take().len(), marks.len()), (WRITTEN_AT_ONCE, 1));
    }
}
