//! Everything that a grant's machine may order.

use std::time::Duration;

use lockstep_protocol::{Code, DeviceId, LeaseId, Secret, Seq, SessionId, Version, frame::Cause};

use super::WaiterId;
use crate::{
    record::{Doubt, GrantRecord, Health, Purpose, TokenSet},
    time::Unix,
};

/// One order to the shell. The shell executes them in order and reports back by the input that each names.
#[derive(Debug, Clone)]
pub enum Command {
    /// Read the record → [`super::Input::Read`].
    Load,
    /// Ask the provider's limiter → [`super::Input::Permit`].
    AskPermit,
    /// Give the permit back.
    ReturnPermit,
    /// Write a claim: one conditional write, durable → [`super::Input::Claimed`].
    Claim {
        /// The lease to take.
        lease: LeaseId,
        /// Only if this is the newest version.
        from_version: Version,
        /// Only if no claim stands, or this one does. The store itself sees to it that a claim of another node is only
        /// replaced once it has lapsed by the store's clock; one of this node (any incarnation) may be at any time.
        over: Option<LeaseId>,
        /// Only if no claim and no verdict was written since the record with this fence was read: what to do was judged
        /// on that, its doubt included.
        fence: u64,
        /// How long it stands.
        ttl: Duration,
        /// What for.
        purpose: Purpose,
        /// Whether it is for an election (see [`crate::record::Claim::for_device`]).
        for_device: bool,
        /// The record's doubt from now on (that of a claim without outcome which this one replaces included).
        doubt: Option<Doubt>,
    },
    /// Make the claim stand longer → [`super::Input::Renewed`].
    Renew {
        /// The lease.
        lease: LeaseId,
        /// How long from now.
        ttl: Duration,
    },
    /// Write into the claim that the refresh token is handed to a device → [`super::Input::HandedOut`].
    HandOut {
        /// The lease.
        lease: LeaseId,
        /// To whom.
        device: DeviceId,
    },
    /// Send the refresh token to the provider, once → [`super::Input::Redeemed`].
    Redeem {
        /// The lease.
        lease: LeaseId,
        /// The refresh token.
        refresh_token: Secret,
        /// The scope to ask for.
        scope: Option<String>,
        /// If the request has not left within this span from the time of this command, it must not leave.
        send_within: Duration,
        /// Stop waiting after this span.
        deadline: Duration,
    },
    /// Commit a token set → [`super::Input::Committed`].
    Commit(Box<CommitRequest>),
    /// Keep the result of a second successful redeem, sealed, as the alternate of the current version, unless there is one
    /// → [`super::Input::AlternateKept`].
    KeepAlternate {
        /// The lease of that redeem.
        lease: LeaseId,
        /// What the provider answered.
        tokens: Box<TokenSet>,
        /// The version that was redeemed twice; kept only while its successor is current.
        from_version: Version,
    },
    /// Write a result into the node's spool, sealed and fsynced → [`super::Input::Spooled`].
    Spool {
        /// The lease.
        lease: LeaseId,
        /// The version that was redeemed.
        from_version: Version,
        /// What the provider answered.
        tokens: Box<TokenSet>,
    },
    /// The spooled result is committed, superseded or kept elsewhere: remove it.
    Unspool {
        /// The lease.
        lease: LeaseId,
    },
    /// End the claim with a verdict → [`super::Input::Settled`].
    Settle {
        /// The lease. The verdict counts only if its claim stands (or no claim does) and the version has not moved; the
        /// claim of another node only counts as this one's to end once it has lapsed by the store's clock.
        lease: LeaseId,
        /// The version it is about.
        version: Version,
        /// Only if no claim and no verdict was written since the record with this fence was read. So a verdict that is
        /// written late undoes nothing.
        fence: u64,
        /// What is now known.
        verdict: Box<Verdict>,
    },
    /// Make it a tombstone → [`super::Input::Deleted`].
    Delete,
    /// Tell the connected devices that may redeem → [`super::Input::Candidates`].
    AskCandidates,
    /// Tell the other nodes that a node with candidates is wanted; there it becomes an [`super::Ask`] by
    /// [`super::Asker::Node`]. No answer.
    Wanted,
    /// Send `elected` to a session.
    Elect {
        /// Whom.
        session: SessionId,
        /// The lease on offer.
        lease: LeaseId,
        /// When it lapses.
        expires_in: Duration,
        /// How often to renew.
        renew_every: Duration,
        /// The version to redeem.
        from_version: Version,
    },
    /// Send `redeem` to a session: the refresh token leaves the hub.
    Hand {
        /// Whom.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
        /// The version to redeem.
        from_version: Version,
        /// The refresh token.
        refresh_token: Secret,
        /// The scope to ask for.
        scope: Option<String>,
        /// The request must leave within this span.
        send_within: Duration,
        /// Stop waiting after this span.
        deadline: Duration,
    },
    /// Send `lease` to a session.
    Extended {
        /// Whom.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
        /// When it lapses.
        expires_in: Duration,
    },
    /// Send `error` to a session whose `accept` or `renew` cannot be granted.
    Refuse {
        /// Whom.
        session: SessionId,
        /// The lease that it named.
        lease: LeaseId,
        /// The word for it.
        code: Code,
    },
    /// The record changed: make it what devices see, and wake the user's sessions. Idempotent, newest seq wins.
    Push(Box<GrantRecord>),
    /// The change of this seq is not shown: devices hold something better until the next one. Nothing waits for it.
    Unshown(Seq),
    /// Tell all sessions a passing word, with the record's current seq.
    Announce(Passing),
    /// Answer a waiter, once.
    Answer {
        /// Who.
        waiter: WaiterId,
        /// What.
        reply: Reply,
    },
    /// Count and log something.
    Note(super::Note),
}

