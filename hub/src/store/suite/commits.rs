//! Commits.

use lockstep_engine::{record::Health, time::Unix};
use lockstep_protocol::{Seq, Version, frame::Cause};

use super::{
    super::{CommitRow, Committed, StoredGrant},
    world::*,
};

pub(in super::super) async fn the_first_commit_makes_user_and_grant(store: AnyStore) {
    assert!(
        superseded(&store, refresh(3, lease())).await.is_none(),
        "there is no version 3 to follow"
    );
    assert!(store.user(&alice()).await.unwrap().is_none(), "nor a user yet");

    let row = CommitRow {
        due_at: Some(Unix(1_700)),
        rejected_in_a_row: 2,
        ..login()
    };
    let record = done(&store, row).await;
    let expected = StoredGrant {
        revision: 1,
        version: Version(1),
        seq: Seq(1),
        health: Health::Ok,
        reason: None,
        retry_at: None,
        tokens: Some(sealed("one")),
        expires_at: Some(Unix(2_000)),
        refreshed_at: Unix(1_000),
        cause: Cause::Login,
        due_at: Some(Unix(1_700)),
        claim: None,
        fence: 0,
        leases: Vec::new(),
        former_leases: Vec::new(),
        committed_by: None,
        doubt: None,
        alternate: None,
        rejected_in_a_row: 2,
    };
    assert_eq!(record, expected);
    assert_eq!(load(&store).await, expected);
}

pub(in super::super) async fn a_commit_follows_the_newest_version_only(store: AnyStore) {
    let one = done(&store, login()).await;
    assert_eq!(
        superseded(&store, login()).await.unwrap(),
        one,
        "version 0 is no longer current"
    );
    let row = CommitRow {
        tokens: sealed("two"),
        expires_at: None,
        refreshed_at: Unix(3_000),
        due_at: Some(Unix(4_000)),
        rejected_in_a_row: 1,
        ..refresh(1, lease())
    };
    let two = done(&store, row.clone()).await;
    assert_eq!((two.version, two.seq, two.cause), (Version(2), Seq(2), Cause::Refresh));
    assert_eq!(
        (two.expires_at, two.refreshed_at, two.due_at),
        (None, Unix(3_000), Some(Unix(4_000)))
    );
    assert_eq!((two.tokens.clone(), two.committed_by), (Some(sealed("two")), row.lease));
    for stale in [0, 1, 3] {
        assert_eq!(superseded(&store, refresh(stale, lease())).await.unwrap(), two);
    }
    assert_eq!(load(&store).await, two);
}

pub(in super::super) async fn a_commit_ends_claim_doubt_and_alternate(store: AnyStore) {
    done(&store, login()).await;
    let claimed = won(&store, claim()).await.claim.unwrap();
    store.settle(settle(claimed.lease)).await.unwrap();
    let again = won(&store, claim()).await.claim.unwrap();
    store
        .keep_alternate(&alice(), &work(), Version(1), sealed("other"))
        .await
        .unwrap();

    let next = done(&store, refresh(1, again.lease)).await;
    assert_eq!((next.health, next.reason, next.retry_at), (Health::Ok, None, None));
    assert_eq!((next.claim, next.doubt, next.alternate), (None, None, None));
    assert_eq!(
        (next.leases, next.former_leases),
        (vec![], vec![claimed.lease, again.lease])
    );
    assert_eq!(next.due_at, None);
}

pub(in super::super) async fn whoever_redeemed_the_newest_may_commit_late(store: AnyStore) {
    done(&store, login()).await;
    let late = won(&store, claim()).await.claim.unwrap().lease;
    let now = won(
        &store,
        super::super::ClaimRow {
            over: Some(late),
            ..claim()
        },
    )
    .await
    .claim
    .unwrap()
    .lease;
    let record = done(&store, refresh(1, late)).await;
    assert_eq!((record.committed_by, &record.claim), (Some(late), &None));
    assert!(
        !store.renew(&alice(), &work(), now, 60_000).await.unwrap(),
        "the other claim is over"
    );
    assert_eq!(superseded(&store, refresh(1, now)).await.unwrap(), record);
}

pub(in super::super) async fn a_duplicate_commit_is_told_by_its_lease(store: AnyStore) {
    done(&store, login()).await;
    let own = won(&store, claim()).await.claim.unwrap().lease;
    done(&store, refresh(1, own)).await;
    let again = superseded(&store, refresh(1, own)).await.unwrap();
    assert_eq!(
        (again.committed_by, again.version, again.seq),
        (Some(own), Version(2), Seq(2))
    );
}

