//! Between rows and records.

use std::{borrow::Cow, fmt};

use lockstep_engine::{
    record::{Claim, Doubt, Health, Holder, Purpose},
    time::Unix,
};
use lockstep_protocol::{DeviceId, GrantName, LeaseId, Seq, UserId, Version, frame::Cause};
use sqlx::{Decode, Postgres as Database, Row, Type, postgres::PgRow, types::Json};
use uuid::Uuid;

use super::super::{Answer, Hash, Sealed, StoreError, StoredGrant};

/// The columns that make a record. By name: a later migration may add others while this hub runs.
macro_rules! record {
    () => {
        "user_id, name, revision, version, seq, health, reason, retry_at, tokens_key, tokens, expires_at, \
         refreshed_at, cause, due_at, claim_lease, claim_node, claim_incarnation, claim_purpose, claim_taken_at, \
         claim_expires_at, claim_for_device, claim_handed_to, fence, leases, former_leases, committed_by, doubt, \
         alternate_key, alternate, rejected_in_a_row"
    };
}

/// A claim that stands no more.
macro_rules! no_claim {
    () => {
        "claim_lease = NULL, claim_node = NULL, claim_incarnation = NULL, claim_purpose = NULL, \
         claim_taken_at = NULL, claim_expires_at = NULL, claim_for_device = NULL, claim_handed_to = NULL"
    };
}

pub(super) use {no_claim, record};

/// A number as PostgreSQL keeps it. None of ours comes near the bound.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A time as PostgreSQL keeps it.
pub(super) fn time(at: Unix) -> i64 {
    number(at.0)
}

/// A span that can be added to any time.
pub(super) fn span(millis: u64) -> i64 {
    number(millis.min(1 << 52))
}

/// PostgreSQL keeps every text but one with a zero in it.
pub(super) fn text(words: &str) -> Cow<'_, str> {
    if words.contains('\0') {
        Cow::Owned(words.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(words)
    }
}

pub(super) fn doubt(doubt: Option<Doubt>) -> Option<Json<Doubt>> {
    doubt.map(|doubt| {
        let reason = text(&doubt.reason).into_owned();
        Json(Doubt { reason, ..doubt })
    })
}

/// Reads one row; what cannot be read is named by column.
pub(super) struct Cells<'a>(pub(super) &'a PgRow);

