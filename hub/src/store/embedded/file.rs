//! The database file: opened, and opened again when the disk failed under it.

use std::{
    fmt::Display,
    fs::{File, OpenOptions, Permissions},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use redb::{Database, DatabaseError, StorageError, TransactionError};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with, statvfs},
    io::Errno,
};

use super::{
    super::{
        Answer, Mark, StoreError, fresh_epoch,
        local::{Changes, GroupRow, Key, MarkRow, Rows},
    },
    rows::{Batch, Snapshot},
};

/// Enough for what is hot; everything else is in the system's page cache.
const CACHE: usize = 32 * 1024 * 1024;
/// Below this much free space nothing is written: a write that fails half-way costs more than one that is refused.
const MARGIN: u64 = 16 * 1024 * 1024;
/// How long to wait for readers of a database that is to be closed, and between two tries to open it again.
const PATIENCE: Duration = Duration::from_millis(250);

/// The disk under a database. Tests have one that fails when told to.
pub(super) trait Disk: Send + Sync {
    /// Opens the database at `path`, or makes it.
    fn open(&self, path: &Path) -> Result<Database, DatabaseError>;

    /// How many bytes may still be written.
    fn free(&self, path: &Path) -> std::io::Result<u64>;
}

/// The one that is there.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> Result<Database, DatabaseError> {
        Database::builder().set_cache_size(CACHE).create(path)
    }

    fn free(&self, path: &Path) -> std::io::Result<u64> {
        let disk = statvfs(path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// A file with a database in it, which may have to be closed and opened again.
pub(super) struct Files {
    path: PathBuf,
    disk: Box<dyn Disk>,
    state: RwLock<State>,
}

enum State {
    Open(Arc<Database>),
    /// The disk failed: this database refuses everything until it is opened again.
    Broken(Arc<Database>),
    /// It could not be opened again, so far.
    Closed {
        why: StoreError,
        tried: Instant,
    },
}

impl Files {
    pub(super) fn open(path: &Path, disk: Box<dyn Disk>) -> Answer<Self> {
        let state = RwLock::new(State::Open(Arc::new(open(path, &*disk)?)));
        Ok(Self {
            path: path.to_owned(),
            disk,
            state,
        })
    }

    /// Works with the database. Whatever fails in it, even by panicking on a damaged page, fails this call only.
    pub(super) fn with<A>(&self, work: impl FnOnce(&Database) -> Answer<A>) -> Answer<A> {
        let db = match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(db) => Arc::clone(db),
            State::Broken(_) => return Err(self.refused("the disk failed; it is being opened again")),
            State::Closed { why, .. } => return Err(why.clone()),
        };
        let done = guarded(&self.path, || work(&db));
        if done.is_err() && is_broken(&db) {
            self.set(State::Broken(db));
        }
        done
    }

    /// Whether it must be opened again before it is of any use.
    pub(super) fn is_broken(&self) -> bool {
        !matches!(
            &*self.state.read().unwrap_or_else(PoisonError::into_inner),
            State::Open(_)
        )
    }

    /// Opens it again if it is broken. Only the writer does.
    pub(super) fn mend(&self) -> Answer<()> {
        if !self.is_broken() {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let again = Instant::now();
        match std::mem::replace(
            &mut *state,
            State::Closed {
                why: self.refused("being opened again"),
                tried: again,
            },
        ) {
            State::Open(db) => *state = State::Open(db),
            State::Closed { why, tried } if again.duration_since(tried) < PATIENCE => {
                *state = State::Closed {
                    why: why.clone(),
                    tried,
                };
                return Err(why);
            }
            State::Closed { .. } => *state = self.reopened(),
            State::Broken(db) => match alone(db) {
                Ok(db) => {
                    drop(db);
                    *state = self.reopened();
                }
                Err(shared) => {
                    *state = State::Broken(shared);
                    return Err(self.refused("the disk failed; readers still hold it"));
                }
            },
        }
        match &*state {
            State::Closed { why, .. } => Err(why.clone()),
            _ => Ok(()),
        }
    }

    fn reopened(&self) -> State {
        match open(&self.path, &*self.disk) {
            Ok(db) => {
                tracing::warn!(file = %self.path.display(), "store opened again after the disk failed");
                State::Open(Arc::new(db))
            }
            Err(why) => {
                tracing::error!(%why, "store cannot be opened again");
                State::Closed {
                    why,
                    tried: Instant::now(),
                }
            }
        }
    }

    /// Refuses when the disk is all but full, while nothing is half-written yet.
    pub(super) fn has_room(&self) -> Answer<()> {
        let free = self.disk.free(&self.path).map_err(|error| self.refused(error))?;
        if free < MARGIN {
            return Err(self.refused(format_args!("disk full: {free} bytes left, {MARGIN} are needed")));
        }
        Ok(())
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn refused(&self, why: impl Display) -> StoreError {
        refused(&self.path, why)
    }
}

fn refused(path: &Path, why: impl Display) -> StoreError {
    StoreError::Refused(format!("{}: {why}", path.display()))
}

/// Waits, with a bound, until nobody else has it.
fn alone(mut db: Arc<Database>) -> Result<Database, Arc<Database>> {
    let until = Instant::now() + PATIENCE;
    loop {
        db = match Arc::try_unwrap(db) {
            Ok(db) => return Ok(db),
            Err(shared) if Instant::now() > until => return Err(shared),
            Err(shared) => shared,
        };
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the database will refuse everything from now on. It knows best itself.
fn is_broken(db: &Database) -> bool {
    matches!(db.try_begin_write(), Err(TransactionError::Storage(_)))
}

/// redb checks what it reads from the disk, mostly; where it panics instead, that must not be the end of the hub.
fn guarded<A>(path: &Path, work: impl FnOnce() -> Answer<A>) -> Answer<A> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Corrupt(format!("{}: a page is damaged", path.display()))))
}

fn open(path: &Path, disk: &dyn Disk) -> Answer<Database> {
    // Whatever is there is left as it is, a link to somewhere else too.
    if std::fs::symlink_metadata(path).is_err() {
        make(path, disk)?;
    }
    open_at(path, disk)
}

/// Makes a new database beside its place, and puts it there once it is whole: a full disk or a crash meanwhile would leave
/// what looks like a damaged store ever after.
fn make(path: &Path, disk: &dyn Disk) -> Answer<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    if new.exists()
        && let Err(StoreError::Corrupt(why)) = open_at(&new, disk).map(drop)
    {
        tracing::warn!(%why, "a store was not made to the end: begun anew");
        std::fs::remove_file(&new).map_err(|error| refused(&new, error))?;
    }
    drop(open_at(&new, disk)?);
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let put = put(&new, path).and_then(|()| File::open(directory.unwrap_or(Path::new(".")))?.sync_all());
    put.map_err(|error| refused(path, error))
}

/// Not over a store that another hub, started in the same moment, has put there meanwhile.
pub(super) fn put(new: &Path, path: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => std::fs::remove_file(new),
        // A file system that cannot rename so.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(new, path),
        put => Ok(put?),
    }
}

