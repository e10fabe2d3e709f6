//! What devices see of a grant: a pure function of the record and the time.

use std::time::Duration;

use lockstep_protocol::{
    Cursor, Epoch, GrantName, Version,
    frame::{Health as Word, HubFrame, Status, Token},
};

use crate::{
    record::{GrantRecord, Health},
    time::{Now, Unix},
};

/// The frame that stands for the record: its token, or, when there is no token that may be good, a status in its place
/// (promise P8). Durable: it is what a device acks.
pub fn frame_of(record: &GrantRecord, grant: &GrantName, epoch: Epoch, now: Now) -> HubFrame {
    let token = record.tokens.as_ref().filter(|_| is_servable(record, now.unix));
    let Some((tokens, access_token)) = token.and_then(|t| Some((t, t.access_token.clone()?))) else {
        return HubFrame::Status(status_of(record, grant, epoch, now));
    };
    HubFrame::Token(Token {
        grant: grant.clone(),
        version: record.version,
        seq: record.seq,
        cursor: Cursor { epoch, seq: record.seq },
        access_token,
        token_type: tokens.token_type.clone(),
        scope: tokens.scope.clone(),
        expires_at: record.expires_at.map(Unix::seconds),
        refreshed_at: record.refreshed_at.seconds(),
        cause: record.cause,
    })
}

/// A second frame to send right after [`frame_of`], when there is more to say than the token itself: a grant whose health
/// is `suspect` still serves its good access token, and its devices are told. It carries the same seq (the protocol lets a
/// status of equal seq pass), so it is neither durable nor acked.
pub fn word_of(record: &GrantRecord, grant: &GrantName, epoch: Epoch, now: Now) -> Option<Status> {
    let aside = record.health == Health::Suspect && is_servable(record, now.unix);
    aside.then(|| status_of(record, grant, epoch, now))
}

/// How the grant fares.
pub fn status_of(record: &GrantRecord, grant: &GrantName, epoch: Epoch, now: Now) -> Status {
    let reason = record.reason.clone().or_else(|| {
        let unusable = record.health == Health::Ok && !is_servable(record, now.unix);
        unusable.then(
            || match record.tokens.as_ref().is_some_and(|t| t.access_token.is_some()) {
                true => "the access token has expired".to_owned(),
                false => "there is no access token yet".to_owned(),
            },
        )
    });
    Status {
        grant: grant.clone(),
        version: record.version,
        seq: record.seq,
        cursor: Cursor { epoch, seq: record.seq },
        health: match record.health {
            Health::Ok => Word::Ok,
            Health::Suspect => Word::Suspect,
            Health::ReauthRequired => Word::ReauthRequired,
            Health::Deleted => Word::Deleted,
        },
        refreshing_by: None,
        lease_expires_in: None,
        reason,
        retry_at: record.retry_at.filter(|at| *at > now.unix).map(Unix::seconds_up),
        login_url: None,
    }
}

/// Whether the record holds an access token that may be good, as far as the hub knows.
pub fn is_servable(record: &GrantRecord, now: Unix) -> bool {
    let healthy = matches!(record.health, Health::Ok | Health::Suspect);
    let dead = record.doubt.as_ref().is_some_and(|d| d.dead);
    let expired = record.expires_at.is_some_and(|at| at <= now);
    healthy && !dead && !expired && record.tokens.as_ref().is_some_and(|t| t.access_token.is_some())
}

/// The validity that a reader may ask for: at most half the token's life, so that a fresh token always satisfies it.
pub fn min_validity(record: &GrantRecord, asked: Duration) -> Duration {
    let life = record.expires_at.map(|at| at.since(record.refreshed_at));
    life.map_or(asked, |life| asked.min(life / 2))
}

/// Whether the record's token may be handed to a reader that needs `asked` validity (capped by [`min_validity`]).
pub fn is_valid_for(record: &GrantRecord, asked: Duration, now: Unix) -> bool {
    let lasts = record
        .expires_at
        .is_none_or(|at| at.since(now) >= min_validity(record, asked));
    is_servable(record, now) && lasts && record.version > Version(0)
}
