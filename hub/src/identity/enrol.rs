//! Enrolling devices, and giving them slaves.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, GrantName, Secret, Seq, UserId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Identity, IdentityError, RequestError, device_token, token};
use crate::{
    audit::{By, Event},
    clock,
    store::{Device, DeviceKind, Slave},
    vault::Vault,
};

/// How slave refresh tokens begin.
pub(super) const SLAVE_PREFIX: &str = "lsg_";
/// The longest device name, in characters.
const LONGEST_NAME: usize = 128;

/// What is told of a device that is to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewDevice {
    /// What it is.
    pub kind: DeviceKind,
    /// What people call it: 1 to 128 characters, none of them a control character.
    pub name: String,
    /// Whether it may redeem.
    #[serde(default)]
    pub redeemer: bool,
    /// Whether it may offer a fresh login.
    #[serde(default)]
    pub may_offer: bool,
    /// Its weight in elections, if not that of its kind.
    #[serde(default)]
    pub priority: Option<u8>,
}

/// What a newly enrolled device is given. The refresh token is shown this once.
#[derive(Debug, Clone, Serialize)]
pub struct Enrolled {
    /// Its id.
    pub device_id: DeviceId,
    /// `lsd_…`
    pub device_refresh_token: Secret,
    /// Its first access token.
    pub access_token: Secret,
    /// Seconds until the access token expires.
    pub expires_in: u64,
    /// What the access token is for.
    #[serde(skip)]
    pub scope: String,
}

impl Identity {
    /// Enrols a device; makes the user if new.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] for a bad name; else the store's trouble.
    pub async fn enrol(&self, user: &UserId, new: NewDevice, by: By) -> Result<Enrolled, RequestError> {
        let name = checked_name(&new.name)?;
        let id = DeviceId(Uuid::new_v4());
        let (device, refresh_token) = self.row(id, user, NewDevice { name, ..new }, clock::unix());
        self.store.enrol(device.clone()).await?;
        Ok(self.enrolled(&device, refresh_token, by)?)
    }

    /// The row of a device that is enrolled `at`, and its first refresh token.
    pub(super) fn row(&self, id: DeviceId, user: &UserId, new: NewDevice, at: Unix) -> (Device, Secret) {
        let refresh_token = device_token::derive(self.keys.mac(), id, 1);
        let device = Device {
            id,
            user: user.clone(),
            kind: new.kind,
            name: new.name,
            redeemer: new.redeemer,
            may_offer: new.may_offer,
            priority: new.priority,
            enrolled_at: at,
            generation: 1,
            newest: Vault::hash(&refresh_token),
            parent: None,
            revoked_at: None,
            last_seen: None,
            acked: Seq(0),
        };
        (device, refresh_token)
    }

    /// The device is in the store: takes it down, and gives it its first tokens.
    pub(super) fn enrolled(&self, device: &Device, refresh_token: Secret, by: By) -> Result<Enrolled, IdentityError> {
        self.note_enrolled(device, by);
        Ok(Enrolled {
            device_id: device.id,
            device_refresh_token: refresh_token,
            access_token: token::mint(&self.keys, &self.settings, device, clock::unix())?,
            expires_in: self.settings.access_ttl.as_secs(),
            scope: token::scope_of(device),
        })
    }

    /// Takes an enrolment down in the audit log.
    pub(super) fn note_enrolled(&self, device: &Device, by: By) {
        self.audit().record(Event::Enrolled {
            user: device.user.clone(),
            device: device.id,
            kind: device.kind,
            redeemer: device.redeemer,
            may_offer: device.may_offer,
            by,
        });
    }

    /// Makes a slave refresh token: this device's claim on this grant of its user. Shown this once.
    ///
    /// # Errors
    /// When there is no such device or grant, or the store does not answer.
    pub async fn make_slave(&self, device: DeviceId, grant: &GrantName) -> Result<Secret, RequestError> {
        let row = self
            .store
            .device(device)
            .await?
            .filter(|row| row.revoked_at.is_none())
            .ok_or(RequestError::UnknownDevice)?;
        let alive = self
            .store
            .load(&row.user, grant)
            .await?
            .is_some_and(|record| record.health != lockstep_engine::record::Health::Deleted);
        if !alive {
            return Err(RequestError::UnknownGrant);
        }
        let token = random_slave()?;
        let slave = Slave {
            user: row.user,
            device,
            grant: grant.clone(),
            made_at: clock::unix(),
        };
        let made = Event::SlaveMade {
            user: slave.user.clone(),
            device,
            grant: grant.clone(),
        };
        self.store.put_slave(Vault::hash(&token), slave).await?;
        self.audit().record(made);
        Ok(token)
    }
}

/// A device's name as it is kept.
pub(super) fn checked_name(name: &str) -> Result<String, RequestError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(RequestError::Invalid(format!(
            "name must have 1 to {LONGEST_NAME} characters, none of them a control character"
        )));
    }
    Ok(name.into())
}

fn random_slave() -> Result<Secret, IdentityError> {
    let mut bytes = [0_u8; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| IdentityError::Crypto("draw random numbers"))?;
    Ok(Secret::new(format!("{SLAVE_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
}
