//! Sealing at rest: nothing secret reaches a store, a spool file or a backup in the clear.
//!
//! XChaCha20-Poly1305 with a random 24-byte nonce (draft-irtf-cfrg-xchacha section 2), so that any number of nodes may
//! seal under one key without counting. What a record is (a token set of which user, grant and version) is associated
//! data: a record moved elsewhere in a store does not open.

mod error;
mod key;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::digest;
use chacha20poly1305::{
    AeadCore, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, OsRng, Payload},
};
use lockstep_engine::record::{GrantRecord, TokenSet};
use lockstep_protocol::{GrantName, Secret, UserId, Version};
use zeroize::Zeroizing;

pub use error::VaultError;
pub use key::KeyId;
use key::Keys;

use crate::store::{Hash, Sealed, StoredGrant};

const NONCE: usize = 24;

fn ciphers(keys: Keys) -> Ciphers {
    keys.into_iter()
        .map(|(id, key)| (id, XChaCha20Poly1305::new((&*key).into())))
        .collect()
}

/// The sealing keys. The newest seals; each opens what it sealed.
pub struct Vault {
    keys: RwLock<Arc<Ciphers>>,
    /// The file that they came from, if it was a file.
    file: Option<PathBuf>,
}

/// Never empty, newest first.
type Ciphers = Vec<(KeyId, XChaCha20Poly1305)>;

impl Vault {
    /// Reads the keys: from the environment variable `LOCKSTEP_KEY` if it is set, else from `key_file`.
    ///
    /// # Errors
    /// [`VaultError`] when the file is absent (unless `may_make`: then it is made, mode 0600, with a fresh key), when
    /// others than its owner may use it, or when a line of it is no key.
    pub fn open(key_file: &Path, may_make: bool) -> Result<Self, VaultError> {
        let (keys, file) = match std::env::var(key::ENVIRONMENT) {
            Ok(text) => (Keys::parse(&Zeroizing::new(text), key::ENVIRONMENT)?, None),
            Err(_) => (Keys::read(key_file, may_make)?, Some(key_file.to_owned())),
        };
        Ok(Self::with(keys, file))
    }

    /// A vault with a key of its own that dies with it: for tests and for a hub in memory.
    pub fn ephemeral() -> Self {
        Self::with(Keys::fresh(), None)
    }

    fn with(keys: Keys, file: Option<PathBuf>) -> Self {
        Self {
            keys: RwLock::new(Arc::new(ciphers(keys))),
            file,
        }
    }