impl Cells<'_> {
    pub(super) fn get<'r, T: Decode<'r, Database> + Type<Database>>(&'r self, column: &str) -> Answer<T> {
        self.0.try_get(column).map_err(|error| corrupt(column, error))
    }

    pub(super) fn number(&self, column: &str) -> Answer<u64> {
        u64::try_from(self.get::<i64>(column)?).map_err(|error| corrupt(column, error))
    }

    pub(super) fn time(&self, column: &str) -> Answer<Option<Unix>> {
        let at: Option<i64> = self.get(column)?;
        at.map(|at| u64::try_from(at).map(Unix).map_err(|error| corrupt(column, error)))
            .transpose()
    }

    pub(super) fn must<T>(&self, column: &str, value: Option<T>) -> Answer<T> {
        value.ok_or_else(|| corrupt(column, "missing"))
    }

    pub(super) fn parsed<T: std::str::FromStr<Err: fmt::Display>>(&self, column: &str) -> Answer<T> {
        let word: &str = self.get(column)?;
        word.parse().map_err(|error| corrupt(column, error))
    }

    pub(super) fn hash(&self, column: &str) -> Answer<Hash> {
        let bytes: &[u8] = self.get(column)?;
        bytes.try_into().map(Hash).map_err(|error| corrupt(column, error))
    }

    pub(super) fn sealed(&self, key: &str, bytes: &str) -> Answer<Option<Sealed>> {
        let Some(key_id) = self.get::<Option<i64>>(key)? else {
            return Ok(None);
        };
        Ok(Some(Sealed {
            key: u32::try_from(key_id).map_err(|error| corrupt(key, error))?,
            bytes: self.get(bytes)?,
        }))
    }

    fn leases(&self, column: &str) -> Answer<Vec<LeaseId>> {
        let leases: Vec<Uuid> = self.get(column)?;
        Ok(leases.into_iter().map(LeaseId).collect())
    }

    fn claim(&self, fence: u64) -> Answer<Option<Claim>> {
        let Some(lease) = self.get::<Option<Uuid>>("claim_lease")? else {
            return Ok(None);
        };
        Ok(Some(Claim {
            lease: LeaseId(lease),
            // A claim raises the fence, and what else does ends the claim: the one that stands is the newest.
            fence,
            holder: Holder {
                node: self.get("claim_node")?,
                incarnation: self.number("claim_incarnation")?,
            },
            purpose: word("claim_purpose", self.get("claim_purpose")?, &PURPOSES)?,
            taken_at: self.must("claim_taken_at", self.time("claim_taken_at")?)?,
            expires_at: self.must("claim_expires_at", self.time("claim_expires_at")?)?,
            for_device: self.get("claim_for_device")?,
            handed_to: self.get::<Option<Uuid>>("claim_handed_to")?.map(DeviceId),
        }))
    }

    /// The record in a row of [`record!`].
    pub(super) fn record(&self) -> Answer<StoredGrant> {
        let fence = self.number("fence")?;
        Ok(StoredGrant {
            revision: self.number("revision")?,
            version: Version(self.number("version")?),
            seq: Seq(self.number("seq")?),
            health: word("health", self.get("health")?, &HEALTHS)?,
            reason: self.get("reason")?,
            retry_at: self.time("retry_at")?,
            tokens: self.sealed("tokens_key", "tokens")?,
            expires_at: self.time("expires_at")?,
            refreshed_at: self.must("refreshed_at", self.time("refreshed_at")?)?,
            cause: word("cause", self.get("cause")?, &CAUSES)?,
            due_at: self.time("due_at")?,
            claim: self.claim(fence)?,
            fence,
            leases: self.leases("leases")?,
            former_leases: self.leases("former_leases")?,
            committed_by: self.get::<Option<Uuid>>("committed_by")?.map(LeaseId),
            doubt: self.get::<Option<Json<Doubt>>>("doubt")?.map(|doubt| doubt.0),
            alternate: self.sealed("alternate_key", "alternate")?,
            rejected_in_a_row: u32::try_from(self.get::<i32>("rejected_in_a_row")?)
                .map_err(|error| corrupt("rejected_in_a_row", error))?,
        })
    }

    /// Whose it is, and which.
    pub(super) fn named(&self) -> Answer<(UserId, GrantName)> {
        Ok((self.parsed("user_id")?, self.parsed("name")?))
    }
}

/// The record in a row, its name in what is said if it cannot be read.
pub(super) fn read(row: &PgRow) -> Answer<StoredGrant> {
    let cells = Cells(row);
    cells.record().map_err(|error| match (error, cells.named()) {
        (StoreError::Corrupt(why), Ok((user, grant))) => StoreError::Corrupt(format!("{user} {grant}: {why}")),
        (error, _) => error,
    })
}

/// The record in a row that a write gave: it is done, even if what it left cannot be read.
pub(super) fn written(row: &PgRow) -> Answer<StoredGrant> {
    read(row).map_err(|error| StoreError::Unknown(error.to_string()))
}

fn corrupt(column: &str, why: impl fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("column {column}: {why}"))
}

const HEALTHS: [(Health, &str); 4] = [
    (Health::Ok, "ok"),
    (Health::Suspect, "suspect"),
    (Health::ReauthRequired, "reauth_required"),
    (Health::Deleted, "deleted"),
];
const PURPOSES: [(Purpose, &str); 4] = [
    (Purpose::Redeem, "redeem"),
    (Purpose::Grace, "grace"),
    (Purpose::LastTry, "last_try"),
    (Purpose::Alternate, "alternate"),
];
const CAUSES: [(Cause, &str); 2] = [(Cause::Refresh, "refresh"), (Cause::Login, "login")];

fn word<T: Copy>(column: &str, word: &str, words: &[(T, &str)]) -> Answer<T> {
    let known = words.iter().find(|(_, known)| *known == word);
    known
        .map(|(value, _)| *value)
        .ok_or_else(|| corrupt(column, format_args!("\"{word}\" is not known to this hub")))
}

pub(super) fn health(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Suspect => "suspect",
        Health::ReauthRequired => "reauth_required",
        Health::Deleted => "deleted",
    }
}

pub(super) fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Redeem => "redeem",
        Purpose::Grace => "grace",
        Purpose::LastTry => "last_try",
        Purpose::Alternate => "alternate",
    }
}

pub(super) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Refresh => "refresh",
        Cause::Login => "login",
    }
}
