//! What is due, and who uses what.

use std::collections::HashMap;

use lockstep_engine::{preload::Hours, time::Unix};
use lockstep_protocol::{GrantName, UserId};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    super::{Answer, Due, DueQuery},
    claims::take,
    record::{self, Cells, number, record, span, text, time},
    run::Postgres,
};

/// The most entries of the index that one call looks at, so that a crowd of unused grants holds nobody up.
const MOST_LOOKED_AT: usize = 4096;

/// One transaction: the oldest that are due and that nobody else is looking at; claimed if they are used, else left to
/// sleep or parked.
const TAKE: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT lockstep.now_ms() AS ms), \
     due AS MATERIALIZED (SELECT user_id AS who, name AS what, look_at AS due, wake_at AS wakes \
     FROM lockstep.grants WHERE provider = $1 AND look_at <= (SELECT ms FROM clock) AND claim_lease IS NULL AND NOT parked \
     ORDER BY look_at LIMIT cardinality($2::uuid[]) FOR NO KEY UPDATE SKIP LOCKED), \
     judged AS (SELECT due.*, coalesce(used, 0) < $6 AS idle, \
     coalesce(used, 0) < $7 AND coalesce(wakes > (SELECT ms FROM clock), false) AS sleeps \
     FROM due LEFT JOIN lockstep.uses ON user_id = who AND name = what), \
     ranked AS (SELECT who, what, idle, sleeps, \
     row_number() OVER (PARTITION BY idle OR sleeps ORDER BY due, who, what) AS nth FROM judged), \
     claimed AS (UPDATE lockstep.grants SET ",
    take!("($2::uuid[])[nth]", "$3", "$4", "$5"),
    ", claim_purpose = 'redeem', claim_for_device = false, asleep = false, parked = false FROM ranked, clock \
     WHERE user_id = who AND name = what AND NOT (idle OR sleeps) RETURNING ",
    record!(),
    "), left_alone AS (UPDATE lockstep.grants SET parked = idle, asleep = sleeps FROM ranked \
     WHERE user_id = who AND name = what AND (idle OR sleeps)) \
     SELECT (SELECT count(*) FROM due) AS looked_at, claimed.* FROM (SELECT) AS one LEFT JOIN claimed ON true \
     ORDER BY claimed.due_at"
);

/// What was claimed by a statement whose answer was lost.
const LOST: &str = concat!(
    "SELECT ",
    record!(),
    " FROM lockstep.grants WHERE provider = $1 AND claim_lease = ANY($2) LIMIT $3"
);

const ABANDONED: &str = concat!(
    "SELECT ",
    record!(),
    " FROM lockstep.grants WHERE provider = $1 AND claim_lease IS NOT NULL \
     AND ((claim_node <> $2 AND claim_expires_at <= (SELECT lockstep.now_ms())) \
     OR (claim_node = $2 AND claim_incarnation < $3)) ORDER BY claim_expires_at LIMIT $4"
);

/// Not waited for on disk: what a crash loses here is known again at the next use.
const USED: &str = "WITH risen AS (INSERT INTO lockstep.uses (user_id, name, used) \
                    SELECT who, what, at FROM unnest($1::text[], $2::text[], $3::bigint[]) AS told (who, what, at) \
                    JOIN lockstep.grants ON user_id = who AND name = what ORDER BY who, what \
                    ON CONFLICT (user_id, name) DO UPDATE SET used = excluded.used WHERE uses.used < excluded.used \
                    RETURNING user_id AS who, name AS what), \
                    roused AS (UPDATE lockstep.grants SET parked = false, asleep = false FROM risen \
                    WHERE user_id = who AND name = what AND (parked OR asleep)) \
                    SELECT set_config('synchronous_commit', 'off', true)";

/// Hours that cannot be read are learned anew.
fn hours_in(cells: &Cells<'_>) -> Answer<Option<Hours>> {
    let bytes: Option<&[u8]> = cells.get("hours")?;
    Ok(bytes.and_then(Hours::from_bytes))
}

/// What one statement did.
#[derive(Default)]
struct Taken {
    found: Vec<Due>,
    claimed: usize,
    looked_at: usize,
}

/// What is known of the hours of those who used something, and when they last did.
const KNOWN_HOURS: &str = "SELECT who, max(at) AS at, hours FROM unnest($1::text[], $2::text[], $3::bigint[]) \
                           AS told (who, what, at) \
                           JOIN lockstep.grants ON grants.user_id = who AND grants.name = what AND health <> 'deleted' \
                           LEFT JOIN lockstep.hours ON hours.user_id = who GROUP BY who, hours";

/// Two nodes that learn of one user at once learn the same but for the last hour; that is learned again next week.
const LEARN: &str = "WITH learned AS (INSERT INTO lockstep.hours (user_id, hours) \
                     SELECT who, hours FROM unnest($1::text[], $2::bytea[]) AS told (who, hours) ORDER BY who \
                     ON CONFLICT (user_id) DO UPDATE SET hours = excluded.hours) \
                     SELECT set_config('synchronous_commit', 'off', true)";

const HOURS: &str = "SELECT hours FROM lockstep.hours WHERE user_id = $1";

