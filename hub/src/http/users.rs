//! `/admin/v1/users/{user}`: what an operator sees of a user.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json as Answer, extract::State, http::StatusCode};
use lockstep_engine::{
    grant::view,
    record::{GrantRecord, Health as Durable},
    time::{Now, Unix},
};
use lockstep_protocol::{Close, Code, DeviceId, Epoch, GrantName, Seq, UnixSeconds, UserId, Version, frame::Health};
use serde::Serialize;

use super::{body::OfUser, problem::Problem};
use crate::{
    app::Hub,
    audit::Event,
    clock,
    store::{Device, DeviceKind},
    user::{Inner, User},
};

/// A user.
#[derive(Serialize)]
pub(super) struct UserView {
    user: UserId,
    epoch: Epoch,
    seq: Seq,
    grants: Vec<GrantView>,
    devices: Vec<DeviceView>,
}

/// A grant.
#[derive(Serialize)]
struct GrantView {
    grant: GrantName,
    version: Version,
    seq: Seq,
    health: Health,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<UnixSeconds>,
    expires_at: Option<UnixSeconds>,
    refreshed_at: UnixSeconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    refreshing_by: Option<DeviceId>,
}

/// How a device is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Ws,
    Poll,
}

/// A device.
#[derive(Serialize)]
struct DeviceView {
    device_id: DeviceId,
    kind: DeviceKind,
    name: String,
    redeemer: bool,
    connected: bool,
    transport: Option<Transport>,
    last_seen: Option<UnixSeconds>,
    acked: Seq,
    behind: Vec<GrantName>,
}

/// `GET`.
pub(super) async fn show(State(hub): State<Arc<Hub>>, OfUser(id): OfUser) -> Result<Answer<UserView>, Problem> {
    let state = hub.store.user(&id).await?;
    if state.is_none_or(|state| state.deleted) {
        return Err(unknown());
    }
    let devices = hub.store.devices(&id).await?;
    let user = hub.user(&id).await?;
    let now = clock::now();
    let inner = user.lock();
    let grants = inner.slots.keys().filter_map(|name| {
        let record = inner.record(name)?;
        let refreshing = inner.word(name, now.mono).is_some();
        Some(grant_view(&hub, name, record, refreshing, now))
    });
    let live = live(&inner, now);
    Ok(Answer(UserView {
        user: id,
        epoch: hub.epoch(),
        seq: inner.board.seq,
        grants: grants.collect(),
        devices: devices
            .into_iter()
            .map(|device| device_view(with_unwritten(&hub, device), &live, &inner, now))
            .collect(),
    }))
}

fn unknown() -> Problem {
    Problem::new(Code::UnknownGrant, "no such user")
}

fn grant_view(hub: &Hub, grant: &GrantName, record: &GrantRecord, refreshing: bool, now: Now) -> GrantView {
    let status = view::status_of(record, grant, hub.epoch(), now);
    let claimed = record.claim.as_ref();
    GrantView {
        grant: grant.clone(),
        version: record.version,
        seq: record.seq,
        health: match record.health {
            Durable::Ok if refreshing => Health::Refreshing,
            _ => status.health,
        },
        reason: status.reason,
        retry_at: status.retry_at,
        expires_at: record.expires_at.map(Unix::seconds),
        refreshed_at: record.refreshed_at.seconds(),
        refreshing_by: claimed.and_then(|claim| claim.handed_to),
    }
}

fn live(inner: &Inner, now: Now) -> BTreeMap<DeviceId, (Transport, Seq)> {
    let polling = inner.pollers.iter().filter(|(_, poller)| poller.is_connected(now.mono));
    let mut live: BTreeMap<_, _> = polling
        .map(|(device, p)| (*device, (Transport::Poll, p.acked)))
        .collect();
    for session in &inner.sessions {
        live.insert(session.device, (Transport::Ws, session.acked()));
    }
    live
}

/// What was seen of a device is written lazily; an operator is shown all of it.
fn with_unwritten(hub: &Hub, device: Device) -> Device {
    let Some(seen) = hub.unwritten(device.id) else {
        return device;
    };
    Device {
        last_seen: device.last_seen.max(Some(seen.at)),
        acked: device.acked.max(seen.acked),
        ..device
    }
}

fn device_view(device: Device, live: &BTreeMap<DeviceId, (Transport, Seq)>, inner: &Inner, now: Now) -> DeviceView {
    let connection = live.get(&device.id);
    // What it acked in an earlier session counts until the living one says more.
    let acked = connection.map_or(device.acked, |(_, acked)| *acked);
    let behind = inner.board.since(acked).iter().map(|entry| entry.grant.clone());
    DeviceView {
        device_id: device.id,
        kind: device.kind,
        name: device.name,
        redeemer: device.redeemer,
        connected: connection.is_some(),
        transport: connection.map(|(transport, _)| *transport),
        last_seen: connection.map(|_| now.unix).or(device.last_seen).map(Unix::seconds),
        acked,
        behind: behind.collect(),
    }
}

/// `DELETE`: the grants become tombstones, the devices are revoked, the sessions end.
pub(super) async fn forget(State(hub): State<Arc<Hub>>, OfUser(id): OfUser) -> Result<StatusCode, Problem> {
    let at = clock::unix();
    let Some(revoked) = hub.store.delete_user(&id, at).await? else {
        return Err(unknown());
    };
    hub.audit.record(Event::UserDeleted { user: id.clone() });
    hub.identity.revoked_with_user(&id, &revoked, at);
    if let Some(user) = hub.users.resident(&id) {
        end(&hub, &user);
    }
    Ok(StatusCode::NO_CONTENT)
}

fn end(hub: &Arc<Hub>, user: &Arc<User>) {
    user.close_all(Close::Revoked);
    hub.reload(user);
}
