//! Identity over HTTP: `/oauth/*` and `/.well-known/*` for everybody, device enrolment for the administrator.

use std::sync::Arc;

use axum::Router;
use lockstep_protocol::Secret;

use super::{Grants, Identity};

/// Whether a bearer token is the administrator's. Must compare in constant time.
pub type AdminCheck = Arc<dyn Fn(&Secret) -> bool + Send + Sync>;

/// What the public endpoints work with.
#[derive(Clone)]
pub(super) struct Door {
    identity: Arc<Identity>,
    grants: Arc<dyn Grants>,
    is_admin: AdminCheck,
}

/// The public endpoints: token, revocation, introspection, metadata, keys. Their answers bring their own
/// `Cache-Control`; errors are those of RFC 6749 section 5.2.
pub fn routes(identity: Arc<Identity>, grants: Arc<dyn Grants>, is_admin: AdminCheck) -> Router {
    Router::new().with_state(Door {
        identity,
        grants,
        is_admin,
    })
}

/// `POST /admin/v1/users/{user}/devices`, `DELETE /admin/v1/devices/{device_id}` and
/// `POST /admin/v1/devices/{device_id}/grants/{provider}/{account}`. Whoever mounts them checks the admin token first.
pub fn admin_routes(identity: Arc<Identity>) -> Router {
    Router::new().with_state(identity)
}
