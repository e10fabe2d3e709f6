//! What is due.

use std::{collections::HashSet, time::Duration};

use lockstep_engine::{record::Purpose, time::Unix};
use lockstep_protocol::GrantName;

use super::{
    super::{ClaimRow, CommitRow, Due, DueQuery, SettleRow},
    world::*,
};

/// Makes a grant that is due at `due`.
async fn due_at(store: &AnyStore, grant: &str, due: Option<u64>) {
    done(
        store,
        CommitRow {
            grant: name(grant),
            due_at: due.map(Unix),
            ..login()
        },
    )
    .await;
}

async fn claim_due(store: &AnyStore, query: DueQuery) -> Vec<Due> {
    store.claim_due(query).await.unwrap()
}

/// Uses are written lazily.
async fn found_in_time(store: &AnyStore, query: impl Fn() -> DueQuery) -> Vec<Due> {
    for _ in 0..12_000 {
        let found = claim_due(store, query()).await;
        if !found.is_empty() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Vec::new()
}

fn names(found: &[Due]) -> Vec<GrantName> {
    found.iter().map(|due| due.grant.clone()).collect()
}

pub(in super::super) async fn what_is_due_is_claimed_oldest_first_and_no_more_than_asked(store: AnyStore) {
    for (grant, due) in [
        ("example/c", 30),
        ("example/a", 10),
        ("example/d", 40),
        ("example/b", 20),
    ] {
        due_at(&store, grant, Some(due)).await;
    }
    assert!(claim_due(&store, query(0)).await.is_empty());
    let asked = query(3);
    let found = claim_due(&store, asked.clone()).await;
    assert_eq!(names(&found), [name("example/a"), name("example/b"), name("example/c")]);
    let mut leases = HashSet::new();
    for due in &found {
        let claim = due.record.claim.as_ref().unwrap();
        assert!(due.claimed && due.user == alice());
        assert_eq!(
            (&claim.holder, claim.purpose, claim.fence),
            (&holder("here", 1), Purpose::Redeem, 1)
        );
        assert_eq!(claim.expires_at, Unix(claim.taken_at.0 + 60_000));
        assert!(asked.leases.contains(&claim.lease) && leases.insert(claim.lease));
        assert_eq!(
            store.load(&due.user, &due.grant).await.unwrap().as_ref(),
            Some(&due.record)
        );
    }
    assert_eq!(
        names(&claim_due(&store, query(3)).await),
        [name("example/d")],
        "each once"
    );
    assert!(claim_due(&store, query(3)).await.is_empty());
}

pub(in super::super) async fn what_is_not_due_is_left_alone(store: AnyStore) {
    let later = store.clock().await.unwrap().0 + 30_000;
    due_at(&store, "example/later", Some(later)).await;
    due_at(&store, "example/never", None).await;
    due_at(&store, "other/now", Some(10)).await;
    due_at(&store, "example.com/now", Some(10)).await;
    due_at(&store, "example/deleted", Some(10)).await;
    store.delete_grant(&alice(), &name("example/deleted")).await.unwrap();
    due_at(&store, "example/moved", Some(10)).await;
    let moved = CommitRow {
        grant: name("example/moved"),
        due_at: Some(Unix(later)),
        ..refresh(1, lease())
    };
    done(&store, moved).await;
    due_at(&store, "example/settled", Some(10)).await;
    store
        .settle(SettleRow {
            grant: name("example/settled"),
            ..settle(lease())
        })
        .await
        .unwrap();
    // Settled: due at 9500, long past; everything else is not there.
    assert_eq!(names(&claim_due(&store, query(9)).await), [name("example/settled")]);
}

pub(in super::super) async fn what_nobody_uses_is_left_until_it_is_used(store: AnyStore) {
    due_at(&store, "example/old", Some(10)).await;
    due_at(&store, "example/new", Some(20)).await;
    let soon = Unix(store.clock().await.unwrap().0 + 1_000);
    let asked = || DueQuery {
        used_since: soon,
        ..query(9)
    };
    assert!(
        claim_due(&store, asked()).await.is_empty(),
        "made before, not used since"
    );
    assert!(claim_due(&store, asked()).await.is_empty());

    let old_use = (alice(), name("example/old"), Unix(1));
    let new_use = (alice(), name("example/new"), soon);
    let unknown = (user("nobody"), work(), soon);
    store
        .used(vec![
            new_use.clone(),
            old_use,
            unknown,
            (alice(), name("example/new"), Unix(3)),
        ])
        .await
        .unwrap();
    let found = found_in_time(&store, asked).await;
    assert_eq!(names(&found), [name("example/new")], "by maximum");
    assert_eq!(
        names(&claim_due(&store, query(9)).await),
        [] as [GrantName; 0],
        "the other one waits for its use"
    );
}

/// Makes grants that are due, each with a time to wake.
async fn due_and_wake_at(store: &AnyStore, grants: &[(&str, Option<Unix>)]) {
    for (grant, wake_at) in grants {
        let row = CommitRow {
            grant: name(grant),
            due_at: Some(Unix(10)),
            wake_at: *wake_at,
            ..login()
        };
        done(store, row).await;
    }
}

pub(in super::super) async fn what_nobody_uses_now_sleeps_until_it_is_to_wake(store: AnyStore) {
    let now = store.clock().await.unwrap().0;
    let (soon, later) = (Unix(now + 4_000), Unix(now + 600_000));
    due_and_wake_at(
        &store,
        &[
            ("example/sleeps", Some(later)),
            ("example/wakes", Some(soon)),
            ("example/past", Some(Unix(11))),
            ("example/never", None),
        ],
    )
    .await;
    // Logged in before that: not in use since.
    let asked = || DueQuery {
        in_use_since: Unix(now + 500_000),
        ..query(9)
    };
    let mut found = names(&claim_due(&store, asked()).await);
    found.sort();
    // On a machine that stood still its time may have come already.
    if found.last() == Some(&name("example/wakes")) {
        assert!(store.clock().await.unwrap() >= soon, "not before its time");
    } else {
        until(&store, soon).await;
        found.extend(names(&claim_due(&store, asked()).await));
    }
    let all = ["example/never", "example/past", "example/wakes"];
    assert_eq!(found, all.map(name));
    assert!(claim_due(&store, asked()).await.is_empty());
    let idle = DueQuery {
        used_since: Unix(now + 500_000),
        ..query(9)
    };
    assert!(claim_due(&store, idle).await.is_empty(), "what is idle does not wake");
}

pub(in super::super) async fn what_sleeps_is_due_again_once_it_is_used_or_changes(store: AnyStore) {
    let now = store.clock().await.unwrap().0;
    let later = Some(Unix(now + 600_000));
    due_and_wake_at(
        &store,
        &[("example/used", later), ("example/work", later), ("example/new", later)],
    )
    .await;
    let asked = || DueQuery {
        in_use_since: Unix(now + 500_000),
        ..query(9)
    };
    assert!(claim_due(&store, asked()).await.is_empty());

    store
        .used(vec![(alice(), name("example/used"), Unix(now + 500_000))])
        .await
        .unwrap();
    assert_eq!(names(&found_in_time(&store, asked).await), [name("example/used")]);
    // A new version has hours of its own.
    let row = CommitRow {
        grant: name("example/new"),
        due_at: Some(Unix(10)),
        wake_at: None,
        ..refresh(1, lease())
    };
    done(&store, row).await;
    assert_eq!(names(&claim_due(&store, asked()).await), [name("example/new")]);
    // A verdict says when to look again; that is not to be slept through, nor does it end the sleep of the user.
    store.settle(settle(lease())).await.unwrap();
    assert!(claim_due(&store, asked()).await.is_empty());
    assert_eq!(names(&claim_due(&store, query(9)).await), [] as [GrantName; 0]);
    store
        .used(vec![(alice(), name("example/work"), Unix(now + 500_000))])
        .await
        .unwrap();
    assert_eq!(names(&found_in_time(&store, asked).await), [name("example/work")]);
}

pub(in super::super) async fn use_tells_a_users_hours(store: AnyStore) {
    const HOUR: u64 = 3_600_000;
    done(&store, login()).await;
    assert!(store.hours(&alice()).await.unwrap().is_none(), "nobody was seen yet");
    let (first, second) = (Unix(400_000 * HOUR), Unix(400_005 * HOUR));
    for at in [first, second] {
        let uses = vec![
            (alice(), work(), at),
            (alice(), work(), at),
            (user("nobody"), work(), at),
        ];
        store.used(uses).await.unwrap();
        // Uses are written lazily.
        for _ in 0..12_000 {
            if store
                .hours(&alice())
                .await
                .unwrap()
                .is_some_and(|hours| hours.expects(at))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let hours = store.hours(&alice()).await.unwrap().expect("hours");
    assert!(hours.expects(first) && hours.expects(second));
    assert!(!hours.expects(Unix(400_001 * HOUR)));
    assert!(
        store.hours(&user("nobody")).await.unwrap().is_none(),
        "who has no grant is not watched"
    );
    store.delete_user(&alice(), Unix(50)).await.unwrap();
    assert!(
        store.hours(&alice()).await.unwrap().is_none(),
        "nothing is left of a deleted user"
    );
}

pub(in super::super) async fn two_schedulers_never_claim_the_same(store: AnyStore) {
    for number in 0..60 {
        due_at(&store, &format!("example/{number}"), Some(number + 1)).await;
    }
    let answers = at_once(8, |number| {
        let store = AnyStore::clone(&store);
        let query = DueQuery {
            holder: holder(&format!("node-{number}"), 1),
            ..query(10)
        };
        async move { store.claim_due(query).await.unwrap() }
    })
    .await;
    let mut seen = HashSet::new();
    for due in answers.iter().flatten() {
        assert!(due.claimed && seen.insert(due.grant.clone()), "{} twice", due.grant);
    }
    seen.extend(names(&claim_due(&store, query(60)).await));
    assert_eq!(seen.len(), 60);
}

pub(in super::super) async fn abandoned_claims_are_returned_unclaimed(store: AnyStore) {
    let claim_as = |grant: &str, node: &str, incarnation, ttl_ms| {
        won(
            &store,
            ClaimRow {
                grant: name(grant),
                holder: holder(node, incarnation),
                ttl_ms,
                ..claim()
            },
        )
    };
    for grant in [
        "example/live",
        "example/lapsed",
        "example/former",
        "example/own",
        "example/never-due",
    ] {
        let due = (grant != "example/never-due").then_some(10);
        due_at(&store, grant, due).await;
    }
    claim_as("example/live", "there", 1, 50_000).await;
    let lapsed = claim_as("example/lapsed", "there", 1, 1).await;
    let never_due = claim_as("example/never-due", "there", 1, 1).await;
    let former = claim_as("example/former", "here", 1, 50_000).await;
    claim_as("example/own", "here", 2, 1).await;
    until(&store, Unix(store.clock().await.unwrap().0 + 2)).await;

    let restarted = || DueQuery {
        holder: holder("here", 2),
        ..query(9)
    };
    let mut found = claim_due(&store, restarted()).await;
    found.sort_by(|a, b| a.grant.cmp(&b.grant));
    let names_found = names(&found);
    assert_eq!(
        names_found,
        [
            name("example/former"),
            name("example/lapsed"),
            name("example/never-due")
        ]
    );
    assert!(found.iter().all(|due| !due.claimed));
    for (due, record) in found.iter().zip([former, lapsed, never_due]) {
        assert_eq!(due.record, record, "left as it was");
    }
}

pub(in super::super) async fn what_was_claimed_unheard_is_found_by_its_lease(store: AnyStore) {
    for (grant, due) in [("example/a", 10), ("example/b", 20), ("example/c", 30)] {
        due_at(&store, grant, Some(due)).await;
    }
    let unheard = claim_due(&store, query(2)).await;
    let leases = unheard.iter().map(|due| due.record.claim.as_ref().unwrap().lease);
    let lost: Vec<_> = leases.chain([lease()]).collect();
    let again = |most| DueQuery {
        lost: lost.clone(),
        ..query(most)
    };
    assert_eq!(names(&claim_due(&store, again(1)).await).len(), 1, "no more than asked");
    store
        .settle(SettleRow {
            grant: name("example/c"),
            ..settle(lease())
        })
        .await
        .unwrap();
    let mut found = claim_due(&store, again(9)).await;
    found.sort_by(|a, b| a.grant.cmp(&b.grant));
    assert_eq!(names(&found)[..2], names(&unheard), "as they stand");
    assert!(found.iter().all(|due| due.claimed));
    assert_eq!(found[0].record, unheard[0].record);
    assert!(claim_due(&store, query(9)).await.is_empty(), "only by their leases");
}

pub(in super::super) async fn what_was_abandoned_and_judged_is_due_again(store: AnyStore) {
    due_at(&store, "example/work", Some(10)).await;
    let former = won(&store, claim()).await.claim.unwrap();
    let restarted = || DueQuery {
        holder: holder("here", 2),
        ..query(1)
    };
    let found = claim_due(&store, restarted()).await;
    assert_eq!((found.len(), found[0].claimed), (1, false));
    let row = SettleRow {
        holder: holder("here", 2),
        ..settle(former.lease)
    };
    store.settle(row).await.unwrap();
    let found = claim_due(&store, restarted()).await;
    assert_eq!((found.len(), found[0].claimed), (1, true));
}
