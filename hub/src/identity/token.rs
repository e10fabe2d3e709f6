//! Device access tokens: JWTs by the profile of RFC 9068, EdDSA (RFC 8037) and nothing else.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header};
use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, Secret, UserId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Denied, IdentityError, IdentitySettings, Principal, keys::Keys};
use crate::store::{Device, DeviceKind};

/// `typ` (RFC 9068 section 2.1).
const TYP: &str = "at+jwt";
/// Longer texts are refused before anything is decoded. Ours have about 600 bytes.
const LONGEST: usize = 4096;

/// Every device may hold a session.
const SYNC: &str = "sync";
/// May redeem.
pub(super) const REDEEM: &str = "redeem";
/// May offer a fresh login.
pub(super) const OFFER: &str = "offer";

/// The claims (RFC 9068 section 2.2), and two of our own so that no look-up is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The hub.
    pub iss: String,
    /// For the hub.
    pub aud: String,
    /// The user.
    pub sub: UserId,
    /// The device.
    pub client_id: DeviceId,
    /// When issued, in Unix seconds.
    pub iat: u64,
    /// When it expires, in Unix seconds.
    pub exp: u64,
    /// Random id.
    pub jti: Uuid,
    /// `sync`, and `redeem` and `offer` if allowed.
    pub scope: String,
    /// Private: what the device is.
    pub kind: DeviceKind,
    /// Private: the device's own weight in elections, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
}

/// The scope of a device's tokens.
pub fn scope_of(device: &Device) -> String {
    let mut scope = String::from(SYNC);
    for (word, allowed) in [(REDEEM, device.redeemer), (OFFER, device.may_offer)] {
        if allowed {
            scope.push(' ');
            scope.push_str(word);
        }
    }
    scope
}

/// Signs an access token for `device`.
pub(super) fn mint(
    keys: &Keys,
    settings: &IdentitySettings,
    device: &Device,
    now: Unix,
) -> Result<Secret, IdentityError> {
    let claims = Claims {
        iss: settings.issuer.url().into(),
        aud: settings.audience.clone(),
        sub: device.user.clone(),
        client_id: device.id,
        iat: now.seconds().0,
        exp: (now + settings.access_ttl).seconds().0,
        jti: Uuid::new_v4(),
        scope: scope_of(device),
        kind: device.kind,
        priority: device.priority,
    };
    let key = keys.current();
    let header = Header {
        typ: Some(TYP.into()),
        kid: Some(key.kid.clone()),
        ..Header::new(Algorithm::EdDSA)
    };
    key.sign(&header, &claims)
}

/// Checks a token and reads who holds it. Revocation is the caller's to check.
pub(super) fn check(keys: &Keys, settings: &IdentitySettings, token: &Secret, now: Unix) -> Result<Principal, Denied> {
    let claims = verify(keys, settings, token, now)?;
    let has = |word: &str| claims.scope.split(' ').any(|held| held == word);
    if !has(SYNC) {
        return Err(Denied::WrongKind);
    }
    Ok(Principal {
        priority: claims.priority.unwrap_or_else(|| settings.priority_of(claims.kind)),
        redeemer: has(REDEEM),
        may_offer: has(OFFER),
        expires_at: Unix(claims.exp.saturating_mul(1000)),
        user: claims.sub,
        device: claims.client_id,
        kind: claims.kind,
        is_external: false,
    })
}

/// Checks signature, kind, issuer, audience and lifetime (RFC 9068 section 4).
pub(super) fn verify(keys: &Keys, settings: &IdentitySettings, token: &Secret, now: Unix) -> Result<Claims, Denied> {
    if token.len() > LONGEST {
        return Err(Denied::Malformed);
    }
    let header = jsonwebtoken::decode_header(token.expose()).map_err(|_| Denied::Malformed)?;
    let typed = header.typ.as_deref().is_some_and(is_access_token);
    if header.alg != Algorithm::EdDSA || !typed {
        return Err(Denied::WrongKind);
    }
    let key = header
        .kid
        .as_deref()
        .and_then(|kid| keys.by_id(kid))
        .ok_or(Denied::UnknownKey)?;
    // Only after the signature is known to be ours is anything in the claims looked at.
    let (message, signature) = token.expose().rsplit_once('.').ok_or(Denied::Malformed)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Denied::Malformed)?;
    if !key.made(&signature, message.as_bytes()) {
        return Err(Denied::BadSignature);
    }
    let claims: Claims =
        jsonwebtoken::dangerous::insecure_decode_claims(token.expose()).map_err(|_| Denied::Malformed)?;
    if !settings.issuer.accepts(&claims.iss) {
        return Err(Denied::WrongIssuer);
    }
    if claims.aud != settings.audience {
        return Err(Denied::WrongAudience);
    }
    within_lifetime(&claims, settings.clock_skew, now)?;
    Ok(claims)
}

/// The media type, with or without its `application/` (RFC 9068 section 4), whatever its case.
fn is_access_token(typ: &str) -> bool {
    typ.eq_ignore_ascii_case(TYP) || typ.eq_ignore_ascii_case("application/at+jwt")
}

fn within_lifetime(claims: &Claims, skew: Duration, now: Unix) -> Result<(), Denied> {
    let expires = Unix(claims.exp.saturating_mul(1000));
    if now >= expires + skew {
        return Err(Denied::Expired);
    }
    if Unix(claims.iat.saturating_mul(1000)) > now + skew {
        return Err(Denied::NotYet);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
