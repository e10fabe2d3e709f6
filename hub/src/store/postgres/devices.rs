//! Devices and their slaves.

use std::collections::HashMap;

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, Seq, UserId};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    super::{Answer, Device, Hash, Seen, Slave, StoreError},
    record::{Cells, number, text, time},
    run::Postgres,
};

macro_rules! device {
    () => {
        "id, user_id, kind, name, redeemer, may_offer, priority, enrolled_at, generation, newest, parent, revoked_at, \
         last_seen, acked"
    };
}

macro_rules! slave {
    () => {
        "slaves.hash, slaves.user_id, slaves.device, slaves.grant_name, slaves.made_at"
    };
}

const ENROL: &str = concat!(
    "WITH owner AS (INSERT INTO lockstep.users (id, seq) \
     SELECT $2, 0 WHERE NOT EXISTS (SELECT FROM lockstep.devices WHERE id = $1) \
     ON CONFLICT (id) DO UPDATE SET deleted = false WHERE users.deleted) \
     INSERT INTO lockstep.devices (",
    device!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING"
);

const DEVICE: &str = concat!("SELECT ", device!(), " FROM lockstep.devices WHERE id = $1");

const DEVICES: &str = concat!(
    "SELECT ",
    device!(),
    " FROM lockstep.devices WHERE user_id = $1 AND revoked_at IS NULL ORDER BY id"
);

const ADVANCE: &str = "UPDATE lockstep.devices SET generation = generation + 1, parent = newest, newest = $3 \
                       WHERE id = $1 AND generation = $2 AND revoked_at IS NULL";

const REVOKE: &str = "WITH revoked AS (UPDATE lockstep.devices SET revoked_at = $2 \
                      WHERE id = $1 AND revoked_at IS NULL RETURNING id), \
                      forgotten AS (DELETE FROM lockstep.slaves WHERE device = $1 AND EXISTS (SELECT FROM revoked)) \
                      SELECT id FROM revoked";

const REVOKED: &str = "SELECT id, revoked_at FROM lockstep.devices WHERE revoked_at >= $1 ORDER BY revoked_at, id";

/// Not waited for on disk, like uses. In order of id, so that two nodes that saw the same devices wait for each other and
/// not in a circle.
const SEEN: &str = "WITH told AS (SELECT devices.id AS which, at, upto \
                    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS told (which, at, upto) \
                    JOIN lockstep.devices ON id = which ORDER BY devices.id FOR NO KEY UPDATE OF devices), \
                    changed AS (UPDATE lockstep.devices SET last_seen = greatest(last_seen, at), \
                    acked = greatest(acked, upto) FROM told WHERE id = which \
                    AND (last_seen IS NULL OR last_seen < at OR acked < upto)) \
                    SELECT set_config('synchronous_commit', 'off', true)";

const PUT_SLAVE: &str = "INSERT INTO lockstep.slaves (hash, user_id, device, grant_name, made_at) \
                         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (hash) DO UPDATE SET user_id = excluded.user_id, \
                         device = excluded.device, grant_name = excluded.grant_name, made_at = excluded.made_at";

const SLAVE: &str = concat!(
    "SELECT ",
    slave!(),
    " FROM lockstep.slaves \
     JOIN lockstep.devices ON devices.id = slaves.device AND devices.revoked_at IS NULL \
     JOIN lockstep.grants ON grants.user_id = slaves.user_id AND grants.name = slaves.grant_name \
     AND grants.health <> 'deleted' WHERE slaves.hash = $1"
);

const SLAVES: &str = concat!(
    "SELECT ",
    slave!(),
    " FROM lockstep.slaves WHERE device = $1 ORDER BY hash"
);

const DROP_SLAVE: &str = "DELETE FROM lockstep.slaves WHERE hash = $1";

fn device_of(row: &PgRow) -> Answer<Device> {
    let cells = Cells(row);
    let parent: Option<&[u8]> = cells.get("parent")?;
    let priority: Option<i16> = cells.get("priority")?;
    Ok(Device {
        id: DeviceId(cells.get("id")?),
        user: cells.parsed("user_id")?,
        kind: cells.parsed("kind")?,
        name: cells.get("name")?,
        redeemer: cells.get("redeemer")?,
        may_offer: cells.get("may_offer")?,
        priority: priority.and_then(|priority| u8::try_from(priority).ok()),
        enrolled_at: cells.must("enrolled_at", cells.time("enrolled_at")?)?,
        generation: cells.number("generation")?,
        newest: cells.hash("newest")?,
        parent: parent.map(|_| cells.hash("parent")).transpose()?,
        revoked_at: cells.time("revoked_at")?,
        last_seen: cells.time("last_seen")?,
        acked: Seq(cells.number("acked")?),
    })
}

