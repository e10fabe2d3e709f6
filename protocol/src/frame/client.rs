//! Client → hub.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, Epoch, GrantName, LeaseId, RequestId, Secret, Seq, Version, number, strict};

/// Everything that a client may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The first frame of a session.
    Hello(Hello),
    /// "I hold everything up to this seq."
    Ack(Ack),
    /// "This version is expired or was rejected: I need a newer one."
    Refresh(Refresh),
    /// "Somebody is (not) using this device."
    Presence(Presence),
    /// Yes to `elected`.
    Accept(Accept),
    /// Asks for more time on a lease.
    Renew(Renew),
    /// The result of a redeem.
    Publish(Publish),
    /// A redeem, or an election, that came to nothing.
    Failed(Failed),
}

impl ClientFrame {
    /// The word in `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Ack(_) => "ack",
            Self::Refresh(_) => "refresh",
            Self::Presence(_) => "presence",
            Self::Accept(_) => "accept",
            Self::Renew(_) => "renew",
            Self::Publish(_) => "publish",
            Self::Failed(_) => "failed",
        }
    }

    /// Reads the frame of type `kind` from `text`, an object; none if there is no such type.
    pub(crate) fn from_json(kind: &str, text: &str) -> Option<serde_json::Result<Self>> {
        Some(match kind {
            "hello" => serde_json::from_str(text).map(Self::Hello),
            "ack" => serde_json::from_str(text).map(Self::Ack),
            "refresh" => serde_json::from_str(text).map(Self::Refresh),
            "presence" => serde_json::from_str(text).map(Self::Presence),
            "accept" => serde_json::from_str(text).map(Self::Accept),
            "renew" => serde_json::from_str(text).map(Self::Renew),
            "publish" => serde_json::from_str(text).map(Self::Publish),
            "failed" => serde_json::from_str(text).map(Self::Failed),
            _ => return None,
        })
    }
}

/// The first frame of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// The device access token.
    pub token: Secret,
    /// Who is speaking; `id` must be the one the token was issued to.
    #[serde(deserialize_with = "strict::object")]
    pub device: HelloDevice,
    /// The last cursor held, if any. Opaque: one that cannot be read is answered with a `reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Whether somebody is using the device.
    #[serde(deserialize_with = "strict::word")]
    pub state: PresenceState,
    /// Lowers this device's weight in elections below that of its kind; higher values than the kind's are ignored.
    #[serde(
        default,
        deserialize_with = "number::optional_up_to_255",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<u64>")]
    pub priority: Option<u8>,
}

/// Who is speaking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelloDevice {
    /// The enrolled device.
    pub id: DeviceId,
    /// The application and its version, for logs.
    #[serde(default)]
    pub app: String,
}

/// Whether somebody is using a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresenceState {
    /// In use now.
    Active,
    /// Connected, not in use.
    Idle,
}

/// "I hold everything up to this seq."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ack {
    /// The seq of the last frame applied; cumulative.
    pub seq: Seq,
}

/// "This version is expired or was rejected: I need a newer one."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refresh {
    /// The answer (`done` or `error`) carries the same id.
    pub id: RequestId,
    /// The grant in question.
    pub grant: GrantName,
    /// The version that the device holds and cannot use.
    pub rejected_version: Version,
    /// For the log only.
    #[serde(deserialize_with = "strict::word")]
    pub reason: RefreshReason,
}

/// Why a device asks for a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefreshReason {
    /// By the device's clock it is past its expiry, or nearly.
    Expired,
    /// A resource server refused it (RFC 6750 `invalid_token`).
    Rejected,
}

/// "Somebody is (not) using this device."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    /// The new state.
    #[serde(deserialize_with = "strict::word")]
    pub state: PresenceState,
}

/// Yes to `elected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accept {
    /// The grant of the election.
    pub grant: GrantName,
    /// The lease of the election.
    pub lease: LeaseId,
}

/// Asks for more time on a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Renew {
    /// The grant of the lease.
    pub grant: GrantName,
    /// The lease.
    pub lease: LeaseId,
}

/// The result of a redeem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Publish {
    /// The answer (`done` or `error`) carries the same id.
    pub id: RequestId,
    /// The grant.
    pub grant: GrantName,
    /// Any lease that was handed out for `from_version`, lapsed or not.
    pub lease: LeaseId,
    /// The epoch in which the lease was handed out.
    pub epoch: Epoch,
    /// The version whose refresh token was redeemed.
    pub from_version: Version,
    /// What the provider answered.
    #[serde(deserialize_with = "strict::object")]
    pub token: PublishedToken,
}

/// A provider's answer (RFC 6749 section 5.1), as the redeeming device passes it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PublishedToken {
    /// The access token.
    pub access_token: Secret,
    /// The next refresh token; absent when the provider kept the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// Seconds that the access token still lives when this is sent; one that publishes late takes off what has passed.
    #[serde(
        default,
        deserialize_with = "number::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_in: Option<u64>,
    /// The scope granted, if the provider said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// How to use it; `Bearer` almost always.
    pub token_type: String,
}

/// A redeem, or an election, that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The answer (`done` or `error`) carries the same id.
    pub id: RequestId,
    /// The grant.
    pub grant: GrantName,
    /// The lease that is given back.
    pub lease: LeaseId,
    /// Whether the request left the device. `false` also declines an election.
    pub sent: bool,
    /// The provider's HTTP status, if it answered.
    #[serde(
        default,
        deserialize_with = "number::optional_u16",
        skip_serializing_if = "Option::is_none"
    )]
    pub status: Option<u16>,
    /// The provider's `error` (RFC 6749 section 5.2), if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// More, for the log. Never a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