pub(in super::super) async fn of_many_who_commit_at_once_one_wins(store: AnyStore) {
    done(&store, login()).await;
    let answers = at_once(64, |number| {
        let store = AnyStore::clone(&store);
        let row = CommitRow {
            tokens: sealed(&format!("token {number}")),
            ..refresh(1, lease())
        };
        async move { (row.lease, store.commit(row).await.unwrap()) }
    })
    .await;
    let winners: Vec<_> = answers
        .iter()
        .filter(|(_, answer)| matches!(answer, Committed::Done(_)))
        .collect();
    assert_eq!(winners.len(), 1);
    let record = load(&store).await;
    assert_eq!(
        (record.version, record.seq, record.committed_by),
        (Version(2), Seq(2), winners[0].0)
    );
}

pub(in super::super) async fn used_up_refresh_tokens_are_remembered(store: AnyStore) {
    done(&store, login()).await;
    for number in 1..=70 {
        done(
            &store,
            CommitRow {
                retire: Some(hash(number)),
                ..refresh(number.into(), lease())
            },
        )
        .await;
    }
    let before = load(&store).await;
    let again = |number| CommitRow {
        from_version: Version(71),
        unless_retired: Some(hash(number)),
        ..login()
    };
    for number in 70 - 63..=70 {
        assert!(
            matches!(store.commit(again(number)).await.unwrap(), Committed::Retired),
            "{number}"
        );
    }
    assert_eq!(load(&store).await, before, "nothing changed");
    done(&store, again(99)).await;
}

pub(in super::super) async fn every_write_of_a_record_is_a_revision(store: AnyStore) {
    let mut last = done(&store, login()).await.revision;
    let mut rises = |record: &StoredGrant, what: &str| {
        assert!(record.revision > last, "{what}");
        last = record.revision;
    };
    let claimed = won(&store, claim()).await;
    rises(&claimed, "claim");
    let own = claimed.claim.unwrap().lease;
    store.renew(&alice(), &work(), own, 60_000).await.unwrap();
    rises(&load(&store).await, "renew");
    store
        .hand_out(&alice(), &work(), own, device(&alice()).id)
        .await
        .unwrap();
    rises(&load(&store).await, "hand_out");
    store
        .keep_alternate(&alice(), &work(), Version(1), sealed("other"))
        .await
        .unwrap();
    rises(&load(&store).await, "keep_alternate");
    rises(&store.settle(settle(own)).await.unwrap().unwrap(), "settle");
    let record = load(&store).await;
    store.reseal(&alice(), &work(), &record, record.clone()).await.unwrap();
    rises(&load(&store).await, "reseal");
    rises(&done(&store, refresh(1, own)).await, "commit");
    rises(&store.delete_grant(&alice(), &work()).await.unwrap().unwrap(), "delete");
    rises(
        &done(
            &store,
            CommitRow {
                from_version: Version(2),
                ..login()
            },
        )
        .await,
        "login",
    );
}

pub(in super::super) async fn seq_is_counted_by_user_and_version_by_grant(store: AnyStore) {
    let commit = |user: &'static str, grant: &'static str, from| {
        let row = CommitRow {
            user: super::world::user(user),
            grant: name(grant),
            ..refresh(from, lease())
        };
        done(&store, row)
    };
    for (user, grant, from, seq) in [
        ("alice", "a/1", 0, 1),
        ("alice", "b/1", 0, 2),
        ("bob", "a/1", 0, 1),
        ("alice", "a/1", 1, 3),
        ("bob", "a/1", 1, 2),
    ] {
        let record = commit(user, grant, from).await;
        assert_eq!(
            (record.version, record.seq),
            (Version(from + 1), Seq(seq)),
            "{user} {grant}"
        );
    }
    let mut seqs = store.seqs(&[alice(), user("nobody"), user("bob")]).await.unwrap();
    seqs.sort();
    assert_eq!(seqs, [(alice(), Seq(3)), (user("bob"), Seq(2))]);
}

pub(in super::super) async fn resealing_changes_neither_version_nor_seq(store: AnyStore) {
    done(&store, login()).await;
    store
        .keep_alternate(&alice(), &work(), Version(1), sealed("other"))
        .await
        .unwrap();
    let old = load(&store).await;
    let with = StoredGrant {
        tokens: Some(sealed("one again")),
        alternate: Some(sealed("other again")),
        ..old.clone()
    };
    assert!(store.reseal(&alice(), &work(), &old, with.clone()).await.unwrap());
    let new = load(&store).await;
    assert_eq!(
        new,
        StoredGrant {
            revision: new.revision,
            ..with.clone()
        }
    );

    assert!(
        !store.reseal(&alice(), &work(), &old, with.clone()).await.unwrap(),
        "sealed otherwise by now"
    );
    done(&store, refresh(1, lease())).await;
    assert!(
        !store.reseal(&alice(), &work(), &new, with.clone()).await.unwrap(),
        "another version by now"
    );
    assert!(
        !store.reseal(&user("bob"), &work(), &new, with).await.unwrap(),
        "no such grant"
    );
}
