//! The end of a claim without a result, on its way into the store.

use lockstep_protocol::Version;

use super::{Reply, Verdict};
use crate::record::GrantRecord;

/// A verdict on its way into the store.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Ending {
    pub(super) version: Version,
    pub(super) fence: u64,
    pub(super) verdict: Verdict,
    /// What those who wait are told; none: they go on waiting.
    pub(super) reply: Option<Reply>,
    pub(super) tries: u32,
    /// The store's answer was lost; the record is read again.
    pub(super) is_unknown: bool,
}

impl Ending {
    /// Whether the verdict is what the record says.
    pub(super) fn is_in(&self, record: &GrantRecord) -> bool {
        let is_next = record.version == self.version && record.fence == self.fence + 1;
        is_next && record.claim.is_none() && record.doubt == self.verdict.doubt && record.health == self.verdict.health
    }
}
