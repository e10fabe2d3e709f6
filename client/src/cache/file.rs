//! The shape of the cache file.

use std::{collections::BTreeMap, io, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use lockstep_protocol::{
    Cursor, DeviceId, GrantName, Secret, Seq, UnixSeconds, Version,
    frame::{Health, Status, Token},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    clock::{Mono, Now, Unix},
    machine::{Bought, Refreshing, Register, Remembered, Snapshot},
};

/// Rises when an older version of this library could not read what a newer one writes.
const FORMAT: u32 = 1;

/// The whole file. The two halves are judged apart: a state that cannot be read must not cost the credential.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct File {
    format: u32,
    pub(super) device: DeviceId,
    pub(super) hub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<Credential>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<Value>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Credential {
    /// SHA-256 of the device refresh token that the program was given, in hex.
    pub(super) enrolment: String,
    /// The newest device refresh token.
    pub(super) newest: Secret,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<Access>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Access {
    token: Secret,
    /// By this device's wall clock.
    expires_at: UnixSeconds,
}

/// What the device holds.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// Of the epoch that it names.
    cursor: Cursor,
    /// The hub's clock minus this device's.
    skew_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ws_blocked_until: Option<UnixSeconds>,
    grants: BTreeMap<GrantName, Grant>,
}

/// One grant: the token set with its expiry and last refresh, and the state of the lock.
#[derive(Debug, Serialize, Deserialize)]
struct Grant {
    version: Version,
    seq: Seq,
    health: Health,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejected: Option<Version>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refreshing: Option<Lock>,
}

/// A redeem was under way when this was written.
#[derive(Debug, Serialize, Deserialize)]
struct Lock {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<DeviceId>,
    /// By this device's wall clock.
    lease_expires_at: UnixSeconds,
}

impl File {
    pub(super) const fn new(device: DeviceId, hub: String) -> Self {
        Self {
            format: FORMAT,
            device,
            hub,
            credential: None,
            state: None,
        }
    }

    /// The error never repeats any of the text: it holds secrets.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let file: Self =
            serde_json::from_slice(text).map_err(|error| format!("not readable (line {})", error.line()))?;
        if file.format == FORMAT {
            Ok(file)
        } else {
            Err(format!("format {} is not known here", file.format))
        }
    }

    pub(super) fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

impl Access {
    pub(super) fn of(bought: &Bought, now: Now) -> Option<Self> {
        Some(Self {
            token: bought.token.clone(),
            expires_at: seconds(now.unix.plus(bought.good_for?)),
        })
    }

    /// As long as it has not expired.
    pub(super) fn good(self, now: Now) -> Option<Bought> {
        let left = Unix::from_wire(self.expires_at).since(now.unix);
        (!left.is_zero()).then_some(Bought {
            token: self.token,
            good_for: Some(left),
        })
    }
}

pub(super) fn hash(secret: &Secret) -> String {
    let hash = digest(&SHA256, secret.expose().as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

const fn seconds(unix: Unix) -> UnixSeconds {
    UnixSeconds(unix.0 / 1000)
}

pub(super) fn state(snapshot: &Snapshot) -> io::Result<Value> {
    let taken = snapshot.taken;
    let state = State {
        cursor: snapshot.cursor.ok_or_else(|| io::Error::other("nothing is held yet"))?,
        skew_ms: snapshot.clock.skew_ms(taken),
        ws_blocked_until: snapshot.blocked_until.map(seconds),
        grants: snapshot
            .grants
            .iter()
            .map(|(name, register)| (name.clone(), stored(register, taken)))
            .collect(),
    };
    Ok(serde_json::to_value(state)?)
}

fn stored(register: &Register, taken: Now) -> Grant {
    Grant {
        version: register.version,
        seq: register.seq,
        health: register.health,
        token: register.token.clone(),
        status: register.status.clone(),
        rejected: register.rejected,
        refreshing: register.refreshing.map(|refreshing| Lock {
            by: refreshing.by,
            lease_expires_at: seconds(taken.unix.plus(refreshing.until.since(taken.mono))),
        }),
    }
}

pub(super) fn remembered(state: Value, now: Now) -> Result<Remembered, String> {
    let state: State = serde_json::from_value(state).map_err(|_| "its state is not readable".to_owned())?;
    let mut grants = BTreeMap::new();
    for (name, grant) in state.grants {
        grants.insert(name.clone(), parsed(&name, grant, state.cursor, now)?);
    }
    Ok(Remembered {
        cursor: Some(state.cursor),
        grants,
        skew_ms: state.skew_ms,
        blocked_until: state.ws_blocked_until.map(Unix::from_wire),
        redeems: Vec::new(),
    })
}

/// A row becomes a register only if it could have been one.
fn parsed(name: &GrantName, grant: Grant, cursor: Cursor, now: Now) -> Result<Register, String> {
    let told = |what: &str| format!("grant {name}: {what}");
    if let Some(token) = &grant.token
        && (token.grant != *name || token.version > grant.version || token.cursor.epoch != cursor.epoch)
    {
        return Err(told("its token belongs elsewhere"));
    }
    if let Some(status) = &grant.status
        && (status.grant != *name || status.version > grant.version || status.cursor.epoch != cursor.epoch)
    {
        return Err(told("its status belongs elsewhere"));
    }
    let mut register = Register::new(grant.seq, grant.version, grant.health);
    register.token = grant.token;
    register.status = grant.status;
    register.rejected = grant.rejected;
    register.refreshing = grant.refreshing.and_then(|lock| refreshing(&lock, now));
    Ok(register)
}

fn refreshing(lock: &Lock, now: Now) -> Option<Refreshing> {
    let left = Unix::from_wire(lock.lease_expires_at).since(now.unix);
    let left = left.min(Duration::from_secs(60));
    let until: Mono = now.mono + left;
    (!left.is_zero()).then_some(Refreshing { by: lock.by, until })
}
