//! What identity is told by the configuration.

use std::{collections::HashMap, time::Duration};

use super::ExternalSettings;
use crate::store::DeviceKind;

/// The hub's name for itself in tokens and metadata (RFC 8414 section 2: `issuer`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// A public URL was configured, the same on all nodes: only tokens with exactly this issuer are good.
    Public(String),
    /// None was. Nodes then name themselves by the address they listen on, and take each other's tokens: the shared key
    /// alone tells that a node of this hub signed it.
    Listening(String),
}

impl Issuer {
    /// The URL that this node signs with; no slash at the end.
    pub fn url(&self) -> &str {
        match self {
            Self::Public(url) | Self::Listening(url) => url.trim_end_matches('/'),
        }
    }

    pub(super) fn accepts(&self, issuer: &str) -> bool {
        match self {
            Self::Public(_) => issuer == self.url(),
            Self::Listening(_) => !issuer.is_empty(),
        }
    }
}

/// What identity is told by the configuration.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// `iss`.
    pub issuer: Issuer,
    /// `aud`.
    pub audience: String,
    /// How long a device access token lives. Revocations are held in memory as long.
    pub access_ttl: Duration,
    /// How far clocks of two nodes may be apart: added to `exp`, and allowed for `iat` in the future.
    pub clock_skew: Duration,
    /// Weights in elections that differ from [`DeviceKind::priority`].
    pub kind_priority: HashMap<DeviceKind, u8>,
    /// How long the codes of the device flow are good.
    pub code_ttl: Duration,
    /// How long a device is to wait between two asks whether its code is approved.
    pub code_interval: Duration,
    /// How many codes one address may ask for in a minute, and how often it may guess wrong; zero: no limit.
    pub codes_per_minute: u32,
    /// Whether a device may approve another one of its user.
    pub devices_approve: bool,
    /// An identity provider whose tokens count too.
    pub external: Option<ExternalSettings>,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            issuer: Issuer::Listening("http://127.0.0.1:8787".into()),
            audience: "lockstep".into(),
            access_ttl: Duration::from_secs(15 * 60),
            clock_skew: Duration::from_secs(30),
            kind_priority: HashMap::new(),
            code_ttl: Duration::from_secs(10 * 60),
            code_interval: Duration::from_secs(5),
            codes_per_minute: 30,
            devices_approve: true,
            external: None,
        }
    }
}

impl IdentitySettings {
    /// The weight in elections of a device of this kind that has none of its own.
    pub fn priority_of(&self, kind: DeviceKind) -> u8 {
        self.kind_priority.get(&kind).copied().unwrap_or(kind.priority())
    }

    /// How long ago a revocation may be while a token of the device may still be within its lifetime.
    pub(super) fn revocation_window(&self) -> Duration {
        self.access_ttl + self.clock_skew * 2
    }
}