    fn keys(&self) -> Arc<Ciphers> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ciphers(keys));
    }

    /// The ids of the keys, newest first. Never empty.
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.keys().iter().map(|(id, _)| *id).collect()
    }

    /// Adds a fresh key, in the file first: from now on it seals.
    ///
    /// # Errors
    /// [`VaultError::NotAFile`] when the keys came from elsewhere; [`VaultError`] when the file cannot be read or written.
    pub fn add_key(&self) -> Result<KeyId, VaultError> {
        let file = self.file.as_deref().ok_or(VaultError::NotAFile)?;
        let (id, keys) = Keys::add(file)?;
        self.take(keys);
        Ok(id)
    }

    /// Removes a key, from the file first: what is sealed with it opens no more.
    ///
    /// # Errors
    /// [`VaultError::InUse`] for the newest; else as [`Self::add_key`].
    pub fn remove_key(&self, id: KeyId) -> Result<(), VaultError> {
        let file = self.file.as_deref().ok_or(VaultError::NotAFile)?;
        if self.key_ids().first() == Some(&id) {
            return Err(VaultError::InUse(id));
        }
        self.take(Keys::remove(file, id)?);
        Ok(())
    }

    /// A record whose token sets are sealed with the newest key; none if they are.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] or [`VaultError::Broken`].
    pub fn reseal_record(
        &self,
        user: &UserId,
        grant: &GrantName,
        stored: &StoredGrant,
    ) -> Result<Option<StoredGrant>, VaultError> {
        let again = |kind, sealed: &Option<Sealed>| match sealed {
            Some(sealed) => self.reseal_as(&About::tokens(kind, user, grant, stored.version), sealed),
            None => Ok(None),
        };
        let (tokens, alternate) = (again("tokens", &stored.tokens)?, again("alternate", &stored.alternate)?);
        if tokens.is_none() && alternate.is_none() {
            return Ok(None);
        }
        Ok(Some(StoredGrant {
            tokens: tokens.or_else(|| stored.tokens.clone()),
            alternate: alternate.or_else(|| stored.alternate.clone()),
            ..stored.clone()
        }))
    }

    /// What [`Self::seal`] sealed in this context, sealed with the newest key; none if it is.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] or [`VaultError::Broken`].
    pub fn reseal(&self, context: &str, sealed: &Sealed) -> Result<Option<Sealed>, VaultError> {
        self.reseal_as(&About::other(context), sealed)
    }

    fn reseal_as(&self, about: &About, sealed: &Sealed) -> Result<Option<Sealed>, VaultError> {
        if self.key_ids().first() == Some(&KeyId(sealed.key)) {
            return Ok(None);
        }
        let plain = self.open_as(about, sealed)?;
        Ok(Some(self.seal_as(about, &plain)))
    }

    /// SHA-256 of a token, in a domain of its own: enough to recognise it, useless to present.
    pub fn hash(token: &Secret) -> Hash {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"lockstep token hash v1\0");
        context.update(token.expose().as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Hash(hash)
    }

    /// Seals the token set that `version` of a grant is to have.
    pub fn seal_tokens(&self, user: &UserId, grant: &GrantName, version: Version, tokens: &TokenSet) -> Sealed {
        self.seal_as(&About::tokens("tokens", user, grant, version), &encode(tokens))
    }

    /// Opens what [`Self::seal_tokens`] sealed for the same user, grant and version.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] or [`VaultError::Broken`].
    pub fn open_tokens(
        &self,
        user: &UserId,
        grant: &GrantName,
        version: Version,
        sealed: &Sealed,
    ) -> Result<TokenSet, VaultError> {
        self.open_set(&About::tokens("tokens", user, grant, version), sealed)
    }

    /// Seals a token set as the alternate of `version`, the one that is current.
    pub fn seal_alternate(&self, user: &UserId, grant: &GrantName, version: Version, tokens: &TokenSet) -> Sealed {
        self.seal_as(&About::tokens("alternate", user, grant, version), &encode(tokens))
    }

    /// Opens what [`Self::seal_alternate`] sealed for the same user, grant and version.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] or [`VaultError::Broken`].
    pub fn open_alternate(
        &self,
        user: &UserId,
        grant: &GrantName,
        version: Version,
        sealed: &Sealed,
    ) -> Result<TokenSet, VaultError> {
        self.open_set(&About::tokens("alternate", user, grant, version), sealed)
    }

    /// Opens a whole record as a store gave it.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] or [`VaultError::Broken`].
    pub fn open_record(
        &self,
        user: &UserId,
        grant: &GrantName,
        stored: StoredGrant,
    ) -> Result<GrantRecord, VaultError> {
        let version = stored.version;
        let tokens = stored
            .tokens
            .as_ref()
            .map(|sealed| self.open_tokens(user, grant, version, sealed));
        let alternate = stored
            .alternate
            .as_ref()
            .map(|sealed| self.open_alternate(user, grant, version, sealed));
        Ok(GrantRecord {
            tokens: tokens.transpose()?,
            alternate: alternate.transpose()?,
            revision: stored.revision,
            version,
            seq: stored.seq,
            health: stored.health,
            reason: stored.reason,
            retry_at: stored.retry_at,
            expires_at: stored.expires_at,
            refreshed_at: stored.refreshed_at,
            cause: stored.cause,
            due_at: stored.due_at,
            claim: stored.claim,
            fence: stored.fence,
            leases: stored.leases,
            former_leases: stored.former_leases,
            committed_by: stored.committed_by,
            doubt: stored.doubt,
            rejected_in_a_row: stored.rejected_in_a_row,
        })
    }

    /// Seals anything else. `context` says what it is, and must be the same to open it.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Sealed {
        self.seal_as(&About::other(context), plain)
    }

    /// Opens what [`Self::seal`] sealed in the same context.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] or [`VaultError::Broken`].
    pub fn open_sealed(&self, context: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open_as(&About::other(context), sealed)
    }

    fn open_set(&self, about: &About, sealed: &Sealed) -> Result<TokenSet, VaultError> {
        let plain = self.open_as(about, sealed)?;
        // What authenticates was written by a hub; if it cannot be read, by a newer one.
        rmp_serde::from_slice(&plain).map_err(|_| VaultError::Broken(KeyId(sealed.key)))
    }

    #[expect(
        clippy::expect_used,
        reason = "only plaintexts of 256 GiB and more are refused by this cipher"
    )]
    fn seal_as(&self, about: &About, plain: &[u8]) -> Sealed {
        let keys = self.keys();
        let (id, cipher) = &keys[0];
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload {
            msg: plain,
            aad: &about.0,
        };
        let sealed = cipher.encrypt(&nonce, payload).expect("shorter than 256 GiB");
        Sealed {
            key: id.0,
            bytes: [nonce.as_slice(), &sealed].concat(),
        }
    }

    fn open_as(&self, about: &About, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let id = KeyId(sealed.key);
        let keys = self.keys();
        let Some((_, cipher)) = keys.iter().find(|(own, _)| *own == id) else {
            return Err(VaultError::NoKey {
                wanted: id,
                have: keys.iter().map(|(id, _)| *id).collect(),
            });
        };
        let (nonce, text) = sealed.bytes.split_at_checked(NONCE).ok_or(VaultError::Broken(id))?;
        let payload = Payload {
            msg: text,
            aad: &about.0,
        };
        let plain = cipher.decrypt(XNonce::from_slice(nonce), payload);
        plain.map(Zeroizing::new).map_err(|_| VaultError::Broken(id))
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("keys", &self.key_ids()).finish()
    }
}

