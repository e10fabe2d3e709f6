//! Why identity says no.

use lockstep_protocol::DeviceId;

use crate::{store::StoreError, vault::VaultError};

/// Why identity cannot start, or cannot do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The shared keys in the store cannot be sealed or opened with the keys at hand.
    #[error("the hub's signing keys: {0}")]
    Seal(#[from] VaultError),
    /// The shared keys were opened and are not keys.
    #[error("the hub's signing keys in the store cannot be read: {0}")]
    Corrupt(&'static str),
    /// The crypto library refused.
    #[error("cannot {0}")]
    Crypto(&'static str),
    /// The loop of reading again after a lost race was cut.
    #[error("device {0} changes too fast to be read")]
    Busy(DeviceId),
    /// The identity provider cannot be asked at all.
    #[error(transparent)]
    External(#[from] super::external::Unusable),
    /// The same, of the device codes.
    #[error("too many device codes are asked for at once")]
    Crowded,
}

/// Why a device access token was refused. For the log: whoever asks learns only that it is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not a compact JWS with readable header and claims, or far too long.
    #[error("not a token")]
    Malformed,
    /// `alg` is not `EdDSA`, or `typ` is not `at+jwt`.
    #[error("not a device access token of this hub")]
    WrongKind,
    /// No key with this `kid`.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("signature does not fit")]
    BadSignature,
    /// Another issuer's.
    #[error("wrong issuer")]
    WrongIssuer,
    /// For another audience.
    #[error("wrong audience")]
    WrongAudience,
    /// Past its `exp`.
    #[error("expired")]
    Expired,
    /// Issued in the future.
    #[error("not valid yet")]
    NotYet,
    /// The identity provider's token names no user, or none that can be one here.
    #[error("names no user")]
    NoUser,
    /// The identity provider's token names a device of another user.
    #[error("the device is another user's")]
    AnothersDevice,
    /// The user has too many devices for one more to be enrolled by being seen.
    #[error("the user has too many devices")]
    TooMany,
    /// A device that was not seen before cannot be looked up now.
    #[error("cannot be looked up now")]
    Unavailable,
    /// The device was revoked.
    #[error("device revoked")]
    Revoked,
}

/// Why a request about devices was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A field is not as it must be.
    #[error("{0}")]
    Invalid(String),
    /// No such device, or it was revoked.
    #[error("no such device")]
    UnknownDevice,
    /// No such grant of the device's user.
    #[error("no such grant")]
    UnknownGrant,
    /// The hub cannot do it now.
    #[error(transparent)]
    Failed(#[from] IdentityError),
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}
