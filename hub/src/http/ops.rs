//! What monitoring asks, without a token.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{app::Hub, telemetry};

/// How long the store may take to answer before the hub counts as not ready.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// `GET /metrics`: the Prometheus text format, version 0.0.4.
pub(super) async fn metrics() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, telemetry::metrics::render()).into_response()
}

/// `GET /healthz`: the process lives.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the hub can serve.
pub(super) async fn readyz(State(hub): State<Arc<Hub>>) -> Response {
    let store = match tokio::time::timeout(READY_WITHIN, hub.store.mark()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the store does not answer".to_owned()),
    };
    let leaving = hub.leaving.is_cancelled();
    let ready = store.is_ok() && !leaving;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let detail = json!({
        "ready": ready,
        "leaving": leaving,
        "cluster": hub.bus.trouble().map_or_else(|| "ok".to_owned(), |trouble| format!("degraded: {trouble}")),
        "writes": hub.writes.refused().unwrap_or_else(|| "ok".into()),
        "store": store.err().unwrap_or_else(|| "ok".into()),
        "connections": hub.doors.inside(),
    });
    (status, Json(detail)).into_response()
}
