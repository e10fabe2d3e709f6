//! The audit log over HTTP: its end for the operator, the record of one version for the devices of its user.

use std::sync::Arc;

use axum::{
    Json as Answer,
    extract::{MatchedPath, Query, Request, State, rejection::QueryRejection},
    middleware::Next,
    response::Response,
};
use lockstep_protocol::{Code, Version};
use serde::{Deserialize, Serialize};

use super::{auth::Caller, body::OfGrant, problem::Problem};
use crate::{
    app::Hub,
    audit::{AuditError, Event, Head, Receipt},
};

/// A record is to stay a line of bounded length.
const LONGEST_PATH: usize = 512;

/// The end of this node's chain.
#[derive(Serialize)]
pub(super) struct HeadView {
    node: String,
    /// Verifies its signatures: Ed25519, base64url.
    key: String,
    head: Head,
}

fn off() -> Problem {
    Problem::new(Code::Unavailable, "this hub keeps no audit log")
}

/// `GET /admin/v1/audit`
pub(super) async fn head(State(hub): State<Arc<Hub>>) -> Result<Answer<HeadView>, Problem> {
    if !hub.audit.flush().await {
        return Err(Problem::new(Code::Unavailable, AuditError::Behind.to_string()));
    }
    let (Some(head), Some(key)) = (hub.audit.head(), hub.audit.public_key()) else {
        return Err(off());
    };
    let head = *head.borrow();
    Ok(Answer(HeadView {
        node: hub.me.node.clone(),
        key: key.as_str().to_owned(),
        head,
    }))
}

/// The query of [`receipt`].
#[derive(Deserialize)]
pub(super) struct Which {
    version: u64,
}

/// `GET /v1/grants/{provider}/{account}/audit?version=N`: the record of a commit, signed.
pub(super) async fn receipt(
    State(hub): State<Arc<Hub>>,
    Caller(principal): Caller,
    OfGrant(grant): OfGrant,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Answer<Receipt>, Problem> {
    let Query(which) = which.map_err(|_| Problem::new(Code::BadFrame, "version is a whole number"))?;
    let found = hub.audit.receipt(principal.user, grant, Version(which.version)).await;
    let found = found.map_err(|error| {
        tracing::error!(%error, "the audit log cannot be read");
        Problem::new(Code::Unavailable, "the audit log cannot be read now")
    })?;
    let nothing = || Problem::new(Code::UnknownGrant, "no record of this version here");
    found.map(Answer).ok_or_else(nothing)
}

/// Takes down what the administrator does. What is refused for want of a token is for the log and the metrics: it must not
/// fill the disk.
pub(super) async fn taken_down(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    // A code that waits for its word is worth something until it has it.
    let is_code = request
        .extensions()
        .get::<MatchedPath>()
        .is_some_and(|path| path.as_str().ends_with("/device-codes/{code}"));
    let path = if is_code {
        "/admin/v1/device-codes/{code}".to_owned()
    } else {
        request.uri().path().chars().take(LONGEST_PATH).collect()
    };
    let response = next.run(request).await;
    hub.audit.record(Event::AdminCall {
        method,
        path,
        status: response.status().as_u16(),
    });
    response
}
