//! What a grant's machine tells the logs and the metrics. Never a secret.

use std::time::Duration;

use lockstep_protocol::{DeviceId, LeaseId, Version};

/// Something worth counting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A claim was won: the redeem of this version starts.
    Claimed {
        /// The lease.
        lease: LeaseId,
        /// The version.
        from_version: Version,
    },
    /// A redeem came to an end.
    Redeemed {
        /// The lease.
        lease: LeaseId,
        /// `committed` `not_processed` `rate_limited` `unknown` `conflict` `misconfigured` `refused`.
        outcome: &'static str,
        /// For people.
        detail: String,
        /// From command to reply.
        took: Duration,
    },
    /// A token set is committed.
    Committed {
        /// The new version.
        version: Version,
    },
    /// A newer version was found in the store and adopted instead of a redeem.
    Adopted {
        /// The new version.
        version: Version,
    },
    /// Another's claim made somebody wait longer than the bound.
    LeaseWaitTimeout,
    /// A claim without outcome was found.
    UnknownClaim {
        /// The lease of that claim.
        lease: LeaseId,
    },
    /// A late result was committed.
    LateResult {
        /// The lease it was redeemed under.
        lease: LeaseId,
    },
    /// A result went to the spool.
    Spooled {
        /// The lease.
        lease: LeaseId,
    },
    /// A result became the alternate.
    KeptAlternate,
    /// The grant became `suspect`.
    Suspect {
        /// Why.
        reason: String,
    },
    /// The grant became `reauth_required`.
    ReauthRequired {
        /// Why.
        reason: String,
    },
    /// The provider says that our settings are wrong: an operator must look.
    Misconfigured {
        /// Why.
        detail: String,
    },
    /// A device's request was limited.
    Limited {
        /// Which device.
        device: DeviceId,
    },
    /// A device was elected.
    Elected {
        /// Which device.
        device: DeviceId,
    },
    /// An elected device declined, left, or was silent.
    Declined {
        /// Which device.
        device: DeviceId,
    },
}
