//! What a grant's machine is told.

use std::time::Duration;

use lockstep_protocol::{DeviceId, LeaseId, Secret, SessionId, Version, frame::PublishedToken};

use crate::{
    record::{GrantRecord, TokenSet},
    time::Mono,
};

/// Somebody who waits for an answer: one request of a session, of an HTTP call, of an operator. Unique in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// Everything that may happen to a grant.
#[derive(Debug, Clone)]
pub enum Input {
    /// The answer to [`super::Command::Load`]: the record as the store has it.
    Read(Result<Option<Box<GrantRecord>>, Trouble>),
    /// The record as the store had it when it was read for another reason: after another node's fact, or by the sweep.
    Seen(Box<GrantRecord>),
    /// Somebody wants a newer version.
    Ask(Ask),
    /// A waiter is gone. Whatever was started for it goes on.
    Left(WaiterId),
    /// The answer to [`super::Command::AskPermit`].
    Permit(PermitAnswer),
    /// The scheduler claimed the grant in a batch, permit in hand, for [`crate::record::Purpose::Redeem`].
    ClaimedAhead {
        /// The record as it is now, claim included.
        record: Box<GrantRecord>,
        /// When the scheduler asked for the claim: the lease is counted from here.
        asked: Mono,
    },
    /// The answer to [`super::Command::Claim`].
    Claimed {
        /// The lease asked for.
        lease: LeaseId,
        /// What came of it.
        answer: ClaimAnswer,
    },
    /// The answer to [`super::Command::Renew`].
    Renewed {
        /// The lease.
        lease: LeaseId,
        /// Whether the claim still stands.
        held: Result<bool, Trouble>,
    },
    /// The answer to [`super::Command::HandOut`]: the hand-over is durable (or not).
    HandedOut {
        /// The lease.
        lease: LeaseId,
        /// Whether the claim still stands and now names the device.
        held: Result<bool, Trouble>,
    },
    /// The answer to [`super::Command::Redeem`].
    Redeemed {
        /// The lease it was made under.
        lease: LeaseId,
        /// What came of it.
        reply: ProviderReply,
    },
    /// The answer to [`super::Command::Commit`].
    Committed {
        /// The lease, for a redeem's result; none for a login.
        lease: Option<LeaseId>,
        /// What came of it.
        answer: CommitAnswer,
    },
    /// The answer to [`super::Command::KeepAlternate`].
    AlternateKept {
        /// The lease.
        lease: LeaseId,
        /// Whether the store did as told; that the version moved, or that there is an alternate, is no trouble.
        answer: Result<(), Trouble>,
    },
    /// The answer to [`super::Command::Spool`].
    Spooled {
        /// The lease.
        lease: LeaseId,
        /// Whether it is durable on this node.
        durable: bool,
    },
    /// A result found in this node's spool after a restart.
    FromSpool {
        /// The lease it was redeemed under.
        lease: LeaseId,
        /// The version that was redeemed.
        from_version: Version,
        /// What the provider answered.
        tokens: Box<TokenSet>,
    },
    /// The answer to [`super::Command::Settle`]: the record as it is now.
    Settled {
        /// The lease.
        lease: LeaseId,
        /// The record as it is now, whether or not the claim still stood.
        answer: Result<Option<Box<GrantRecord>>, Trouble>,
    },
    /// A login.
    Login {
        /// Who waits for the answer.
        waiter: WaiterId,
        /// What was brought.
        login: Box<Login>,
    },
    /// The grant is to be deleted.
    Delete {
        /// Who waits for the answer.
        waiter: WaiterId,
    },
    /// The answer to [`super::Command::Delete`]: the tombstone.
    Deleted(Result<Option<Box<GrantRecord>>, Trouble>),
    /// The answer to [`super::Command::AskCandidates`].
    Candidates {
        /// Those connected to this node.
        here: Vec<Candidate>,
        /// Whether other nodes are alive, which may have some.
        others: bool,
    },
    /// A device said `accept`.
    Accept {
        /// Which device.
        device: DeviceId,
        /// Its session.
        session: SessionId,
        /// The lease it named.
        lease: LeaseId,
    },
    /// A device said `renew`.
    Renew {
        /// Which device.
        device: DeviceId,
        /// The session to answer.
        session: SessionId,
        /// The lease it named.
        lease: LeaseId,
    },
    /// A device said `publish`.
    Publish {
        /// Who waits for the answer.
        waiter: WaiterId,
        /// Which device.
        device: DeviceId,
        /// The lease it named.
        lease: LeaseId,
        /// The version it redeemed.
        from_version: Version,
        /// What the provider answered.
        token: Box<PublishedToken>,
    },
    /// A device said `failed`.
    Failed {
        /// Who waits for the answer.
        waiter: WaiterId,
        /// Which device.
        device: DeviceId,
        /// The lease it named.
        lease: LeaseId,
        /// What came of the redeem.
        reply: ProviderReply,
    },
    /// A session of a device of this user ended.
    SessionLeft(SessionId),
    /// The node goes away: what is under way is brought to its end, and no further try is waited for.
    Leave,
    /// The earliest timer is due.
    Tick,
}

