//! Who must be refused although the token is good: the devices revoked within one token lifetime.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, UserId};

use super::{Identity, IdentityError};
use crate::{
    audit::{Event, RevokedWhy},
    clock,
};

/// Held in memory; as many entries as devices were revoked within one token lifetime.
#[derive(Default)]
pub(super) struct Revocations {
    devices: RwLock<HashMap<DeviceId, Unix>>,
}

impl Revocations {
    pub(super) fn contains(&self, device: DeviceId) -> bool {
        self.devices
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&device)
    }

    /// Takes note; whether it was news.
    fn insert(&self, device: DeviceId, at: Unix) -> bool {
        self.devices
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(device, at)
            .is_none()
    }

    /// As if all tokens of the revoked had expired.
    #[cfg(test)]
    pub(super) fn forget_all(&self) {
        self.forget_before(Unix(u64::MAX));
    }

    /// Forgets those whose last token has expired.
    fn forget_before(&self, since: Unix) {
        self.devices
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, at| *at >= since);
    }
}

impl Identity {
    /// Reads again who was revoked lately, tells of those that are news, and forgets those whose tokens have all
    /// expired. For the sweep: finds what no fact told.
    ///
    /// # Errors
    /// When the store cannot be read; the list stays as it was.
    pub async fn reload_revocations(&self) -> Result<(), IdentityError> {
        let since = clock::unix().minus(self.settings.revocation_window());
        let lately = self.store.revoked_since(since).await?;
        self.revocations.forget_before(since);
        for (device, at) in lately {
            self.learn_revoked(device, None, at).await;
        }
        Ok(())
    }

    /// Another node revoked a device, of this user if it said so.
    pub async fn learn_revoked(&self, device: DeviceId, user: Option<UserId>, at: Unix) {
        if !self.revocations.insert(device, at) {
            return;
        }
        let user = match user {
            Some(user) => Some(user),
            // A store that cannot be asked is no reason to leave its sessions open: nobody comes back to it.
            None => self.store.device(device).await.ok().flatten().map(|row| row.user),
        };
        self.tell_revoked(user.as_ref(), device);
    }

    /// Revokes a device: its sessions, its tokens, its slaves. False: no such device, or revoked before.
    ///
    /// # Errors
    /// When the store does not answer. If it did it all the same, the next reload tells.
    pub async fn revoke(&self, device: DeviceId, why: RevokedWhy) -> Result<bool, IdentityError> {
        let Some(row) = self.store.device(device).await? else {
            return Ok(false);
        };
        if row.revoked_at.is_some() {
            return Ok(false);
        }
        let at = clock::unix();
        let revoked = self.store.revoke(device, at).await?;
        if revoked {
            let user = row.user.clone();
            self.audit().record(Event::Revoked { user, device, why });
        }
        if self.revocations.insert(device, at) {
            self.tell_revoked(Some(&row.user), device);
        }
        Ok(revoked)
    }

    /// The user of these devices was deleted.
    pub fn revoked_with_user(&self, user: &UserId, devices: &[DeviceId], at: Unix) {
        for device in devices {
            if self.revocations.insert(*device, at) {
                self.audit().record(Event::Revoked {
                    user: user.clone(),
                    device: *device,
                    why: RevokedWhy::UserDeleted,
                });
                self.tell_revoked(Some(user), *device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_revocation_is_forgotten_once_no_token_can_be_left() {
        let list = Revocations::default();
        let device = DeviceId(Uuid::from_u128(1));
        assert!(list.insert(device, Unix(1_000)));
        assert!(!list.insert(device, Unix(1_000)), "told once");
        list.forget_before(Unix(1_000));
        assert!(list.contains(device));
        list.forget_before(Unix(1_001));
        assert!(!list.contains(device));
    }
}
