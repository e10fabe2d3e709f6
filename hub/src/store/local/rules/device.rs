//! Devices, their slaves, and users as a whole.

use std::collections::HashMap;

use lockstep_engine::{record::Health, time::Unix};
use lockstep_protocol::{DeviceId, Seq, UserId};

use super::{
    super::{
        super::{Answer, Device, Hash, Seen, Slave, StoreError},
        key::Key,
        read,
        row::{Entry, GrantRow, UserRow},
        rows::{Changes, Judged, Rows, unchanged},
    },
    grant,
};

pub(in super::super) fn enrol(rows: &dyn Rows, device: &Device) -> Answer<Judged<()>> {
    match rows.row::<Device>(&Key::device(device.id))? {
        // Asked again after a lost answer.
        Some(standing) if standing == *device => return unchanged(()),
        Some(_) => return Err(StoreError::Refused(format!("device {} is enrolled already", device.id))),
        None => {}
    }
    let mut changes = Changes::default();
    let user = Key::user(&device.user);
    let standing = rows.row::<UserRow>(&user)?;
    if standing.as_ref().is_none_or(|row| row.deleted) {
        let seq = standing.unwrap_or_default().seq;
        changes.put(user, &UserRow { seq, deleted: false });
    }
    changes.put(Key::user_device(&device.user, device.id), &Entry);
    changes.put(Key::device(device.id), device);
    Ok(Judged { answer: (), changes })
}

pub(in super::super) fn advance(rows: &dyn Rows, id: DeviceId, from: u64, newest: Hash) -> Answer<Judged<bool>> {
    let key = Key::device(id);
    let device = rows.row::<Device>(&key)?;
    let Some(device) = device.filter(|device| device.generation == from && device.revoked_at.is_none()) else {
        return unchanged(false);
    };
    let moved = Device {
        generation: from + 1,
        parent: Some(device.newest),
        newest,
        ..device
    };
    let mut changes = Changes::default();
    changes.put(key, &moved);
    Ok(Judged { answer: true, changes })
}

pub(in super::super) fn revoke(rows: &dyn Rows, id: DeviceId, at: Unix) -> Answer<Judged<bool>> {
    let mut changes = Changes::default();
    let answer = revoke_into(rows, &mut changes, id, at)?;
    Ok(Judged { answer, changes })
}

fn revoke_into(rows: &dyn Rows, changes: &mut Changes, id: DeviceId, at: Unix) -> Answer<bool> {
    let key = Key::device(id);
    let Some(device) = rows.row::<Device>(&key)?.filter(|device| device.revoked_at.is_none()) else {
        return Ok(false);
    };
    changes.drop(Key::user_device(&device.user, id));
    changes.put(Key::revoked(at, id), &Entry);
    changes.put(
        key,
        &Device {
            revoked_at: Some(at),
            ..device
        },
    );
    for hash in rows.keys(&Key::device_slaves(id), Key::last_hash)? {
        forget_slave(rows, changes, hash)?;
    }
    Ok(true)
}

pub(in super::super) fn delete_user(rows: &dyn Rows, user: &UserId, at: Unix) -> Answer<Judged<Option<Vec<DeviceId>>>> {
    let Some(state) = read::user(rows, user)? else {
        return unchanged(None);
    };
    let mut changes = Changes::default();
    let mut seq: Seq = state.seq;
    for (name, record) in state.grants {
        if record.health == Health::Deleted {
            continue;
        }
        let at = (user.clone(), name);
        if let Some(old) = rows.row::<GrantRow>(&Key::grant(&at.0, &at.1))? {
            seq = seq.next();
            grant::bury(rows, &mut changes, &at, &old, seq)?;
        }
    }
    changes.put(Key::user(user), &UserRow { seq, deleted: true });
    changes.drop(Key::hours(user));
    let devices = rows.keys(&Key::user_devices(user), Key::last_device)?;
    for device in &devices {
        revoke_into(rows, &mut changes, *device, at)?;
    }
    Ok(Judged {
        answer: Some(devices),
        changes,
    })
}

pub(in super::super) fn seen(rows: &dyn Rows, seen: &[Seen]) -> Answer<Judged<()>> {
    let mut newest: HashMap<DeviceId, Seen> = HashMap::new();
    for one in seen {
        let merged = newest.entry(one.device).or_insert(*one);
        merged.at = merged.at.max(one.at);
        merged.acked = merged.acked.max(one.acked);
    }
    let mut changes = Changes::default();
    for one in newest.into_values() {
        let key = Key::device(one.device);
        let Some(device) = rows.row::<Device>(&key)? else {
            continue;
        };
        let (last_seen, acked) = (device.last_seen.max(Some(one.at)), device.acked.max(one.acked));
        if (last_seen, acked) != (device.last_seen, device.acked) {
            changes.put(
                key,
                &Device {
                    last_seen,
                    acked,
                    ..device
                },
            );
        }
    }
    Ok(Judged { answer: (), changes })
}

pub(in super::super) fn put_slave(_: &dyn Rows, hash: Hash, slave: &Slave) -> Answer<Judged<()>> {
    let mut changes = Changes::default();
    changes.put(Key::device_slave(slave.device, hash), &Entry);
    changes.put(Key::grant_slave(&slave.user, &slave.grant, hash), &Entry);
    changes.put(Key::slave(hash), slave);
    Ok(Judged { answer: (), changes })
}

pub(in super::super) fn drop_slave(rows: &dyn Rows, hash: Hash) -> Answer<Judged<bool>> {
    let mut changes = Changes::default();
    let answer = forget_slave(rows, &mut changes, hash)?;
    Ok(Judged { answer, changes })
}

/// Whether there was one.
pub(super) fn forget_slave(rows: &dyn Rows, changes: &mut Changes, hash: Hash) -> Answer<bool> {
    let key = Key::slave(hash);
    let Some(slave) = rows.row::<Slave>(&key)? else {
        return Ok(false);
    };
    changes.drop(Key::device_slave(slave.device, hash));
    changes.drop(Key::grant_slave(&slave.user, &slave.grant, hash));
    changes.drop(key);
    Ok(true)
}
