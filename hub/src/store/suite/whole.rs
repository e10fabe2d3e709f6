//! The store as a whole.

use std::collections::HashSet;

use lockstep_engine::{record::Health, time::Unix};
use lockstep_protocol::{Epoch, Seq, Version};

use super::{
    super::{CommitRow, Mark, StoredGrant},
    world::*,
};

pub(in super::super) async fn the_mark_counts_changes_of_grants(store: AnyStore) {
    let first = store.mark().await.unwrap();
    let mut commits = first.commits;
    let mut moved = async |what: &str| {
        let mark = store.mark().await.unwrap();
        assert_eq!(mark.epoch, first.epoch);
        assert!(mark.commits > commits, "{what}");
        commits = mark.commits;
    };
    done(&store, login()).await;
    moved("login").await;
    let own = won(&store, claim()).await.claim.unwrap().lease;
    moved("claim").await;
    done(&store, refresh(1, own)).await;
    moved("commit").await;
    store
        .settle(super::super::SettleRow {
            version: Version(2),
            ..settle(lease())
        })
        .await
        .unwrap();
    moved("settle").await;
    store.delete_grant(&alice(), &work()).await.unwrap();
    moved("delete").await;
    store.probe().await.unwrap();
    superseded(&store, login()).await;
    let mark = store.mark().await.unwrap();
    assert_eq!(
        mark,
        Mark {
            epoch: first.epoch,
            commits
        },
        "what changes no grant does not count"
    );
}

pub(in super::super) async fn incarnations_rise_by_node(store: AnyStore) {
    let first = store.start_node("here").await.unwrap();
    let second = store.start_node("here").await.unwrap();
    assert!(second > first && first > 0);
    assert_eq!(store.start_node("there").await.unwrap(), first);
    let mut all: HashSet<u64> = HashSet::from([first, second]);
    let more = at_once(16, |_| {
        let store = AnyStore::clone(&store);
        async move { store.start_node("here").await.unwrap() }
    })
    .await;
    assert!(
        more.into_iter()
            .all(|incarnation| incarnation > second && all.insert(incarnation))
    );
}

pub(in super::super) async fn a_shared_value_is_replaced_only_over_what_stands(store: AnyStore) {
    assert!(store.shared("keys").await.unwrap().is_none());
    assert_eq!(store.share("keys", sealed("one"), None).await.unwrap(), sealed("one"));
    assert_eq!(store.share("keys", sealed("two"), None).await.unwrap(), sealed("one"));
    assert_eq!(
        store.share("keys", sealed("two"), Some(sealed("zero"))).await.unwrap(),
        sealed("one")
    );
    assert_eq!(
        store.share("keys", sealed("two"), Some(sealed("one"))).await.unwrap(),
        sealed("two")
    );
    assert_eq!(store.shared("keys").await.unwrap(), Some(sealed("two")));
    assert!(store.shared("other").await.unwrap().is_none());
    store.share("a/1", sealed("x"), None).await.unwrap();
    let mut names = store.shared_names().await.unwrap();
    names.sort();
    assert_eq!(names, ["a/1", "keys"]);
}

pub(in super::super) async fn of_many_who_share_at_once_all_hold_the_same(store: AnyStore) {
    let answers = at_once(32, |number| {
        let store = AnyStore::clone(&store);
        async move { store.share("keys", sealed(&number.to_string()), None).await.unwrap() }
    })
    .await;
    let stands = store.shared("keys").await.unwrap().unwrap();
    assert!(answers.into_iter().all(|answer| answer == stands));
}

