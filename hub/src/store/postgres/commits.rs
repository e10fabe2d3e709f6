//! Commits, verdicts and tombstones: what raises a user's seq.
//!
//! Each is one statement in three steps: the user's row is locked (commits of one user wait for each other), the grant's
//! row is changed if the conditions hold on it as it is now, and the seq is raised if it was.

use std::time::Duration;

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, GrantName, UserId, Version};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    super::{Answer, CommitRow, Committed, Hash, SettleRow, StoredGrant},
    claims::free,
    record::{self, Cells, no_claim, number, record, text, time},
    run::{Postgres, Statement},
};

/// The user of `$1`, locked.
macro_rules! owner {
    () => {
        "WITH owner AS (SELECT id AS owner_id, seq AS owner_seq FROM lockstep.users WHERE id = $1 FOR NO KEY UPDATE), "
    };
}

/// The user's seq, raised if a grant changed: whoever has one is not deleted.
macro_rules! raised {
    () => {
        "raised AS (UPDATE lockstep.users SET seq = seq + 1, deleted = false WHERE id = $1 AND EXISTS (SELECT FROM changed)) "
    };
}

/// Whoever logs in is there.
macro_rules! noted {
    ($condition:literal) => {
        concat!(
            ", noted AS (INSERT INTO lockstep.uses (user_id, name, used) ",
            "SELECT user_id, name, lockstep.now_ms() FROM changed WHERE ",
            $condition,
            " ON CONFLICT (user_id, name) DO UPDATE SET used = greatest(uses.used, excluded.used)) "
        )
    };
}

/// A tombstone keeps the version and the retired tokens: a grant made anew goes on above the one, and is not logged in
/// with one of the others.
macro_rules! bury {
    () => {
        concat!(
            "revision = revision + 1, health = 'deleted', reason = NULL, retry_at = NULL, tokens_key = NULL, ",
            "tokens = NULL, expires_at = NULL, due_at = NULL, leases = '{}', former_leases = '{}', doubt = NULL, ",
            "alternate_key = NULL, alternate = NULL, ",
            no_claim!()
        )
    };
}

const FOLLOW: &str = concat!(
    owner!(),
    "changed AS (UPDATE lockstep.grants SET revision = revision + 1, version = version + 1, seq = owner_seq + 1, \
     health = 'ok', reason = NULL, retry_at = NULL, tokens_key = $4, tokens = $5, expires_at = $6, refreshed_at = $7, \
     cause = $8, due_at = $9, wake_at = $13, asleep = false, parked = false, leases = '{}', former_leases = leases, committed_by = $10, doubt = NULL, \
     alternate_key = NULL, alternate = NULL, rejected_in_a_row = $11, \
     retired = CASE WHEN $12::bytea IS NULL OR $12 = ANY(retired) THEN retired \
     ELSE retired[greatest(cardinality(retired) - 62, 1):] || $12 END, ",
    no_claim!(),
    " FROM owner WHERE user_id = owner_id AND name = $2 AND version = $3 AND (health <> 'deleted' OR $8 = 'login') \
     AND ($14::bytea IS NULL OR $14 <> ALL(retired)) RETURNING ",
    record!(),
    "), ",
    raised!(),
    noted!("$8 = 'login'"),
    "SELECT * FROM changed"
);

const MAKE_USER: &str = "INSERT INTO lockstep.users (id, seq) VALUES ($1, 0) ON CONFLICT DO NOTHING";

/// Upon version 0: there is none yet, and so nothing that was retired.
const MAKE: &str = concat!(
    owner!(),
    "changed AS (INSERT INTO lockstep.grants (user_id, name, revision, version, seq, health, tokens_key, tokens, \
     expires_at, refreshed_at, cause, due_at, committed_by, rejected_in_a_row, retired, wake_at) \
     SELECT owner_id, $2, 1, $3::bigint + 1, owner_seq + 1, 'ok', $4, $5, $6, $7, $8, $9, $10, $11, \
     CASE WHEN $12::bytea IS NULL THEN '{}' ELSE ARRAY[$12] END, $13 \
     FROM owner ON CONFLICT DO NOTHING RETURNING ",
    record!(),
    "), ",
    raised!(),
    noted!("true"),
    "SELECT * FROM changed"
);