fn open_at(path: &Path, disk: &dyn Disk) -> Answer<Database> {
    // Made here and not by redb, because of the mode.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let mode = file.and_then(|file| Ok(file.metadata()?.permissions().mode() & 0o7777));
    let mode = mode.map_err(|error| refused(path, error))?;
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), mode = format!("{mode:o}"), "others could use the store: closed to them");
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| refused(path, error))?;
    }
    guarded(path, || {
        let db = disk.open(path).map_err(|error| not_opened(path, error))?;
        begin(&db)?;
        Ok(db)
    })
}

fn not_opened(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => refused(
            path,
            "in use by another process: several hubs share a postgres:// store, never a file",
        ),
        DatabaseError::UpgradeRequired(version) => {
            refused(path, format_args!("written by an old redb (file format {version})"))
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Corrupt(format!("{}: not a lockstep store: {error}", path.display()))
        }
        DatabaseError::Storage(StorageError::Corrupted(why)) => {
            StoreError::Corrupt(format!("{}: {why}", path.display()))
        }
        other => refused(path, other),
    }
}

/// Makes what a new store begins with, and reads what an old one must have.
fn begin(db: &Database) -> Answer<()> {
    let batch = Batch::begin(db)?;
    {
        let mut rows = batch.rows()?;
        if (&rows as &dyn Rows).row::<MarkRow>(&Key::mark())?.is_none() {
            let mut first = Changes::default();
            first.put(
                Key::mark(),
                &MarkRow::from(Mark {
                    epoch: fresh_epoch(),
                    commits: 0,
                }),
            );
            first.put(Key::group(), &GroupRow { number: 0 });
            rows.apply(first)?;
        }
    }
    batch.commit()?;
    group(db).map(|_| ())
}

/// The number of the transaction that was last committed.
pub(super) fn group(db: &Database) -> Answer<u64> {
    group_in(&Snapshot::of(db)?)
}

pub(super) fn group_in(rows: &dyn Rows) -> Answer<u64> {
    let row = rows.row::<GroupRow>(&Key::group())?;
    row.map(|row| row.number)
        .ok_or_else(|| StoreError::Corrupt("table Meta, key \"group\": missing".into()))
}
