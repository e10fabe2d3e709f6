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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::to_bytes;

    use super::*;

    async fn shown(problem: Problem) -> (Response<()>, wire::Problem) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = to_bytes(body, 4096).await.expect("a body");
        let document = serde_json::from_slice(&bytes).expect("a problem document");
        (Response::from_parts(parts, ()), document)
    }

    #[tokio::test]
    async fn a_problem_is_a_problem_document() {
        let (response, document) = shown(Problem::new(Code::UnknownGrant, "no such grant")).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert!(!response.headers().contains_key("retry-after"));
        assert_eq!((document.status, document.code), (404, Code::UnknownGrant));
        assert_eq!(document.detail, "no such grant");
    }

    #[tokio::test]
    async fn when_to_ask_again_is_told_in_both_places() {
        let at = clock::unix() + Duration::from_millis(60_500);
        let (response, document) = shown(Problem::new(Code::RateLimited, "too soon").retry_at(Some(at))).await;
        assert_eq!(response.status(), 429);
        let told: u128 = response.headers()["retry-after"]
            .to_str()
            .expect("text")
            .parse()
            .expect("seconds");
        let least = at.since(clock::unix()).as_millis().div_ceil(1000);
        assert!((least..=61).contains(&told), "rounded up: {told}");
        assert_eq!(document.retry_at, Some(at.seconds_up()));
    }

    #[tokio::test]
    async fn a_time_that_has_passed_is_no_invitation_to_spin() {
        let (response, _) = shown(Problem::new(Code::Unavailable, "busy").retry_at(Some(Unix(0)))).await;
        assert_eq!(response.headers()["retry-after"], "1");
    }

    /// Design section 5: "when they cannot: 409, 404, 429 or 503".
    #[test]
    fn every_code_has_the_status_of_the_protocol_page() {
        let statuses = Code::ALL.map(|code| shows_as(code).0.as_u16());
        assert_eq!(statuses, [400, 404, 409, 409, 429, 409, 409, 503, 413, 401]);
    }

    #[test]
    fn what_a_store_says_is_not_for_clients() {
        let problem = Problem::from(StoreError::Refused("postgres://user:pass@db refused".into()));
        assert_eq!(problem.code, Code::Unavailable);
        assert!(!problem.detail.contains("postgres"), "{}", problem.detail);
    }
}