fn slave_of(row: &PgRow) -> Answer<(Hash, Slave)> {
    let cells = Cells(row);
    let slave = Slave {
        user: cells.parsed("user_id")?,
        device: DeviceId(cells.get("device")?),
        grant: cells.parsed("grant_name")?,
        made_at: cells.must("made_at", cells.time("made_at")?)?,
    };
    Ok((cells.hash("hash")?, slave))
}

impl Postgres {
    pub(super) async fn put_device(&self, device: Device) -> Answer<()> {
        let name = text(&device.name).into_owned();
        let device = Device { name, ..device };
        let query = sqlx::query(ENROL)
            .bind(device.id.0)
            .bind(device.user.as_str())
            .bind(device.kind.as_str())
            .bind(&device.name)
            .bind(device.redeemer)
            .bind(device.may_offer)
            .bind(device.priority.map(i16::from))
            .bind(time(device.enrolled_at))
            .bind(number(device.generation))
            .bind(device.newest.0.as_slice())
            .bind(device.parent.as_ref().map(|hash| hash.0.as_slice()))
            .bind(device.revoked_at.map(time))
            .bind(device.last_seen.map(time))
            .bind(number(device.acked.0));
        if self.changes(query).await? {
            return Ok(());
        }
        match self.read_device(device.id).await? {
            // Asked again after a lost answer.
            Some(standing) if standing == device => Ok(()),
            _ => Err(StoreError::Refused(format!("device {} is enrolled already", device.id))),
        }
    }

    pub(super) async fn read_device(&self, device: DeviceId) -> Answer<Option<Device>> {
        let row = self.read(sqlx::query(DEVICE).bind(device.0)).await?;
        row.as_ref().map(device_of).transpose()
    }

    pub(super) async fn read_devices(&self, user: &UserId) -> Answer<Vec<Device>> {
        let rows = self.read_all(sqlx::query(DEVICES).bind(user.as_str())).await?;
        rows.iter().map(device_of).collect()
    }

    pub(super) async fn advance_device(&self, device: DeviceId, from: u64, newest: Hash) -> Answer<bool> {
        let query = sqlx::query(ADVANCE)
            .bind(device.0)
            .bind(number(from))
            .bind(newest.0.as_slice());
        self.changes(query).await
    }

    pub(super) async fn revoke_device(&self, device: DeviceId, at: Unix) -> Answer<bool> {
        let query = sqlx::query(REVOKE).bind(device.0).bind(time(at));
        Ok(self.write(query).await?.is_some())
    }

    pub(super) async fn read_revoked(&self, since: Unix) -> Answer<Vec<(DeviceId, Unix)>> {
        let rows = self.read_all(sqlx::query(REVOKED).bind(time(since))).await?;
        rows.iter()
            .map(|row| {
                let cells = Cells(row);
                let at = cells.must("revoked_at", cells.time("revoked_at")?)?;
                Ok((DeviceId(cells.get("id")?), at))
            })
            .collect()
    }

    pub(super) async fn note_seen(&self, seen: Vec<Seen>) -> Answer<()> {
        let mut newest: HashMap<Uuid, (i64, i64)> = HashMap::new();
        for one in seen {
            let told = (time(one.at), number(one.acked.0));
            let known = newest.entry(one.device.0).or_insert(told);
            *known = (known.0.max(told.0), known.1.max(told.1));
        }
        if newest.is_empty() {
            return Ok(());
        }
        let (devices, told): (Vec<Uuid>, Vec<(i64, i64)>) = newest.into_iter().unzip();
        let (times, acked): (Vec<i64>, Vec<i64>) = told.into_iter().unzip();
        self.write(sqlx::query(SEEN).bind(devices).bind(times).bind(acked))
            .await
            .map(drop)
    }

    pub(super) async fn write_slave(&self, hash: Hash, slave: Slave) -> Answer<()> {
        let query = sqlx::query(PUT_SLAVE)
            .bind(hash.0.as_slice())
            .bind(slave.user.as_str())
            .bind(slave.device.0)
            .bind(slave.grant.as_str())
            .bind(time(slave.made_at));
        self.changes(query).await.map(drop)
    }

    pub(super) async fn read_slave(&self, hash: Hash) -> Answer<Option<Slave>> {
        let row = self.read(sqlx::query(SLAVE).bind(hash.0.as_slice())).await?;
        let slave = row.as_ref().map(slave_of).transpose()?;
        Ok(slave.map(|(_, slave)| slave))
    }

    pub(super) async fn read_slaves(&self, device: DeviceId) -> Answer<Vec<(Hash, Slave)>> {
        let rows = self.read_all(sqlx::query(SLAVES).bind(device.0)).await?;
        rows.iter().map(slave_of).collect()
    }

    pub(super) async fn forget_slave(&self, hash: Hash) -> Answer<bool> {
        self.changes(sqlx::query(DROP_SLAVE).bind(hash.0.as_slice())).await
    }
}
