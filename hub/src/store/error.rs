//! Why a store did not do what it was told.

use lockstep_engine::grant::Trouble;

/// Why a store did not do what it was told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It certainly did nothing: not reachable, full, read-only, closed.
    #[error("store unavailable: {0}")]
    Refused(String),
    /// It may or may not have done it.
    #[error("store answer lost: {0}")]
    Unknown(String),
    /// A row that cannot be read, named by table and key. Nothing was done.
    #[error("store corrupt: {0}")]
    Corrupt(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unknown(why) => Self::Unknown(why),
            StoreError::Refused(_) | StoreError::Corrupt(_) => Self::Refused(error.to_string()),
        }
    }
}
