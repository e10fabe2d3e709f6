//! Rows: a checksum, a format number, then MessagePack with named fields.
//!
//! Named, so that a later hub may add a field with a default and still read what an older one wrote. The checksum is over
//! key and row: a row that rotted, or lies under another's key, is found when it is read and not believed.

use lockstep_engine::{preload::Hours, record::Holder, time::Unix};
use lockstep_protocol::{Epoch, Seq};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    super::{Answer, Device, Hash, Mark, Sealed, Slave, StoredGrant},
    key::corrupt,
};

/// Something that is kept under a key.
pub(in crate::store) trait Row: Serialize + DeserializeOwned {
    /// Rises when a row can no longer be read as before.
    const FORMAT: u8 = 1;
}

const CHECKSUM: usize = 4;

#[expect(clippy::expect_used, reason = "plain data into memory: nothing here can fail")]
pub(super) fn encode<T: Row>(key: &[u8], row: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(&[0; CHECKSUM]);
    bytes.push(T::FORMAT);
    rmp_serde::encode::write_named(&mut bytes, row).expect("writes to memory");
    let sum = checksum(key, &bytes[CHECKSUM..]);
    bytes[..CHECKSUM].copy_from_slice(&sum);
    bytes
}

fn checksum(key: &[u8], row: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(row);
    hasher.finalize().to_be_bytes()
}

pub(super) fn decode<T: Row>(key: &[u8], bytes: &[u8]) -> Answer<T> {
    let Some((sum, bytes)) = bytes.split_first_chunk::<CHECKSUM>() else {
        return Err(corrupt(key, "cut off"));
    };
    if *sum != checksum(key, bytes) {
        return Err(corrupt(key, "the checksum does not fit"));
    }
    match bytes.split_first() {
        Some((format, row)) if *format == T::FORMAT => {
            // The reason says where, never what: rows hold sealed secrets, but people's names too.
            rmp_serde::from_slice(row).map_err(|error| corrupt(key, error))
        }
        Some((format, _)) => Err(corrupt(key, format_args!("format {format} is not known to this hub"))),
        None => Err(corrupt(key, "empty")),
    }
}

/// Epoch and commit number.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::store) struct MarkRow {
    epoch: Epoch,
    commits: u64,
}

impl Row for MarkRow {}

impl From<Mark> for MarkRow {
    fn from(mark: Mark) -> Self {
        Self {
            epoch: mark.epoch,
            commits: mark.commits,
        }
    }
}

impl From<MarkRow> for Mark {
    fn from(row: MarkRow) -> Self {
        Self {
            epoch: row.epoch,
            commits: row.commits,
        }
    }
}

/// The number of the transaction that was last written.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct GroupRow {
    pub(in crate::store) number: u64,
}

impl Row for GroupRow {}

/// When the store was last seen to take writes.
#[derive(Serialize, Deserialize)]
pub(super) struct ProbeRow {
    pub(super) at: Unix,
}

impl Row for ProbeRow {}

#[derive(Serialize, Deserialize)]
pub(super) struct NodeRow {
    pub(super) incarnation: u64,
}

impl Row for NodeRow {}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct UserRow {
    pub(super) seq: Seq,
    pub(super) deleted: bool,
}

impl Row for UserRow {}

/// A grant, and what only stores know of it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct GrantRow {
    pub(super) record: StoredGrant,
    /// When it was last used.
    pub(super) used: Unix,
    /// Due but unused: out of the index of what is due, until it is used or changes.
    pub(super) parked: bool,
    /// When it is to be redeemed if nobody uses it by the time it is due.
    #[serde(default)]
    pub(super) wake_at: Option<Unix>,
    /// Due but not in use: in the index at `wake_at`, until it is used or changes.
    #[serde(default)]
    pub(super) asleep: bool,
    pub(super) retired: Retired,
}

impl Row for GrantRow {}

impl GrantRow {
    /// When it is to be looked at: if claimed, when the claim lapses (whoever holds it may be gone), else when it is due.
    pub(super) fn due(&self) -> Option<(Unix, DueEntry)> {
        match &self.record.claim {
            Some(claim) => Some((
                claim.expires_at,
                DueEntry {
                    holder: Some(claim.holder.clone()),
                },
            )),
            None => self.record.due_at.filter(|_| !self.parked).map(|due| {
                (
                    self.wake_at.filter(|_| self.asleep).unwrap_or(due),
                    DueEntry { holder: None },
                )
            }),
        }
    }

    /// Not left alone any longer: it changed, or somebody uses it.
    pub(super) fn rouse(&mut self) {
        self.parked = false;
        self.asleep = false;
    }
}

/// Refresh tokens that are used up: the newest 64, by half of their hash, which is more than enough to tell them apart.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Retired(#[serde(with = "serde_bytes")] Vec<u8>);

impl Retired {
    const MOST: usize = 64;
    const EACH: usize = 16;

    pub(super) fn has(&self, hash: Hash) -> bool {
        self.0.chunks_exact(Self::EACH).any(|half| hash.0.starts_with(half))
    }

    pub(super) fn add(&mut self, hash: Hash) {
        if self.has(hash) {
            return;
        }
        let full = Self::MOST * Self::EACH;
        if self.0.len() >= full {
            self.0.drain(..=self.0.len() - full + Self::EACH - 1);
        }
        self.0.extend_from_slice(&hash.0[..Self::EACH]);
    }
}

impl Row for Device {}
impl Row for Hours {}
impl Row for Slave {}
impl Row for Sealed {}

/// An entry in the index of what is due.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DueEntry {
    /// Who has claimed it.
    pub(super) holder: Option<Holder>,
}

impl Row for DueEntry {}

/// An entry of an index whose key says it all.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry;

impl Row for Entry {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_retired_tokens_are_remembered() {
        let hash = |number: u8| Hash([number; 32]);
        let mut retired = Retired::default();
        for number in 0..100 {
            retired.add(hash(number));
            retired.add(hash(number));
        }
        assert_eq!(retired.0.len(), 64 * 16);
        assert!(!retired.has(hash(35)) && retired.has(hash(36)) && retired.has(hash(99)));
    }
}
