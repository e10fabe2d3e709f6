//! Rejections are evidence, not orders.

use std::time::Duration;

use lockstep_protocol::DeviceId;

use crate::{
    policy::Policy,
    record::GrantRecord,
    time::{Mono, Now, Unix},
};

/// What devices said of the newest version.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Evidence {
    /// Since when this machine knows the version; bounds the limit when the wall clock went back.
    since: Mono,
    /// Devices that acked the version and reported it.
    witnesses: Vec<DeviceId>,
    /// Whether enough of them did for a grant in doubt.
    pub(super) dead: bool,
    /// Whether a believed rejection (not mere expiry) is why a redeem is wanted.
    pub(super) rejected: bool,
}

/// The longest that `reject_interval` doubles to.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
/// Two witnesses are enough; a few more are remembered for nothing.
const MOST_WITNESSES: usize = 4;

impl Evidence {
    pub(super) fn new_version(&mut self, now: Mono) {
        *self = Self {
            since: now,
            ..Self::default()
        };
    }

    /// A device that acked the newest version reports it, with `connected` devices in all.
    pub(super) fn witness(&mut self, device: DeviceId, connected: usize) {
        if !self.witnesses.contains(&device) && self.witnesses.len() < MOST_WITNESSES {
            self.witnesses.push(device);
        }
        let needed = if connected <= 1 { 1 } else { 2 };
        self.dead |= self.witnesses.len() >= needed;
    }

    /// Whether a rejection comes too soon after the last commit, and when it would not.
    pub(super) fn too_soon(&self, record: &GrantRecord, policy: &Policy, now: Now) -> Option<Unix> {
        let doublings = record.rejected_in_a_row.min(16);
        let interval = policy.reject_interval.saturating_mul(1 << doublings);
        let interval = interval.min(LONGEST_INTERVAL.max(policy.reject_interval));
        let by_wall = now.unix.since(record.refreshed_at);
        let waited = by_wall.max(now.mono.since(self.since));
        (waited < interval).then(|| now.unix + (interval - waited))
    }
}
