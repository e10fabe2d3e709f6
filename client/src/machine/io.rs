//! What the machine is told, and what it wants done.

use std::time::Duration;

use lockstep_protocol::{
    ClientFrame, Code, Cursor, GrantName, HubFrame, RequestId, Secret, UnixSeconds, Version,
    frame::{PresenceState, Token},
    http::PollAnswer,
};

use super::{persist::Snapshot, redeem};
use crate::{
    error::Error,
    event::{Connection, Event},
    state::{GrantState, TokenLease},
};

/// One WebSocket, from the attempt to its end. Unique in a client, so that a late word of an old one is known as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub u64);

/// One long-poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PollId(pub u64);

/// One caller that waits for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaiterId(pub u64);

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A token that is good for at least this long.
    Validity(Duration),
    /// A token of a version above this one.
    Newer(Version),
}

/// Everything that may happen to a client.
#[derive(Debug)]
pub(crate) enum Input {
    /// The earliest deadline is due.
    Tick,
    /// The answer to [`Command::Buy`].
    Access(Result<Bought, NoAccess>),
    /// The WebSocket of [`Command::Open`] is open.
    Opened(LinkId),
    /// It could not be opened.
    NotOpened(LinkId, NotOpened),
    /// A frame came.
    Frame(LinkId, Box<HubFrame>),
    /// Anything else came: a ping, a pong, a frame of a kind unknown to this version.
    Heard(LinkId),
    /// The WebSocket ended, with a close code if the other side sent one.
    Ended(LinkId, Option<u16>),
    /// The answer to [`Command::Poll`]; nothing new: `None`.
    Polled(PollId, Result<Option<Box<PollAnswer>>, HttpTrouble>),
    /// The answer to [`Command::PostRefresh`].
    Refreshed(RequestId, Result<Version, HttpTrouble>),
    /// The answer to [`Command::Fetch`].
    Fetched(RequestId, Result<Box<Token>, HttpTrouble>),
    /// The answer to [`Command::Persist`].
    Persisted {
        /// The one of the command.
        mark: u64,
        /// Whether it is on disk.
        kept: Result<(), String>,
    },
    /// A caller wants a token.
    Ask {
        /// Who.
        waiter: WaiterId,
        /// Of which grant.
        grant: GrantName,
        /// What kind.
        need: Need,
        /// How long the caller waits.
        patience: Duration,
    },
    /// A resource server refused this version.
    Rejected(GrantName, Version),
    /// Somebody is (not) using the device.
    Presence(PresenceState),
    /// The application knows that the network changed.
    Resync,
    /// The application is done.
    Close,
    /// What came of a step of a device-side redeem.
    Redeem(redeem::Input),
}

/// A device access token.
#[derive(Debug, Clone)]
pub(crate) struct Bought {
    pub(crate) token: Secret,
    /// How long it is good; none: nobody said.
    pub(crate) good_for: Option<Duration>,
}

/// Why there is no device access token.
#[derive(Debug, Clone)]
pub(crate) enum NoAccess {
    /// For the moment.
    Later {
        reason: String,
        retry_after: Option<Duration>,
    },
    /// The credential is no good.
    Refused(String),
    /// The token is fixed, and there is no other.
    Fixed,
}

/// Why a WebSocket could not be opened. What matters is whether anything on the way dislikes WebSockets.
#[derive(Debug, Clone)]
pub(crate) enum NotOpened {
    /// The other end was not reached at all: this says nothing about WebSockets.
    Unreachable(String),
    /// An HTTP answer instead of the upgrade.
    Status { status: u16, retry_after: Option<Duration> },
    /// Reached, and then cut, silent or garbled; or a proxy that refused the tunnel.
    Broken(String),
}

/// Why an HTTP request brought no answer that can be used.
#[derive(Debug, Clone)]
pub(crate) enum HttpTrouble {
    /// The other end was not reached.
    Unreachable(String),
    /// The connection broke, or timed out, after the request was sent.
    Broken(String),
    /// An error status.
    Status {
        status: u16,
        retry_after: Option<Duration>,
        /// The problem document, when the answer is the hub's own.
        problem: Option<Refusal>,
    },
}

/// The hub said no.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) retry_at: Option<UnixSeconds>,
}

/// Everything that a client may do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Get a device access token.
    Buy {
        /// The one that was refused, if any: the answer must be another.
        refused: Option<Secret>,
    },
    /// Open a WebSocket.
    Open(LinkId),
    /// Send a frame.
    Send(LinkId, Box<ClientFrame>),
    /// Close a WebSocket; nothing that it still says counts.
    Shut(LinkId, u16),
    /// `GET /v1/tokens`.
    Poll {
        poll: PollId,
        token: Secret,
        after: Option<Cursor>,
        wait: Duration,
    },
    /// Forget the running poll.
    StopPoll,
    /// `POST /v1/grants/…/refresh`.
    PostRefresh {
        id: RequestId,
        token: Secret,
        grant: GrantName,
        version: Version,
    },
    /// `GET /v1/grants/…/token`.
    Fetch {
        id: RequestId,
        token: Secret,
        grant: GrantName,
        min_validity: Duration,
    },
    /// Show applications the new state of a grant.
    Show(GrantName, GrantState),
    /// Answer a caller.
    Answer(WaiterId, Result<TokenLease, Error>),
    /// Write the cache, and say when it is on disk.
    Persist { mark: u64, snapshot: Box<Snapshot> },
    /// Tell whoever listens.
    Event(Event),
    /// The connection is like this now.
    Connection(Connection),
    /// A step of a device-side redeem.
    Redeem(redeem::Command),
    /// The end. Nothing comes after it.
    Stop,
}
