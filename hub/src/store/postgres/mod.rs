//! The store of several nodes, kept by PostgreSQL.
//!
//! Every rule is judged inside the database and by its clock: a claim, a renewal, a commit or a verdict is one
//! conditional statement, so a node that is paused or cut off half-way holds no lock and leaves no transaction open. Where
//! a user's seq rises, the statement locks the user's row first and the grant's second; everything that takes both does so
//! in that order. What could not be judged in the statement's own snapshot is read again by a second one.
//!
//! Tables and indexes are in `hub/migrations`.

mod claims;
mod commits;
mod connect;
mod devices;
mod due;
mod horizon;
mod record;
mod run;
#[cfg(test)]
mod tests;
mod users;
mod whole;

use async_trait::async_trait;
use lockstep_engine::{preload::Hours, time::Unix};
use lockstep_protocol::{DeviceId, Epoch, GrantName, LeaseId, Seq, UserId, Version};

pub use connect::Pooling;
pub(super) use connect::open;
pub(crate) use connect::options;
use run::Postgres;

use super::{
    Answer, ClaimRow, Claimed, CommitRow, Committed, Device, Due, DueQuery, Hash, Mark, Sealed, Seen, SettleRow, Slave,
    Store, StoredGrant, UserState,
};

#[async_trait]
impl Store for Postgres {
    async fn mark(&self) -> Answer<Mark> {
        self.read_mark().await
    }

    async fn clock(&self) -> Answer<Unix> {
        self.read_clock().await
    }

    async fn probe(&self) -> Answer<()> {
        self.write_probe().await
    }

    async fn start_node(&self, node: &str) -> Answer<u64> {
        self.next_incarnation(node).await
    }

    async fn restored(&self, epoch: Epoch, reason: &str) -> Answer<Mark> {
        self.doubt_everything(epoch, reason).await
    }

    fn follow(&self, mark: Mark) {
        self.horizon.follow(mark);
    }

    async fn shared(&self, name: &str) -> Answer<Option<Sealed>> {
        self.read_shared(name).await
    }

    async fn share(&self, name: &str, value: Sealed, over: Option<Sealed>) -> Answer<Sealed> {
        self.write_shared(name, value, over).await
    }

    async fn shared_names(&self) -> Answer<Vec<String>> {
        self.read_shared_names().await
    }

    async fn user(&self, user: &UserId) -> Answer<Option<UserState>> {
        self.read_user(user).await
    }

    async fn load(&self, user: &UserId, grant: &GrantName) -> Answer<Option<StoredGrant>> {
        self.read_grant(user, grant).await
    }

    async fn claim(&self, row: ClaimRow) -> Answer<Claimed> {
        self.take_claim(row).await
    }

    async fn claim_due(&self, query: DueQuery) -> Answer<Vec<Due>> {
        self.take_due(&query).await
    }

    async fn renew(&self, user: &UserId, grant: &GrantName, lease: LeaseId, ttl_ms: u64) -> Answer<bool> {
        self.renew_claim(user, grant, lease, ttl_ms).await
    }

    async fn hand_out(&self, user: &UserId, grant: &GrantName, lease: LeaseId, device: DeviceId) -> Answer<bool> {
        self.note_hand_out(user, grant, lease, device).await
    }

    async fn commit(&self, row: CommitRow) -> Answer<Committed> {
        self.commit_tokens(row).await
    }

    async fn keep_alternate(&self, user: &UserId, grant: &GrantName, version: Version, tokens: Sealed) -> Answer<()> {
        self.put_alternate(user, grant, version, tokens).await
    }

    async fn settle(&self, row: SettleRow) -> Answer<Option<StoredGrant>> {
        self.settle_claim(row).await
    }

    async fn delete_grant(&self, user: &UserId, grant: &GrantName) -> Answer<Option<StoredGrant>> {
        self.bury_grant(user, grant).await
    }

    async fn delete_user(&self, user: &UserId, at: Unix) -> Answer<Option<Vec<DeviceId>>> {
        self.bury_user(user, at).await
    }

    async fn seqs(&self, users: &[UserId]) -> Answer<Vec<(UserId, Seq)>> {
        self.read_seqs(users).await
    }

    async fn used(&self, uses: Vec<(UserId, GrantName, Unix)>) -> Answer<()> {
        self.note_uses(uses).await
    }

    async fn hours(&self, user: &UserId) -> Answer<Option<Hours>> {
        self.read_hours(user).await
    }

    async fn scan(
        &self,
        after: Option<(UserId, GrantName)>,
        limit: usize,
    ) -> Answer<Vec<(UserId, GrantName, StoredGrant)>> {
        self.read_page(after, limit).await
    }

    async fn reseal(&self, user: &UserId, grant: &GrantName, over: &StoredGrant, with: StoredGrant) -> Answer<bool> {
        self.reseal_tokens(user, grant, over, with).await
    }

    async fn enrol(&self, device: Device) -> Answer<()> {
        self.put_device(device).await
    }

    async fn device(&self, device: DeviceId) -> Answer<Option<Device>> {
        self.read_device(device).await
    }

    async fn devices(&self, user: &UserId) -> Answer<Vec<Device>> {
        self.read_devices(user).await
    }

    async fn advance(&self, device: DeviceId, from: u64, newest: Hash) -> Answer<bool> {
        self.advance_device(device, from, newest).await
    }

    async fn revoke(&self, device: DeviceId, at: Unix) -> Answer<bool> {
        self.revoke_device(device, at).await
    }

    async fn revoked_since(&self, since: Unix) -> Answer<Vec<(DeviceId, Unix)>> {
        self.read_revoked(since).await
    }

    async fn seen(&self, seen: Vec<Seen>) -> Answer<()> {
        self.note_seen(seen).await
    }

    async fn put_slave(&self, hash: Hash, slave: Slave) -> Answer<()> {
        self.write_slave(hash, slave).await
    }

    async fn slave(&self, hash: Hash) -> Answer<Option<Slave>> {
        self.read_slave(hash).await
    }

    async fn slaves(&self, device: DeviceId) -> Answer<Vec<(Hash, Slave)>> {
        self.read_slaves(device).await
    }

    async fn drop_slave(&self, hash: Hash) -> Answer<bool> {
        self.forget_slave(hash).await
    }
}
