//! What a client knows of a grant.

use std::time::{Duration, SystemTime};

use lockstep_protocol::{
    DeviceId, GrantName, Secret, UnixSeconds, Version,
    frame::{Cause, Health},
};

use crate::clock::{self, HubClock, Now, Unix};

/// An access token, and until when it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenLease {
    /// The grant.
    pub grant: GrantName,
    /// The token set's version: what [`Client::report_rejected`](crate::Client::report_rejected) takes.
    pub version: Version,
    /// The access token.
    pub access_token: Secret,
    /// How to use it; `Bearer` almost always.
    pub token_type: String,
    /// The scope granted, if known.
    pub scope: Option<String>,
    /// When it expires, by the hub's clock; none when the provider did not say.
    pub expires_at: Option<UnixSeconds>,
    /// When the provider issued it, by the hub's clock.
    pub refreshed_at: UnixSeconds,
    /// Where it came from.
    pub cause: Cause,
    pub(crate) clock: HubClock,
}

impl TokenLease {
    /// How long it is still good, by the hub's clock; zero when it has expired, none when the provider did not say.
    pub fn remaining(&self) -> Option<Duration> {
        self.remaining_at(clock::now())
    }

    /// When it expires, by this device's wall clock as it is now; none when the provider did not say.
    pub fn expires(&self) -> Option<SystemTime> {
        let expires_at = Unix::from_wire(self.expires_at?);
        Some(self.clock.local(clock::now(), expires_at))
    }

    pub(crate) fn remaining_at(&self, now: Now) -> Option<Duration> {
        let expires_at = Unix::from_wire(self.expires_at?);
        Some(expires_at.since(self.clock.at(now)))
    }

    /// Whether it is good for at least `min_validity`, or for half its life if that is less: nobody may ask for a
    /// validity that no token of the grant ever has.
    pub(crate) fn lasts(&self, min_validity: Duration, now: Now) -> bool {
        let Some(remaining) = self.remaining_at(now) else {
            return true;
        };
        let life = self
            .expires_at
            .map_or(0, |expires_at| expires_at.0.saturating_sub(self.refreshed_at.0));
        !remaining.is_zero() && remaining >= min_validity.min(Duration::from_secs(life) / 2)
    }
}

/// The newest that a client knows of a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GrantState {
    /// Nothing: the hub was not heard yet, or has no such grant.
    #[default]
    Unknown,
    /// A good token and nothing to say about it.
    Token(TokenLease),
    /// Something is the matter, or under way.
    Status(GrantStatus),
}

impl GrantState {
    /// The token, if there is one that may still be used.
    pub const fn token(&self) -> Option<&TokenLease> {
        match self {
            Self::Unknown => None,
            Self::Token(lease) => Some(lease),
            Self::Status(status) => status.token.as_ref(),
        }
    }

    /// The newest version known; none when nothing is.
    pub const fn version(&self) -> Option<Version> {
        match self {
            Self::Unknown => None,
            Self::Token(lease) => Some(lease.version),
            Self::Status(status) => Some(status.version),
        }
    }

    /// The grant's health; none when nothing is known.
    pub const fn health(&self) -> Option<Health> {
        match self {
            Self::Unknown => None,
            Self::Token(_) => Some(Health::Ok),
            Self::Status(status) => Some(status.health),
        }
    }
}

/// What is the matter with a grant, why, and when to expect better.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrantStatus {
    /// The newest version.
    pub version: Version,
    /// The state of the grant.
    pub health: Health,
    /// The token held, if it may still be used.
    pub token: Option<TokenLease>,
    /// The device that redeems, when one does.
    pub refreshing_by: Option<DeviceId>,
    /// Why, in words for people.
    pub reason: Option<String>,
    /// When to expect better, by the hub's clock.
    pub retry_at: Option<UnixSeconds>,
    /// Where a person can log in again.
    pub login_url: Option<String>,
}
