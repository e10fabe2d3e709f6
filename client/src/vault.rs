//! Results of redeems, sealed on disk until the hub has them.
//!
//! One file per lease in the state directory, sealed with XChaCha20-Poly1305 under a key of the directory's own. A file
//! is there before the refresh token leaves: a crash at any moment is either reported or made good after the restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use chacha20poly1305::{
    Key, KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use lockstep_protocol::{DeviceId, Epoch, GrantName, LeaseId, Version, frame::PublishedToken};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    clock::{Now, Unix, millis},
    files,
    machine::redeem::{Issued, Kept},
};

const KEY: &str = "redeem.key";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const SUFFIX: &str = ".redeem";
/// The most files that are read back; the machine never makes so many.
const MOST: usize = 256;
/// A file is padded to a multiple of this before it is sealed, so that the note made before the request reserves the
/// room that the result needs.
const ROOM: usize = 16 * 1024;

/// The sealed results of one device. All methods block.
#[derive(Clone)]
pub(crate) struct Vault(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    cipher: XChaCha20Poly1305,
    device: DeviceId,
    _lock: fs::File,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("directory", &self.0.directory)
            .finish_non_exhaustive()
    }
}

/// What a file holds, once it is opened.
#[derive(Serialize, Deserialize)]
struct Sheet {
    grant: GrantName,
    epoch: Epoch,
    from_version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Result>,
}

#[derive(Serialize, Deserialize)]
struct Result {
    token: PublishedToken,
    /// By this device's wall clock, in milliseconds: what has passed meanwhile is taken off its life.
    issued_at: Unix,
}

impl Result {
    /// As if it had been issued now, with the life that is left: the clock that does not jump began anew at boot.
    fn aged(self, now: Now) -> Issued {
        let passed = now.unix.since(self.issued_at);
        let issued = Issued {
            token: self.token,
            at: now.mono,
        };
        let later = Now {
            mono: now.mono + passed,
            ..now
        };
        Issued {
            token: issued.remaining(later),
            at: now.mono,
        }
    }
}

impl Vault {
    /// Opens the directory for this process alone, and makes its key if there is none.
    pub(crate) fn open(directory: &Path, device: DeviceId) -> io::Result<Self> {
        files::make_directory(directory)?;
        let lock = files::private(&directory.join("redeem.lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it"),
            fs::TryLockError::Error(error) => error,
        })?;
        let key = key(&directory.join(KEY))?;
        let cipher = XChaCha20Poly1305::new(Key::from_slice(key.as_slice()));
        Ok(Self(Arc::new(Inner {
            directory: directory.to_owned(),
            cipher,
            device,
            _lock: lock,
        })))
    }

    /// Everything that an earlier run left. A file that cannot be opened is set aside, never deleted: it may hold the
    /// only copy of a token set. One that cannot be read now stays where it is, for the next run.
    pub(crate) fn load(&self, now: Now) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.0.directory)?.take(MOST) {
            let path = entry?.path();
            let Some(lease) = lease_of(&path) else {
                continue;
            };
            let bytes = match files::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a sealed result cannot be read now; left in place");
                    continue;
                }
            };
            match self.unseal(&bytes, lease, now) {
                Ok(found) => kept.push(found),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a sealed result cannot be opened; set aside");
                    fs::rename(&path, path.with_extension("unreadable"))?;
                }
            }
        }
        Ok(kept)
    }

    /// Seals a note or a result; it is durable afterwards.
    pub(crate) fn keep(&self, kept: &Kept, now: Now) -> io::Result<()> {
        let sheet = Sheet {
            grant: kept.grant.clone(),
            epoch: kept.epoch,
            from_version: kept.from_version,
            result: kept.result.as_ref().map(|issued| Result {
                token: issued.token.clone(),
                issued_at: Unix(now.unix.0.saturating_sub(millis(now.mono.since(issued.at)))),
            }),
        };
        let mut plain = Zeroizing::new(Vec::with_capacity(ROOM));
        serde_json::to_writer(&mut *plain, &sheet)?;
        let full = plain.len().next_multiple_of(ROOM);
        // JSON readers do not mind white space at the end.
        plain.resize(full, b' ');
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let aad = self.bound_to(kept.lease);
        let payload = Payload { msg: &plain, aad: &aad };
        let sealed = self.0.cipher.encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| io::Error::other("sealing failed"))?;
        files::replace(&self.path(kept.lease), &[&nonce, sealed.as_slice()].concat())
    }

    pub(crate) fn forget(&self, lease: LeaseId) -> io::Result<()> {
        match fs::remove_file(self.path(lease)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => files::sync_directory(&self.0.directory),
        }
    }

    fn unseal(&self, bytes: &[u8], lease: LeaseId, now: Now) -> io::Result<Kept> {
        let (nonce, sealed) = bytes
            .split_at_checked(NONCE_BYTES)
            .ok_or_else(|| io::Error::other("too short"))?;
        let aad = self.bound_to(lease);
        let payload = Payload { msg: sealed, aad: &aad };
        let plain = self.0.cipher.decrypt(XNonce::from_slice(nonce), payload);
        let plain = Zeroizing::new(plain.map_err(|_| io::Error::other("not sealed with this key for this device"))?);
        // The words of the error could repeat what is sealed.
        let sheet: Sheet = serde_json::from_slice(&plain).map_err(|_| io::Error::other("not understood"))?;
        Ok(Kept {
            lease,
            grant: sheet.grant,
            epoch: sheet.epoch,
            from_version: sheet.from_version,
            result: sheet.result.map(|result| result.aged(now)),
        })
    }

    fn bound_to(&self, lease: LeaseId) -> Vec<u8> {
        format!("lockstep-redeem-1 {} {lease}", self.0.device).into_bytes()
    }

    fn path(&self, lease: LeaseId) -> PathBuf {
        self.0.directory.join(format!("{lease}{SUFFIX}"))
    }
}

