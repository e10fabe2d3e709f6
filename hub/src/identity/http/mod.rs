//! Identity over HTTP: `/oauth/*` and `/.well-known/*` for everybody, device enrolment for the administrator.

mod admin;
mod admin_codes;
mod answer;
mod device_flow;
mod introspect;
mod metadata;
mod page;
mod params;
mod revoke;
mod token;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::HeaderMap,
    routing::{delete, get, post},
};
use lockstep_protocol::Secret;

pub use page::PATH as DEVICE_PAGE;
pub(crate) use params::can_be_read as parameters_can_be_read;

use super::{Grants, Identity};

/// The largest body of a request to these endpoints, in bytes. Provider refresh tokens never come here.
const LARGEST_BODY: usize = 16 * 1024;

/// Whether a bearer token is the administrator's. Must compare in constant time.
pub type AdminCheck = Arc<dyn Fn(&Secret) -> bool + Send + Sync>;

/// What the public endpoints work with.
#[derive(Clone)]
struct Door {
    identity: Arc<Identity>,
    grants: Arc<dyn Grants>,
    is_admin: AdminCheck,
}

/// The public endpoints: token, device flow, revocation, introspection, metadata, keys. Their answers bring their own
/// `Cache-Control`; errors are those of RFC 6749 section 5.2.
pub fn routes(identity: Arc<Identity>, grants: Arc<dyn Grants>, is_admin: AdminCheck) -> Router {
    Router::new()
        .route("/oauth/token", post(token::token))
        .route("/oauth/device_authorization", post(device_flow::authorize))
        .route(page::PATH, get(page::show).post(page::say))
        .route("/oauth/revoke", post(revoke::revoke))
        .route("/oauth/introspect", post(introspect::introspect))
        .route("/.well-known/jwks.json", get(metadata::jwks))
        .route("/.well-known/oauth-authorization-server", get(metadata::metadata))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(Door {
            identity,
            grants,
            is_admin,
        })
}

/// `POST /admin/v1/users/{user}/devices`, `/admin/v1/devices/{device_id}` and what is below it, and
/// `/admin/v1/device-codes/{code}`. Whoever mounts them checks the admin token first.
pub fn admin_routes(identity: Arc<Identity>) -> Router {
    Router::new()
        .route("/admin/v1/users/{user}/devices", post(admin::enrol))
        .route("/admin/v1/devices/{device_id}", get(admin::show).delete(admin::revoke))
        .route(
            "/admin/v1/devices/{device_id}/slaves/{slave}",
            delete(admin::drop_slave),
        )
        .route(
            "/admin/v1/devices/{device_id}/grants/{provider}/{account}",
            post(admin::make_slave),
        )
        .route(
            "/admin/v1/device-codes/{code}",
            get(admin_codes::look)
                .post(admin_codes::approve)
                .delete(admin_codes::deny),
        )
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(identity)
}

/// The token of `Authorization: Bearer` (RFC 6750 section 2.1), if there is one.
fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let value = headers.get(axum::http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim()))
}

#[cfg(test)]
mod tests;
