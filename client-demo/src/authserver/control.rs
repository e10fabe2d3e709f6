//! The control API: makes grants, asks for faults, tells what was called.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    FaultSpec, Granted,
    book::Book,
    calls::{Call, Stats},
    ledger::FamilyView,
};

pub(crate) fn routes() -> Router<Arc<Book>> {
    Router::new()
        .route("/grants", post(grant).get(families))
        .route("/grants/{grant}", get(family).delete(revoke))
        .route("/grants/{grant}/kill-access", post(kill_access))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/calls", get(calls))
        .route("/stats", get(stats))
}

/// What a grant may be made with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    client_id: Option<String>,
    scope: Option<String>,
}

async fn grant(State(book): State<Arc<Book>>, body: Bytes) -> Result<(StatusCode, Json<Granted>), Response> {
    let wish: GrantBody = if body.is_empty() {
        GrantBody::default()
    } else {
        serde_json::from_slice(&body).map_err(|e| refuse(StatusCode::BAD_REQUEST, &e))?
    };
    Ok((StatusCode::CREATED, Json(book.grant(wish.client_id, wish.scope))))
}

async fn families(State(book): State<Arc<Book>>) -> Json<Vec<FamilyView>> {
    Json(book.families())
}

async fn family(State(book): State<Arc<Book>>, Path(grant): Path<String>) -> Result<Json<FamilyView>, StatusCode> {
    book.family(&grant).map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn revoke(State(book): State<Arc<Book>>, Path(grant): Path<String>) -> StatusCode {
    found(book.revoke(&grant))
}

async fn kill_access(State(book): State<Arc<Book>>, Path(grant): Path<String>) -> StatusCode {
    found(book.kill_access(&grant))
}

fn found(found: bool) -> StatusCode {
    if found {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn add_fault(State(book): State<Arc<Book>>, body: Bytes) -> Result<StatusCode, Response> {
    let spec: FaultSpec = serde_json::from_slice(&body).map_err(|e| refuse(StatusCode::BAD_REQUEST, &e))?;
    book.add_fault(spec)
        .map_err(|e| refuse(StatusCode::UNPROCESSABLE_ENTITY, &e))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(book): State<Arc<Book>>) -> StatusCode {
    book.clear_faults();
    StatusCode::NO_CONTENT
}

/// From where to list calls.
#[derive(Debug, Deserialize)]
struct CallsQuery {
    #[serde(default)]
    after: u64,
}

async fn calls(State(book): State<Arc<Book>>, Query(query): Query<CallsQuery>) -> Json<Vec<Call>> {
    Json(book.calls_after(query.after))
}

async fn stats(State(book): State<Arc<Book>>) -> Json<Stats> {
    Json(book.stats())
}

fn refuse(status: StatusCode, why: &dyn std::fmt::Display) -> Response {
    (status, Json(json!({ "error": why.to_string() }))).into_response()
}
