//! Browsers: which pages may speak here, and what they may read of the answers (the CORS protocol of the Fetch standard).
//!
//! Pages never send credentials of the browser's own here: a token goes in `Authorization`, and there are no cookies.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use lockstep_protocol::Code;

use super::problem::Problem;
use crate::{app::Hub, config::Origin, identity};

/// What a page may call.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT");
/// What it may send along.
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, lockstep-device");
/// What it may read beside the body.
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after, www-authenticate");
/// How long a browser may remember the answer to its question, in seconds.
const REMEMBER: HeaderValue = HeaderValue::from_static("600");

/// Refuses pages of origins that are not listed (403), and lets those of the listed ones read what they are answered.
/// No `Origin`: not a browser.
pub(super) async fn gate(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    // The hub's own page judges by itself: its forms come from the hub's own origin.
    if request.uri().path() == identity::DEVICE_PAGE {
        return next.run(request).await;
    }
    if !is_listed(&hub.config.server.allowed_origins, &origin) {
        let no = Problem::new(Code::Unauthorized, "this origin is not allowed");
        return no.with_status(StatusCode::FORBIDDEN).into_response();
    }
    let mut response = if is_preflight(request.method(), request.headers()) {
        preflight()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    response
}

fn is_listed(allowed: &[Origin], origin: &HeaderValue) -> bool {
    let is = |allowed: &Origin| allowed.as_str().as_bytes().eq_ignore_ascii_case(origin.as_bytes());
    allowed.iter().any(is)
}

/// A browser asks whether it may ask.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBER);
    response
}
