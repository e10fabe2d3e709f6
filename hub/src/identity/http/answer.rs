//! Answers of the OAuth endpoints.

use std::borrow::Cow;

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::clock;

/// How long to wait when nobody knows better, in seconds.
const RETRY_SOON: u64 = 2;

/// An error by RFC 6749 section 5.2, or one of those that extend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OAuthError {
    status: StatusCode,
    error: &'static str,
    description: Cow<'static, str>,
    /// Seconds.
    retry_after: Option<u64>,
}

impl OAuthError {
    fn new(error: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description: description.into(),
            retry_after: None,
        }
    }

    /// The request cannot be understood.
    pub(super) fn invalid_request(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new("invalid_request", description)
    }

    /// The one answer to every refresh token that is not good, whatever the reason: it tells nobody what exists.
    pub(super) fn invalid_grant() -> Self {
        Self::new("invalid_grant", "the refresh token is not valid, or no longer")
    }

    /// The refresh token is good, and the grant behind it is not.
    pub(super) fn dead_grant(reason: String) -> Self {
        Self::new("invalid_grant", reason)
    }

    /// RFC 8628 section 3.5.
    pub(super) fn of_device_flow(error: &'static str, description: String) -> Self {
        Self::new(error, description)
    }

    pub(super) fn unsupported_grant_type() -> Self {
        Self::new(
            "unsupported_grant_type",
            "this endpoint takes grant_type=refresh_token and the device flow's",
        )
    }

    /// RFC 7009 section 2.2.1.
    pub(super) fn unsupported_token_type() -> Self {
        Self::new(
            "unsupported_token_type",
            "access tokens end by themselves: revoke the refresh token",
        )
    }

    /// RFC 6750 section 3.1.
    pub(super) fn not_authenticated() -> Self {
        Self::new("invalid_token", "an admin token or a device access token is needed")
            .with_status(StatusCode::UNAUTHORIZED)
    }

    /// It may be better later. Never an error that makes a client wipe its login.
    pub(super) fn unavailable(description: impl Into<Cow<'static, str>>, retry_after: Option<u64>) -> Self {
        Self {
            retry_after: Some(retry_after.unwrap_or(RETRY_SOON).max(1)),
            ..Self::new("temporarily_unavailable", description).with_status(StatusCode::SERVICE_UNAVAILABLE)
        }
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

/// Seconds from now until `at`, for `Retry-After`.
pub(super) fn seconds_until(at: lockstep_protocol::UnixSeconds) -> u64 {
    at.0.saturating_sub(clock::unix().seconds().0)
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_description: &'a str,
}

/// An answer that nobody may keep (RFC 6749 section 5.1).
pub(super) fn no_store(answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: self.error,
            error_description: &self.description,
        };
        let mut response = no_store((self.status, Json(body)));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
