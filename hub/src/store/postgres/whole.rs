//! What concerns the store as a whole.

use std::time::Duration;

use lockstep_engine::{record::Doubt, time::Unix};
use lockstep_protocol::Epoch;
use sqlx::{postgres::PgRow, types::Json};

use super::{
    super::{Answer, LONGEST_LEASE_MS, Mark, Sealed, StoreError},
    claims::{bytes, key},
    record::{Cells, no_claim, text},
    run::Postgres,
};

/// The greatest number of grants that may have to be doubted at once takes this long.
const DOUBT_WITHIN: Duration = Duration::from_secs(600);

const MAKE_MARK: &str = "INSERT INTO lockstep.meta (epoch) VALUES ($1) ON CONFLICT DO NOTHING";

pub(super) const MARK: &str =
    "SELECT epoch, (SELECT sum(commits)::bigint FROM lockstep.marks) AS commits FROM lockstep.meta";

const CLOCK: &str = "SELECT lockstep.now_ms() AS now";

const PROBE: &str = "UPDATE lockstep.meta SET probed_at = lockstep.now_ms()";

const START: &str = "INSERT INTO lockstep.nodes (name, incarnation) VALUES ($1, 1) \
                     ON CONFLICT (name) DO UPDATE SET incarnation = nodes.incarnation + 1 RETURNING incarnation";

const SHARED: &str = "SELECT key_id, sealed FROM lockstep.shared WHERE name = $1";

const SHARED_NAMES: &str = "SELECT name FROM lockstep.shared ORDER BY name";

const SHARE: &str = "INSERT INTO lockstep.shared (name, key_id, sealed) VALUES ($1, $2, $3) \
                     ON CONFLICT (name) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed \
                     WHERE shared.key_id = $4 AND shared.sealed = $5 RETURNING key_id, sealed";

/// Everybody else waits: no grant may change while all are doubted.
const LOCK: &str = "LOCK TABLE lockstep.users, lockstep.grants IN SHARE ROW EXCLUSIVE MODE";

/// A refresh token may have been used up in the time that is lost: no grace counts, and nothing is left of a claim that may
/// still be under way.
const DOUBT: &str = concat!(
    "WITH doubtful AS (SELECT user_id AS who, name AS what, users.seq AS upto, \
     row_number() OVER (PARTITION BY user_id ORDER BY name) AS nth \
     FROM lockstep.grants JOIN lockstep.users ON users.id = user_id WHERE health <> 'deleted'), \
     changed AS (UPDATE lockstep.grants SET revision = revision + 1, fence = fence + 1, seq = upto + nth, health = 'suspect', \
     reason = $1, retry_at = NULL, due_at = expires_at, wake_at = NULL, asleep = false, parked = false, doubt = $2, ",
    no_claim!(),
    " FROM doubtful WHERE user_id = who AND name = what RETURNING who), \
     counted AS (SELECT who, count(*) AS risen FROM changed GROUP BY who) \
     UPDATE lockstep.users SET seq = seq + risen FROM counted WHERE id = who"
);

const NEW_EPOCH: &str = "UPDATE lockstep.meta SET epoch = $1";

impl Postgres {
    /// Gives a new store its lifetime.
    pub(super) async fn make_mark(&self, epoch: Epoch) -> Answer<()> {
        let query = sqlx::query(MAKE_MARK).bind(epoch.0.cast_signed());
        self.changes(query).await.map(drop)
    }

    pub(super) async fn read_mark(&self) -> Answer<Mark> {
        let mark = mark(self.read_from(&self.aside, sqlx::query(MARK)).await?.first())?;
        self.horizon.saw(mark);
        Ok(mark)
    }

    pub(super) async fn read_clock(&self) -> Answer<Unix> {
        clock(self.read(sqlx::query(CLOCK)).await?.as_ref())
    }

    pub(super) async fn write_probe(&self) -> Answer<()> {
        self.changes(sqlx::query(PROBE)).await.map(drop)
    }

    pub(super) async fn next_incarnation(&self, node: &str) -> Answer<u64> {
        let row = self.write(sqlx::query(START).bind(text(node))).await?;
        let row = row.ok_or_else(|| StoreError::Unknown("postgres: no incarnation".into()))?;
        Cells(&row).number("incarnation")
    }

    pub(super) async fn read_shared(&self, name: &str) -> Answer<Option<Sealed>> {
        let row = self.read(sqlx::query(SHARED).bind(name)).await?;
        row.as_ref()
            .map_or(Ok(None), |row| Cells(row).sealed("key_id", "sealed"))
    }

    pub(super) async fn read_shared_names(&self) -> Answer<Vec<String>> {
        let rows = self.read_all(sqlx::query(SHARED_NAMES)).await?;
        rows.iter().map(|row| Cells(row).get("name")).collect()
    }

    pub(super) async fn write_shared(&self, name: &str, value: Sealed, over: Option<Sealed>) -> Answer<Sealed> {
        let query = sqlx::query(SHARE)
            .bind(name)
            .bind(i64::from(value.key))
            .bind(value.bytes.as_slice())
            .bind(key(over.as_ref()))
            .bind(bytes(over.as_ref()));
        if self.write(query).await?.is_some() {
            return Ok(value);
        }
        let stands = self.read_shared(name).await?;
        stands.ok_or_else(|| StoreError::Refused(format!("postgres: the shared value {name} is gone")))
    }

    pub(super) async fn doubt_everything(&self, epoch: Epoch, reason: &str) -> Answer<Mark> {
        let reason = text(reason);
        let mut transaction = self.begin(&self.aside, DOUBT_WITHIN).await?;
        transaction.execute(sqlx::query(LOCK)).await?;
        let now = clock(transaction.all(sqlx::query(CLOCK)).await?.first())?;
        let doubt = Doubt {
            since: Unix(0),
            late_until: Some(Unix(now.0.saturating_add(LONGEST_LEASE_MS))),
            last_try: false,
            conflict: false,
            dead: false,
            reason: reason.clone().into_owned(),
        };
        let statement = sqlx::query(DOUBT).bind(&*reason).bind(Json(doubt));
        transaction.execute(statement).await?;
        let statement = sqlx::query(NEW_EPOCH).bind(epoch.0.cast_signed());
        transaction.execute(statement).await?;
        let rows = transaction.all(sqlx::query(MARK)).await?;
        transaction.commit().await?;
        let mark = mark(rows.first())?;
        self.horizon.follow(mark);
        Ok(mark)
    }
}

fn clock(row: Option<&PgRow>) -> Answer<Unix> {
    let row = row.ok_or_else(|| StoreError::Refused("postgres: no clock".into()))?;
    Ok(Unix(Cells(row).number("now")?))
}

pub(super) fn mark(row: Option<&PgRow>) -> Answer<Mark> {
    let Some(row) = row else {
        return Err(StoreError::Corrupt("table lockstep.meta: empty".into()));
    };
    let cells = Cells(row);
    Ok(Mark {
        epoch: Epoch(cells.get::<i64>("epoch")?.cast_unsigned()),
        commits: cells.number("commits")?,
    })
}
