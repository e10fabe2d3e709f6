//! Reading a token request: form or JSON body, client credentials in the header, in the body, or none.

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use lockstep_protocol::Secret;
use serde::Deserialize;
use url::form_urlencoded;

use super::{Client, oauth_error::OauthError};

/// The fields of a token request that this server knows; others are ignored (RFC 6749 section 3.2).
#[derive(Debug, Default, Deserialize)]
pub(crate) struct TokenRequest {
    pub(crate) grant_type: Option<String>,
    pub(crate) refresh_token: Option<Secret>,
    pub(crate) code: Option<Secret>,
    pub(crate) code_verifier: Option<Secret>,
    pub(crate) redirect_uri: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) client_secret: Option<Secret>,
}

impl TokenRequest {
    /// Reads a request and its client credentials, wherever they stand.
    pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, OauthError> {
        let mut request = Self::read_body(headers, body)?;
        if let Some((id, secret)) = basic_credentials(headers)? {
            if request.client_secret.is_some() {
                return Err(OauthError::InvalidRequest("client credentials given twice"));
            }
            request.client_id = Some(id);
            request.client_secret = Some(secret);
        }
        Ok(request)
    }

    /// Whether the request comes from `client`.
    pub(crate) fn is_from(&self, client: &Client) -> bool {
        self.client_id.as_deref() == Some(&client.id)
            && match &client.secret {
                None => true,
                Some(secret) => self.client_secret.as_ref() == Some(secret),
            }
    }

    fn read_body(headers: &HeaderMap, body: &[u8]) -> Result<Self, OauthError> {
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map(str::trim);
        match content_type {
            Some(kind) if kind.eq_ignore_ascii_case("application/json") => serde_json::from_slice(body)
                .map_err(|_| OauthError::InvalidRequest("the body is not the JSON object of a token request")),
            Some(kind) if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") => Self::read_form(body),
            _ => Err(OauthError::InvalidRequest("the body must be a form or JSON")),
        }
    }

    fn read_form(body: &[u8]) -> Result<Self, OauthError> {
        let mut request = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let first = match &*name {
                "grant_type" => request.grant_type.replace(value.into()).is_none(),
                "refresh_token" => request.refresh_token.replace(Secret::new(value)).is_none(),
                "code" => request.code.replace(Secret::new(value)).is_none(),
                "code_verifier" => request.code_verifier.replace(Secret::new(value)).is_none(),
                "redirect_uri" => request.redirect_uri.replace(value.into()).is_none(),
                "client_id" => request.client_id.replace(value.into()).is_none(),
                "client_secret" => request.client_secret.replace(Secret::new(value)).is_none(),
                _ => true,
            };
            if !first {
                return Err(OauthError::InvalidRequest("a parameter is given twice"));
            }
        }
        Ok(request)
    }
}

/// `Authorization: Basic`, both parts form-encoded inside (RFC 6749 section 2.3.1).
fn basic_credentials(headers: &HeaderMap) -> Result<Option<(String, Secret)>, OauthError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let read = || {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (id, secret) = text.split_once(':')?;
        Some((form_decode(id), Secret::new(form_decode(secret))))
    };
    read().map(Some).ok_or(OauthError::InvalidClient)
}

fn form_decode(text: &str) -> String {
    form_urlencoded::parse(format!("v={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
