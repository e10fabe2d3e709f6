//! Who may call what.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_protocol::{Code, DeviceId, Secret};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::{
    app::Hub,
    clock,
    identity::{Denied, Principal},
};

/// The environment variable that stands above the token file.
const ENVIRONMENT: &str = "LOCKSTEP_ADMIN_TOKEN";
/// The largest token file, in bytes.
const MOST_TOKEN: u64 = 4096;

/// What the administrator shows. Kept hashed, compared in constant time.
pub struct AdminToken([u8; 32]);

fn hashed(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

impl AdminToken {
    /// The token of the environment, else of the file, which is made (mode 0600) if absent.
    ///
    /// # Errors
    /// When the file can neither be read nor made, or is empty.
    pub fn load(file: &Path) -> io::Result<Self> {
        if let Ok(token) = std::env::var(ENVIRONMENT)
            && !token.trim().is_empty()
        {
            return Ok(Self(hashed(token.trim())));
        }
        let token = match OpenOptions::new().read(true).open(file) {
            Ok(open) => {
                let mut text = String::new();
                open.take(MOST_TOKEN).read_to_string(&mut text)?;
                text
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(file)?,
            Err(error) => return Err(error),
        };
        if token.trim().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        Ok(Self(hashed(token.trim())))
    }

    /// Whether this is it.
    pub fn is(&self, token: &Secret) -> bool {
        hashed(token.expose()).ct_eq(&self.0).into()
    }
}

fn make(file: &Path) -> io::Result<String> {
    let token = format!("lsa_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(open, "{token}")?;
    open.sync_all()?;
    tracing::info!(file = %file.display(), "admin token made");
    Ok(token)
}

/// The bearer token of a request (RFC 6750 section 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| Secret::new(token.trim()))
}

/// How a device calls itself, for tokens that do not say: those of an identity provider.
const DEVICE: &str = "lockstep-device";

fn named(headers: &HeaderMap) -> Option<DeviceId> {
    headers.get(DEVICE)?.to_str().ok()?.parse().ok()
}

/// The device that makes a request. 401 when it does not prove who it is, 429 when it asks too often.
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Problem> {
        let token = bearer(&parts.headers);
        let token = token.ok_or_else(|| Problem::new(Code::Unauthorized, "a device access token is needed"))?;
        let recognised = hub
            .identity
            .recognise(&token, named(&parts.headers), clock::unix())
            .await;
        let principal = recognised.map_err(|denied| {
            tracing::debug!(%denied, "request refused");
            match denied {
                Denied::Revoked => Problem::new(Code::Unauthorized, "the device is revoked"),
                Denied::Unavailable => Problem::new(Code::Unavailable, "the device cannot be looked up now"),
                _ => Problem::new(Code::Unauthorized, "the device access token is not valid"),
            }
        })?;
        hub.rates.request(principal.device).map_err(too_often)?;
        Ok(Self(principal))
    }
}

/// The answer to one who comes too often.
pub(super) fn too_often(come_back: Duration) -> Problem {
    Problem::new(Code::RateLimited, "too many requests").retry_at(Some(clock::unix() + come_back))
}

/// The challenge that goes with a 401 (RFC 6750 section 3).
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"lockstep\"");
