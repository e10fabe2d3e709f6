//! What the administrator does to devices.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lockstep_protocol::{Code, DeviceId, GrantName, Secret, UserId};
use serde::{Serialize, de::DeserializeOwned};

use super::answer::no_store;
use crate::{
    audit::{By, RevokedWhy},
    http::problem::Problem,
    identity::{Identity, IdentityError, NewDevice, RequestError},
};

/// `POST /admin/v1/users/{user}/devices`
pub(super) async fn enrol(
    State(identity): State<Arc<Identity>>,
    Path(user): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let user: UserId = user.parse().map_err(|error| bad_request(format!("user {error}")))?;
    let new: NewDevice = read_body(body)?;
    let enrolled = identity.enrol(&user, new, By::Admin).await.map_err(refuse)?;
    Ok(no_store((StatusCode::CREATED, Json(enrolled))))
}

/// `DELETE /admin/v1/devices/{device_id}`
pub(super) async fn revoke(
    State(identity): State<Arc<Identity>>,
    Path(device): Path<String>,
) -> Result<Response, Problem> {
    let device = device_id(&device)?;
    let fail = |error: IdentityError| refuse(error.into());
    // Revoked before is as good as revoked now.
    if identity.revoke(device, RevokedWhy::Admin).await.map_err(fail)? || identity.knows(device).await.map_err(fail)? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(refuse(RequestError::UnknownDevice))
}

#[derive(Serialize)]
struct SlaveAnswer {
    refresh_token: Secret,
}

/// `POST /admin/v1/devices/{device_id}/grants/{provider}/{account}`
pub(super) async fn make_slave(
    State(identity): State<Arc<Identity>>,
    Path((device, provider, account)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let device = device_id(&device)?;
    let grant = GrantName::new(&provider, &account).map_err(|error| bad_request(format!("grant {error}")))?;
    let refresh_token = identity.make_slave(device, &grant).await.map_err(refuse)?;
    Ok(no_store((StatusCode::CREATED, Json(SlaveAnswer { refresh_token }))))
}

/// An id that is no UUID is no device.
fn device_id(text: &str) -> Result<DeviceId, Problem> {
    text.parse().map_err(|_| refuse(RequestError::UnknownDevice))
}

/// A JSON object. Not JSON: 400. JSON of another shape: 422, naming where.
pub(super) fn read_body<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, "the body is too large"),
        _ => bad_request("the body cannot be read"),
    })?;
    // serde reads a struct from a list too.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(unprocessable("the body is not a JSON object".into()));
    }
    let mut reader = serde_json::Deserializer::from_slice(&body);
    let new = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        if error.inner().is_data() {
            unprocessable(error.to_string())
        } else {
            bad_request("the body is not JSON")
        }
    })?;
    reader
        .end()
        .map_err(|_| bad_request("something follows the JSON object"))?;
    Ok(new)
}

pub(super) fn refuse(error: RequestError) -> Problem {
    match error {
        RequestError::Invalid(why) => unprocessable(why),
        RequestError::UnknownDevice | RequestError::UnknownGrant => Problem::new(Code::UnknownGrant, error.to_string()),
        RequestError::Failed(error) => {
            tracing::error!(%error, "admin request about a device");
            Problem::new(Code::Unavailable, "the hub's store cannot do it now")
        }
    }
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadFrame, detail)
}

fn unprocessable(detail: String) -> Problem {
    bad_request(detail).with_status(StatusCode::UNPROCESSABLE_ENTITY)
}
