//! The endpoints beside the token endpoint: authorization, metadata, and a resource that checks access tokens.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use lockstep_protocol::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{
    book::{Book, Challenge, Code},
    ledger::AccessRefused,
};

/// An authorization request (RFC 6749 section 4.1.1, RFC 7636 section 4.3).
#[derive(Debug, Deserialize)]
pub(crate) struct AuthorizeQuery {
    response_type: Option<String>,
    client_id: Option<String>,
    redirect_uri: Option<String>,
    scope: Option<String>,
    state: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
}

/// Approves at once: redirects back with a code.
pub(crate) async fn authorize(State(book): State<Arc<Book>>, Query(query): Query<AuthorizeQuery>) -> Response {
    // Before client and redirect are known to be good, nothing may be sent there (RFC 6749 section 4.1.2.1).
    let Some(client_id) = query.client_id else {
        return (StatusCode::BAD_REQUEST, "client_id is missing").into_response();
    };
    if book
        .settings
        .client
        .as_ref()
        .is_some_and(|client| client.id != client_id)
    {
        return (StatusCode::BAD_REQUEST, "unknown client_id").into_response();
    }
    let Some(mut target) = query.redirect_uri.as_deref().and_then(|uri| Url::parse(uri).ok()) else {
        return (StatusCode::BAD_REQUEST, "redirect_uri is missing or not a URL").into_response();
    };
    let result = if query.response_type.as_deref() != Some("code") {
        Err("unsupported_response_type")
    } else {
        challenge(query.code_challenge, query.code_challenge_method.as_deref()).and_then(|challenge| {
            book.issue_code(Code {
                client_id,
                redirect_uri: query.redirect_uri,
                challenge,
                scope: query.scope.unwrap_or_else(|| "demo".into()),
            })
            .ok_or("temporarily_unavailable")
        })
    };
    {
        let mut pairs = target.query_pairs_mut();
        match &result {
            Ok(code) => pairs.append_pair("code", code),
            Err(error) => pairs.append_pair("error", error),
        };
        if let Some(state) = &query.state {
            pairs.append_pair("state", state);
        }
        pairs.append_pair("iss", &issuer(&book));
    }
    Redirect::to(target.as_str()).into_response()
}

fn challenge(challenge: Option<String>, method: Option<&str>) -> Result<Option<Challenge>, &'static str> {
    match (challenge, method) {
        (None, None) => Ok(None),
        (Some(challenge), Some("S256")) => Ok(Some(Challenge::S256(challenge))),
        (Some(challenge), None | Some("plain")) => Ok(Some(Challenge::Plain(challenge))),
        _ => Err("invalid_request"),
    }
}

/// RFC 8414 metadata.
pub(crate) async fn metadata(State(book): State<Arc<Book>>) -> Json<Value> {
    let issuer = issuer(&book);
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256", "plain"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

fn issuer(book: &Book) -> String {
    format!("http://{}", book.addr)
}

/// A protected resource: 200 with what the access token says, or 401 with the reason (RFC 6750 section 3.1).
pub(crate) async fn resource(State(book): State<Arc<Book>>, headers: HeaderMap) -> Response {
    let Some(token) = bearer(&headers) else {
        return (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer realm=\"resource\"")],
        )
            .into_response();
    };
    match book.check_access(&token) {
        Ok(claims) => Json(json!({
            "grant": claims.grant.to_string(),
            "generation": claims.generation,
            "expires_in": claims.expires_at.saturating_sub(book.now()) / 1000,
        }))
        .into_response(),
        Err(refused) => unauthorized(refused),
    }
}

fn unauthorized(refused: AccessRefused) -> Response {
    let challenge = format!("Bearer realm=\"resource\", error=\"invalid_token\", error_description=\"{refused}\"");
    let body = Json(json!({ "error": "invalid_token", "error_description": refused.to_string() }));
    let mut response = (StatusCode::UNAUTHORIZED, body).into_response();
    if let Ok(value) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim()))
}
