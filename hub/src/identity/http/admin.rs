//! What the administrator does to devices.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lockstep_engine::time::Unix;
use lockstep_protocol::{Code, DeviceId, GrantName, Secret, UnixSeconds, UserId};
use serde::{Serialize, de::DeserializeOwned};

use super::answer::no_store;
use crate::{
    audit::{By, RevokedWhy},
    http::problem::Problem,
    identity::{Identity, IdentityError, NewDevice, RequestError},
    store::{DeviceKind, Hash},
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

/// A device, as the store has it, and its slaves.
#[derive(Serialize)]
struct DeviceView {
    device_id: DeviceId,
    user: UserId,
    kind: DeviceKind,
    name: String,
    redeemer: bool,
    may_offer: bool,
    priority: Option<u8>,
    enrolled_at: UnixSeconds,
    revoked_at: Option<UnixSeconds>,
    last_seen: Option<UnixSeconds>,
    slaves: Vec<SlaveView>,
}

/// A slave; never its token.
#[derive(Serialize)]
struct SlaveView {
    id: String,
    grant: GrantName,
    made_at: UnixSeconds,
}

/// `GET /admin/v1/devices/{device_id}`
pub(super) async fn show(
    State(identity): State<Arc<Identity>>,
    Path(device): Path<String>,
) -> Result<Response, Problem> {
    let (device, slaves) = identity.look(device_id(&device)?).await.map_err(refuse)?;
    let slaves = slaves.into_iter().map(|(hash, slave)| SlaveView {
        id: slave_id(hash),
        grant: slave.grant,
        made_at: slave.made_at.seconds(),
    });
    Ok(Json(DeviceView {
        slaves: slaves.collect(),
        device_id: device.id,
        user: device.user,
        kind: device.kind,
        name: device.name,
        redeemer: device.redeemer,
        may_offer: device.may_offer,
        priority: device.priority,
        enrolled_at: device.enrolled_at.seconds(),
        revoked_at: device.revoked_at.map(Unix::seconds),
        last_seen: device.last_seen.map(Unix::seconds),
    })
    .into_response())
}

/// `DELETE /admin/v1/devices/{device_id}/slaves/{slave}`
pub(super) async fn drop_slave(
    State(identity): State<Arc<Identity>>,
    Path((device, slave)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (_, slaves) = identity.look(device_id(&device)?).await.map_err(refuse)?;
    let hash = slaves
        .into_iter()
        .map(|(hash, _)| hash)
        .find(|hash| slave_id(*hash) == slave);
    let hash = hash.ok_or_else(|| Problem::new(Code::UnknownGrant, "no such slave of this device"))?;
    identity
        .drop_slave_by(hash)
        .await
        .map_err(|error| refuse(error.into()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// How an operator names a slave: the beginning of its hash, which tells nothing of its token.
fn slave_id(hash: Hash) -> String {
    hash.0.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
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
