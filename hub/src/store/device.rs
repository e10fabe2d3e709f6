//! Rows about devices.

use std::{fmt, str::FromStr};

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, GrantName, Seq, UserId};
use serde::{Deserialize, Serialize};

use super::Hash;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A desktop application.
    Desktop,
    /// A browser.
    Web,
    /// A command line.
    Cli,
    /// A phone or tablet.
    Mobile,
    /// A server or container.
    Server,
    /// Anything small.
    Iot,
}

impl DeviceKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Desktop,
        Self::Web,
        Self::Cli,
        Self::Mobile,
        Self::Server,
        Self::Iot,
    ];

    /// The word on the wire and in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Web => "web",
            Self::Cli => "cli",
            Self::Mobile => "mobile",
            Self::Server => "server",
            Self::Iot => "iot",
        }
    }

    /// The weight in elections, unless configured: desktop > web > cli > server > mobile > iot.
    pub const fn priority(self) -> u8 {
        match self {
            Self::Desktop => 60,
            Self::Web => 50,
            Self::Cli => 40,
            Self::Server => 30,
            Self::Mobile => 20,
            Self::Iot => 10,
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no kind of device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of device: one of desktop, web, cli, mobile, server, iot")]
pub struct UnknownKind;

impl FromStr for DeviceKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(UnknownKind)
    }
}

/// An enrolled device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Whose.
    pub user: UserId,
    /// What it is.
    pub kind: DeviceKind,
    /// What people call it.
    pub name: String,
    /// Whether it may redeem.
    pub redeemer: bool,
    /// Whether it may offer a fresh login.
    pub may_offer: bool,
    /// Its weight in elections, if not that of its kind.
    pub priority: Option<u8>,
    /// When it was enrolled.
    pub enrolled_at: Unix,
    /// The generation of its newest refresh token; the first is 1.
    pub generation: u64,
    /// Hash of its newest refresh token.
    pub newest: Hash,
    /// Hash of the one before.
    pub parent: Option<Hash>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Unix>,
    /// When it was last seen.
    pub last_seen: Option<Unix>,
    /// The highest seq that it acked.
    pub acked: Seq,
}

/// What was seen of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub device: DeviceId,
    /// When.
    pub at: Unix,
    /// The highest seq that it acked.
    pub acked: Seq,
}

/// A slave refresh token: one device's claim on one grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slave {
    /// Whose.
    pub user: UserId,
    /// Which device holds it.
    pub device: DeviceId,
    /// For which grant.
    pub grant: GrantName,
    /// When it was made.
    pub made_at: Unix,
}
