//! The key that signs links: Ed25519, shared by all nodes, sealed in the store, and used for nothing else.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{AuditError, Link};
use crate::{store::Store, vault::Vault};

/// The key's name in the store; also what its seal is bound to.
const NAME: &str = "audit-key";

/// Signs links.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// Verifies signed links. As text: the 32 bytes in base64url (RFC 8037 section 2, `x`).
#[derive(Debug, Clone)]
pub struct PublicKey {
    text: String,
    key: ParsedPublicKey,
}

impl Signer {
    /// Reads the shared key; makes it if there is none.
    ///
    /// # Errors
    /// [`AuditError`] when the store does not answer, or the key in it does not open.
    pub async fn load_or_make(store: &dyn Store, vault: &Vault) -> Result<Self, AuditError> {
        let sealed = match store.shared(NAME).await? {
            Some(sealed) => sealed,
            None => store.share(NAME, vault.seal(NAME, generate()?.as_ref()), None).await?,
        };
        let plain = vault
            .open_sealed(NAME, &sealed)
            .map_err(|error| AuditError::Key(error.to_string()))?;
        Self::read(&plain)
    }

    /// A key that no store holds: for tests.
    ///
    /// # Errors
    /// When the crypto library gives none.
    pub fn ephemeral() -> Result<Self, AuditError> {
        Self::read(generate()?.as_ref())
    }

    fn read(pkcs8: &[u8]) -> Result<Self, AuditError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
            .map_err(|_| AuditError::Key("what the store holds is no key".into()))?;
        let public = PublicKey::from_bytes(pair.public_key().as_ref())
            .ok_or_else(|| AuditError::Key("it has no public key".into()))?;
        Ok(Self { pair, public })
    }

    /// The same key once more, as after a restart.
    #[cfg(test)]
    pub(super) fn copy(&self) -> Self {
        let pkcs8: Pkcs8V1Der<'static> = self.pair.as_der().unwrap();
        Self::read(pkcs8.as_ref()).unwrap()
    }

    /// What verifies.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn sign(&self, link: Link) -> Vec<u8> {
        self.pair.sign(&link.0).as_ref().to_vec()
    }
}

fn generate() -> Result<Pkcs8V1Der<'static>, AuditError> {
    Ed25519KeyPair::generate()
        .and_then(|pair| pair.as_der())
        .map_err(|_| AuditError::Key("cannot be made".into()))
}

impl PublicKey {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            text: URL_SAFE_NO_PAD.encode(bytes),
            key: ParsedPublicKey::new(&ED25519, bytes).ok()?,
        })
    }

    /// Reads the base64url form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(&URL_SAFE_NO_PAD.decode(text.trim()).ok()?)
    }

    /// The base64url form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn verifies(&self, link: Link, signature: &[u8]) -> bool {
        self.key.verify_sig(&link.0, signature).is_ok()
    }
}
