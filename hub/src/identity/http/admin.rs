//! What the administrator does to devices.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use lockstep_protocol::{Code, DeviceId, GrantName, Secret, UserId, http::Problem};
use serde::Serialize;

use super::answer::no_store;
use crate::identity::{Identity, NewDevice, RequestError};

/// `POST /admin/v1/users/{user}/devices`
pub(super) async fn enrol(
    State(identity): State<Arc<Identity>>,
    Path(user): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let user: UserId = user.parse().map_err(|error| bad_request(&format!("user {error}")))?;
    let new = read_body(body)?;
    let enrolled = identity.enrol(&user, new).await.map_err(refuse)?;
    Ok(no_store((StatusCode::CREATED, Json(enrolled))))
}

/// `DELETE /admin/v1/devices/{device_id}`
pub(super) async fn revoke(
    State(identity): State<Arc<Identity>>,
    Path(device): Path<String>,
) -> Result<Response, Response> {
    let device = device_id(&device)?;
    if identity.revoke(device).await.map_err(|error| refuse(error.into()))?
        || identity.knows(device).await.map_err(|error| refuse(error.into()))?
    {
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
) -> Result<Response, Response> {
    let device = device_id(&device)?;
    let grant = GrantName::new(&provider, &account).map_err(|error| bad_request(&format!("grant {error}")))?;
    let refresh_token = identity.make_slave(device, &grant).await.map_err(refuse)?;
    Ok(no_store((StatusCode::CREATED, Json(SlaveAnswer { refresh_token }))))
}

/// An id that is no UUID is no device.
fn device_id(text: &str) -> Result<DeviceId, Response> {
    text.parse().map_err(|_| refuse(RequestError::UnknownDevice))
}

fn read_body(body: Result<Bytes, BytesRejection>) -> Result<NewDevice, Response> {
    let body = body.map_err(|rejection| {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
            _ => Code::BadFrame,
        };
        problem(rejection.status(), code, "the body cannot be read")
    })?;
    let mut reader = serde_json::Deserializer::from_slice(&body);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let inner = error.inner();
        if inner.is_data() {
            problem(StatusCode::UNPROCESSABLE_ENTITY, Code::BadFrame, &error.to_string())
        } else {
            bad_request("the body is not JSON")
        }
    })
}

fn refuse(error: RequestError) -> Response {
    match error {
        RequestError::Invalid(why) => problem(StatusCode::UNPROCESSABLE_ENTITY, Code::BadFrame, &why),
        RequestError::UnknownDevice | RequestError::UnknownGrant => {
            problem(StatusCode::NOT_FOUND, Code::UnknownGrant, &error.to_string())
        }
        RequestError::Failed(error) => {
            tracing::error!(%error, "admin request about a device");
            problem(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, &error.to_string())
        }
    }
}

fn bad_request(detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, Code::BadFrame, detail)
}

fn problem(status: StatusCode, code: Code, detail: &str) -> Response {
    let problem = Problem {
        kind: "about:blank".into(),
        title: status.canonical_reason().unwrap_or("Error").into(),
        status: status.as_u16(),
        code,
        detail: detail.into(),
        retry_at: None,
    };
    (status, [(CONTENT_TYPE, "application/problem+json")], Json(problem)).into_response()
}
