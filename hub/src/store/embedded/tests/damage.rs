//! Files that are not as they were left.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
};

use lockstep_engine::time::Unix;
use redb::{Database, ReadableTable, TableDefinition};

use super::*;
use crate::store::CommitRow;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

#[tokio::test]
async fn a_file_that_is_no_store_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lockstep.db");
    let text = b"SQLite format 3\0".repeat(1_000);
    fs::write(&path, &text).unwrap();
    let error = open(dir.path()).await.err().unwrap();
    assert!(
        matches!(&error, StoreError::Corrupt(why) if why.contains("lockstep.db")),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), text);
}

#[tokio::test]
async fn a_row_that_rotted_is_named_and_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    for grant in ["example/bad", "example/good", "example/swapped"] {
        done(
            &store,
            CommitRow {
                grant: name(grant),
                due_at: Some(Unix(10)),
                ..login()
            },
        )
        .await;
    }
    drop(store);
    let db = Database::open(dir.path().join("lockstep.db")).unwrap();
    let write = db.begin_write().unwrap();
    {
        let mut rows = write.open_table(ROWS).unwrap();
        let mut bad = rows
            .get(b"ualice\0example/bad".as_slice())
            .unwrap()
            .unwrap()
            .value()
            .to_vec();
        let good = rows
            .get(b"ualice\0example/good".as_slice())
            .unwrap()
            .unwrap()
            .value()
            .to_vec();
        // One bit in the version or thereabouts: it would still parse.
        bad[40] ^= 1;
        rows.insert(b"ualice\0example/bad".as_slice(), bad.as_slice()).unwrap();
        rows.insert(b"ualice\0example/swapped".as_slice(), good.as_slice())
            .unwrap();
    }
    write.commit().unwrap();
    drop(db);

    let store = open(dir.path()).await.unwrap();
    for bad in ["example/bad", "example/swapped"] {
        let error = store.load(&alice(), &name(bad)).await.unwrap_err();
        let named = |why: &String| why.contains("table User") && why.contains(bad);
        assert!(matches!(&error, StoreError::Corrupt(why) if named(why)), "{error}");
        let write = CommitRow {
            grant: name(bad),
            ..refresh(1, lease())
        };
        assert!(matches!(store.commit(write).await, Err(StoreError::Corrupt(_))));
    }
    let due = store.claim_due(query(9)).await.unwrap();
    assert_eq!(due.len(), 1, "the good one is refreshed");
    assert_eq!(due[0].grant, name("example/good"));
    done(
        &store,
        CommitRow {
            grant: name("example/good"),
            ..refresh(1, lease())
        },
    )
    .await;
}

/// Whatever bytes are damaged: an answer, right or an error, never the end of the process.
#[tokio::test]
async fn damaged_pages_give_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lockstep.db");
    let store = open(dir.path()).await.unwrap();
    for number in 0..50 {
        done(
            &store,
            CommitRow {
                grant: name(&format!("example/{number}")),
                ..login()
            },
        )
        .await;
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut refused = 0;
    for at in (0..used).step_by(used / 40) {
        fs::write(&path, &whole).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 64], at as u64).unwrap();
        drop(file);
        let Ok(store) = open(dir.path()).await else {
            refused += 1;
            continue;
        };
        let read = store.user(&alice()).await;
        let written = store
            .commit(CommitRow {
                user: user("bob"),
                ..login()
            })
            .await;
        refused += i32::from(read.is_err()) + i32::from(written.is_err());
    }
    assert!(refused > 0, "some of it must have been noticed");
}

#[tokio::test]
async fn a_file_cut_short_gives_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lockstep.db");
    let store = open(dir.path()).await.unwrap();
    for number in 0..50 {
        done(
            &store,
            CommitRow {
                grant: name(&format!("example/{number}")),
                ..login()
            },
        )
        .await;
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    for length in [1, 100, 4096, whole.len() / 2] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(open(dir.path()).await.is_err(), "{length} bytes of it");
    }
}
