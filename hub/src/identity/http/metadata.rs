//! What clients and resource servers may read: metadata (RFC 8414) and public keys (RFC 7517, RFC 8037).

use axum::{
    Json,
    extract::State,
    http::header::CACHE_CONTROL,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{Door, device_flow};

/// How long others may keep these, in seconds. A new signing key is published long before it signs.
const KEEP: &str = "public, max-age=300";

/// RFC 8414 section 2.
#[derive(Serialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    device_authorization_endpoint: String,
    revocation_endpoint: String,
    introspection_endpoint: String,
    jwks_uri: String,
    scopes_supported: [&'static str; 3],
    response_types_supported: [&'static str; 0],
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: [&'static str; 3],
    revocation_endpoint_auth_methods_supported: [&'static str; 3],
}

/// Clients are known by their refresh tokens; whatever credentials they bring besides are ignored.
const ANY_CREDENTIALS: [&str; 3] = ["none", "client_secret_basic", "client_secret_post"];

pub(super) async fn metadata(State(door): State<Door>) -> Response {
    let base = door.identity.settings.issuer.url();
    let metadata = Metadata {
        issuer: base.into(),
        token_endpoint: format!("{base}/oauth/token"),
        device_authorization_endpoint: format!("{base}/oauth/device_authorization"),
        revocation_endpoint: format!("{base}/oauth/revoke"),
        introspection_endpoint: format!("{base}/oauth/introspect"),
        jwks_uri: format!("{base}/.well-known/jwks.json"),
        scopes_supported: ["sync", "redeem", "offer"],
        response_types_supported: [],
        grant_types_supported: ["refresh_token", device_flow::GRANT_TYPE],
        token_endpoint_auth_methods_supported: ANY_CREDENTIALS,
        revocation_endpoint_auth_methods_supported: ANY_CREDENTIALS,
    };
    ([(CACHE_CONTROL, KEEP)], Json(metadata)).into_response()
}

#[derive(Serialize)]
struct KeySet<'a> {
    keys: Vec<Key<'a>>,
}

/// RFC 8037 section 2.
#[derive(Serialize)]
struct Key<'a> {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    kid: &'a str,
    x: &'a str,
}

pub(super) async fn jwks(State(door): State<Door>) -> Response {
    let keys = door.identity.keys.all().iter().map(|key| Key {
        kty: "OKP",
        crv: "Ed25519",
        alg: "EdDSA",
        usage: "sig",
        kid: &key.kid,
        x: &key.x,
    });
    let set = KeySet { keys: keys.collect() };
    ([(CACHE_CONTROL, KEEP)], Json(set)).into_response()
}
