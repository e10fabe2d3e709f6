//! Device refresh tokens: `lsd_` and base64url of device id, generation and a MAC of both.
//!
//! A token can be derived again from what the store holds (the generation) and the shared key, so a device whose last
//! answer was lost is given the very same newest token, although the store holds only hashes. And the MAC tells a
//! genuine old token, which means a copy is in use, from a made-up one, which means nothing.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_protocol::{DeviceId, Secret};
use uuid::Uuid;

/// How device refresh tokens begin.
pub const PREFIX: &str = "lsd_";
/// Device id, generation.
const BODY: usize = 16 + 8;
/// HMAC-SHA-256.
const TAG: usize = 32;

/// A token whose MAC fits: some node of this hub issued it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Genuine {
    /// To which device.
    pub device: DeviceId,
    /// How often it had been rotated.
    pub generation: u64,
}

/// The refresh token of a device at a generation.
pub fn derive(key: &hmac::Key, device: DeviceId, generation: u64) -> Secret {
    let mut bytes = Vec::with_capacity(BODY + TAG);
    bytes.extend_from_slice(device.0.as_bytes());
    bytes.extend_from_slice(&generation.to_be_bytes());
    let tag = hmac::sign(key, &bytes);
    bytes.extend_from_slice(tag.as_ref());
    Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Reads a token; none if this hub never issued it. The MAC is compared in constant time.
pub fn read(key: &hmac::Key, token: &str) -> Option<Genuine> {
    let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
    if bytes.len() != BODY + TAG {
        return None;
    }
    let (body, tag) = bytes.split_at(BODY);
    hmac::verify(key, body, tag).ok()?;
    let (device, generation) = body.split_at(16);
    Some(Genuine {
        device: DeviceId(Uuid::from_slice(device).ok()?),
        generation: u64::from_be_bytes(generation.try_into().ok()?),
    })
}
