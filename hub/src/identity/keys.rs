//! The keys that all nodes share: Ed25519 for access tokens, HMAC for device refresh tokens. Sealed in the store.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    hmac,
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use lockstep_protocol::Secret;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::IdentityError;
use crate::{store::Store, vault::Vault};

/// The shared value's name in the store; also what its seal is bound to.
pub(super) const NAME: &str = "identity-keys";

/// What is sealed: JSON, so that a later version can add a field.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The first one signs; all verify.
    signing: Vec<StoredKey>,
    /// base64url.
    mac: String,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    kid: String,
    /// PKCS#8, base64url.
    pkcs8: String,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.mac.zeroize();
        for key in &mut self.signing {
            key.pkcs8.zeroize();
        }
    }
}

/// One Ed25519 key.
pub(super) struct SigningKey {
    pub(super) kid: String,
    encoding: EncodingKey,
    pair: Ed25519KeyPair,
    /// The public key as a JWK writes it (RFC 8037 section 2: `x`).
    pub(super) x: String,
}

impl SigningKey {
    /// A compact JWS (RFC 7515 section 7.1) of `claims`.
    pub(super) fn sign(&self, header: &Header, claims: &impl Serialize) -> Result<Secret, IdentityError> {
        jsonwebtoken::encode(header, claims, &self.encoding)
            .map(Secret::new)
            .map_err(|_| IdentityError::Crypto("sign an access token"))
    }

    #[cfg(test)]
    pub(super) fn sign_raw(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// Whether `signature` is the one that this key makes of `message`.
    ///
    /// Made again and compared, rather than verified: Ed25519 is deterministic (RFC 8032 section 5.1.6), every node holds
    /// the private key, and signing costs 15 µs where verifying costs 40. The comparison takes constant time, or it
    /// would tell an attacker the signature byte by byte.
    pub(super) fn made(&self, signature: &[u8], message: &[u8]) -> bool {
        self.pair.sign(message).as_ref().ct_eq(signature).into()
    }
}

/// The keys, ready for use.
pub(super) struct Keys {
    /// The first one signs; all verify.
    signing: Vec<SigningKey>,
    mac: hmac::Key,
}

impl Keys {
    /// Reads the shared keys; makes them if there are none. Nodes that start together agree on one set, because only
    /// one can write it.
    pub(super) async fn load_or_make(store: &dyn Store, vault: &Vault) -> Result<Self, IdentityError> {
        let sealed = match store.shared(NAME).await? {
            Some(sealed) => sealed,
            None => {
                let made = generate()?;
                let sealed = vault.seal(NAME, &made);
                store.share(NAME, sealed, None).await?
            }
        };
        let plain = vault.open_sealed(NAME, &sealed)?;
        Self::read(&plain)
    }

    /// Keys that no store holds.
    #[cfg(test)]
    pub(super) fn fresh() -> Result<Self, IdentityError> {
        Self::read(&generate()?)
    }

    fn read(plain: &[u8]) -> Result<Self, IdentityError> {
        let stored: Stored = serde_json::from_slice(plain).map_err(|_| IdentityError::Corrupt("not JSON"))?;
        let signing = stored.signing.iter().map(read_key).collect::<Result<Vec<_>, _>>()?;
        if signing.is_empty() {
            return Err(IdentityError::Corrupt("no signing key"));
        }
        let mac = Zeroizing::new(decode(&stored.mac)?);
        Ok(Self {
            signing,
            mac: hmac::Key::new(hmac::HMAC_SHA256, &mac),
        })
    }

    /// The key that signs.
    #[expect(clippy::indexing_slicing, reason = "read() refuses an empty list")]
    pub(super) fn current(&self) -> &SigningKey {
        &self.signing[0]
    }

    /// The key with this id.
    pub(super) fn by_id(&self, kid: &str) -> Option<&SigningKey> {
        self.signing.iter().find(|key| key.kid == kid)
    }

    /// All keys, the signing one first.
    pub(super) fn all(&self) -> &[SigningKey] {
        &self.signing
    }

    /// The key of device refresh tokens.
    pub(super) const fn mac(&self) -> &hmac::Key {
        &self.mac
    }
}

fn read_key(stored: &StoredKey) -> Result<SigningKey, IdentityError> {
    let pkcs8 = Zeroizing::new(decode(&stored.pkcs8)?);
    let pair =
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|_| IdentityError::Corrupt("not an Ed25519 key"))?;
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    Ok(SigningKey {
        kid: stored.kid.clone(),
        encoding: EncodingKey::from_ed_der(&pkcs8),
        pair,
        x,
    })
}

fn decode(text: &str) -> Result<Vec<u8>, IdentityError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| IdentityError::Corrupt("not base64url"))
}

fn generate() -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let random = SystemRandom::new();
    let pair = Ed25519KeyPair::generate().map_err(|_| IdentityError::Crypto("make a signing key"))?;
    // PKCS#8 version 1, because that is what jsonwebtoken's signer reads.
    let pkcs8: Pkcs8V1Der<'static> = pair
        .as_der()
        .map_err(|_| IdentityError::Crypto("write a signing key"))?;
    let mut mac = Zeroizing::new([0_u8; 32]);
    let mut kid = [0_u8; 8];
    random
        .fill(&mut *mac)
        .and_then(|()| random.fill(&mut kid))
        .map_err(|_| IdentityError::Crypto("draw random numbers"))?;
    let stored = Stored {
        signing: vec![StoredKey {
            kid: URL_SAFE_NO_PAD.encode(kid),
            pkcs8: URL_SAFE_NO_PAD.encode(pkcs8.as_ref()),
        }],
        mac: URL_SAFE_NO_PAD.encode(*mac),
    };
    serde_json::to_vec(&stored)
        .map(Zeroizing::new)
        .map_err(|_| IdentityError::Crypto("write the keys"))
}
