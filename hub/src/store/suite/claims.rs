//! Claims.

use lockstep_engine::{
    record::{Claim, Purpose},
    time::Unix,
};
use lockstep_protocol::{DeviceId, Version};
use uuid::Uuid;

use super::{
    super::{ClaimRow, Claimed, StoredGrant},
    world::*,
};

pub(in super::super) async fn a_claim_stands_as_it_was_asked_for(store: AnyStore) {
    done(&store, login()).await;
    let before = store.clock().await.unwrap();
    let asked = ClaimRow {
        purpose: Purpose::Grace,
        doubt: Some(doubt("was lost")),
        ..claim()
    };
    let record = won(&store, asked.clone()).await;
    let after = store.clock().await.unwrap();

    let taken_at = record.claim.as_ref().unwrap().taken_at;
    assert!(before <= taken_at && taken_at <= after, "timed by the store's clock");
    let expected = Claim {
        lease: asked.lease,
        fence: 1,
        holder: asked.holder,
        purpose: Purpose::Grace,
        taken_at,
        expires_at: Unix(taken_at.0 + 60_000),
        for_device: false,
        handed_to: None,
    };
    assert_eq!(record.claim, Some(expected));
    assert_eq!((record.fence, &record.leases), (1, &vec![asked.lease]));
    assert_eq!(record.doubt, Some(doubt("was lost")));
    assert_eq!(load(&store).await, record, "what was answered is what is kept");
}

pub(in super::super) async fn a_claim_needs_the_newest_version_of_a_grant_that_is_there(store: AnyStore) {
    assert!(matches!(store.claim(claim()).await.unwrap(), Claimed::Gone));
    let made = done(&store, login()).await;
    for version in [Version(0), Version(2)] {
        assert_eq!(
            lost(
                &store,
                ClaimRow {
                    from_version: version,
                    ..claim()
                }
            )
            .await,
            made
        );
    }
    let elsewhere = ClaimRow {
        user: user("bob"),
        ..claim()
    };
    assert!(matches!(store.claim(elsewhere).await.unwrap(), Claimed::Gone));
    let tombstone = store.delete_grant(&alice(), &work()).await.unwrap().unwrap();
    assert_eq!(lost(&store, claim()).await, tombstone);
}

pub(in super::super) async fn a_claim_that_stands_keeps_others_out_until_it_lapses(store: AnyStore) {
    done(&store, login()).await;
    let first = won(&store, ClaimRow { ttl_ms: 40, ..claim() }).await;
    let standing = first.claim.as_ref().unwrap().lease;
    let other = ClaimRow {
        holder: holder("there", 1),
        ..claim()
    };
    let over = ClaimRow {
        over: Some(standing),
        ..other.clone()
    };

    // As long as it lives: neither beside it nor over it. (Before it lapses, whatever happens: the claim is renewed.)
    assert!(store.renew(&alice(), &work(), standing, 60_000).await.unwrap());
    lost(&store, other.clone()).await;
    lost(&store, over.clone()).await;
    lost(&store, claim()).await;

    assert!(store.renew(&alice(), &work(), standing, 1).await.unwrap());
    lapse(&store, &load(&store).await).await;
    let unnamed = lost(&store, other).await;
    assert_eq!(
        unnamed.claim.unwrap().lease,
        standing,
        "a lapsed claim is only replaced by who has seen it"
    );
    lost(
        &store,
        ClaimRow {
            over: Some(lease()),
            ..claim()
        },
    )
    .await;
    let second = won(&store, over).await;
    assert_eq!((second.fence, second.leases.len()), (2, 2));
    assert_eq!(second.doubt, None);
}

pub(in super::super) async fn a_former_incarnation_is_taken_over_at_once(store: AnyStore) {
    done(&store, login()).await;
    let first = won(
        &store,
        ClaimRow {
            holder: holder("here", 2),
            ..claim()
        },
    )
    .await;
    let over = |node: &str, incarnation, record: &StoredGrant| ClaimRow {
        holder: holder(node, incarnation),
        over: record.claim.as_ref().map(|claim| claim.lease),
        doubt: Some(doubt("of a former run")),
        ..claim()
    };
    lost(&store, over("here", 1, &first)).await;
    lost(&store, over("there", 3, &first)).await;
    let second = won(&store, over("here", 3, &first)).await;
    assert_eq!(second.doubt, Some(doubt("of a former run")));
    let third = won(&store, over("here", 3, &second)).await;
    assert_eq!(third.fence, 3, "a run may replace its own claim");
}

