//! The parameters of a token request: a form, or a JSON object, as stock clients send either.

use std::collections::HashMap;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
};
use lockstep_protocol::Secret;
use serde_json::Value;
use url::form_urlencoded;

use super::answer::OAuthError;

/// The parameters that any endpoint here reads. All others are dropped unread: clients send stray ones, secrets among
/// them.
const KNOWN: [&str; 12] = [
    "grant_type",
    "refresh_token",
    "scope",
    "token",
    "token_type_hint",
    "device_code",
    "client_id",
    "device_name",
    "device_kind",
    "user_code",
    "ticket",
    "action",
];

/// The parameters of a request. Client credentials are not among them: whatever comes is ignored.
#[derive(Debug, Default)]
pub(super) struct Params(HashMap<&'static str, Secret>);

impl Params {
    /// A parameter; none if absent or empty (RFC 6749 section 3.2: sent without a value means omitted).
    pub(super) fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name).filter(|value| !value.is_empty())
    }

    /// A parameter that is no secret.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(Secret::expose)
    }

    /// The same, of one without which nothing can be done.
    pub(super) fn required(&self, name: &'static str) -> Result<&Secret, OAuthError> {
        self.get(name)
            .ok_or_else(|| OAuthError::invalid_request(format!("{name} is missing")))
    }

    fn put(&mut self, name: &str, value: impl Into<String>) -> Result<(), OAuthError> {
        let Some(known) = KNOWN.iter().find(|known| **known == name) else {
            return Ok(());
        };
        match self.0.insert(known, Secret::new(value)) {
            None => Ok(()),
            // RFC 6749 section 3.2: parameters must not be included more than once.
            Some(_) => Err(OAuthError::invalid_request(format!("{known} comes twice"))),
        }
    }

    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, OAuthError> {
        let media = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map_or_else(String::new, |media| media.trim().to_ascii_lowercase());
        match media.as_str() {
            "" | "application/x-www-form-urlencoded" => Self::read_form(body),
            media if media == "application/json" || media.ends_with("+json") => Self::read_json(body),
            _ => Err(OAuthError::invalid_request(
                "the body must be application/x-www-form-urlencoded or application/json",
            )),
        }
    }

    fn read_form(body: &[u8]) -> Result<Self, OAuthError> {
        let mut params = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            params.put(&name, value)?;
        }
        Ok(params)
    }

    fn read_json(body: &[u8]) -> Result<Self, OAuthError> {
        let bad = || OAuthError::invalid_request("the body is not a JSON object");
        let object: serde_json::Map<String, Value> = serde_json::from_slice(body).map_err(|_| bad())?;
        let mut params = Self::default();
        for (name, value) in object {
            match value {
                Value::String(text) => params.put(&name, text)?,
                Value::Null => {}
                _ if KNOWN.contains(&name.as_str()) => {
                    return Err(OAuthError::invalid_request(format!("{name} must be a string")));
                }
                _ => {}
            }
        }
        Ok(params)
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = OAuthError;

    async fn from_request(request: Request, state: &S) -> Result<Self, OAuthError> {
        let headers = request.headers().clone();
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| too_large(&rejection))?;
        Self::read(&headers, &body)
    }
}

/// Whether a body of this media type can be read. Whatever it is, reading it does not panic.
pub(crate) fn can_be_read(media: &'static str, body: &[u8]) -> bool {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media))]);
    Params::read(&headers, body).is_ok()
}

fn too_large(rejection: &BytesRejection) -> OAuthError {
    let status = rejection.status();
    let words = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is too large",
        _ => "the body cannot be read",
    };
    OAuthError::invalid_request(words).with_status(status)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(media: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media))])
    }

    #[test]
    fn a_form_and_a_json_object_say_the_same() {
        let form = b"grant_type=refresh_token&refresh_token=lsd_a%2Bb&client_secret=x&client_id=";
        let json = br#"{"grant_type":"refresh_token","refresh_token":"lsd_a+b","audience":["x"],"client_id":null}"#;
        let form = Params::read(&headers("application/x-www-form-urlencoded; charset=UTF-8"), form).unwrap();
        let json = Params::read(&headers("application/json"), json).unwrap();
        for params in [form, json] {
            assert_eq!(params.text("grant_type"), Some("refresh_token"));
            assert_eq!(params.text("refresh_token"), Some("lsd_a+b"));
            assert_eq!(params.text("client_id"), None);
        }
    }

    #[test]
    fn a_known_parameter_must_not_come_twice_and_a_stray_one_may() {
        let form = headers("application/x-www-form-urlencoded");
        assert!(Params::read(&form, b"token=a&token=b").is_err());
        assert!(Params::read(&form, b"token=a&x=1&x=2").is_ok());
    }

    proptest! {
        #[test]
        fn reading_never_panics(body: Vec<u8>, json: bool) {
            let media = if json { "application/json" } else { "application/x-www-form-urlencoded" };
            let _ = Params::read(&headers(media), &body);
        }
    }
}
