//! Hub → client.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{
    Code, Cursor, DeviceId, Epoch, GrantName, LeaseId, RequestId, Secret, Seq, SessionId, UnixSeconds, UserId, Version,
    number, strict,
};

/// Everything that a hub may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HubFrame {
    /// The answer to `hello`.
    Welcome(Welcome),
    /// "You now hold everything up to this cursor."
    Synced(Synced),
    /// The newest token set of a grant.
    Token(Token),
    /// How a grant fares; stands in a token's place when there is no good one.
    Status(Status),
    /// "Will you redeem?"
    Elected(Elected),
    /// "Redeem this."
    Redeem(Redeem),
    /// The answer to `renew`.
    Lease(Lease),
    /// The one answer to a request that succeeded.
    Done(Done),
    /// The hub is going away.
    Goaway(Goaway),
    /// The one answer to a request that failed.
    Error(Error),
}

impl HubFrame {
    /// The word in `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Synced(_) => "synced",
            Self::Token(_) => "token",
            Self::Status(_) => "status",
            Self::Elected(_) => "elected",
            Self::Redeem(_) => "redeem",
            Self::Lease(_) => "lease",
            Self::Done(_) => "done",
            Self::Goaway(_) => "goaway",
            Self::Error(_) => "error",
        }
    }

    /// Reads the frame of type `kind` from `text`, an object; none if there is no such type.
    pub(crate) fn from_json(kind: &str, text: &str) -> Option<serde_json::Result<Self>> {
        Some(match kind {
            "welcome" => serde_json::from_str(text).map(Self::Welcome),
            "synced" => serde_json::from_str(text).map(Self::Synced),
            "token" => serde_json::from_str(text).map(Self::Token),
            "status" => serde_json::from_str(text).map(Self::Status),
            "elected" => serde_json::from_str(text).map(Self::Elected),
            "redeem" => serde_json::from_str(text).map(Self::Redeem),
            "lease" => serde_json::from_str(text).map(Self::Lease),
            "done" => serde_json::from_str(text).map(Self::Done),
            "goaway" => serde_json::from_str(text).map(Self::Goaway),
            "error" => serde_json::from_str(text).map(Self::Error),
            _ => return None,
        })
    }
}

/// The answer to `hello`. What follows: a `token` or `status` for each grant changed since the cursor, then `synced`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// This connection.
    pub session: SessionId,
    /// Whose grants these are.
    pub user: UserId,
    /// The store's lifetime.
    pub epoch: Epoch,
    /// The hub's clock; the difference to the client's is the skew.
    pub time: UnixSeconds,
    /// Seconds between the hub's pings.
    #[serde(deserialize_with = "number::bounded")]
    pub heartbeat: u64,
    /// How the state is brought up to date.
    #[serde(deserialize_with = "strict::word")]
    pub resume: Resume,
}

/// How a session's state is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// Nothing changed since the cursor.
    Uptodate,
    /// What changed since the cursor follows.
    Delta,
    /// Everything follows; drop what you held.
    Reset,
}

/// "You now hold everything up to this cursor." Never waits for a redeem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Synced {
    /// To be sent in the next `hello`.
    pub cursor: Cursor,
}

/// The newest token set of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// The grant.
    pub grant: GrantName,
    /// The token set's version.
    pub version: Version,
    /// The user's seq at this change.
    pub seq: Seq,
    /// The cursor of one who holds this and everything before it.
    pub cursor: Cursor,
    /// The access token.
    pub access_token: Secret,
    /// How to use it; `Bearer` almost always.
    pub token_type: String,
    /// The scope granted, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// When it expires; null when the provider did not say.
    #[schemars(required, schema_with = "time_or_null")]
    pub expires_at: Option<UnixSeconds>,
    /// When the provider issued it, by the hub's clock.
    pub refreshed_at: UnixSeconds,
    /// Where it came from.
    #[serde(deserialize_with = "strict::word")]
    pub cause: Cause,
}

/// A time that is always there, but may be null.
fn time_or_null(generator: &mut SchemaGenerator) -> Schema {
    let time = generator.subschema_for::<UnixSeconds>();
    schemars::json_schema!({ "anyOf": [time, { "type": "null" }] })
}

