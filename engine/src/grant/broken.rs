//! Deliberate mistakes, for the simulation to find: each shows that it would find such a mistake.

use super::Grant;

/// One deliberate mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Sends although the lease was shown to be held too long ago.
    SendLate,
    /// Gives a device the refresh token before that is durable.
    HandBeforeDurable,
    /// Takes a disconnect of a device that has the refresh token for "not sent".
    SilenceIsNo,
    /// Gives back the claim of a redeem that is under way when the node goes.
    LeaveUnderWay,
    /// Takes a claim without outcome for "did not happen".
    ForgetDoubt,
    /// Replays in doubt although there is something to lose.
    ReplayInDoubt,
    /// Counts the grace window from the newest claim instead of the first.
    GraceFromNewest,
    /// Blames the grant for an outage.
    BlameTheGrant,
    /// Shows devices a result before it is committed.
    PushBeforeCommit,
    /// Drops a result that the store refuses.
    DropRefused,
    /// Takes a commit whose answer was lost for one that failed, without reading again.
    DropUnknown,
    /// Drops the second of two results.
    DropSecond,
    /// Refuses a late result although its version is current.
    RefuseLate,
    /// Lets an old reading undo a newer one.
    BelieveOldReadings,
    /// Forgets those who wait when a round fails.
    ForgetWaiters,
}

impl Grant {
    /// The mistake that this machine makes, in tests.
    #[cfg(test)]
    pub(super) fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// Outside tests it makes none.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the same signature as in tests")]
    pub(super) const fn broken(&self) -> Option<Broken> {
        None
    }

    /// Whether this machine makes the mistake.
    pub(super) fn is_broken(&self, how: Broken) -> bool {
        self.broken() == Some(how)
    }
}
