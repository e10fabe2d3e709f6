//! Reading users and grants.

use lockstep_protocol::{GrantName, Seq, UserId};

use super::{
    super::{Answer, StoredGrant, UserState},
    record::{self, Cells, record},
    run::Postgres,
};

/// One statement, so one moment: no seq without the change that it counts.
const USER: &str = concat!(
    "SELECT users.seq AS user_seq, users.deleted AS user_deleted, held.* FROM lockstep.users LEFT JOIN (SELECT ",
    record!(),
    " FROM lockstep.grants) AS held ON held.user_id = users.id WHERE users.id = $1 ORDER BY held.name"
);

const GRANT: &str = concat!(
    "SELECT ",
    record!(),
    " FROM lockstep.grants WHERE user_id = $1 AND name = $2"
);

/// One by one: planners read the whole table for a thousand, which the sweep cannot afford.
const SEQS: &str = "SELECT told.id, held.seq FROM unnest($1::text[]) AS told (id) \
                    CROSS JOIN LATERAL (SELECT seq FROM lockstep.users WHERE users.id = told.id LIMIT 1) AS held";

const FIRST_PAGE: &str = concat!(
    "SELECT ",
    record!(),
    " FROM lockstep.grants ORDER BY user_id, name LIMIT $1"
);

const PAGE: &str = concat!(
    "SELECT ",
    record!(),
    " FROM lockstep.grants WHERE (user_id, name) > ($2, $3) ORDER BY user_id, name LIMIT $1"
);

impl Postgres {
    pub(super) async fn read_user(&self, user: &UserId) -> Answer<Option<UserState>> {
        let rows = self.read_all(sqlx::query(USER).bind(user.as_str())).await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let (seq, deleted) = (Seq(Cells(first).number("user_seq")?), Cells(first).get("user_deleted")?);
        let mut grants = Vec::new();
        for row in &rows {
            if Cells(row).get::<Option<&str>>("name")?.is_some() {
                grants.push((Cells(row).parsed("name")?, record::read(row)?));
            }
        }
        Ok(Some(UserState { seq, deleted, grants }))
    }

    pub(super) async fn read_grant(&self, user: &UserId, grant: &GrantName) -> Answer<Option<StoredGrant>> {
        let query = sqlx::query(GRANT).bind(user.as_str()).bind(grant.as_str());
        self.read(query).await?.as_ref().map(record::read).transpose()
    }

    pub(super) async fn read_seqs(&self, users: &[UserId]) -> Answer<Vec<(UserId, Seq)>> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = self.read_all(sqlx::query(SEQS).bind(ids)).await?;
        rows.iter()
            .map(|row| Ok((Cells(row).parsed("id")?, Seq(Cells(row).number("seq")?))))
            .collect()
    }

    pub(super) async fn read_page(
        &self,
        after: Option<(UserId, GrantName)>,
        limit: usize,
    ) -> Answer<Vec<(UserId, GrantName, StoredGrant)>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = match &after {
            None => self.read_all(sqlx::query(FIRST_PAGE).bind(limit)).await?,
            Some((user, grant)) => {
                let query = sqlx::query(PAGE).bind(limit).bind(user.as_str()).bind(grant.as_str());
                self.read_all(query).await?
            }
        };
        rows.iter()
            .map(|row| {
                let (user, grant) = Cells(row).named()?;
                Ok((user, grant, record::read(row)?))
            })
            .collect()
    }
}
