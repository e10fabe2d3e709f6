//! A process whose wall clock is wrong: by libfaketime, which `scripts/setup` brings.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

/// What stands between the process and its clock.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// How wrong a process's clock is. It may be set while the process runs.
pub struct Skew {
    dir: TempDir,
    library: PathBuf,
}

impl Skew {
    /// A clock so many seconds ahead (behind, if negative).
    ///
    /// # Panics
    /// When libfaketime is not installed (`scripts/setup` brings it).
    pub fn of(seconds: i64) -> Self {
        let skew = Self {
            dir: TempDir::with_prefix("lockstep-clock-").expect("a temporary directory"),
            library: library().expect("libfaketime is installed: run scripts/setup"),
        };
        skew.set(seconds);
        skew
    }

    /// Sets the clock, as somebody who puts it right, or wrong, does. The process sees it within a second.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, seconds: i64) {
        // Never half a file: it is read at any moment.
        let next = self.dir.path().join("next");
        fs::write(&next, format!("{seconds:+}\n")).expect("a file can be written");
        fs::rename(next, self.file()).expect("a file can be renamed");
    }

    /// The environment in which a process has this clock. Its monotonic clocks stay right: they are no wall clock's matter.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Processes of their own, which may be killed: nothing shared is left behind.
            ("FAKETIME_DISABLE_SHM", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }
}

/// Debian keeps it in a directory of the machine's kind, others in their usual one.
fn library() -> Option<PathBuf> {
    let kinds = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let folders = kinds.map(|kind| kind.path());
    let mut places = folders.chain(["/usr/lib64", "/usr/lib"].map(PathBuf::from));
    places.find_map(|folder| Some(folder.join("faketime").join(LIBRARY)).filter(|path| path.exists()))
}