pub(in super::super) async fn of_many_who_claim_at_once_one_wins(store: AnyStore) {
    done(&store, login()).await;
    for round in 1..=3 {
        let answers = at_once(64, |number| {
            let store = AnyStore::clone(&store);
            let row = ClaimRow {
                holder: holder(&format!("node-{number}"), 1),
                from_version: Version(round),
                ..claim()
            };
            async move { (row.lease, store.claim(row).await.unwrap()) }
        })
        .await;
        let winners: Vec<_> = answers
            .iter()
            .filter(|(_, answer)| matches!(answer, Claimed::Won(_)))
            .collect();
        assert_eq!(winners.len(), 1);
        let record = load(&store).await;
        assert_eq!(record.claim.as_ref().unwrap().lease, winners[0].0);
        assert_eq!((record.fence, record.leases.len()), (round, 1));
        done(&store, refresh(round, winners[0].0)).await;
    }
}

pub(in super::super) async fn fences_rise_and_leases_are_bounded(store: AnyStore) {
    done(&store, login()).await;
    let mut taken = Vec::new();
    for _ in 0..StoredGrant::MAX_LEASES + 5 {
        let row = ClaimRow {
            over: taken.last().copied(),
            ..claim()
        };
        taken.push(row.lease);
        let record = won(&store, row).await;
        assert_eq!(record.fence, taken.len() as u64);
        let kept = StoredGrant::MAX_LEASES.min(taken.len());
        let (first, newest) = record.leases.split_at(StoredGrant::MAX_HANDED.min(kept));
        assert_eq!(
            (first, newest),
            (&taken[..first.len()], &taken[taken.len() - newest.len()..])
        );
        assert_eq!(record.leases.len(), kept);
    }
    let last = *taken.last().unwrap();
    let next = done(&store, refresh(1, last)).await;
    assert_eq!(next.fence, taken.len() as u64, "fences go on across versions");
}

pub(in super::super) async fn a_lease_that_was_handed_out_is_remembered(store: AnyStore) {
    done(&store, login()).await;
    let (mut taken, mut handed) = (Vec::new(), Vec::new());
    for turn in 0..StoredGrant::MAX_LEASES * 2 {
        let row = ClaimRow {
            over: taken.last().copied(),
            ..claim()
        };
        taken.push(row.lease);
        won(&store, row.clone()).await;
        if turn % 10 == 7 {
            let device = DeviceId(Uuid::new_v4());
            assert!(store.hand_out(&alice(), &work(), row.lease, device).await.unwrap());
            handed.insert(0, row.lease);
        }
    }
    let leases = load(&store).await.leases;
    assert_eq!(leases[..handed.len()], handed);
    assert_eq!(leases.len(), StoredGrant::MAX_LEASES);
}

pub(in super::super) async fn a_renewed_claim_stands_longer(store: AnyStore) {
    assert!(
        !store.renew(&alice(), &work(), lease(), 60_000).await.unwrap(),
        "no grant"
    );
    done(&store, login()).await;
    assert!(
        !store.renew(&alice(), &work(), lease(), 60_000).await.unwrap(),
        "no claim"
    );
    let first = won(&store, ClaimRow { ttl_ms: 1, ..claim() }).await;
    let standing = first.claim.as_ref().unwrap().clone();
    lapse(&store, &first).await;

    let before = store.clock().await.unwrap();
    assert!(
        store.renew(&alice(), &work(), standing.lease, 60_000).await.unwrap(),
        "lapsed, but not replaced"
    );
    let renewed = load(&store).await.claim.unwrap();
    assert!(renewed.expires_at >= Unix(before.0 + 60_000));
    assert_eq!(
        Claim {
            expires_at: standing.expires_at,
            ..renewed
        },
        standing,
        "nothing else changes"
    );

    won(
        &store,
        ClaimRow {
            over: Some(standing.lease),
            ..claim()
        },
    )
    .await;
    assert!(
        !store.renew(&alice(), &work(), standing.lease, 60_000).await.unwrap(),
        "replaced"
    );
}

pub(in super::super) async fn the_refresh_token_is_handed_out_only_under_a_live_claim(store: AnyStore) {
    let device = DeviceId(Uuid::new_v4());
    assert!(
        !store.hand_out(&alice(), &work(), lease(), device).await.unwrap(),
        "no grant"
    );
    done(&store, login()).await;
    let first = won(&store, claim()).await.claim.unwrap();
    assert!(
        !store.hand_out(&alice(), &work(), lease(), device).await.unwrap(),
        "another lease"
    );
    assert!(store.hand_out(&alice(), &work(), first.lease, device).await.unwrap());
    let handed = load(&store).await.claim.unwrap();
    assert_eq!(
        handed,
        Claim {
            handed_to: Some(device),
            ..first.clone()
        }
    );

    let short = ClaimRow {
        over: Some(first.lease),
        ttl_ms: 1,
        ..claim()
    };
    let second = won(&store, short).await;
    lapse(&store, &second).await;
    let lapsed = second.claim.unwrap().lease;
    assert!(
        !store.hand_out(&alice(), &work(), lapsed, device).await.unwrap(),
        "lapsed"
    );
    assert_eq!(load(&store).await.claim.unwrap().handed_to, None);
}
