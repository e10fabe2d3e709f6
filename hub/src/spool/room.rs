//! Room for results: nothing is redeemed whose result could not be kept.

use std::{
    fs::{File, OpenOptions},
    io::{Error, ErrorKind, Result},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{SpoolError, file};

/// The most results, waiting and reserved for together.
const MOST: usize = 16 * 1024;
/// What one result may take on disk: mostly one block or two, as a rule.
const EACH: u64 = 16 * 1024;
/// Blocks that are ours already. Between a reservation and its result others may fill the disk: then these are given up.
const BALLAST: u64 = 1024 * 1024;

/// How much room there is.
#[derive(Debug)]
pub(super) struct Room {
    dir: PathBuf,
    waiting: AtomicUsize,
    reserved: AtomicUsize,
}

/// Room for one result, until dropped.
#[derive(Debug)]
#[must_use = "the room is given back when this is dropped"]
pub struct Reserved(Arc<Room>);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.reserved.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room {
    pub(super) fn new(dir: &Path, waiting: usize) -> Result<Self> {
        let room = Self {
            dir: dir.to_owned(),
            waiting: waiting.into(),
            reserved: 0.into(),
        };
        if let Err(error) = room.lay_ballast() {
            // A full disk is no reason not to start: the store is read, and results that wait here may land.
            tracing::warn!(dir = %dir.display(), %error, "no ballast in the spool");
        }
        Ok(room)
    }

    /// How many results wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn reserve(room: &Arc<Self>) -> std::result::Result<Reserved, SpoolError> {
        let reserved = room.reserved.fetch_add(1, Ordering::Relaxed) + 1;
        let held = Reserved(Arc::clone(room));
        if reserved + room.waiting.load(Ordering::Relaxed) > MOST {
            return Err(SpoolError::Full("too many results wait in it"));
        }
        let disk = statvfs(&room.dir).map_err(|error| SpoolError::io(&room.dir, error.into()))?;
        let needed = EACH.saturating_mul(reserved as u64).saturating_add(BALLAST);
        if disk.f_bavail.saturating_mul(disk.f_frsize) < needed {
            return Err(SpoolError::Full("its disk is full"));
        }
        Ok(held)
    }

    pub(super) fn added(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn removed(&self) {
        let less = |waiting: usize| Some(waiting.saturating_sub(1));
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Writes a file, giving up the ballast for it if the disk is full.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        match file::write(path, bytes) {
            Err(error) if is_full(&error) && std::fs::remove_file(self.ballast()).is_ok() => {
                tracing::warn!(dir = %self.dir.display(), "disk full: the spool's ballast is given up");
                file::write(path, bytes)
            }
            written => {
                if written.is_ok() && !self.ballast().exists() {
                    // There is room again, perhaps for the ballast too; if not, it is tried again next time.
                    let _ = self.lay_ballast();
                }
                written
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    fn lay_ballast(&self) -> Result<()> {
        let path = self.ballast();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        let laid = lay(&file);
        if laid.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        laid
    }
}

fn lay(file: &File) -> Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, BALLAST) {
        // Some file systems cannot set blocks aside; there, the check of free space is all there is.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        done => done.map_err(Error::from),
    }
}

fn is_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
