//! What kind of token was presented, and who stands behind it.

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, Secret};

use super::{
    Denied, Identity, IdentityError, RequestError, device_token,
    enrol::SLAVE_PREFIX,
    token::{self, Claims},
};
use crate::{
    audit::Event,
    store::{Device, Hash, Slave},
    vault::Vault,
};

/// What a token is by its looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presented {
    /// `lsd_…`
    Device,
    /// `lsg_…`
    Slave,
    /// A JWT, whoever's.
    Access,
    /// None of ours.
    Other,
}

impl Presented {
    pub(super) fn read(token: &Secret) -> Self {
        let token = token.expose();
        if token.starts_with(device_token::PREFIX) {
            Self::Device
        } else if token.starts_with(SLAVE_PREFIX) {
            Self::Slave
        } else if token.split('.').count() == 3 {
            Self::Access
        } else {
            Self::Other
        }
    }
}

impl Identity {
    /// The device whose newest refresh token, or its parent, this is.
    pub(super) async fn peek(&self, presented: &Secret) -> Result<Option<Device>, IdentityError> {
        let Some(genuine) = device_token::read(self.keys.mac(), presented.expose()) else {
            return Ok(None);
        };
        let device = self.store.device(genuine.device).await?;
        Ok(device.filter(|device| {
            device.revoked_at.is_none() && !self.is_revoked(device.id) && genuine.generation + 1 >= device.generation
        }))
    }

    /// The slave with this token, if it, its device and its grant live.
    pub(super) async fn slave(&self, presented: &Secret) -> Result<Option<Slave>, IdentityError> {
        let slave = self.store.slave(Vault::hash(presented)).await?;
        Ok(slave.filter(|slave| !self.is_revoked(slave.device)))
    }

    /// Forgets a slave. False: there was none.
    pub(super) async fn drop_slave(&self, presented: &Secret) -> Result<bool, IdentityError> {
        self.drop_slave_by(Vault::hash(presented)).await
    }

    /// The same, of the one with this hash.
    pub(super) async fn drop_slave_by(&self, hash: Hash) -> Result<bool, IdentityError> {
        let Some(slave) = self.store.slave(hash).await? else {
            return Ok(false);
        };
        let dropped = self.store.drop_slave(hash).await?;
        if dropped {
            let Slave {
                user, device, grant, ..
            } = slave;
            self.audit().record(Event::SlaveDropped { user, device, grant });
        }
        Ok(dropped)
    }

    /// A device, and its slaves.
    pub(super) async fn look(&self, device: DeviceId) -> Result<(Device, Vec<(Hash, Slave)>), RequestError> {
        let row = self.store.device(device).await?.ok_or(RequestError::UnknownDevice)?;
        Ok((row, self.store.slaves(device).await?))
    }

    /// The claims of a good access token of a device that is not revoked.
    pub(super) fn claims(&self, token: &Secret, now: Unix) -> Result<Claims, Denied> {
        let claims = token::verify(&self.keys, &self.settings, token, now)?;
        if self.is_revoked(claims.client_id) {
            return Err(Denied::Revoked);
        }
        Ok(claims)
    }

    /// Whether a device was ever enrolled.
    pub(super) async fn knows(&self, device: DeviceId) -> Result<bool, IdentityError> {
        Ok(self.store.device(device).await?.is_some())
    }
}
