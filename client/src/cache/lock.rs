//! One process at a time.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::files;

/// How long another process may hold the lock: a purchase with all its time-outs, and then some.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// How often to look whether it still does.
pub(crate) const STEP: Duration = Duration::from_millis(20);

/// An advisory lock on a file beside the cache. It goes with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: fs::File,
}

impl Lock {
    /// Waits for the lock. Blocks.
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        let start = Instant::now();
        loop {
            match Self::try_take(path)? {
                Some(lock) => return Ok(lock),
                None if start.elapsed() < PATIENCE => thread::sleep(STEP),
                None => return Err(Self::held_too_long()),
            }
        }
    }

    /// The lock, unless another process holds it.
    pub(crate) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = files::private(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    pub(crate) fn held_too_long() -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, "another process holds the cache for too long")
    }
}
