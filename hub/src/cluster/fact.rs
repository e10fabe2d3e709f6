//! What nodes tell each other.

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, GrantName, Seq, SessionId, UserId};
use serde::{Deserialize, Serialize};

/// One thing that other nodes may want to know. Idempotent, and never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// A user's seq rose: read the user.
    Moved {
        /// Who.
        user: UserId,
        /// To what.
        seq: Seq,
    },
    /// An election found no candidate: a node that has one is wanted.
    Wanted {
        /// Whose grant.
        user: UserId,
        /// Which.
        grant: GrantName,
    },
    /// A device was revoked.
    Revoked {
        /// Which.
        device: DeviceId,
        /// Whose, if the node that tells it knows: then nobody needs the store to close its sessions.
        #[serde(default)]
        user: Option<UserId>,
        /// When.
        at: Unix,
    },
    /// A device connected: an older session of it, elsewhere, is replaced.
    Arrived {
        /// Whose device.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// The new session.
        session: SessionId,
        /// When it began, by the store's clock.
        at: Unix,
    },
    /// The node is alive.
    Alive,
    /// The node goes away: do not wait for it.
    Leaving,
}

/// What comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Another node's fact.
    Fact(Fact),
    /// Facts may have been lost: look at everything that is connected here.
    Gap,
}
