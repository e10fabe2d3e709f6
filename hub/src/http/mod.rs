//! The endpoints: `/v1` for devices, `/admin/v1` for operators, and the little ones that need no token.

mod admin;
mod audit;
mod auth;
mod body;
mod browsers;
mod device;
pub mod forwarded;
mod keys;
mod ops;
mod poll;
pub mod problem;
mod rates;
mod serve_token;
mod users;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use lockstep_protocol::Code;

pub use auth::AdminToken;
pub(crate) use auth::bearer as bearer_of;
pub use rates::Rates;

use crate::{
    app::Hub,
    identity,
    transport::{listener::Peer, ws},
};
use problem::Problem;

/// The largest request body, in bytes.
const MOST_BODY: usize = 64 * 1024;
/// A request's body must have come within this time.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What devices and OAuth clients talk to.
pub fn public(hub: &Arc<Hub>) -> Router {
    let is_admin = {
        let hub = Arc::clone(hub);
        Arc::new(move |token: &_| hub.admin.is(token))
    };
    let grants = Arc::new(serve_token::Served(Arc::clone(hub)));
    Router::new()
        .route("/v1/ws", get(ws::upgrade))
        .route("/v1/tokens", get(poll::tokens))
        .route("/v1/grants/{provider}/{account}", put(device::offer))
        .route("/v1/grants/{provider}/{account}/refresh", post(device::refresh))
        .route("/v1/grants/{provider}/{account}/token", get(device::token))
        .route("/v1/grants/{provider}/{account}/audit", get(audit::receipt))
        .with_state(Arc::clone(hub))
        .merge(identity::routes(Arc::clone(&hub.identity), grants, is_admin))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::clone(hub), doorman))
        .layer(middleware::from_fn(bounded))
        .layer(middleware::from_fn(careful))
        .layer(middleware::from_fn_with_state(Arc::clone(hub), browsers::gate))
}

/// What operators and monitoring talk to.
pub fn private(hub: &Arc<Hub>) -> Router {
    let guarded = Router::new()
        .route("/admin/v1/users/{user}", get(users::show).delete(users::forget))
        .route(
            "/admin/v1/users/{user}/grants/{provider}/{account}",
            put(admin::login).delete(admin::remove),
        )
        .route(
            "/admin/v1/users/{user}/grants/{provider}/{account}/refresh",
            post(admin::refresh),
        )
        .route("/admin/v1/audit", get(audit::head))
        .route("/admin/v1/keys", get(keys::list))
        .route("/admin/v1/keys/rotate", post(keys::rotate))
        .route("/admin/v1/keys/reseal", post(keys::reseal))
        .route("/admin/v1/keys/{id}", delete(keys::remove))
        .with_state(Arc::clone(hub))
        .merge(identity::admin_routes(Arc::clone(&hub.identity)))
        .route_layer(middleware::from_fn_with_state(Arc::clone(hub), audit::taken_down))
        .route_layer(middleware::from_fn_with_state(Arc::clone(hub), administrator));
    Router::new()
        .route("/metrics", get(ops::metrics))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .with_state(Arc::clone(hub))
        .merge(guarded)
        .fallback(unknown)
        .layer(middleware::from_fn(bounded))
        .layer(middleware::from_fn(careful))
}

/// Lets only the administrator pass.
async fn administrator(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    match auth::bearer(request.headers()) {
        Some(token) if hub.admin.is(&token) => next.run(request).await,
        _ => Problem::new(Code::Unauthorized, "the admin token is needed").into_response(),
    }
}

/// Lets no address pass that fails all the time.
async fn doorman(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let address = request.extensions().get::<Peer>().map(|peer| peer.address);
    if let Some(Err(come_back)) = address.map(|address| hub.rates.may_try(address)) {
        return auth::too_often(come_back).into_response();
    }
    let response = next.run(request).await;
    if let Some(address) = address.filter(|_| response.status() == StatusCode::UNAUTHORIZED) {
        hub.rates.failed(address);
    }
    response
}

/// Takes in a request's body, bounded in size and time: a slow sender holds up nobody but itself.
async fn bounded(request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY_WITHIN, to_bytes(body, MOST_BODY)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(_)) => Problem::new(Code::TooLarge, "the body is too large or broken off").into_response(),
        Err(_) => Problem::new(Code::BadFrame, "the body took too long")
            .with_status(StatusCode::REQUEST_TIMEOUT)
            .into_response(),
    }
}

/// What every answer carries, and a problem document in place of a bare error of the framework.
async fn careful(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let status = response.status();
    if status == StatusCode::METHOD_NOT_ALLOWED || status == StatusCode::PAYLOAD_TOO_LARGE {
        let allow = response.headers().get(header::ALLOW).cloned();
        response = match status {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, "the body is too large"),
            status => Problem::new(Code::BadFrame, "this method is not allowed here").with_status(status),
        }
        .into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED && !headers.contains_key(header::WWW_AUTHENTICATE) {
        headers.insert(header::WWW_AUTHENTICATE, auth::CHALLENGE);
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn unknown() -> Problem {
    Problem::new(Code::UnknownGrant, "there is nothing here").with_status(StatusCode::NOT_FOUND)
}