/// The record as it is, and whether a refresh token was used up before.
const STANDING: &str = concat!(
    "SELECT coalesce($3 = ANY(retired), false) AS used_up, ",
    record!(),
    " FROM lockstep.grants WHERE user_id = $1 AND name = $2"
);

const SETTLE: &str = concat!(
    owner!(),
    "changed AS (UPDATE lockstep.grants SET revision = revision + 1, fence = fence + 1, \
     seq = CASE WHEN $7 THEN owner_seq + 1 ELSE seq END, health = $8, reason = $9, retry_at = $10, due_at = $11, \
     doubt = $12, alternate_key = CASE WHEN $13 THEN NULL ELSE alternate_key END, \
     alternate = CASE WHEN $13 THEN NULL ELSE alternate END, asleep = false, parked = false, ",
    no_claim!(),
    " FROM owner WHERE user_id = owner_id AND name = $2 AND version = $3 AND health <> 'deleted' \
     AND ($14 IS NULL OR fence = $14) AND ",
    free!("$4", "$5", "$6"),
    " RETURNING ",
    record!(),
    "), raised AS (UPDATE lockstep.users SET seq = seq + 1 WHERE id = $1 AND $7 AND EXISTS (SELECT FROM changed)) \
     SELECT * FROM changed"
);

const BURY: &str = concat!(
    owner!(),
    "changed AS (UPDATE lockstep.grants SET seq = owner_seq + 1, ",
    bury!(),
    " FROM owner WHERE user_id = owner_id AND name = $2 AND health <> 'deleted' RETURNING ",
    record!(),
    "), ",
    raised!(),
    ", forgotten AS (DELETE FROM lockstep.slaves WHERE user_id = $1 AND grant_name = $2 \
     AND EXISTS (SELECT FROM changed)) SELECT * FROM changed"
);

const LOCK_USER: &str = "SELECT seq FROM lockstep.users WHERE id = $1 FOR NO KEY UPDATE";

/// A seq for each, in order of name.
const BURY_ALL: &str = concat!(
    "WITH doomed AS (SELECT name AS what, row_number() OVER (ORDER BY name) AS nth FROM lockstep.grants \
     WHERE user_id = $1 AND health <> 'deleted'), \
     changed AS (UPDATE lockstep.grants SET seq = $2 + nth, ",
    bury!(),
    " FROM doomed WHERE user_id = $1 AND name = what AND health <> 'deleted' RETURNING 1) \
     UPDATE lockstep.users SET seq = seq + (SELECT count(*) FROM changed), deleted = true WHERE id = $1"
);

const REVOKE_ALL: &str =
    "UPDATE lockstep.devices SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL RETURNING id";

const FORGET_HOURS: &str = "DELETE FROM lockstep.hours WHERE user_id = $1";

const FORGET_ALL: &str = "DELETE FROM lockstep.slaves WHERE user_id = $1 OR device = ANY($2)";

/// How much of a hash tells used up tokens apart.
fn half(hash: Option<Hash>) -> Option<Vec<u8>> {
    hash.map(|hash| hash.0[..16].to_vec())
}

fn commit_of<'q>(statement: &'static str, row: &'q CommitRow) -> Statement<'q> {
    sqlx::query(statement)
        .bind(row.user.as_str())
        .bind(row.grant.as_str())
        .bind(number(row.from_version.0))
        .bind(i64::from(row.tokens.key))
        .bind(row.tokens.bytes.as_slice())
        .bind(row.expires_at.map(time))
        .bind(time(row.refreshed_at))
        .bind(record::cause(row.cause))
        .bind(row.due_at.map(time))
        .bind(row.lease.map(|lease| lease.0))
        .bind(i32::try_from(row.rejected_in_a_row).unwrap_or(i32::MAX))
        .bind(half(row.retire))
        .bind(row.wake_at.map(time))
}

