//! Claims: each one conditional statement on one row.

use lockstep_protocol::{DeviceId, GrantName, LeaseId, UserId, Version};

use super::{
    super::{Answer, ClaimRow, Claimed, Sealed, StoredGrant},
    record::{self, number, record, span, text},
    run::Postgres,
};

/// Writes a claim into a row, timed by `clock.ms`. 32 leases of a version are kept: the first 16, among which are those that
/// were handed to devices, and the newest.
macro_rules! take {
    ($lease:literal, $node:literal, $incarnation:literal, $ttl:literal) => {
        concat!(
            "revision = revision + 1, fence = fence + 1, leases = leases[:16] || leases[greatest(cardinality(leases) - 14, 17):] || ",
            $lease,
            ", claim_lease = ",
            $lease,
            ", claim_node = ",
            $node,
            ", claim_incarnation = ",
            $incarnation,
            ", claim_taken_at = clock.ms, claim_expires_at = clock.ms + ",
            $ttl,
            ", claim_handed_to = NULL"
        )
    };
}
pub(super) use take;

/// Whether a claim, if one stands, is the one that is meant, and may be taken over: it has lapsed, or is of the same node
/// and not of a later run. The clock is read when the row is ours, however long that took.
macro_rules! free {
    ($lease:literal, $node:literal, $incarnation:literal) => {
        concat!(
            "(claim_lease IS NULL OR (claim_lease = ",
            $lease,
            " AND (claim_expires_at <= lockstep.now_ms() OR (claim_node = ",
            $node,
            " AND claim_incarnation <= ",
            $incarnation,
            "))))"
        )
    };
}
pub(super) use free;

/// The time before any waiting for the row: a claim's holder counts from before it asked, too.
macro_rules! clock {
    () => {
        "(SELECT lockstep.now_ms() AS ms) AS clock"
    };
}

const CLAIM: &str = concat!(
    "UPDATE lockstep.grants SET ",
    take!("$3", "$4", "$5", "$6"),
    ", claim_purpose = $7, claim_for_device = $8, doubt = $9 FROM ",
    clock!(),
    " WHERE user_id = $1 AND name = $2 AND version = $10 AND health <> 'deleted' AND ($12 IS NULL OR fence = $12) AND ",
    free!("$11", "$4", "$5"),
    " RETURNING ",
    record!()
);

const RENEW: &str = "UPDATE lockstep.grants SET revision = revision + 1, claim_expires_at = lockstep.now_ms() + $4 \
                     WHERE user_id = $1 AND name = $2 AND claim_lease = $3";

const HAND_OUT: &str = "UPDATE lockstep.grants SET revision = revision + 1, claim_handed_to = $4, \
                        leases = claim_lease || array_remove(leases, claim_lease) \
                        WHERE user_id = $1 AND name = $2 AND claim_lease = $3 \
                        AND claim_expires_at > lockstep.now_ms()";

const KEEP_ALTERNATE: &str = "UPDATE lockstep.grants SET revision = revision + 1, alternate_key = $4, alternate = $5 \
                              WHERE user_id = $1 AND name = $2 AND version = $3 AND health <> 'deleted' \
                              AND alternate IS NULL";

const RESEAL: &str = "UPDATE lockstep.grants SET revision = revision + 1, \
                      tokens_key = $8, tokens = $9, alternate_key = $10, alternate = $11 \
                      WHERE user_id = $1 AND name = $2 AND version = $3 \
                      AND (tokens_key, tokens) IS NOT DISTINCT FROM ($4, $5) \
                      AND (alternate_key, alternate) IS NOT DISTINCT FROM ($6, $7)";

/// A sealed value in two columns.
pub(super) fn key(sealed: Option<&Sealed>) -> Option<i64> {
    sealed.map(|sealed| i64::from(sealed.key))
}

pub(super) fn bytes(sealed: Option<&Sealed>) -> Option<&[u8]> {
    sealed.map(|sealed| sealed.bytes.as_slice())
}

impl Postgres {
    pub(super) async fn take_claim(&self, row: ClaimRow) -> Answer<Claimed> {
        let query = sqlx::query(CLAIM)
            .bind(row.user.as_str())
            .bind(row.grant.as_str())
            .bind(row.lease.0)
            .bind(text(&row.holder.node))
            .bind(number(row.holder.incarnation))
            .bind(span(row.ttl_ms))
            .bind(record::purpose(row.purpose))
            .bind(row.for_device)
            .bind(record::doubt(row.doubt))
            .bind(number(row.from_version.0))
            .bind(row.over.map(|lease| lease.0))
            .bind(row.fence.map(number));
        if let Some(won) = self.write(query).await? {
            return Ok(Claimed::Won(Box::new(record::written(&won)?)));
        }
        // Read anew: the statement that lost saw the row as it was before it waited.
        let standing = self.read_grant(&row.user, &row.grant).await?;
        Ok(standing.map_or(Claimed::Gone, |record| Claimed::Lost(Box::new(record))))
    }

    pub(super) async fn renew_claim(
        &self,
        user: &UserId,
        grant: &GrantName,
        lease: LeaseId,
        ttl_ms: u64,
    ) -> Answer<bool> {
        let query = sqlx::query(RENEW)
            .bind(user.as_str())
            .bind(grant.as_str())
            .bind(lease.0)
            .bind(span(ttl_ms));
        self.changes(query).await
    }

    pub(super) async fn note_hand_out(
        &self,
        user: &UserId,
        grant: &GrantName,
        lease: LeaseId,
        device: DeviceId,
    ) -> Answer<bool> {
        let query = sqlx::query(HAND_OUT)
            .bind(user.as_str())
            .bind(grant.as_str())
            .bind(lease.0)
            .bind(device.0);
        self.changes(query).await
    }

    pub(super) async fn put_alternate(
        &self,
        user: &UserId,
        grant: &GrantName,
        version: Version,
        tokens: Sealed,
    ) -> Answer<()> {
        let query = sqlx::query(KEEP_ALTERNATE)
            .bind(user.as_str())
            .bind(grant.as_str())
            .bind(number(version.0))
            .bind(i64::from(tokens.key))
            .bind(tokens.bytes);
        self.changes(query).await.map(drop)
    }

    pub(super) async fn reseal_tokens(
        &self,
        user: &UserId,
        grant: &GrantName,
        over: &StoredGrant,
        with: StoredGrant,
    ) -> Answer<bool> {
        let query = sqlx::query(RESEAL)
            .bind(user.as_str())
            .bind(grant.as_str())
            .bind(number(over.version.0))
            .bind(key(over.tokens.as_ref()))
            .bind(bytes(over.tokens.as_ref()))
            .bind(key(over.alternate.as_ref()))
            .bind(bytes(over.alternate.as_ref()))
            .bind(key(with.tokens.as_ref()))
            .bind(bytes(with.tokens.as_ref()))
            .bind(key(with.alternate.as_ref()))
            .bind(bytes(with.alternate.as_ref()));
        self.changes(query).await
    }
}
