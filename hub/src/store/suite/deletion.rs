//! Tombstones.

use lockstep_engine::{record::Health, time::Unix};
use lockstep_protocol::{Seq, Version};

use super::{
    super::{CommitRow, Committed, Slave, StoredGrant},
    world::*,
};

pub(in super::super) async fn a_deleted_grant_keeps_its_version(store: AnyStore) {
    assert!(store.delete_grant(&alice(), &work()).await.unwrap().is_none());
    done(&store, login()).await;
    let own = won(&store, claim()).await.claim.unwrap().lease;
    let row = CommitRow {
        retire: Some(hash(1)),
        due_at: Some(Unix(10)),
        ..refresh(1, own)
    };
    let live = done(&store, row).await;
    store
        .keep_alternate(&alice(), &work(), Version(2), sealed("other"))
        .await
        .unwrap();

    let tombstone = store.delete_grant(&alice(), &work()).await.unwrap().unwrap();
    let expected = StoredGrant {
        revision: tombstone.revision,
        seq: Seq(3),
        health: Health::Deleted,
        tokens: None,
        expires_at: None,
        due_at: None,
        leases: Vec::new(),
        former_leases: Vec::new(),
        ..live
    };
    assert_eq!(tombstone, expected);
    assert_eq!(load(&store).await, tombstone);
    assert_eq!(
        store.delete_grant(&alice(), &work()).await.unwrap().unwrap(),
        tombstone,
        "once is enough"
    );
}

pub(in super::super) async fn a_tombstone_takes_only_a_login(store: AnyStore) {
    done(&store, login()).await;
    let own = won(&store, claim()).await.claim.unwrap().lease;
    done(
        &store,
        CommitRow {
            retire: Some(hash(1)),
            ..refresh(1, own)
        },
    )
    .await;
    let tombstone = store.delete_grant(&alice(), &work()).await.unwrap().unwrap();

    assert_eq!(
        superseded(&store, refresh(2, own)).await.unwrap(),
        tombstone,
        "a late result is refused"
    );
    assert_eq!(
        superseded(&store, login()).await.unwrap(),
        tombstone,
        "version 0 is long gone"
    );
    let used_up = CommitRow {
        from_version: Version(2),
        unless_retired: Some(hash(1)),
        ..login()
    };
    assert!(
        matches!(store.commit(used_up).await.unwrap(), Committed::Retired),
        "remembered across deletion"
    );
    let anew = done(
        &store,
        CommitRow {
            from_version: Version(2),
            ..login()
        },
    )
    .await;
    assert_eq!((anew.version, anew.seq, anew.health), (Version(3), Seq(4), Health::Ok));
}

pub(in super::super) async fn deleting_a_user_leaves_tombstones_and_no_devices(store: AnyStore) {
    assert!(store.delete_user(&alice(), Unix(50)).await.unwrap().is_none());
    for grant in ["a/1", "b/1", "c/1"] {
        done(
            &store,
            CommitRow {
                grant: name(grant),
                ..login()
            },
        )
        .await;
        done(
            &store,
            CommitRow {
                user: user("alice2"),
                grant: name(grant),
                ..login()
            },
        )
        .await;
    }
    store.delete_grant(&alice(), &name("b/1")).await.unwrap();
    let (mine, other) = (device(&alice()), device(&user("alice2")));
    store.enrol(mine.clone()).await.unwrap();
    store.enrol(other.clone()).await.unwrap();
    let slave = Slave {
        user: alice(),
        device: mine.id,
        grant: name("a/1"),
        made_at: Unix(1),
    };
    store.put_slave(hash(9), slave).await.unwrap();

    assert_eq!(
        store.delete_user(&alice(), Unix(50)).await.unwrap(),
        Some(vec![mine.id])
    );
    let state = store.user(&alice()).await.unwrap().unwrap();
    assert_eq!((state.seq, state.deleted), (Seq(6), true));
    assert!(
        state
            .grants
            .iter()
            .all(|(_, grant)| grant.health == Health::Deleted && grant.tokens.is_none())
    );
    let mut seqs: Vec<_> = state.grants.iter().map(|(_, grant)| grant.seq.0).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [4, 5, 6], "a seq each; the one deleted before keeps its own");
    assert!(store.devices(&alice()).await.unwrap().is_empty());
    assert_eq!(store.device(mine.id).await.unwrap().unwrap().revoked_at, Some(Unix(50)));
    assert!(store.slave(hash(9)).await.unwrap().is_none());
    assert_eq!(store.revoked_since(Unix(0)).await.unwrap(), [(mine.id, Unix(50))]);

    let others = store.user(&user("alice2")).await.unwrap().unwrap();
    assert!(others.grants.iter().all(|(_, grant)| grant.health == Health::Ok));
    assert_eq!(store.devices(&user("alice2")).await.unwrap(), [other]);
    assert_eq!(store.delete_user(&alice(), Unix(60)).await.unwrap(), Some(vec![]));
    assert_eq!(store.user(&alice()).await.unwrap().unwrap().seq, Seq(6));
}

pub(in super::super) async fn a_user_is_there_until_it_is_deleted_and_again_with_the_next_device_or_login(
    store: AnyStore,
) {
    let deleted = async || store.user(&alice()).await.unwrap().unwrap().deleted;
    let mine = device(&alice());
    store.enrol(mine.clone()).await.unwrap();
    store.revoke(mine.id, Unix(40)).await.unwrap();
    assert!(!deleted().await, "a device less is no user less");

    store.delete_user(&alice(), Unix(50)).await.unwrap();
    assert!(deleted().await);
    store.enrol(mine).await.unwrap_err();
    assert!(deleted().await, "nothing was enrolled");
    store.enrol(device(&alice())).await.unwrap();
    assert!(!deleted().await);

    store.delete_user(&alice(), Unix(60)).await.unwrap();
    done(&store, login()).await;
    assert!(!deleted().await);
    store.delete_grant(&alice(), &work()).await.unwrap();
    assert!(!deleted().await, "a grant less is no user less");
}
