//! One process at a time.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::files;

/// How long another process may hold the lock: a purchase with all its time-outs, and then some.
const PATIENCE: Duration = Duration::from_secs(40);
const STEP: Duration = Duration::from_millis(20);

/// An advisory lock on a file beside the cache. It goes with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: fs::File,
}

impl Lock {
    /// Waits for the lock. Blocks.
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        let file = files::private(path)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(fs::TryLockError::WouldBlock) if start.elapsed() < PATIENCE => thread::sleep(STEP),
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "another process holds the cache for too long",
                    ));
                }
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}