impl Postgres {
    pub(super) async fn commit_tokens(&self, row: CommitRow) -> Answer<Committed> {
        let done = if row.from_version == Version(0) {
            self.make(&row).await?
        } else {
            let follow = commit_of(FOLLOW, &row).bind(half(row.unless_retired));
            self.write(follow).await?
        };
        if let Some(done) = done {
            return Ok(Committed::Done(Box::new(record::written(&done)?)));
        }
        self.why_not(&row).await
    }

    async fn make(&self, row: &CommitRow) -> Answer<Option<PgRow>> {
        let mut transaction = self.begin(&self.pool, self.statement_timeout).await?;
        transaction
            .execute(sqlx::query(MAKE_USER).bind(row.user.as_str()))
            .await?;
        let made = transaction.all(commit_of(MAKE, row)).await?.pop();
        if made.is_some() {
            transaction.commit().await?;
        }
        Ok(made)
    }

    /// Read anew: the statement that did not commit saw the row as it was before it waited.
    async fn why_not(&self, row: &CommitRow) -> Answer<Committed> {
        let query = sqlx::query(STANDING)
            .bind(row.user.as_str())
            .bind(row.grant.as_str())
            .bind(half(row.unless_retired));
        let Some(standing) = self.read(query).await? else {
            return Ok(Committed::Superseded(None));
        };
        if Cells(&standing).get("used_up")? {
            return Ok(Committed::Retired);
        }
        Ok(Committed::Superseded(Some(Box::new(record::read(&standing)?))))
    }

    pub(super) async fn settle_claim(&self, row: SettleRow) -> Answer<Option<StoredGrant>> {
        let verdict = row.verdict;
        let query = sqlx::query(SETTLE)
            .bind(row.user.as_str())
            .bind(row.grant.as_str())
            .bind(number(row.version.0))
            .bind(row.lease.0)
            .bind(text(&row.holder.node))
            .bind(number(row.holder.incarnation))
            .bind(verdict.tell)
            .bind(record::health(verdict.health))
            .bind(verdict.reason.as_deref().map(text))
            .bind(verdict.retry_at.map(time))
            .bind(verdict.due_at.map(time))
            .bind(record::doubt(verdict.doubt))
            .bind(verdict.drop_alternate)
            .bind(row.fence.map(number));
        self.written_or_standing(query, &row.user, &row.grant).await
    }

    pub(super) async fn bury_grant(&self, user: &UserId, grant: &GrantName) -> Answer<Option<StoredGrant>> {
        let query = sqlx::query(BURY).bind(user.as_str()).bind(grant.as_str());
        self.written_or_standing(query, user, grant).await
    }

    async fn written_or_standing(
        &self,
        query: Statement<'_>,
        user: &UserId,
        grant: &GrantName,
    ) -> Answer<Option<StoredGrant>> {
        match self.write(query).await? {
            Some(row) => record::written(&row).map(Some),
            None => self.read_grant(user, grant).await,
        }
    }

    pub(super) async fn bury_user(&self, user: &UserId, at: Unix) -> Answer<Option<Vec<DeviceId>>> {
        let mut transaction = self
            .begin(&self.pool, self.statement_timeout.max(Duration::from_secs(30)))
            .await?;
        let owner = transaction.all(sqlx::query(LOCK_USER).bind(user.as_str())).await?.pop();
        let Some(owner) = owner else {
            return Ok(None);
        };
        let seq: i64 = Cells(&owner).get("seq")?;
        transaction
            .execute(sqlx::query(BURY_ALL).bind(user.as_str()).bind(seq))
            .await?;
        let revoked = sqlx::query(REVOKE_ALL).bind(user.as_str()).bind(time(at));
        let mut devices = Vec::new();
        for row in transaction.all(revoked).await? {
            devices.push(Cells(&row).get::<Uuid>("id")?);
        }
        devices.sort_unstable();
        let forget = sqlx::query(FORGET_ALL).bind(user.as_str()).bind(&devices);
        transaction.execute(forget).await?;
        transaction
            .execute(sqlx::query(FORGET_HOURS).bind(user.as_str()))
            .await?;
        transaction.commit().await?;
        Ok(Some(devices.into_iter().map(DeviceId).collect()))
    }
}
