//! What outlives a crash of the device in the middle of a redeem.

use lockstep_protocol::{Epoch, GrantName, LeaseId, Version, frame::PublishedToken};

use crate::clock::{Mono, Now};

/// What is kept on disk of a redeem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) lease: LeaseId,
    pub(crate) grant: GrantName,
    pub(crate) epoch: Epoch,
    pub(crate) from_version: Version,
    /// What the provider answered, and when. None: the request may have left, and nothing more is known.
    pub(crate) result: Option<Issued>,
}

/// A token set, and when the provider issued it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) token: PublishedToken,
    pub(crate) at: Mono,
}

impl Issued {
    /// As it is to be published now: `expires_in` is what remains, and never 0, which would mean "not said".
    pub(crate) fn remaining(&self, now: Now) -> PublishedToken {
        let passed = now.mono.since(self.at).as_secs();
        PublishedToken {
            expires_in: self.token.expires_in.map(|life| life.saturating_sub(passed).max(1)),
            ..self.token.clone()
        }
    }
}
