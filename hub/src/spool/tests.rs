use std::os::unix::fs::PermissionsExt;

use lockstep_protocol::{Epoch, Secret};
use uuid::Uuid;

use super::*;

fn spooled(number: u128) -> Spooled {
    Spooled {
        user: "alice".parse().unwrap(),
        grant: "p/a".parse().unwrap(),
        lease: LeaseId(Uuid::from_u128(number)),
        from_version: Version(7),
        tokens: TokenSet {
            access_token: Some(Secret::new("access-secret")),
            refresh_token: Some(Secret::new("refresh-secret")),
            token_type: "Bearer".into(),
            scope: None,
            expires_at: None,
            refresh_expires_at: None,
        },
    }
}

fn open(dir: &Path, vault: &Arc<Vault>) -> Result<Spool, SpoolError> {
    Spool::open(dir, Arc::clone(vault))
}

#[tokio::test]
async fn a_result_waits_across_a_restart_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Arc::new(Vault::ephemeral());
    let spool = open(dir.path(), &vault).unwrap();
    spool.put(spooled(1)).await.unwrap();
    spool.put(spooled(2)).await.unwrap();
    spool.put(spooled(2)).await.unwrap();
    drop(spool);

    let spool = open(dir.path(), &vault).unwrap();
    let mut pending = spool.pending().await.unwrap();
    pending.sort_by_key(|one| one.lease);
    assert_eq!(pending, [spooled(1), spooled(2)]);
    spool.remove(spooled(1).lease).await.unwrap();
    spool.remove(spooled(1).lease).await.unwrap();
    assert_eq!(spool.pending().await.unwrap(), [spooled(2)]);
}

#[tokio::test]
async fn nothing_in_the_directory_shows_a_secret_or_is_open_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/spool");
    let spool = open(&path, &Arc::new(Vault::ephemeral())).unwrap();
    spool.put(spooled(1)).await.unwrap();
    spool
        .put_witness(Mark {
            epoch: Epoch(1),
            commits: 1,
        })
        .await
        .unwrap();

    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o7777,
            0o600,
            "{entry:?}"
        );
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"secret"), "{entry:?}");
    }
}

#[tokio::test]
async fn a_second_process_is_told_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Arc::new(Vault::ephemeral());
    let first = open(dir.path(), &vault).unwrap();
    let error = open(dir.path(), &vault).unwrap_err();
    assert!(matches!(error, SpoolError::InUse(_)), "{error}");
    drop(first);
    open(dir.path(), &vault).unwrap();
}

#[tokio::test]
async fn a_damaged_result_is_kept_aside_and_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Arc::new(Vault::ephemeral());
    let spool = open(dir.path(), &vault).unwrap();
    for number in 1..=3 {
        spool.put(spooled(number)).await.unwrap();
    }
    let flipped = file::path(dir.path(), spooled(1).lease);
    let mut bytes = std::fs::read(&flipped).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&flipped, bytes).unwrap();
    // One result under another's name: sealed for its own lease, it does not pass for the other's.
    let moved = file::path(dir.path(), spooled(2).lease);
    std::fs::copy(file::path(dir.path(), spooled(3).lease), &moved).unwrap();

    assert_eq!(spool.pending().await.unwrap(), [spooled(3)]);
    assert!(flipped.with_extension("corrupt").exists() && moved.with_extension("corrupt").exists());
    assert_eq!(spool.pending().await.unwrap(), [spooled(3)]);
}

#[tokio::test]
async fn a_result_whose_key_is_missing_stays_for_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Arc::new(Vault::ephemeral());
    open(dir.path(), &vault).unwrap().put(spooled(1)).await.unwrap();
    let other = open(dir.path(), &Arc::new(Vault::ephemeral())).unwrap();
    assert_eq!(other.pending().await.unwrap(), []);
    drop(other);
    assert_eq!(open(dir.path(), &vault).unwrap().pending().await.unwrap(), [spooled(1)]);
}

#[tokio::test]
async fn half_a_file_of_a_crash_is_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    let half = file::path(dir.path(), spooled(1).lease).with_extension("new");
    std::fs::write(&half, b"lspo").unwrap();
    let spool = open(dir.path(), &Arc::new(Vault::ephemeral())).unwrap();
    assert!(!half.exists());
    assert_eq!(spool.pending().await.unwrap(), []);
}

#[tokio::test]
async fn the_witness_is_what_was_last_put() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Arc::new(Vault::ephemeral());
    let spool = open(dir.path(), &vault).unwrap();
    assert_eq!(spool.witness().unwrap(), None);
    let mark = Mark {
        epoch: Epoch(0xfeed),
        commits: 41,
    };
    spool.put_witness(mark).await.unwrap();
    spool.put_witness(Mark { commits: 42, ..mark }).await.unwrap();
    drop(spool);
    let spool = open(dir.path(), &vault).unwrap();
    assert_eq!(spool.witness().unwrap(), Some(Mark { commits: 42, ..mark }));

    std::fs::write(file::witness(dir.path()), "lockstep witness v1\nepoch x").unwrap();
    assert!(matches!(spool.witness(), Err(SpoolError::Witness(_))));
}

#[tokio::test]
async fn room_is_bounded_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), &Arc::new(Vault::ephemeral())).unwrap();
    let mut held = Vec::new();
    while let Ok(reserved) = spool.reserve() {
        held.push(reserved);
        assert!(held.len() <= 16 * 1024, "bounded");
    }
    assert!(!held.is_empty() && !spool.has_room());
    held.pop();
    assert!(spool.has_room());
}