/// One that cannot be read must not keep the others from being looked at.
fn readable(rows: &[PgRow], claimed: bool) -> Vec<Due> {
    let mut found = Vec::new();
    for row in rows {
        match (Cells(row).named(), record::read(row)) {
            (Ok((user, grant)), Ok(record)) => found.push(Due {
                user,
                grant,
                claimed,
                record,
            }),
            (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "a claim stands that cannot be read"),
        }
    }
    found
}

impl Postgres {
    pub(super) async fn take_due(&self, query: &DueQuery) -> Answer<Vec<Due>> {
        let mut found = self.lost(query).await?;
        let mut looked_at = 0;
        let mut leases: Vec<Uuid> = query.leases.iter().skip(found.len()).map(|lease| lease.0).collect();
        while !leases.is_empty() && looked_at < MOST_LOOKED_AT {
            let some = self.take_some(query, &leases).await?;
            looked_at += some.looked_at;
            let was_all = some.looked_at < leases.len();
            leases.drain(..some.claimed.min(leases.len()));
            found.extend(some.found);
            if was_all {
                break;
            }
        }
        found.extend(self.abandoned(query).await?);
        Ok(found)
    }

    async fn take_some(&self, query: &DueQuery, leases: &[Uuid]) -> Answer<Taken> {
        let statement = sqlx::query(TAKE)
            .bind(&query.provider)
            .bind(leases)
            .bind(text(&query.holder.node))
            .bind(number(query.holder.incarnation))
            .bind(span(query.ttl_ms))
            .bind(time(query.used_since))
            .bind(time(query.in_use_since));
        let rows = self.write_all(statement).await?;
        let mut some = Taken::default();
        for row in &rows {
            let cells = Cells(row);
            some.looked_at = usize::try_from(cells.number("looked_at")?).unwrap_or(usize::MAX);
            if cells.get::<Option<&str>>("name")?.is_none() {
                continue;
            }
            some.claimed += 1;
            // One that cannot be read must not keep the others from being refreshed: its claim lapses.
            match (cells.named(), record::read(row)) {
                (Ok((user, grant)), Ok(record)) => some.found.push(Due {
                    user,
                    grant,
                    claimed: true,
                    record,
                }),
                (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "a grant is due that cannot be read"),
            }
        }
        Ok(some)
    }

    async fn lost(&self, query: &DueQuery) -> Answer<Vec<Due>> {
        if query.lost.is_empty() {
            return Ok(Vec::new());
        }
        let leases: Vec<Uuid> = query.lost.iter().map(|lease| lease.0).collect();
        let statement = sqlx::query(LOST)
            .bind(&query.provider)
            .bind(leases)
            .bind(i64::try_from(query.leases.len()).unwrap_or(i64::MAX));
        Ok(readable(&self.read_all(statement).await?, true))
    }

    async fn abandoned(&self, query: &DueQuery) -> Answer<Vec<Due>> {
        let statement = sqlx::query(ABANDONED)
            .bind(&query.provider)
            .bind(text(&query.holder.node))
            .bind(number(query.holder.incarnation))
            .bind(i64::try_from(query.leases.len()).unwrap_or(i64::MAX));
        Ok(readable(&self.read_all(statement).await?, false))
    }

    pub(super) async fn note_uses(&self, uses: Vec<(UserId, GrantName, Unix)>) -> Answer<()> {
        let mut newest: HashMap<(UserId, GrantName), Unix> = HashMap::new();
        for (user, grant, at) in uses {
            let known = newest.entry((user, grant)).or_insert(at);
            *known = at.max(*known);
        }
        if newest.is_empty() {
            return Ok(());
        }
        let (mut users, mut grants, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for ((user, grant), at) in newest {
            users.push(user.to_string());
            grants.push(grant.to_string());
            times.push(time(at));
        }
        let used = sqlx::query(USED).bind(&users).bind(&grants).bind(&times);
        self.write(used).await?;
        let known = sqlx::query(KNOWN_HOURS).bind(users).bind(grants).bind(times);
        self.learn(self.read_all(known).await?).await
    }

    /// Written once an hour for each user, not with each use.
    async fn learn(&self, known: Vec<PgRow>) -> Answer<()> {
        let (mut users, mut learned) = (Vec::new(), Vec::new());
        for row in &known {
            let cells = Cells(row);
            let at = cells.must("at", cells.time("at")?)?;
            let hours = match hours_in(&cells)? {
                None => Hours::new(at),
                Some(mut hours) => {
                    if !hours.learn(at) {
                        continue;
                    }
                    hours
                }
            };
            users.push(cells.get::<String>("who")?);
            learned.push(hours.to_bytes());
        }
        if users.is_empty() {
            return Ok(());
        }
        self.write(sqlx::query(LEARN).bind(users).bind(learned)).await.map(drop)
    }

    pub(super) async fn read_hours(&self, user: &UserId) -> Answer<Option<Hours>> {
        let row = self.read(sqlx::query(HOURS).bind(user.as_str())).await?;
        row.as_ref().map_or(Ok(None), |row| hours_in(&Cells(row)))
    }
}