/// Somebody wants a newer version.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Who waits for the answer; none: nobody does.
    pub waiter: Option<WaiterId>,
    /// On whose behalf.
    pub by: Asker,
    /// The version that will not do. None: whatever is newest.
    pub rejected: Option<Version>,
}

/// On whose behalf a redeem is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asker {
    /// A device whose token was rejected or expired: evidence, and limited.
    Device {
        /// Which device.
        device: DeviceId,
        /// Whether it acked the version that it reports.
        acked: bool,
        /// How many of the user's devices are connected now.
        connected: usize,
    },
    /// A reader that needs more validity than is left (`min_validity`, the drop-in endpoint). By the hub's own clock,
    /// hence no evidence against the token.
    Reader,
    /// The scheduler, ahead of expiry.
    Scheduler,
    /// An operator's command: not limited.
    Operator,
    /// Another node that has no candidate for an election ([`super::Command::Wanted`]): only of use if this one has.
    Node,
}

/// A limiter's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermitAnswer {
    /// Go on. To be given back with [`super::Command::ReturnPermit`].
    Granted,
    /// Not before this time has passed.
    After(Duration),
    /// Nothing may be redeemed now, for a reason that is not the provider's.
    Refused {
        /// Why, in words for people.
        why: String,
        /// How long to leave it.
        again: Duration,
    },
}

/// What came of a claim.
#[derive(Debug, Clone)]
pub enum ClaimAnswer {
    /// The claim stands; the record as it is now, claim included.
    Won(Box<GrantRecord>),
    /// Another claim stands, or the version moved: the record as it is now.
    Lost(Box<GrantRecord>),
    /// No such grant.
    Gone,
    /// The store could not.
    Trouble(Trouble),
}

/// What came of a commit.
#[derive(Debug, Clone)]
pub enum CommitAnswer {
    /// Committed, durable; the record as it is now.
    Done(Box<GrantRecord>),
    /// The version moved; the record as it is now (none: deleted for good).
    Superseded(Option<Box<GrantRecord>>),
    /// A login with a refresh token that was retired before.
    Retired,
    /// The store could not.
    Trouble(Trouble),
}

/// Why a store did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It certainly did nothing.
    #[error("store unavailable: {0}")]
    Refused(String),
    /// It may or may not have done it: read again before anything else.
    #[error("store answer lost: {0}")]
    Unknown(String),
}

/// What was seen of a redeem, before any judgement.
#[derive(Debug, Clone)]
pub enum ProviderReply {
    /// Nothing left this machine: connection refused, DNS, TLS, past `send_within`, a bad setting.
    NotSent(String),
    /// The request may have arrived, and no whole answer came: time-out, connection lost.
    Lost(String),
    /// An HTTP answer.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The `Retry-After` header (RFC 9110 section 10.2.3), as a span.
        retry_after: Option<Duration>,
        /// The body, at most 64 KiB of it; may be empty, HTML, or not text.
        body: Secret,
    },
}

/// What a login brings.
#[derive(Debug, Clone)]
pub struct Login {
    /// The token set. At least one of its tokens is there.
    pub tokens: TokenSet,
}

/// A connected device that may redeem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The device.
    pub device: DeviceId,
    /// Its session.
    pub session: SessionId,
    /// When it was last active, if ever in this session; `now` while it is `active`.
    pub last_active: Option<Mono>,
    /// Its weight: by kind, lowered by the device if it wished.
    pub priority: u8,
}