/// Where a token set came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A redeem.
    Refresh,
    /// A login.
    Login,
}

/// How a grant fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The grant.
    pub grant: GrantName,
    /// The newest version.
    pub version: Version,
    /// The user's seq at this change; for `refreshing`, which is a passing word, the grant's current one.
    pub seq: Seq,
    /// The cursor of one who holds this and everything before it.
    pub cursor: Cursor,
    /// The state.
    #[serde(deserialize_with = "strict::word")]
    pub health: Health,
    /// The device that redeems, when one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refreshing_by: Option<DeviceId>,
    /// Seconds after which `refreshing` ends by itself.
    #[serde(
        default,
        deserialize_with = "number::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub lease_expires_in: Option<u64>,
    /// Why, in words for people; never a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When to expect better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<UnixSeconds>,
    /// Where a person can log in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_url: Option<String>,
}

/// The state of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Good.
    Ok,
    /// A redeem is under way.
    Refreshing,
    /// The outcome of a redeem is unknown.
    Suspect,
    /// Somebody must log in again.
    ReauthRequired,
    /// The grant is gone.
    Deleted,
}

/// "Will you redeem?" Answer `accept` within 5 s, or `failed{sent: false}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Elected {
    /// The grant.
    pub grant: GrantName,
    /// The lease on offer.
    #[serde(deserialize_with = "strict::object")]
    pub lease: ElectedLease,
    /// The version to redeem.
    pub from_version: Version,
}

/// The lease on offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElectedLease {
    /// Its id.
    pub id: LeaseId,
    /// Seconds until it lapses.
    #[serde(deserialize_with = "number::bounded")]
    pub expires_in: u64,
    /// Seconds between renewals.
    #[serde(deserialize_with = "number::bounded")]
    pub renew_every: u64,
}

/// "Redeem this." Sent to one device, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Redeem {
    /// The grant.
    pub grant: GrantName,
    /// The lease.
    pub lease: LeaseId,
    /// The version to redeem.
    pub from_version: Version,
    /// The refresh token.
    pub refresh_token: Secret,
    /// Where to send it.
    pub token_endpoint: String,
    /// The OAuth client.
    pub client_id: String,
    /// How to write the request.
    #[serde(deserialize_with = "strict::word")]
    pub request_format: RequestFormat,
    /// The scope to ask for, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Seconds within which the request must leave; after that, `failed{sent: false}`.
    #[serde(deserialize_with = "number::bounded")]
    pub send_within: u64,
    /// Seconds after which to stop waiting for the provider.
    #[serde(deserialize_with = "number::bounded")]
    pub deadline: u64,
}

/// How a token request is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestFormat {
    /// `application/x-www-form-urlencoded` (RFC 6749 section 6).
    #[default]
    Form,
    /// A JSON object, as some providers want it.
    Json,
}

/// The answer to `renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    /// The grant.
    pub grant: GrantName,
    /// The lease.
    pub id: LeaseId,
    /// Seconds until it lapses.
    #[serde(deserialize_with = "number::bounded")]
    pub expires_in: u64,
}

/// The one answer to a request that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// The request.
    pub id: RequestId,
    /// The grant.
    pub grant: GrantName,
    /// The newest version now.
    pub version: Version,
}

/// The hub is going away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Goaway {
    /// Why.
    pub reason: String,
    /// When to come back; each client gets its own.
    #[serde(deserialize_with = "strict::object")]
    pub reconnect_after: ReconnectAfter,
}

/// A span from which a client picks when to reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReconnectAfter {
    /// Not before, in milliseconds.
    #[serde(deserialize_with = "number::bounded")]
    pub min_ms: u64,
    /// Not after, in milliseconds.
    #[serde(deserialize_with = "number::bounded")]
    pub max_ms: u64,
}

/// The one answer to a request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Error {
    /// The request, if it told its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The grant, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantName>,
    /// What went wrong.
    #[serde(deserialize_with = "strict::word")]
    pub code: Code,
    /// The same in words for people; never a secret.
    pub message: String,
    /// When to ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<UnixSeconds>,
}
