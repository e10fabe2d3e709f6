//! Why a spool did not do what it was told.

use std::path::{Path, PathBuf};

/// Why a spool did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("{0}: in use by another process: every node needs a spool directory of its own")]
    InUse(PathBuf),
    /// The directory or a file in it cannot be used.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// There is no room for another result.
    #[error("no room in the spool: {0}")]
    Full(&'static str),
    /// The witness file is damaged.
    #[error("{0}: damaged: remove it if the store is known not to have gone back in time")]
    Witness(PathBuf),
}

impl SpoolError {
    pub(super) fn io(path: &Path, error: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            error,
        }
    }
}