fn lease_of(path: &Path) -> Option<LeaseId> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

fn key(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let key = match files::read(path) {
        Ok(key) => Zeroizing::new(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let fresh: Zeroizing<[u8; KEY_BYTES]> = Zeroizing::new(rand::random());
            files::replace(path, fresh.as_slice())?;
            Zeroizing::new(fresh.to_vec())
        }
        Err(error) => return Err(error),
    };
    if key.len() == KEY_BYTES {
        Ok(key)
    } else {
        // A new key would make everything that is sealed unreadable for good.
        Err(io::Error::other(format!("{} is not a key", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use lockstep_protocol::Secret;
    use uuid::Uuid;

    use super::*;
    use crate::clock;

    /// P5: a result that the disk does not give today is not given up.
    #[test]
    fn p5_a_result_that_cannot_be_read_now_is_there_for_the_next_run() {
        let directory = tempfile::tempdir().unwrap();
        let vault = Vault::open(directory.path(), DeviceId(Uuid::from_u128(1))).unwrap();
        let now = clock::now();
        let kept = Kept {
            lease: LeaseId(Uuid::from_u128(2)),
            grant: "example/main".parse().unwrap(),
            epoch: Epoch(3),
            from_version: Version(4),
            result: Some(Issued {
                token: PublishedToken {
                    access_token: Secret::new("at"),
                    refresh_token: None,
                    expires_in: None,
                    scope: None,
                    token_type: "Bearer".into(),
                },
                at: now.mono,
            }),
        };
        vault.keep(&kept, now).unwrap();
        let path = vault.path(kept.lease);
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&path, &path).unwrap();
        assert_eq!(vault.load(now).unwrap(), []);
        assert!(path.is_symlink(), "left in place");

        fs::rename(&elsewhere, &path).unwrap();
        assert_eq!(vault.load(now).unwrap(), [kept]);
        fs::write(&path, "torn").unwrap();
        assert_eq!(vault.load(now).unwrap(), []);
        assert!(path.with_extension("unreadable").exists(), "never will be: set aside");
    }
}
