//! Disks that fail.

use std::{
    fs::OpenOptions,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redb::{Database, DatabaseError, StorageBackend, backends::FileBackend};

use super::*;
use crate::store::{
    CommitRow, Committed,
    embedded::{
        file::{Disk, put},
        open_on,
    },
};

/// What is wrong with a disk.
#[derive(Debug)]
struct Faults {
    free: AtomicU64,
    writes: AtomicBool,
    syncs: AtomicBool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            free: u64::MAX.into(),
            writes: false.into(),
            syncs: false.into(),
        }
    }
}

impl Faults {
    fn heal(&self) {
        self.writes.store(false, Ordering::Relaxed);
        self.syncs.store(false, Ordering::Relaxed);
    }
}

#[derive(Clone, Default)]
struct BadDisk(Arc<Faults>);

impl Disk for BadDisk {
    fn open(&self, path: &Path) -> Result<Database, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Database::builder().create_with_backend(BadFile {
            file: FileBackend::new(file)?,
            faults: Arc::clone(&self.0),
        })
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.free.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct BadFile {
    file: FileBackend,
    faults: Arc<Faults>,
}

fn unless(fails: &AtomicBool) -> io::Result<()> {
    if fails.load(Ordering::Relaxed) {
        Err(io::ErrorKind::StorageFull.into())
    } else {
        Ok(())
    }
}

impl StorageBackend for BadFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        unless(&self.faults.writes)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        unless(&self.faults.syncs)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        unless(&self.faults.writes)?;
        self.file.write(offset, data)
    }
}

fn open_bad() -> (tempfile::TempDir, AnyStore, Arc<Faults>) {
    let (dir, disk) = (tempfile::tempdir().unwrap(), BadDisk::default());
    let faults = Arc::clone(&disk.0);
    let store = open_on(&dir.path().join("lockstep.db"), Box::new(disk)).unwrap();
    (dir, store, faults)
}

/// Commits upon `from` until the store takes writes again.
async fn commit_when_healed(store: &AnyStore, row: &CommitRow) -> Committed {
    for _ in 0..6_000 {
        if let Ok(committed) = store.commit(row.clone()).await {
            return committed;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the store does not recover");
}

/// Nothing is in it yet: it must not count as a damaged one.
#[tokio::test]
async fn a_store_that_could_not_be_made_to_the_end_is_made_once_there_is_room() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), BadDisk::default());
    let path = dir.path().join("lockstep.db");
    for fails in [&disk.0.syncs, &disk.0.writes] {
        fails.store(true, Ordering::Relaxed);
        let error = open_on(&path, Box::new(disk.clone())).map(drop).unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
        assert!(!path.exists());
    }
    disk.0.heal();
    let store = open_on(&path, Box::new(disk)).unwrap();
    done(&store, login()).await;
    let files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files, [path]);
}

/// Two hubs were started in the same moment, and each made one.
#[test]
fn a_store_that_another_hub_has_put_there_meanwhile_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (new, path) = (dir.path().join("lockstep.db.new"), dir.path().join("lockstep.db"));
    std::fs::write(&new, "the second").unwrap();
    std::fs::write(&path, "the first").unwrap();
    put(&new, &path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "the first");
    assert!(!new.exists());
}

#[tokio::test]
async fn a_disk_all_but_full_takes_no_writes_and_serves_reads() {
    let (_dir, store, faults) = open_bad();
    let record = done(&store, login()).await;
    faults.free.store(1_000_000, Ordering::Relaxed);
    let error = store.commit(refresh(1, lease())).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused(why) if why.contains("disk full")),
        "{error}"
    );
    assert!(store.probe().await.is_err() && store.claim(claim()).await.is_err());
    assert_eq!(load(&store).await, record);
    faults.free.store(u64::MAX, Ordering::Relaxed);
    store.probe().await.unwrap();
    done(&store, refresh(1, lease())).await;
}

#[tokio::test]
async fn a_write_that_fails_did_not_happen_and_the_store_recovers() {
    let (_dir, store, faults) = open_bad();
    let record = done(&store, login()).await;
    faults.writes.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let error = store.commit(refresh(1, lease())).await.unwrap_err();
        // As long as the file cannot be read again, nobody knows; here nothing was ever written.
        assert!(
            matches!(error, StoreError::Refused(_) | StoreError::Unknown(_)),
            "{error}"
        );
    }
    faults.heal();
    let row = refresh(1, lease());
    assert!(
        matches!(commit_when_healed(&store, &row).await, Committed::Done(_)),
        "version 1 is still current"
    );
    assert_eq!(load(&store).await.version.0, record.version.0 + 1);
}

#[tokio::test]
async fn a_sync_that_fails_leaves_it_unknown_and_the_store_recovers() {
    let (_dir, store, faults) = open_bad();
    done(&store, login()).await;
    faults.syncs.store(true, Ordering::Relaxed);
    let first = refresh(1, lease());
    let error = store.commit(first.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown(_)), "{error}");
    faults.heal();
    // Asked again, it is told one way or the other.
    match commit_when_healed(&store, &first).await {
        Committed::Done(record) => assert_eq!(record.committed_by, first.lease),
        Committed::Superseded(record) => assert_eq!(record.unwrap().committed_by, first.lease),
        Committed::Retired => panic!("nothing was retired"),
    }
    assert_eq!(load(&store).await.version.0, 2);
}

#[tokio::test]
async fn of_many_writes_on_a_failing_disk_each_is_answered() {
    let (_dir, store, faults) = open_bad();
    done(&store, login()).await;
    faults.writes.store(true, Ordering::Relaxed);
    let answers = at_once(300, |number| {
        let store = AnyStore::clone(&store);
        let row = CommitRow {
            user: user(&format!("user-{number}")),
            ..login()
        };
        async move { store.commit(row).await }
    })
    .await;
    assert!(answers.iter().all(Result::is_err));
    faults.heal();
    commit_when_healed(&store, &refresh(1, lease())).await;
    for number in 0..300 {
        let row = CommitRow {
            user: user(&format!("user-{number}")),
            ..login()
        };
        assert!(
            matches!(store.commit(row).await.unwrap(), Committed::Done(_)),
            "{number}"
        );
    }
}
