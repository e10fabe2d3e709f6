//! A store of one process: rows in one ordered space of keys, and every rule judged by the same code, whatever keeps the
//! rows.
//!
//! A write is *judged* first: read-only, against the rows as they are, giving an answer and the changes that go with it.
//! The changes are applied after that, all or none. So an error half-way leaves nothing behind, and many writes may share
//! one transaction without getting into each other's way.

mod key;
mod read;
mod row;
mod rows;
mod rules;

use std::future::Future;

use async_trait::async_trait;
use lockstep_engine::{preload::Hours, time::Unix};
use lockstep_protocol::{DeviceId, Epoch, GrantName, LeaseId, Seq, UserId, Version};

pub(super) use key::Key;
pub(super) use row::{GroupRow, MarkRow};
pub(super) use rows::{Changes, Each, Judged, Rows};
use rules::{device, due, grant, node};

use super::{
    Answer, ClaimRow, Claimed, CommitRow, Committed, Device, Due, DueQuery, Hash, Mark, Sealed, Seen, SettleRow, Slave,
    Store, StoredGrant, UserState,
};

/// What keeps rows.
pub(super) trait Backend: Send + Sync + 'static {
    /// The clock that claims are timed by.
    fn clock(&self) -> Unix;

    /// Reads rows of one moment. Called on async threads: must be quick.
    fn read<A>(&self, read: impl FnOnce(&dyn Rows) -> Answer<A>) -> Answer<A>;

    /// Judges a write and applies its changes in one transaction. Durable when it returns `Ok`.
    fn write<A: Send + 'static>(
        &self,
        judge: impl FnOnce(&dyn Rows, Unix) -> Answer<Judged<A>> + Send + 'static,
    ) -> impl Future<Output = Answer<A>> + Send;

    /// Writes soon, with something else; lost if the process dies first.
    fn later(&self, judge: impl FnOnce(&dyn Rows, Unix) -> Answer<Judged<()>> + Send + 'static) -> Answer<()>;
}

/// The store over a backend.
pub(super) struct Local<B>(pub(super) B);

#[async_trait]
impl<B: Backend> Store for Local<B> {
    async fn mark(&self) -> Answer<Mark> {
        self.0.read(read::mark)
    }

    async fn clock(&self) -> Answer<Unix> {
        Ok(self.0.clock())
    }

    async fn probe(&self) -> Answer<()> {
        self.0.write(node::probe).await
    }

    async fn start_node(&self, node: &str) -> Answer<u64> {
        let node = node.to_owned();
        self.0.write(move |rows, _| node::start(rows, &node)).await
    }

    async fn restored(&self, epoch: Epoch, reason: &str) -> Answer<Mark> {
        let reason = reason.to_owned();
        self.0
            .write(move |rows, _| node::restored(rows, epoch, &reason))
            .await?;
        self.mark().await
    }

    async fn shared(&self, name: &str) -> Answer<Option<Sealed>> {
        self.0.read(|rows| rows.row(&Key::shared(name)))
    }

    async fn share(&self, name: &str, value: Sealed, over: Option<Sealed>) -> Answer<Sealed> {
        let name = name.to_owned();
        self.0
            .write(move |rows, _| node::share(rows, &name, value, over.as_ref()))
            .await
    }

    async fn shared_names(&self) -> Answer<Vec<String>> {
        self.0.read(|rows| rows.keys(&Key::all_shared(), Key::parse_shared))
    }

    async fn user(&self, user: &UserId) -> Answer<Option<UserState>> {
        self.0.read(|rows| read::user(rows, user))
    }

    async fn load(&self, user: &UserId, grant: &GrantName) -> Answer<Option<StoredGrant>> {
        self.0.read(|rows| read::load(rows, user, grant))
    }

    async fn claim(&self, row: ClaimRow) -> Answer<Claimed> {
        self.0.write(move |rows, now| grant::claim(rows, now, row)).await
    }

    async fn claim_due(&self, query: DueQuery) -> Answer<Vec<Due>> {
        self.0.write(move |rows, now| due::claim_due(rows, now, &query)).await
    }

    async fn renew(&self, user: &UserId, grant: &GrantName, lease: LeaseId, ttl_ms: u64) -> Answer<bool> {
        let at = (user.clone(), grant.clone());
        self.0
            .write(move |rows, now| grant::renew(rows, now, &at, lease, ttl_ms))
            .await
    }

