//! Errors over HTTP: RFC 9457 problem documents. One table says what each code is over HTTP and over WebSocket.

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use lockstep_engine::{grant::Reply, time::Unix};
use lockstep_protocol::{Close, Code, http as wire};

use crate::{clock, store::StoreError};

/// What a request that failed is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The word for it.
    pub code: Code,
    /// What happened, for people; never a secret.
    pub detail: String,
    /// When to ask again.
    pub retry_at: Option<Unix>,
}

/// How a code shows: its HTTP status, a title, and how a session ends over it, if it does.
pub const fn shows_as(code: Code) -> (StatusCode, &'static str, Option<Close>) {
    match code {
        Code::BadFrame => (StatusCode::BAD_REQUEST, "Malformed request", Some(Close::Protocol)),
        Code::UnknownGrant => (StatusCode::NOT_FOUND, "Not found", None),
        Code::NotElected => (StatusCode::CONFLICT, "Not elected", None),
        Code::Superseded => (StatusCode::CONFLICT, "Superseded", None),
        Code::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Too many requests", Some(Close::TooMany)),
        Code::ReauthRequired => (StatusCode::CONFLICT, "Login required", None),
        Code::Suspect => (StatusCode::CONFLICT, "Outcome unknown", None),
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable", None),
        Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Too large", Some(Close::TooBig)),
        Code::Unauthorized => (
            StatusCode::UNAUTHORIZED,
            "Not authenticated",
            Some(Close::NotAuthenticated),
        ),
    }
}

impl Problem {
    /// A problem with the status that its code has in the table.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            status: shows_as(code).0,
            code,
            detail: detail.into(),
            retry_at: None,
        }
    }

    /// The same, with another status where HTTP knows better: 403 instead of 401, 422 instead of 400.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same, with the time to ask again.
    #[must_use]
    pub fn retry_at(mut self, at: Option<Unix>) -> Self {
        self.retry_at = at;
        self
    }

    /// The answer to a request of a grant's machine that did not succeed; none if it did.
    pub fn of_reply(reply: Reply) -> Option<Self> {
        match reply {
            Reply::Done(_) | Reply::Deleted => None,
            Reply::Retired => Some(
                Self::new(Code::Superseded, "this refresh token was used up before").with_status(StatusCode::CONFLICT),
            ),
            Reply::Failed {
                code,
                message,
                retry_at,
            } => Some(Self::new(code, message).retry_at(retry_at)),
        }
    }
}

/// What a store says is for the log; a client learns that it cannot be done now.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "store");
        Self::new(Code::Unavailable, "the hub's store cannot do it now")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = wire::Problem {
            kind: "about:blank".into(),
            title: shows_as(self.code).1.into(),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail,
            retry_at: self.retry_at.map(Unix::seconds_up),
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(at) = self.retry_at {
            // At least a second: 0 would be an invitation to spin.
            let seconds = at.since(clock::unix()).as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                headers.insert(RETRY_AFTER, value);
            }
        }
        response
    }
}
