//! Why a vault does not open, or something in it.

use std::path::PathBuf;

use super::KeyId;

/// Why a vault does not open, or something in it. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There are no keys, and they must not be made because the store already has records sealed with some.
    #[error("{0}: no such file, but the store has records sealed with a key: put the key file back")]
    Absent(PathBuf),
    /// Others than the owner may use the key file.
    #[error("{path}: mode {mode:04o} lets others than its owner use it: chmod 600 it, and think about a new key")]
    Loose {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key file cannot be read or made.
    #[error("{path}: {error}")]
    File {
        /// The key file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line is no key.
    #[error("{place}: line {line}: {why}")]
    Line {
        /// The key file, or the environment variable.
        place: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no key in it.
    #[error("{0}: holds no key")]
    Empty(String),
    /// Keys that did not come from a file cannot be changed here.
    #[error("the keys are not in a file of the hub's own: change them where they come from, then reseal")]
    NotAFile,
    /// The key seals new records.
    #[error("key {0} is the one that seals: rotate first")]
    InUse(KeyId),
    /// A record is sealed with a key that is not here.
    #[error("sealed with key {wanted}, which is not among the keys here ({})", KeyId::list(.have))]
    NoKey {
        /// The key that sealed it.
        wanted: KeyId,
        /// The keys here.
        have: Vec<KeyId>,
    },
    /// A record does not open although its key is here: it is damaged, or is another's that was put in its place.
    #[error("sealed with key {0}, which is here, but does not open: damaged, or put in another's place")]
    Broken(KeyId),
}
