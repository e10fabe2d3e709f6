//! What the tokens look like: they name their family and generation, and carry a MAC, so that the server recognises
//! every token it ever issued without keeping them.

use std::fmt;

use aws_lc_rs::{digest, hmac, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_protocol::Secret;

/// Names one grant of the server: `g1`, `g2`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GrantId(pub(crate) u64);

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

impl std::str::FromStr for GrantId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = text.strip_prefix('g').ok_or(())?.parse().map_err(|_| ())?;
        Ok(Self(number))
    }
}

/// Which rotation of a family a token belongs to; the first pair is generation 0.
pub(crate) type Generation = u32;

/// What a genuine access token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AccessClaims {
    pub(crate) grant: GrantId,
    pub(crate) generation: Generation,
    /// Unix milliseconds.
    pub(crate) expires_at: u64,
}

/// What a genuine refresh token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefreshClaims {
    pub(crate) grant: GrantId,
    pub(crate) generation: Generation,
}

/// Makes tokens and recognises them.
pub(crate) struct Mint {
    key: hmac::Key,
    access_bytes: usize,
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mint")
    }
}

impl Mint {
    pub(crate) fn new(access_bytes: usize) -> Self {
        let mut key = [0; 32];
        fill_random(&mut key);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            access_bytes,
        }
    }

    pub(crate) fn access(&self, claims: AccessClaims) -> Secret {
        let AccessClaims {
            grant,
            generation,
            expires_at,
        } = claims;
        let mut text = self.sign(format!("at.{grant}.{generation}.{expires_at}"));
        if text.len() < self.access_bytes {
            text.push('.');
            // The MAC again and again: like a real JWT, it does not compress to nothing.
            let filler = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, text.as_bytes()));
            while text.len() < self.access_bytes {
                let missing = self.access_bytes - text.len();
                text.push_str(&filler[..missing.min(filler.len())]);
            }
        }
        Secret::new(text)
    }

    pub(crate) fn refresh(&self, claims: RefreshClaims) -> Secret {
        let RefreshClaims { grant, generation } = claims;
        Secret::new(self.sign(format!("rt.{grant}.{generation}")))
    }

    pub(crate) fn read_access(&self, token: &Secret) -> Option<AccessClaims> {
        let mut parts = token.expose().split('.');
        let (kind, grant, generation, expires_at, mac) = (
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next()?,
        );
        if kind != "at" {
            return None;
        }
        self.check(&format!("at.{grant}.{generation}.{expires_at}"), mac)?;
        Some(AccessClaims {
            grant: grant.parse().ok()?,
            generation: generation.parse().ok()?,
            expires_at: expires_at.parse().ok()?,
        })
    }

    pub(crate) fn read_refresh(&self, token: &Secret) -> Option<RefreshClaims> {
        let (signed, mac) = token.expose().rsplit_once('.')?;
        self.check(signed, mac)?;
        let (grant, generation) = signed.strip_prefix("rt.")?.split_once('.')?;
        Some(RefreshClaims {
            grant: grant.parse().ok()?,
            generation: generation.parse().ok()?,
        })
    }

    fn sign(&self, mut text: String) -> String {
        let mac = hmac::sign(&self.key, text.as_bytes());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(mac, &mut text);
        text
    }

    fn check(&self, signed: &str, mac: &str) -> Option<()> {
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &mac).ok()
    }
}

/// A text that nobody can guess, for codes.
pub(crate) fn random_text() -> String {
    let mut bytes = [0; 24];
    fill_random(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The `S256` challenge of a PKCE verifier (RFC 7636 section 4.2).
pub fn pkce_challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

#[expect(clippy::expect_used, reason = "without randomness nothing here makes sense")]
fn fill_random(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the system has randomness");
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: AccessClaims = AccessClaims {
        grant: GrantId(7),
        generation: 3,
        expires_at: 1_700_000_000_123,
    };

    #[test]
    fn tokens_are_recognised_and_forgeries_are_not() {
        let mint = Mint::new(0);
        let access = mint.access(CLAIMS);
        assert_eq!(mint.read_access(&access), Some(CLAIMS));
        assert_eq!(mint.read_refresh(&access), None);
        let refresh = mint.refresh(RefreshClaims {
            grant: GrantId(7),
            generation: 3,
        });
        assert!(mint.read_refresh(&refresh).is_some());
        assert_eq!(mint.read_access(&refresh), None);
        let forged = Secret::new(refresh.expose().replace("rt.g7.3", "rt.g7.4"));
        assert_eq!(mint.read_refresh(&forged), None);
        assert_eq!(Mint::new(0).read_refresh(&refresh), None, "another server's key");
    }

    #[test]
    fn access_tokens_are_padded_to_the_size_asked_for() {
        let mint = Mint::new(1200);
        let access = mint.access(CLAIMS);
        assert_eq!(access.len(), 1200);
        assert_eq!(mint.read_access(&access), Some(CLAIMS));
    }

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        assert_eq!(
            pkce_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }
}
