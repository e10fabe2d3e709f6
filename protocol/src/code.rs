//! Words for what went wrong, the same in `error` frames and in RFC 9457 problem documents.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Not JSON, not an object, unknown `type`, or wrong fields.
    BadFrame,
    /// No such grant, or another user's.
    UnknownGrant,
    /// The device holds no lease that allows this.
    NotElected,
    /// A newer version is committed; the result was not used.
    Superseded,
    /// Too soon; `retry_at` tells when.
    RateLimited,
    /// Somebody must log in again.
    ReauthRequired,
    /// The outcome of a redeem is unknown; nothing is replayed while the access token may be good.
    Suspect,
    /// The hub or the provider cannot do it now; `retry_at` tells when to ask again.
    Unavailable,
    /// Larger than allowed.
    TooLarge,
    /// No valid token, or no right to do this.
    Unauthorized,
}

impl Code {
    /// All codes, in the order of the protocol page.
    pub const ALL: [Self; 10] = [
        Self::BadFrame,
        Self::UnknownGrant,
        Self::NotElected,
        Self::Superseded,
        Self::RateLimited,
        Self::ReauthRequired,
        Self::Suspect,
        Self::Unavailable,
        Self::TooLarge,
        Self::Unauthorized,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::UnknownGrant => "unknown_grant",
            Self::NotElected => "not_elected",
            Self::Superseded => "superseded",
            Self::RateLimited => "rate_limited",
            Self::ReauthRequired => "reauth_required",
            Self::Suspect => "suspect",
            Self::Unavailable => "unavailable",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
