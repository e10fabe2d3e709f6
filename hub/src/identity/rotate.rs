//! Exchanging a device refresh token.
//!
//! The newest advances; its parent gives the same newest again, so a lost answer locks nobody out; anything older means
//! that a copy is in use, and revokes the device. Compare RFC 9700 section 4.14.2 (refresh token rotation).

use lockstep_protocol::Secret;
use subtle::ConstantTimeEq;

use super::{
    Identity, IdentityError,
    device_token::{self, Genuine},
    token,
};
use crate::{
    audit::RevokedWhy,
    clock,
    store::{Device, Hash},
    vault::Vault,
};

/// How often a lost race is read again. Each loss means that another call advanced the same device meanwhile.
const MOST_TRIES: usize = 16;
/// The most generations that a store restored from a backup is brought forward. At four an hour: six weeks.
const MOST_CATCH_UP: u64 = 4096;

/// What a device refresh token was exchanged for.
#[derive(Debug)]
pub struct Exchanged {
    /// The device as it is now.
    pub device: Device,
    /// A fresh access token.
    pub access_token: Secret,
    /// The newest refresh token.
    pub refresh_token: Secret,
    /// Seconds until the access token expires.
    pub expires_in: u64,
}

/// Why it was not. The one who asks is told `invalid_grant` for all but the last.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Made up, or of a device that the store does not know.
    #[error("not a refresh token of this hub")]
    Unknown,
    /// The device was revoked before.
    #[error("device revoked")]
    Revoked,
    /// Older than the parent of the newest: the device is revoked now.
    #[error("an old refresh token was used again: device revoked")]
    Replayed,
    /// The hub cannot do it now.
    #[error(transparent)]
    Failed(#[from] IdentityError),
}

impl Identity {
    /// Exchanges a device refresh token for an access token and the newest refresh token.
    ///
    /// # Errors
    /// [`Refused`] says why.
    pub async fn exchange(&self, presented: &Secret) -> Result<Exchanged, Refused> {
        let genuine = device_token::read(self.keys.mac(), presented.expose()).ok_or(Refused::Unknown)?;
        for _ in 0..MOST_TRIES {
            let device = self.store.device(genuine.device).await.map_err(IdentityError::from)?;
            let device = device.ok_or(Refused::Unknown)?;
            if device.revoked_at.is_some() {
                return Err(Refused::Revoked);
            }
            if genuine.generation + 1 == device.generation {
                return self.hand_over(device, Vault::hash(presented));
            }
            if genuine.generation < device.generation {
                return Err(self.replayed(&device, genuine).await?);
            }
            self.advance(&device, genuine).await?;
        }
        Err(IdentityError::Busy(genuine.device).into())
    }

    /// Moves the device's token to the generation after the one presented. A lost race is none of our business: whoever
    /// asked reads again.
    async fn advance(&self, device: &Device, genuine: Genuine) -> Result<(), Refused> {
        let behind = genuine.generation - device.generation;
        if behind > MOST_CATCH_UP {
            return Err(Refused::Unknown);
        }
        if behind > 0 {
            // Only a store that went back in time is behind a token that this hub issued.
            tracing::warn!(device = %device.id, behind, "store is behind a device's refresh token; catching up");
        }
        for from in device.generation..=genuine.generation {
            let next = device_token::derive(self.keys.mac(), device.id, from + 1);
            let advanced = self.store.advance(device.id, from, Vault::hash(&next)).await;
            if !advanced.map_err(IdentityError::from)? {
                break;
            }
        }
        Ok(())
    }

    /// `device`'s newest token goes to one that holds its parent.
    fn hand_over(&self, device: Device, presented: Hash) -> Result<Exchanged, Refused> {
        let newest = device_token::derive(self.keys.mac(), device.id, device.generation);
        let parent_fits = device.parent.is_some_and(|parent| same(parent, presented));
        if !parent_fits || !same(device.newest, Vault::hash(&newest)) {
            // The store holds hashes of other tokens than the key makes: rows and key do not belong together.
            return Err(Refused::Unknown);
        }
        let access_token = token::mint(&self.keys, &self.settings, &device, clock::unix())?;
        Ok(Exchanged {
            access_token,
            refresh_token: newest,
            expires_in: self.settings.access_ttl.as_secs(),
            device,
        })
    }

    async fn replayed(&self, device: &Device, genuine: Genuine) -> Result<Refused, IdentityError> {
        tracing::warn!(
            device = %device.id,
            user = %device.user,
            presented = genuine.generation,
            newest = device.generation,
            "an old device refresh token was used again: device revoked"
        );
        self.revoke(device.id, RevokedWhy::Replayed).await?;
        Ok(Refused::Replayed)
    }
}

fn same(a: Hash, b: Hash) -> bool {
    a.0.ct_eq(&b.0).into()
}
