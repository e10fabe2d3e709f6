//! All users that are resident on this node.

use std::sync::Arc;

use dashmap::DashMap;
use lockstep_protocol::UserId;

use super::User;

/// All resident users. A user is made resident by the first who asks, and evicted when idle.
#[derive(Default)]
pub struct Registry {
    users: DashMap<UserId, Arc<User>>,
}

impl Registry {
    /// The user, made resident if need be; not necessarily read from the store yet.
    pub fn get(&self, id: &UserId) -> Arc<User> {
        if let Some(user) = self.users.get(id) {
            return Arc::clone(&user);
        }
        Arc::clone(
            &self
                .users
                .entry(id.clone())
                .or_insert_with(|| Arc::new(User::new(id.clone()))),
        )
    }

    /// The user, if resident.
    pub fn resident(&self, id: &UserId) -> Option<Arc<User>> {
        self.users.get(id).map(|user| Arc::clone(&user))
    }

    /// Whether this very user is still resident.
    pub fn holds(&self, user: &Arc<User>) -> bool {
        self.users.get(&user.id).is_some_and(|here| Arc::ptr_eq(&here, user))
    }

    /// All residents, as of now.
    pub fn all(&self) -> Vec<Arc<User>> {
        self.users.iter().map(|user| Arc::clone(&user)).collect()
    }

    /// How many are resident.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody is resident.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Evicts those for whom `idle` holds and whom nobody else is holding: who got a user from here a moment ago keeps
    /// it resident, so that there are never two of one user.
    pub fn evict(&self, mut idle: impl FnMut(&User) -> bool) -> usize {
        let before = self.users.len();
        self.users.retain(|_, user| Arc::strong_count(user) > 1 || !idle(user));
        before.saturating_sub(self.users.len())
    }

    /// Forgets all, and returns them: whoever asks now reads the store anew.
    pub fn forget(&self) -> Vec<Arc<User>> {
        let mut forgotten = Vec::new();
        self.users.retain(|_, user| {
            forgotten.push(Arc::clone(user));
            false
        });
        forgotten
    }
}
