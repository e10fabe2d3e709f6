//! The two codes of a request as texts: one for the device to present, one for people to type.
//!
//! The device's is `ldc_` and base64url of list, expiry, nonce and a MAC of all: a made-up one costs no look-up, and one
//! that has expired is told as such although nothing of it is kept.

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_engine::time::Unix;
use lockstep_protocol::Secret;

use crate::identity::IdentityError;

/// How device codes begin.
const PREFIX: &str = "ldc_";
/// What the MAC's input begins with: device refresh tokens are made with the same key.
const DOMAIN: &[u8] = b"lockstep device code v1\0";
const NONCE: usize = 16;
/// List, expiry, nonce.
const BODY: usize = 1 + 8 + NONCE;
/// HMAC-SHA-256.
const TAG: usize = 32;

/// No vowels, so no words; nothing that looks like another (RFC 8628 section 6.1). 20^8: 34 bits.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LENGTH: usize = 8;
/// Into how many lists the requests are spread: each is one sealed value of the store.
pub(super) const LISTS: u8 = 16;

/// A device code whose MAC fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Genuine {
    /// In which list its request stands.
    pub(super) list: u8,
    /// When it expires.
    pub(super) expires_at: Unix,
}

fn mac(key: &hmac::Key, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(DOMAIN);
    context.update(body);
    context.sign()
}

/// A fresh device code for a request in `list`.
pub(super) fn issue(key: &hmac::Key, list: u8, expires_at: Unix) -> Result<Secret, IdentityError> {
    let mut nonce = [0_u8; NONCE];
    draw(&mut nonce)?;
    let mut bytes = Vec::with_capacity(BODY + TAG);
    bytes.push(list);
    bytes.extend_from_slice(&expires_at.0.to_be_bytes());
    bytes.extend_from_slice(&nonce);
    let tag = mac(key, &bytes);
    bytes.extend_from_slice(tag.as_ref());
    Ok(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
}

/// Reads a device code; none if this hub never issued it.
pub(super) fn read(key: &hmac::Key, code: &Secret) -> Option<Genuine> {
    let bytes = URL_SAFE_NO_PAD.decode(code.expose().strip_prefix(PREFIX)?).ok()?;
    if bytes.len() != BODY + TAG {
        return None;
    }
    let (body, tag) = bytes.split_at(BODY);
    let fits: bool = subtle::ConstantTimeEq::ct_eq(mac(key, body).as_ref(), tag).into();
    let (list, rest) = body.split_first()?;
    let expires_at = Unix(u64::from_be_bytes(*rest.first_chunk()?));
    (fits && *list < LISTS).then_some(Genuine {
        list: *list,
        expires_at,
    })
}

/// A fresh code for people.
pub(super) fn for_people() -> Result<String, IdentityError> {
    let mut code = String::with_capacity(LENGTH);
    while code.len() < LENGTH {
        let mut byte = [0_u8];
        draw(&mut byte)?;
        // 240 is the largest multiple of 20 in a byte: above it the letters would not be equally likely.
        if let Some(letter) = LETTERS.get(usize::from(byte[0] % 20)).filter(|_| byte[0] < 240) {
            code.push(char::from(*letter));
        }
    }
    Ok(code)
}

/// A code as people typed it, in its one spelling; none if it cannot be one.
pub(super) fn typed(text: &str) -> Option<String> {
    if text.len() > 64 {
        return None;
    }
    let code: String = text
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .collect();
    (code.len() == LENGTH && code.bytes().all(|byte| LETTERS.contains(&byte))).then_some(code)
}

/// A code as it is shown to people.
pub(super) fn shown(code: &str) -> String {
    match code.split_at_checked(LENGTH / 2) {
        Some((front, back)) => format!("{front}-{back}"),
        None => code.to_owned(),
    }
}

/// In which list the request of this code for people stands.
pub(super) fn list_of(code: &str) -> u8 {
    let place = |byte: u8| LETTERS.iter().position(|letter| *letter == byte).unwrap_or(0);
    let sum: usize = code
        .bytes()
        .take(2)
        .fold(0, |sum, byte| sum * LETTERS.len() + place(byte));
    u8::try_from(sum % usize::from(LISTS)).unwrap_or(0)
}

fn draw(bytes: &mut [u8]) -> Result<(), IdentityError> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| IdentityError::Crypto("draw random numbers"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
    }

    #[test]
    fn a_device_code_says_what_it_was_made_for_and_no_other_key_believes_it() {
        let code = issue(&key(), 5, Unix(77)).unwrap();
        let genuine = Genuine {
            list: 5,
            expires_at: Unix(77),
        };
        assert_eq!(read(&key(), &code), Some(genuine));
        assert_eq!(read(&hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]), &code), None);
        assert_ne!(issue(&key(), 5, Unix(77)).unwrap(), code);
    }

    #[test]
    fn people_may_type_a_code_in_any_spelling() {
        for typed_as in ["WDJB-MJHT", "wdjbmjht", " wdjb mjht ", "WDJB–MJHT"] {
            assert_eq!(typed(typed_as).as_deref(), Some("WDJBMJHT"), "{typed_as}");
        }
        for no_code in ["", "WDJB-MJH", "WDJB-MJHTX", "WDJA-MJHT", "WDJB-MJH1"] {
            assert_eq!(typed(no_code), None, "{no_code}");
        }
        assert_eq!(shown("WDJBMJHT"), "WDJB-MJHT");
    }

    #[test]
    fn codes_for_people_are_spread_over_all_lists() {
        let lists: std::collections::HashSet<u8> = (0..2000).map(|_| list_of(&for_people().unwrap())).collect();
        assert_eq!(lists.len(), usize::from(LISTS));
        assert!(lists.iter().all(|list| *list < LISTS));
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_believes_nothing_made_up(text: String) {
            prop_assert_eq!(read(&key(), &Secret::new(format!("{PREFIX}{text}"))), None);
            let _ = typed(&text);
        }
    }
}
