//! Bodies and paths of requests, checked once.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request, rejection::BytesRejection},
    http::{StatusCode, request::Parts},
};
use lockstep_engine::{grant::Login, record::TokenSet, time::Unix};
use lockstep_protocol::{Code, GrantName, Secret, UserId, limits::fits};
use serde::{Deserialize, de::DeserializeOwned};

use super::problem::Problem;

/// A JSON body. Not JSON: 400. JSON of another shape: 422, naming where.
pub(super) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| match rejection {
                BytesRejection::FailedToBufferBody(failed) if failed.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                    Problem::new(Code::TooLarge, "the body is too large")
                }
                _ => Problem::new(Code::BadFrame, "the body could not be read"),
            })?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(
                Code::BadFrame,
                format!(
                    "the body is not JSON (at line {} column {})",
                    error.line(),
                    error.column()
                ),
            )
        })?;
        // The path of the field, and never its value: it may be a token.
        serde_path_to_error::deserialize(value).map(Self).map_err(|error| {
            let detail = match error.path().to_string().as_str() {
                "." => "the body must be a JSON object with the fields of this endpoint".to_owned(),
                path => format!("the body's `{path}` is missing or of the wrong type"),
            };
            Problem::new(Code::BadFrame, detail).with_status(StatusCode::UNPROCESSABLE_ENTITY)
        })
    }
}

/// `…/users/{user}`.
pub(super) struct OfUser(pub UserId);

impl<S: Send + Sync> FromRequestParts<S> for OfUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(user) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| bad_path())?;
        Ok(Self(user_id(&user)?))
    }
}

/// `…/grants/{provider}/{account}`.
pub(super) struct OfGrant(pub GrantName);

impl<S: Send + Sync> FromRequestParts<S> for OfGrant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((provider, account)) = path.map_err(|_| bad_path())?;
        Ok(Self(grant_name(&provider, &account)?))
    }
}

/// `…/users/{user}/grants/{provider}/{account}`.
pub(super) struct OfUserGrant(pub UserId, pub GrantName);

impl<S: Send + Sync> FromRequestParts<S> for OfUserGrant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String, String)>::from_request_parts(parts, state).await;
        let Path((user, provider, account)) = path.map_err(|_| bad_path())?;
        Ok(Self(user_id(&user)?, grant_name(&provider, &account)?))
    }
}

fn bad_path() -> Problem {
    Problem::new(Code::BadFrame, "the path cannot be read")
}

fn user_id(text: &str) -> Result<UserId, Problem> {
    text.parse()
        .map_err(|error| Problem::new(Code::BadFrame, format!("user {error}")))
}

fn grant_name(provider: &str, account: &str) -> Result<GrantName, Problem> {
    GrantName::new(provider, account)
        .map_err(|error| Problem::new(Code::BadFrame, format!("provider and account {error}")))
}

/// What a login brings.
#[derive(Deserialize)]
pub(super) struct LoginBody {
    refresh_token: Option<Secret>,
    access_token: Option<Secret>,
    /// Seconds.
    expires_in: Option<u64>,
    /// Seconds.
    refresh_token_expires_in: Option<u64>,
    token_type: Option<String>,
    scope: Option<String>,
}

/// No token lives longer than this (100 years): larger numbers are a mistake, and would overflow sums.
const MOST_SECONDS: u64 = 100 * 366 * 24 * 3600;

impl LoginBody {
    /// The token set that it describes, as of `now`.
    ///
    /// # Errors
    /// 422 when there is neither token, or an empty one, or a lifetime that cannot be.
    pub(super) fn into_login(self, now: Unix) -> Result<Login, Problem> {
        let unusable =
            |detail: &str| Problem::new(Code::BadFrame, detail).with_status(StatusCode::UNPROCESSABLE_ENTITY);
        if self.refresh_token.is_none() && self.access_token.is_none() {
            return Err(unusable("at least one of refresh_token and access_token is needed"));
        }
        if [&self.refresh_token, &self.access_token]
            .into_iter()
            .flatten()
            .any(Secret::is_empty)
        {
            return Err(unusable("a token is empty"));
        }
        let is_long = |token: &Option<Secret>| token.as_ref().is_some_and(|token| !fits(token, self.scope.as_deref()));
        if is_long(&self.refresh_token) || is_long(&self.access_token) {
            return Err(Problem::new(
                Code::TooLarge,
                "a token or its scope would not fit into a frame",
            ));
        }
        let at = |seconds: Option<u64>| match seconds {
            Some(seconds) if seconds > MOST_SECONDS => Err(unusable("a token cannot live that long")),
            seconds => Ok(seconds.map(|seconds| now + std::time::Duration::from_secs(seconds))),
        };
        Ok(Login {
            tokens: TokenSet {
                expires_at: at(self.expires_in)?,
                refresh_expires_at: at(self.refresh_token_expires_in)?,
                access_token: self.access_token,
                refresh_token: self.refresh_token,
                token_type: self.token_type.unwrap_or_else(|| "Bearer".into()),
                scope: self.scope,
            },
        })
    }
}
