//! The files of a spool: `LEASE.spool` (sealed), `witness` (text), `ballast`, `lock`.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Result, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use lockstep_protocol::LeaseId;
use zeroize::Zeroizing;

use super::{SpoolError, Spooled};
use crate::{
    store::{Mark, Sealed},
    vault::{Vault, VaultError},
};

const MAGIC: &[u8; 8] = b"lspool1\n";
/// More than any result: bodies of providers are at most 64 KiB, sessions' frames as well.
const LONGEST: u64 = 512 * 1024;

pub(super) fn path(dir: &Path, lease: LeaseId) -> PathBuf {
    dir.join(format!("{lease}.spool"))
}

pub(super) fn witness(dir: &Path) -> PathBuf {
    dir.join("witness")
}

/// The results that are complete.
pub(super) fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    with_extension(dir, "spool")
}

/// Removes what a crash left half-written. It was never acknowledged.
pub(super) fn sweep(dir: &Path) -> Result<()> {
    with_extension(dir, "new")?.iter().try_for_each(std::fs::remove_file)
}

fn with_extension(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Writes a file so that it is there whole, and stays after loss of power, or is not there at all.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let written = write_new(&new, bytes).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // Half a file would eat the room that is missing.
        let _ = std::fs::remove_file(&new);
    }
    written?;
    sync_parent(path)
}

fn write_new(new: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Whether there was one.
pub(super) fn remove(dir: &Path, path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => {
            removed?;
            File::open(dir)?.sync_all()?;
            Ok(true)
        }
    }
}

pub(super) fn set_aside(path: &Path) -> bool {
    let aside = std::fs::rename(path, path.with_extension("corrupt")).and_then(|()| sync_parent(path));
    if let Err(error) = &aside {
        tracing::error!(file = %path.display(), %error, "cannot be set aside");
    }
    aside.is_ok()
}

/// Why a result cannot be read.
pub(super) enum Unreadable {
    /// It may be readable later.
    Left(String),
    /// It never will be.
    Damaged(String),
}

#[expect(
    clippy::expect_used,
    reason = "strings and numbers into memory: nothing here can fail"
)]
pub(super) fn seal(vault: &Vault, spooled: &Spooled) -> Vec<u8> {
    let mut plain = Zeroizing::new(Vec::with_capacity(64 * 1024));
    rmp_serde::encode::write_named(&mut *plain, spooled).expect("writes to memory");
    let sealed = vault.seal(&context(spooled.lease), &plain);
    [MAGIC.as_slice(), &sealed.key.to_be_bytes(), &sealed.bytes].concat()
}

pub(super) fn open(vault: &Vault, path: &Path) -> std::result::Result<Spooled, Unreadable> {
    let damaged = |why: &str| Unreadable::Damaged(why.to_owned());
    let bytes = read(path).map_err(|error| Unreadable::Left(error.to_string()))?;
    let lease = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .and_then(|stem| stem.parse::<LeaseId>().ok());
    let lease = lease.ok_or_else(|| damaged("its name is no lease id"))?;
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| damaged("it does not begin like a spooled result"))?;
    let (key, text) = rest.split_first_chunk().ok_or_else(|| damaged("it is cut off"))?;
    let sealed = Sealed {
        key: u32::from_be_bytes(*key),
        bytes: text.to_vec(),
    };
    let plain = vault
        .open_sealed(&context(lease), &sealed)
        .map_err(|error| match error {
            VaultError::NoKey { .. } => Unreadable::Left(error.to_string()),
            _ => Unreadable::Damaged(error.to_string()),
        })?;
    rmp_serde::from_slice(&plain).map_err(|_| damaged("it opens, but is not what this version of the hub writes"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn context(lease: LeaseId) -> String {
    format!("spool {lease}")
}

pub(super) fn witness_text(mark: Mark) -> String {
    format!("lockstep witness v1\nepoch {}\ncommits {}\n", mark.epoch, mark.commits)
}

pub(super) fn read_witness(dir: &Path) -> std::result::Result<Option<Mark>, SpoolError> {
    let path = witness(dir);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| SpoolError::io(&path, error))?,
    };
    parse_witness(&text).map(Some).ok_or(SpoolError::Witness(path))
}

fn parse_witness(text: &str) -> Option<Mark> {
    let rest = text.strip_prefix("lockstep witness v1\nepoch ")?;
    let (epoch, commits) = rest.split_once("\ncommits ")?;
    Some(Mark {
        epoch: epoch.parse().ok()?,
        commits: commits.strip_suffix('\n')?.parse().ok()?,
    })
}