/// Associated data: what a sealed record is. Every part stands behind its length, so no two records have the same.
struct About(Vec<u8>);

impl About {
    fn tokens(kind: &str, user: &UserId, grant: &GrantName, version: Version) -> Self {
        Self::parts(&[
            kind.as_bytes(),
            user.as_str().as_bytes(),
            grant.as_str().as_bytes(),
            &version.0.to_be_bytes(),
        ])
    }

    fn other(context: &str) -> Self {
        Self::parts(&[b"other", context.as_bytes()])
    }

    fn parts(parts: &[&[u8]]) -> Self {
        let mut data = b"lockstep seal v1".to_vec();
        for part in parts {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part);
        }
        Self(data)
    }
}

/// Named fields, so that a later hub may add some and still read old records.
#[expect(
    clippy::expect_used,
    reason = "strings and numbers into memory: nothing here can fail"
)]
fn encode(tokens: &TokenSet) -> Zeroizing<Vec<u8>> {
    let lengths = [&tokens.access_token, &tokens.refresh_token].map(|token| token.as_ref().map_or(0, Secret::len));
    // Room enough at once: a buffer that grows leaves copies behind that nobody wipes.
    let room = lengths.iter().sum::<usize>() + tokens.scope.as_ref().map_or(0, String::len) + tokens.token_type.len();
    let mut plain = Zeroizing::new(Vec::with_capacity(room + 256));
    rmp_serde::encode::write_named(&mut *plain, tokens).expect("writes to memory");
    plain
}

#[cfg(test)]
mod tests;
