//! What happens to the connection, for logs and status lines.

use std::{fmt, time::Duration};

use lockstep_protocol::{GrantName, SessionId, Version};

use crate::error::Stopped;

/// How a client talks to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// WebSocket: pushes arrive at once.
    Ws,
    /// Long-poll, for networks that block WebSocket.
    Poll,
}

impl Transport {
    /// `ws` or `poll`, as the admin API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Poll => "poll",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which transports a client may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TransportChoice {
    /// WebSocket where it works, long-poll where it does not.
    #[default]
    Auto,
    /// WebSocket only.
    Ws,
    /// Long-poll only.
    Poll,
}

/// A change of the connection. Events are for people and logs: a receiver that lags misses some.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An attempt to connect begins.
    Connecting {
        /// By which transport.
        transport: Transport,
    },
    /// The hub answered; what changed since is on its way.
    Connected {
        /// By which transport.
        transport: Transport,
        /// The session, on a WebSocket.
        session: Option<SessionId>,
    },
    /// The client holds the newest of everything.
    Synced {
        /// By which transport.
        transport: Transport,
    },
    /// The connection ended or could not be made.
    Disconnected {
        /// Of which transport.
        transport: Transport,
        /// Why, in words for people.
        reason: String,
        /// When the next attempt is due.
        retry_in: Duration,
    },
    /// Another transport carries the updates from now on. Nothing is lost in between.
    TransportChanged {
        /// The one before.
        from: Transport,
        /// The new one.
        to: Transport,
        /// Why, in words for people.
        reason: String,
    },
    /// What is held of a grant changed: [`Client::state`](crate::Client::state) tells.
    Changed {
        /// The grant.
        grant: GrantName,
    },
    /// This device's part in a redeem went a step further.
    Redeem {
        /// The grant.
        grant: GrantName,
        /// The version whose refresh token is redeemed.
        from_version: Version,
        /// How far it is.
        step: RedeemStep,
    },
    /// The device slept or its clock was set: everything is checked at once.
    Woke {
        /// How long it slept, or by how much the clock jumped.
        gap: Duration,
    },
    /// The disk cache could not be read or written; the client goes on without.
    CacheTrouble {
        /// Why, in words for people.
        reason: String,
    },
    /// The client stopped for good.
    Stopped(Stopped),
}

/// How far a device-side redeem is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedeemStep {
    /// The hub asked this device, which accepted.
    Elected,
    /// The hub asked this device, which declined.
    Declined {
        /// Why, in words for people.
        reason: String,
    },
    /// The refresh token came; the provider is being asked.
    Redeeming,
    /// The provider issued a token set; it is sealed on disk until the hub has it.
    Sealed,
    /// The hub is being told, for the first time or again.
    Publishing,
    /// The hub has committed it.
    Published {
        /// The version that it became, or the newer one that stands.
        version: Version,
    },
    /// The provider issued nothing, or nobody knows.
    Failed {
        /// Whether the refresh token may have left.
        sent: bool,
        /// Why, in words for people.
        reason: String,
    },
    /// The hub does not want the result.
    Refused {
        /// Why, in words for people.
        reason: String,
    },
}

/// How the connection is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The transport that carries the updates, or will.
    pub transport: Transport,
    /// Whether the client holds the newest of everything, as far as it can know.
    pub synced: bool,
    /// Set once the client has stopped for good.
    pub stopped: Option<Stopped>,
}
