//! What can go wrong, in tiers: by what the caller should do about it.

use std::time::SystemTime;

use lockstep_protocol::GrantName;

use crate::state::TokenLease;

/// Why there is no token. The variants are tiers: each asks for something else from the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not now: ask again later. Never a reason to forget credentials or to log somebody out.
    #[error("{reason}")]
    Retry {
        /// When to ask again, by this device's wall clock; none when nobody knows.
        retry_at: Option<SystemTime>,
        /// Why, in words for people.
        reason: String,
        /// A token that is still good, though for less than was asked.
        held: Option<Box<TokenLease>>,
    },
    /// A person must log in again.
    #[error("login needed for {grant}: {reason}")]
    Reauth {
        /// The grant.
        grant: GrantName,
        /// Why, in words for people.
        reason: String,
        /// Where.
        login_url: Option<String>,
    },
    /// The user has no such grant: a wrong name, or a login that was never made.
    #[error("no grant named {grant}")]
    UnknownGrant {
        /// The grant.
        grant: GrantName,
    },
    /// This client has stopped for good and will not connect again.
    #[error("stopped: {0}")]
    Stopped(#[from] Stopped),
    /// The program asked for something that makes no sense: a bad address, two sources of identity, an unwritable path.
    #[error("{0}")]
    Misuse(String),
}

impl Error {
    /// A token that is still good, though the wish could not be met. Better than none.
    pub fn usable_token(&self) -> Option<&TokenLease> {
        match self {
            Self::Retry { held, .. } => held.as_deref(),
            _ => None,
        }
    }

    /// Whether asking again later may help without anybody doing anything.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }

    pub(crate) fn misuse(words: impl Into<String>) -> Self {
        Self::Misuse(words.into())
    }
}

/// Why a client stopped for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// The application closed it (or dropped the last handle).
    #[error("closed by the application")]
    Closed,
    /// Close code 4400: hub and client do not speak the same protocol. A new version of one of them is needed.
    #[error("the hub does not understand this client (4400)")]
    Protocol,
    /// Close code 4401, or the device's credential was refused: enrol the device again.
    #[error("the device is not authenticated (4401): {reason}")]
    NotAuthenticated {
        /// Why, in words for people.
        reason: String,
    },
    /// Close code 4403: the device was revoked, or its user deleted.
    #[error("the device was revoked or its user deleted (4403)")]
    Revoked,
    /// Close code 4409: a newer session of the same device took over.
    #[error("replaced by a newer session of the same device (4409)")]
    Replaced,
}

impl Stopped {
    /// The WebSocket close code that stands for it.
    pub const fn code(&self) -> u16 {
        match self {
            Self::Closed => 1000,
            Self::Protocol => 4400,
            Self::NotAuthenticated { .. } => 4401,
            Self::Revoked => 4403,
            Self::Replaced => 4409,
        }
    }
}