pub(in super::super) async fn a_restored_store_trusts_no_grant(store: AnyStore) {
    for grant in ["example/a", "example/b", "example/gone"] {
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
    done(
        &store,
        CommitRow {
            user: user("bob"),
            expires_at: None,
            ..login()
        },
    )
    .await;
    won(
        &store,
        super::super::ClaimRow {
            grant: name("example/a"),
            ..claim()
        },
    )
    .await;
    let gone = store
        .delete_grant(&alice(), &name("example/gone"))
        .await
        .unwrap()
        .unwrap();
    let before = store.mark().await.unwrap();

    let mark = store.restored(Epoch(77), "restored from a backup").await.unwrap();
    assert_eq!(mark.epoch, Epoch(77));
    assert!(mark.commits >= before.commits);
    assert_eq!(store.mark().await.unwrap(), mark);

    let state = store.user(&alice()).await.unwrap().unwrap();
    assert_eq!(state.seq, Seq(6));
    let mut seqs = HashSet::new();
    for (grant, record) in &state.grants {
        if *grant == name("example/gone") {
            assert_eq!(*record, gone);
        } else {
            assert!(record.seq > Seq(4) && seqs.insert(record.seq));
            assert_doubtful(record);
        }
    }
    let bobs = store.load(&user("bob"), &work()).await.unwrap().unwrap();
    assert_eq!((bobs.health, bobs.seq, bobs.due_at), (Health::Suspect, Seq(2), None));
}

fn assert_doubtful(record: &StoredGrant) {
    assert_eq!(
        (record.health, record.version, &record.claim),
        (Health::Suspect, Version(1), &None)
    );
    assert_eq!(record.reason.as_deref(), Some("restored from a backup"));
    assert_eq!(
        record.doubt.as_ref().unwrap().since,
        Unix(0),
        "no grace counts any more"
    );
    assert_eq!(
        record.due_at, record.expires_at,
        "nothing is redeemed while the access token is good"
    );
    assert!(record.tokens.is_some());
}

pub(in super::super) async fn a_scan_meets_every_grant_in_order(store: AnyStore) {
    assert!(store.scan(None, 10).await.unwrap().is_empty());
    let mut all = Vec::new();
    for user in ["al", "al-ice", "al.x", "alice", "B", "b"] {
        for grant in ["a/1", "a-b/1", "a/1-2", "b/x@y.z"] {
            let row = CommitRow {
                user: super::world::user(user),
                grant: name(grant),
                ..login()
            };
            all.push((row.user.clone(), row.grant.clone(), done(&store, row).await));
        }
    }
    store.enrol(device(&user("without-grants"))).await.unwrap();
    let tombstone = store.delete_grant(&user("al.x"), &name("a/1")).await.unwrap().unwrap();
    for (user, grant, record) in &mut all {
        if (user.as_str(), grant.as_str()) == ("al.x", "a/1") {
            *record = tombstone.clone();
        }
    }
    all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    for page in [1, 5, 100] {
        let mut met = Vec::new();
        while met.len() < 100 {
            let after = met
                .last()
                .map(|(user, grant, _)| (Clone::clone(user), Clone::clone(grant)));
            let found = store.scan(after, page).await.unwrap();
            assert!(found.len() <= page);
            if found.is_empty() {
                break;
            }
            met.extend(found);
        }
        assert_eq!(met, all, "by {page}");
    }
    assert!(store.scan(None, 0).await.unwrap().is_empty());
}

pub(in super::super) async fn a_user_is_read_as_a_whole(store: AnyStore) {
    assert!(store.user(&alice()).await.unwrap().is_none());
    for grant in ["b/1", "a/2", "a/1"] {
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
    store.delete_grant(&alice(), &name("a/2")).await.unwrap();
    let state = store.user(&alice()).await.unwrap().unwrap();
    let shown: Vec<_> = state
        .grants
        .iter()
        .map(|(name, grant)| (name.as_str(), grant.seq.0, grant.health))
        .collect();
    let expected = [
        ("a/1", 3, Health::Ok),
        ("a/2", 4, Health::Deleted),
        ("b/1", 1, Health::Ok),
    ];
    assert_eq!((state.seq, shown.as_slice()), (Seq(4), expected.as_slice()));
    assert!(store.load(&alice(), &name("c/1")).await.unwrap().is_none());
    assert!(store.seqs(&[]).await.unwrap().is_empty());
}

pub(in super::super) async fn the_clock_runs_with_the_wall(store: AnyStore) {
    let (before, told) = (crate::clock::unix(), store.clock().await.unwrap());
    assert!(told.0.abs_diff(before.0) < 60_000, "{told:?} is not {before:?}");
    until(&store, Unix(told.0 + 2)).await;
}
