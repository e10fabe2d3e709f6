//! What is to be found where.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};

use super::{authorize, book::Book, control, token};

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

pub(super) fn routes(book: Arc<Book>) -> Router {
    Router::new()
        .route("/token", post(token::token))
        .route("/revoke", post(token::revoke))
        .route("/authorize", get(authorize::authorize))
        .route("/.well-known/oauth-authorization-server", get(authorize::metadata))
        .route("/resource", get(authorize::resource).post(authorize::resource))
        .nest("/control", control::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(book)
}
