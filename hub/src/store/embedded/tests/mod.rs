//! What the suite cannot ask of every store: files, damage, and disks that fail.

mod damage;
mod disk;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use super::super::{
    Answer, StoreError,
    suite::{Made, conformance, world::*},
};

async fn make() -> Made {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    Made {
        store,
        _keep: Box::new(dir),
    }
}

conformance!(make);

async fn open(dir: &Path) -> Answer<AnyStore> {
    crate::store::open("file:lockstep.db", dir).await
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lockstep.db");
    drop(open(dir.path()).await.unwrap());
    assert_eq!(mode(&path), 0o600);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(open(dir.path()).await.unwrap());
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn what_was_committed_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let record = done(&store, login()).await;
    let device = device(&alice());
    store.enrol(device.clone()).await.unwrap();
    store
        .used(vec![(alice(), work(), store.clock().await.unwrap())])
        .await
        .unwrap();
    let (mark, incarnation) = (store.mark().await.unwrap(), store.start_node("here").await.unwrap());
    drop(store);

    let store = open(dir.path()).await.unwrap();
    assert_eq!(load(&store).await, record);
    assert_eq!(store.device(device.id).await.unwrap(), Some(device));
    assert_eq!(store.mark().await.unwrap(), mark, "the same life goes on");
    assert_eq!(store.start_node("here").await.unwrap(), incarnation + 1);
}

#[tokio::test]
async fn a_second_process_is_told_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let error = open(dir.path()).await.err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    done(&store, login()).await;
    drop(store);
    open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_place_where_no_store_can_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lockstep.db")).unwrap();
    let error = open(dir.path()).await.err().unwrap();
    assert!(
        matches!(&error, StoreError::Refused(why) if why.contains("lockstep.db")),
        "{error}"
    );
    for url in ["file:", "memory:x", "sqlite:x", "lockstep.db", "file:no/such/dir/x.db"] {
        let error = crate::store::open(url, dir.path()).await.err().unwrap();
        assert!(matches!(error, StoreError::Refused(_)), "{url}: {error}");
    }
}
