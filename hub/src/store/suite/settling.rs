//! Verdicts and alternates.

use lockstep_engine::{grant::Verdict, record::Health, time::Unix};
use lockstep_protocol::{Seq, Version};

use super::{
    super::{ClaimRow, SettleRow, StoredGrant},
    world::*,
};

pub(in super::super) async fn a_verdict_ends_its_claim(store: AnyStore) {
    assert!(store.settle(settle(lease())).await.unwrap().is_none(), "no such grant");
    done(&store, login()).await;
    let claimed = won(&store, claim()).await;
    let own = claimed.claim.as_ref().unwrap().lease;
    let record = store.settle(settle(own)).await.unwrap().unwrap();
    let expected = StoredGrant {
        revision: record.revision,
        seq: Seq(2),
        health: Health::Suspect,
        reason: Some("no answer".into()),
        retry_at: Some(Unix(9_000)),
        due_at: Some(Unix(9_500)),
        claim: None,
        doubt: Some(doubt("no answer")),
        fence: 2,
        ..claimed
    };
    assert_eq!(record, expected);
    assert_eq!(load(&store).await, record);

    let well = Verdict {
        tell: true,
        health: Health::Ok,
        reason: None,
        retry_at: None,
        due_at: None,
        doubt: None,
        drop_alternate: false,
    };
    let healed = store
        .settle(SettleRow {
            verdict: well,
            ..settle(lease())
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (healed.health, healed.doubt, healed.seq),
        (Health::Ok, None, Seq(3)),
        "without a claim, too"
    );
}

pub(in super::super) async fn only_news_raise_the_seq(store: AnyStore) {
    done(&store, login()).await;
    let own = won(&store, claim()).await.claim.unwrap().lease;
    let quiet = Verdict {
        tell: false,
        ..suspect()
    };
    let record = store
        .settle(SettleRow {
            verdict: quiet,
            ..settle(own)
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (record.seq, record.health, record.claim),
        (Seq(1), Health::Suspect, None)
    );
    assert_eq!(store.seqs(&[alice()]).await.unwrap(), [(alice(), Seq(1))]);
}

pub(in super::super) async fn a_verdict_counts_for_its_own_claim_and_version_only(store: AnyStore) {
    done(&store, login()).await;
    let claimed = won(&store, claim()).await;
    let own = claimed.claim.as_ref().unwrap().lease;
    for row in [
        settle(lease()),
        SettleRow {
            version: Version(2),
            ..settle(own)
        },
    ] {
        assert_eq!(store.settle(row).await.unwrap().unwrap(), claimed);
    }
    let next = done(&store, refresh(1, own)).await;
    assert_eq!(
        store.settle(settle(own)).await.unwrap().unwrap(),
        next,
        "the version moved"
    );
    let tombstone = store.delete_grant(&alice(), &work()).await.unwrap().unwrap();
    let late = SettleRow {
        version: Version(2),
        ..settle(own)
    };
    assert_eq!(store.settle(late).await.unwrap().unwrap(), tombstone);
}

pub(in super::super) async fn what_was_decided_before_another_verdict_does_not_count(store: AnyStore) {
    done(&store, login()).await;
    let seen = load(&store).await.fence;
    let claimed = won(&store, claim()).await;
    let own = claimed.claim.as_ref().unwrap().lease;
    let settled = store.settle(settle(own)).await.unwrap().unwrap();
    assert_eq!((claimed.fence, settled.fence), (seen + 1, seen + 2));
    for fence in [seen, claimed.fence] {
        let blind = ClaimRow {
            fence: Some(fence),
            ..claim()
        };
        assert_eq!(lost(&store, blind).await, settled, "it would undo the doubt");
        let belated = SettleRow {
            fence: Some(fence),
            ..settle(lease())
        };
        assert_eq!(store.settle(belated).await.unwrap().unwrap(), settled);
    }
    let seeing = ClaimRow {
        fence: Some(settled.fence),
        ..claim()
    };
    won(&store, seeing).await;
}

pub(in super::super) async fn another_nodes_claim_is_ended_only_once_it_lapsed(store: AnyStore) {
    done(&store, login()).await;
    let claimed = won(&store, claim()).await;
    let own = claimed.claim.as_ref().unwrap().lease;
    let row = SettleRow {
        holder: holder("there", 1),
        ..settle(own)
    };
    assert_eq!(store.settle(row.clone()).await.unwrap().unwrap(), claimed);
    assert!(store.renew(&alice(), &work(), own, 1).await.unwrap());
    lapse(&store, &load(&store).await).await;
    assert_eq!(store.settle(row).await.unwrap().unwrap().claim, None);
}

pub(in super::super) async fn the_first_alternate_of_the_newest_version_is_kept(store: AnyStore) {
    let keep = |version, text: &'static str| {
        let store = AnyStore::clone(&store);
        async move {
            let kept = store
                .keep_alternate(&alice(), &work(), Version(version), sealed(text))
                .await;
            kept.unwrap();
        }
    };
    keep(1, "of nothing").await;
    assert!(store.load(&alice(), &work()).await.unwrap().is_none());
    done(&store, login()).await;
    keep(2, "of a version to come").await;
    assert_eq!(load(&store).await.alternate, None);
    keep(1, "first").await;
    keep(1, "second").await;
    let record = load(&store).await;
    assert_eq!((record.alternate, record.seq), (Some(sealed("first")), Seq(1)));

    let own = won(&store, ClaimRow { ..claim() }).await.claim.unwrap().lease;
    let used_up = Verdict {
        drop_alternate: true,
        ..suspect()
    };
    let settled = store
        .settle(SettleRow {
            verdict: used_up,
            ..settle(own)
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(settled.alternate, None);

    store.delete_grant(&alice(), &work()).await.unwrap();
    keep(1, "of a tombstone").await;
    assert_eq!(load(&store).await.alternate, None);
}
