//! Records and boards for tests.

use lockstep_engine::{
    record::{GrantRecord, Health, TokenSet},
    time::{Mono, Now, Unix},
};
use lockstep_protocol::{Epoch, GrantName, Seq, Version, frame::Cause};

use super::Face;

/// The moment of these tests.
pub(crate) const NOW: Now = Now {
    mono: Mono(1_000),
    unix: Unix(1_800_000_000_000),
};

/// How a hub shows records then.
pub(crate) fn face() -> Face<'static> {
    Face {
        epoch: Epoch(7),
        now: NOW,
        login_url: &|_| None,
    }
}

/// A grant by name.
pub(crate) fn grant(name: &str) -> GrantName {
    name.parse().unwrap()
}

/// A good record, with a token of an hour.
pub(crate) fn record(seq: u64, version: u64) -> Box<GrantRecord> {
    let expires_at = Some(Unix(NOW.unix.0 + 3_600_000));
    Box::new(GrantRecord {
        revision: seq,
        version: Version(version),
        seq: Seq(seq),
        health: Health::Ok,
        reason: None,
        retry_at: None,
        tokens: Some(TokenSet {
            access_token: Some(format!("at-{version}").into()),
            refresh_token: None,
            token_type: "Bearer".to_owned(),
            scope: None,
            expires_at,
            refresh_expires_at: None,
        }),
        expires_at,
        refreshed_at: NOW.unix,
        cause: Cause::Refresh,
        due_at: None,
        claim: None,
        fence: 0,
        leases: Vec::new(),
        former_leases: Vec::new(),
        committed_by: None,
        doubt: None,
        alternate: None,
        rejected_in_a_row: 0,
    })
}
