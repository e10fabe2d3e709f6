//! Short ways to say what a test needs.

use std::{sync::Arc, time::Duration};

use lockstep_engine::{
    grant::Verdict,
    record::{Doubt, Health, Holder, Purpose},
    time::Unix,
};
use lockstep_protocol::{DeviceId, GrantName, LeaseId, UserId, Version, frame::Cause};
use uuid::Uuid;

use super::super::{
    ClaimRow, Claimed, CommitRow, Committed, Device, DeviceKind, DueQuery, Hash, Sealed, SettleRow, Store, StoredGrant,
};

pub(in super::super) type AnyStore = Arc<dyn Store>;

pub(in super::super) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

pub(in super::super) fn name(name: &str) -> GrantName {
    name.parse().unwrap()
}

pub(in super::super) fn alice() -> UserId {
    user("alice")
}

pub(in super::super) fn work() -> GrantName {
    name("example/work")
}

pub(in super::super) fn lease() -> LeaseId {
    LeaseId(Uuid::new_v4())
}

pub(in super::super) fn sealed(text: &str) -> Sealed {
    Sealed {
        key: 0xfeed_beef,
        bytes: text.as_bytes().to_vec(),
    }
}

pub(in super::super) fn hash(number: u8) -> Hash {
    Hash([number; 32])
}

pub(in super::super) fn holder(node: &str, incarnation: u64) -> Holder {
    Holder {
        node: node.into(),
        incarnation,
    }
}

pub(in super::super) fn doubt(reason: &str) -> Doubt {
    Doubt {
        since: Unix(5),
        late_until: Some(Unix(6)),
        last_try: false,
        conflict: true,
        dead: false,
        reason: reason.into(),
    }
}

/// A login of alice's grant `example/work`, upon version 0.
pub(in super::super) fn login() -> CommitRow {
    CommitRow {
        user: alice(),
        grant: work(),
        lease: None,
        from_version: Version(0),
        tokens: sealed("one"),
        expires_at: Some(Unix(2_000)),
        cause: Cause::Login,
        refreshed_at: Unix(1_000),
        due_at: None,
        wake_at: None,
        retire: None,
        unless_retired: None,
        rejected_in_a_row: 0,
    }
}

/// The result of a redeem of `from` under `lease`.
pub(in super::super) fn refresh(from: u64, lease: LeaseId) -> CommitRow {
    CommitRow {
        lease: Some(lease),
        from_version: Version(from),
        cause: Cause::Refresh,
        ..login()
    }
}

/// A claim on version 1 of alice's grant by run 1 of node "here", for a minute.
pub(in super::super) fn claim() -> ClaimRow {
    ClaimRow {
        user: alice(),
        grant: work(),
        lease: lease(),
        holder: holder("here", 1),
        from_version: Version(1),
        over: None,
        fence: None,
        ttl_ms: 60_000,
        purpose: Purpose::Redeem,
        for_device: false,
        doubt: None,
    }
}

/// A verdict that alice's grant is suspect, on version 1 under `lease`, by run 1 of node "here".
pub(in super::super) fn settle(lease: LeaseId) -> SettleRow {
    SettleRow {
        user: alice(),
        grant: work(),
        lease,
        holder: holder("here", 1),
        version: Version(1),
        fence: None,
        verdict: suspect(),
    }
}

pub(in super::super) fn suspect() -> Verdict {
    Verdict {
        tell: true,
        health: Health::Suspect,
        reason: Some("no answer".into()),
        retry_at: Some(Unix(9_000)),
        due_at: Some(Unix(9_500)),
        doubt: Some(doubt("no answer")),
        drop_alternate: false,
    }
}

/// What is due at `example`, for run 1 of node "here", with room for `most`.
pub(in super::super) fn query(most: usize) -> DueQuery {
    DueQuery {
        provider: "example".into(),
        holder: holder("here", 1),
        ttl_ms: 60_000,
        used_since: Unix(0),
        in_use_since: Unix(0),
        leases: (0..most).map(|_| lease()).collect(),
        lost: Vec::new(),
    }
}

pub(in super::super) fn device(user: &UserId) -> Device {
    Device {
        id: DeviceId(Uuid::new_v4()),
        user: user.clone(),
        kind: DeviceKind::Cli,
        name: "a laptop".into(),
        redeemer: true,
        may_offer: false,
        priority: Some(7),
        enrolled_at: Unix(1_000),
        generation: 1,
        newest: hash(1),
        parent: None,
        revoked_at: None,
        last_seen: None,
        acked: lockstep_protocol::Seq(0),
    }
}

pub(in super::super) async fn done(store: &AnyStore, row: CommitRow) -> StoredGrant {
    match store.commit(row).await.unwrap() {
        Committed::Done(record) => *record,
        other => panic!("not committed: {other:?}"),
    }
}

pub(in super::super) async fn superseded(store: &AnyStore, row: CommitRow) -> Option<StoredGrant> {
    match store.commit(row).await.unwrap() {
        Committed::Superseded(record) => record.map(|record| *record),
        other => panic!("not superseded: {other:?}"),
    }
}

pub(in super::super) async fn won(store: &AnyStore, row: ClaimRow) -> StoredGrant {
    match store.claim(row).await.unwrap() {
        Claimed::Won(record) => *record,
        other => panic!("not won: {other:?}"),
    }
}

pub(in super::super) async fn lost(store: &AnyStore, row: ClaimRow) -> StoredGrant {
    match store.claim(row).await.unwrap() {
        Claimed::Lost(record) => *record,
        other => panic!("not lost: {other:?}"),
    }
}

pub(in super::super) async fn load(store: &AnyStore) -> StoredGrant {
    store.load(&alice(), &work()).await.unwrap().unwrap()
}

/// Waits until the store's clock has reached `at`.
pub(in super::super) async fn until(store: &AnyStore, at: Unix) {
    for _ in 0..60_000 {
        if store.clock().await.unwrap() >= at {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the store's clock does not reach {at:?}");
}

/// Waits until the claim that stands has lapsed.
pub(in super::super) async fn lapse(store: &AnyStore, record: &StoredGrant) {
    until(store, record.claim.as_ref().unwrap().expires_at).await;
}

/// Runs `many` of the same at once, and gives their answers.
pub(in super::super) async fn at_once<F>(many: usize, mut work: impl FnMut(usize) -> F) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let tasks: Vec<_> = (0..many).map(|number| tokio::spawn(work(number))).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}