/// A commit: one conditional write. Stands if `from_version` is the newest, whoever holds a claim. Upon a tombstone only a
/// login stands (late results are refused). It ends any claim, doubt, health other than ok, and alternate; `leases` become
/// `former_leases`.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// The lease of the redeem; none for a login.
    pub lease: Option<LeaseId>,
    /// The version that this one follows; 0 makes the grant.
    pub from_version: Version,
    /// The new token set.
    pub tokens: TokenSet,
    /// Where it came from.
    pub cause: Cause,
    /// When the provider issued it.
    pub refreshed_at: Unix,
    /// When the scheduler is to redeem next.
    pub due_at: Option<Unix>,
    /// The refresh token that is used up now, to be remembered by hash.
    pub retire: Option<Secret>,
    /// Refuse with [`super::CommitAnswer::Retired`] if this refresh token was retired before.
    pub unless_retired: Option<Secret>,
    /// The new value of the record's count of successive rejections.
    pub rejected_in_a_row: u32,
}

/// What is known once a claim ends without a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether devices are to see it: then the user's seq rises. (That a redeem ahead of expiry has to wait is no news to
    /// devices with a good token.)
    pub tell: bool,
    /// The health from now on.
    pub health: Health,
    /// Why, in words for people.
    pub reason: Option<String>,
    /// When to expect better.
    pub retry_at: Option<Unix>,
    /// When the scheduler is to try next.
    pub due_at: Option<Unix>,
    /// Doubt from now on.
    pub doubt: Option<Doubt>,
    /// Whether the alternate is used up.
    pub drop_alternate: bool,
}

/// A passing word: neither durable nor acked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passing {
    /// The device that redeems; none: the hub.
    pub refreshing_by: Option<DeviceId>,
    /// When it ends by itself.
    pub lease_expires_in: Duration,
}

/// The one answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The newest version now; newer than the rejected one, or just published, or just logged in.
    Done(Version),
    /// The grant was deleted.
    Deleted,
    /// A login with a refresh token that was used up before: HTTP 409.
    Retired,
    /// It failed.
    Failed {
        /// The word for it.
        code: Code,
        /// For people; never a secret.
        message: String,
        /// When to ask again.
        retry_at: Option<Unix>,
    },
}

impl Reply {
    /// A failure without a better time to ask.
    pub(super) fn failed(code: Code, message: impl Into<String>) -> Self {
        Self::Failed {
            code,
            message: message.into(),
            retry_at: None,
        }
    }

    /// A failure, and when to ask again.
    pub(super) fn failed_until(code: Code, message: impl Into<String>, retry_at: Unix) -> Self {
        Self::Failed {
            code,
            message: message.into(),
            retry_at: Some(retry_at),
        }
    }
}
