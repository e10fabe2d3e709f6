//! Bodies of the HTTP endpoints under `/v1`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Code, Cursor, Epoch, GrantName, Secret, UnixSeconds, Version,
    frame::{Resume, Status, Token},
    number, strict,
};

/// The answer to `GET /v1/tokens` when something is newer than the cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PollAnswer {
    /// The store's lifetime.
    pub epoch: Epoch,
    /// The hub's clock.
    pub time: UnixSeconds,
    /// To be sent as `after` in the next poll, which acks this answer.
    pub cursor: Cursor,
    /// How to read this answer: `reset` means drop what you held.
    #[serde(deserialize_with = "strict::word")]
    pub resume: Resume,
    /// Newest token sets, with the fields of a `token` frame.
    pub tokens: Vec<Token>,
    /// Grants without a good token, with the fields of a `status` frame.
    pub statuses: Vec<Status>,
}

/// The body of `POST /v1/grants/{provider}/{account}/refresh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefreshBody {
    /// The version that the device holds and cannot use.
    pub rejected_version: Version,
}

/// The body of `PUT /v1/grants/{provider}/{account}`: a fresh login, with at least one of the two tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoginBody {
    /// The refresh token; without it the grant cannot be refreshed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// The access token; without it the refresh token is redeemed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<Secret>,
    /// Seconds that the access token still lives.
    #[serde(
        default,
        deserialize_with = "number::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_in: Option<u64>,
    /// Seconds that the refresh token still lives.
    #[serde(
        default,
        deserialize_with = "number::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub refresh_token_expires_in: Option<u64>,
    /// How to use the access token; `Bearer` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_type: Option<String>,
    /// The scope granted, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// The answer to a request that brought a grant to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GrantVersion {
    /// The grant.
    pub grant: GrantName,
    /// The newest version now.
    pub version: Version,
}

/// An error over HTTP: an RFC 9457 problem document, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A URI for the kind of problem; `about:blank` when the status says it all.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short words for the kind of problem.
    pub title: String,
    /// The HTTP status.
    #[serde(deserialize_with = "number::bounded_u16")]
    pub status: u16,
    /// The same word as in an `error` frame.
    #[serde(deserialize_with = "strict::word")]
    pub code: Code,
    /// What happened, in words for people; never a secret.
    pub detail: String,
    /// When to ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<UnixSeconds>,
}