    async fn hand_out(&self, user: &UserId, grant: &GrantName, lease: LeaseId, device: DeviceId) -> Answer<bool> {
        let at = (user.clone(), grant.clone());
        self.0
            .write(move |rows, now| grant::hand_out(rows, now, &at, lease, device))
            .await
    }

    async fn commit(&self, row: CommitRow) -> Answer<Committed> {
        self.0.write(move |rows, now| grant::commit(rows, now, row)).await
    }

    async fn keep_alternate(&self, user: &UserId, grant: &GrantName, version: Version, tokens: Sealed) -> Answer<()> {
        let at = (user.clone(), grant.clone());
        self.0
            .write(move |rows, _| grant::keep_alternate(rows, &at, version, tokens))
            .await
    }

    async fn settle(&self, row: SettleRow) -> Answer<Option<StoredGrant>> {
        self.0.write(move |rows, now| grant::settle(rows, now, row)).await
    }

    async fn delete_grant(&self, user: &UserId, grant: &GrantName) -> Answer<Option<StoredGrant>> {
        let at = (user.clone(), grant.clone());
        self.0.write(move |rows, _| grant::delete(rows, &at)).await
    }

    async fn delete_user(&self, user: &UserId, at: Unix) -> Answer<Option<Vec<DeviceId>>> {
        let user = user.clone();
        self.0.write(move |rows, _| device::delete_user(rows, &user, at)).await
    }

    async fn seqs(&self, users: &[UserId]) -> Answer<Vec<(UserId, Seq)>> {
        self.0.read(|rows| read::seqs(rows, users))
    }

    async fn used(&self, uses: Vec<(UserId, GrantName, Unix)>) -> Answer<()> {
        self.0.later(move |rows, _| due::used(rows, uses))
    }

    async fn hours(&self, user: &UserId) -> Answer<Option<Hours>> {
        self.0.read(|rows| rows.row(&Key::hours(user)))
    }

    async fn scan(
        &self,
        after: Option<(UserId, GrantName)>,
        limit: usize,
    ) -> Answer<Vec<(UserId, GrantName, StoredGrant)>> {
        self.0.read(|rows| read::scan(rows, after.as_ref(), limit))
    }

    async fn reseal(&self, user: &UserId, grant: &GrantName, over: &StoredGrant, with: StoredGrant) -> Answer<bool> {
        let (at, over) = ((user.clone(), grant.clone()), over.clone());
        self.0.write(move |rows, _| grant::reseal(rows, &at, &over, with)).await
    }

    async fn enrol(&self, device: Device) -> Answer<()> {
        self.0.write(move |rows, _| device::enrol(rows, &device)).await
    }

    async fn device(&self, device: DeviceId) -> Answer<Option<Device>> {
        self.0.read(|rows| rows.row(&Key::device(device)))
    }

    async fn devices(&self, user: &UserId) -> Answer<Vec<Device>> {
        self.0.read(|rows| read::devices(rows, user))
    }

    async fn advance(&self, device: DeviceId, from: u64, newest: Hash) -> Answer<bool> {
        self.0
            .write(move |rows, _| device::advance(rows, device, from, newest))
            .await
    }

    async fn revoke(&self, device: DeviceId, at: Unix) -> Answer<bool> {
        self.0.write(move |rows, _| device::revoke(rows, device, at)).await
    }

    async fn revoked_since(&self, since: Unix) -> Answer<Vec<(DeviceId, Unix)>> {
        self.0.read(|rows| read::revoked_since(rows, since))
    }

    async fn seen(&self, seen: Vec<Seen>) -> Answer<()> {
        self.0.later(move |rows, _| device::seen(rows, &seen))
    }

    async fn put_slave(&self, hash: Hash, slave: Slave) -> Answer<()> {
        self.0.write(move |rows, _| device::put_slave(rows, hash, &slave)).await
    }

    async fn slave(&self, hash: Hash) -> Answer<Option<Slave>> {
        self.0.read(|rows| read::slave(rows, hash))
    }

    async fn slaves(&self, device: DeviceId) -> Answer<Vec<(Hash, Slave)>> {
        self.0.read(|rows| read::slaves(rows, device))
    }

    async fn drop_slave(&self, hash: Hash) -> Answer<bool> {
        self.0.write(move |rows, _| device::drop_slave(rows, hash)).await
    }
}
