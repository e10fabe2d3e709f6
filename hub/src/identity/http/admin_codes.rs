//! What the administrator says to devices that ask to be enrolled.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lockstep_protocol::{Code, UserId};
use serde::{Deserialize, Serialize};

use super::admin::{read_body, refuse};
use crate::{
    audit::By,
    http::problem::Problem,
    identity::{Approval, Identity, Waiting},
};

/// A yes.
#[derive(Deserialize)]
struct Yes {
    user: UserId,
    #[serde(default)]
    redeemer: bool,
    #[serde(default)]
    may_offer: bool,
    #[serde(default)]
    priority: Option<u8>,
}

/// What was approved.
#[derive(Serialize)]
struct Approved {
    user: UserId,
    #[serde(flatten)]
    device: Waiting,
}

/// One wording for a code that never was, one that has expired, and one that was answered.
fn nothing_waits() -> Problem {
    Problem::new(Code::UnknownGrant, "no device waits under this code")
}

/// `GET /admin/v1/device-codes/{code}`
pub(super) async fn look(
    State(identity): State<Arc<Identity>>,
    Path(code): Path<String>,
) -> Result<Json<Waiting>, Problem> {
    let waiting = identity.waiting(&code).await.map_err(|error| refuse(error.into()))?;
    waiting.map(Json).ok_or_else(nothing_waits)
}

/// `POST /admin/v1/device-codes/{code}`
pub(super) async fn approve(
    State(identity): State<Arc<Identity>>,
    Path(code): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let yes: Yes = read_body(body)?;
    let approval = Approval {
        user: yes.user.clone(),
        redeemer: yes.redeemer,
        may_offer: yes.may_offer,
        priority: yes.priority,
        by: By::Admin,
    };
    let approved = identity.approve(&code, approval).await;
    let device = approved.map_err(|error| refuse(error.into()))?;
    let device = device.ok_or_else(nothing_waits)?;
    Ok(Json(Approved { user: yes.user, device }).into_response())
}

/// `DELETE /admin/v1/device-codes/{code}`
pub(super) async fn deny(
    State(identity): State<Arc<Identity>>,
    Path(code): Path<String>,
) -> Result<StatusCode, Problem> {
    let denied = identity.deny(&code).await.map_err(|error| refuse(error.into()))?;
    denied.map(|_| StatusCode::NO_CONTENT).ok_or_else(nothing_waits)
}
