//! Reads.

use std::ops::ControlFlow;

use lockstep_engine::{record::Health, time::Unix};
use lockstep_protocol::{DeviceId, GrantName, Seq, UserId};

use super::{
    super::{Answer, Device, Hash, Mark, Slave, StoreError, StoredGrant, UserState},
    key::Key,
    row::{self, GrantRow, MarkRow, UserRow},
    rows::Rows,
};

pub(super) fn mark(rows: &dyn Rows) -> Answer<Mark> {
    let row = rows.row::<MarkRow>(&Key::mark())?;
    row.map(Mark::from)
        .ok_or_else(|| StoreError::Corrupt("table Meta, key \"mark\": missing".into()))
}

pub(super) fn user(rows: &dyn Rows, user: &UserId) -> Answer<Option<UserState>> {
    let mut state: Option<UserState> = None;
    let prefix = Key::user(user);
    rows.walk(prefix.as_slice(), prefix.as_slice(), &mut |key, bytes| {
        let (_, grant) = Key::parse_user(key)?;
        match (grant, &mut state) {
            (None, _) => {
                let UserRow { seq, deleted } = row::decode(key, bytes)?;
                state = Some(UserState {
                    seq,
                    deleted,
                    grants: Vec::new(),
                });
            }
            (Some(grant), Some(state)) => state.grants.push((grant, row::decode::<GrantRow>(key, bytes)?.record)),
            (Some(_), None) => return Err(super::key::corrupt(key, "a grant of no user")),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(state)
}

pub(super) fn load(rows: &dyn Rows, user: &UserId, grant: &GrantName) -> Answer<Option<StoredGrant>> {
    Ok(rows.row::<GrantRow>(&Key::grant(user, grant))?.map(|row| row.record))
}

pub(super) fn seqs(rows: &dyn Rows, users: &[UserId]) -> Answer<Vec<(UserId, Seq)>> {
    let mut found = Vec::with_capacity(users.len());
    for user in users {
        if let Some(row) = rows.row::<UserRow>(&Key::user(user))? {
            found.push((user.clone(), row.seq));
        }
    }
    Ok(found)
}

pub(super) fn scan(
    rows: &dyn Rows,
    after: Option<&(UserId, GrantName)>,
    limit: usize,
) -> Answer<Vec<(UserId, GrantName, StoredGrant)>> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let prefix = Key::users();
    let from = after.map_or_else(Key::users, |(user, grant)| Key::grant(user, grant));
    rows.walk(prefix.as_slice(), from.as_slice(), &mut |key, bytes| {
        if let (user, Some(grant)) = Key::parse_user(key)?
            && !(after.is_some() && key == from.as_slice())
        {
            found.push((user, grant, row::decode::<GrantRow>(key, bytes)?.record));
        }
        Ok(if found.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    })?;
    Ok(found)
}

pub(super) fn devices(rows: &dyn Rows, user: &UserId) -> Answer<Vec<Device>> {
    let mut found = Vec::new();
    for id in rows.keys(&Key::user_devices(user), Key::last_device)? {
        found.extend(
            rows.row::<Device>(&Key::device(id))?
                .filter(|device| device.revoked_at.is_none()),
        );
    }
    Ok(found)
}

pub(super) fn revoked_since(rows: &dyn Rows, since: Unix) -> Answer<Vec<(DeviceId, Unix)>> {
    let mut found = Vec::new();
    let from = Key::revoked(since, DeviceId(uuid::Uuid::nil()));
    rows.walk(Key::revocations().as_slice(), from.as_slice(), &mut |key, _| {
        found.push(Key::parse_revoked(key)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(super) fn slave(rows: &dyn Rows, hash: Hash) -> Answer<Option<Slave>> {
    let Some(slave) = rows.row::<Slave>(&Key::slave(hash))? else {
        return Ok(None);
    };
    let device = rows.row::<Device>(&Key::device(slave.device))?;
    let grant = load(rows, &slave.user, &slave.grant)?;
    let lives = device.is_some_and(|device| device.revoked_at.is_none())
        && grant.is_some_and(|grant| grant.health != Health::Deleted);
    Ok(lives.then_some(slave))
}

pub(super) fn slaves(rows: &dyn Rows, device: DeviceId) -> Answer<Vec<(Hash, Slave)>> {
    let mut found = Vec::new();
    for hash in rows.keys(&Key::device_slaves(device), Key::last_hash)? {
        found.extend(rows.row::<Slave>(&Key::slave(hash))?.map(|slave| (hash, slave)));
    }
    Ok(found)
}
