//! What a device says of itself, for people and for scripts. A token is never shown, only what it can be told by.

use std::{fmt::Write as _, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use lockstep_client::{
    Cause, DeviceId, Event, GrantName, GrantState, GrantStatus, Health, RedeemStep, Secret, Stopped, TokenLease,
    Version,
};
use serde::Serialize;

/// How many bytes of a token's hash are shown.
const FINGERPRINT: usize = 4;

/// Tells two tokens apart without giving either away.
pub fn fingerprint(token: &Secret) -> String {
    let hash = digest(&SHA256, token.expose().as_bytes());
    let mut text = String::with_capacity(FINGERPRINT * 2);
    for byte in hash.as_ref().iter().take(FINGERPRINT) {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the library's events")]
pub enum Said {
    /// The program runs.
    Started {
        device: DeviceId,
        hub: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        device_file: Option<String>,
        /// Whether the device came to be just now.
        enrolled: bool,
    },
    /// An attempt to connect begins.
    Connecting { transport: &'static str },
    /// The hub answered.
    Connected {
        transport: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// The newest of everything is held.
    Synced { transport: &'static str, grants: usize },
    /// The connection ended, or there is none.
    Disconnected {
        transport: &'static str,
        reason: String,
        retry_in_ms: u128,
    },
    /// Another transport is in use.
    Transport {
        from: &'static str,
        to: &'static str,
        reason: String,
    },
    /// A good token.
    Token {
        grant: GrantName,
        version: Version,
        #[serde(flatten)]
        token: Held,
    },
    /// Something is the matter with a grant, or under way.
    Status {
        grant: GrantName,
        version: Version,
        health: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        refreshing_by: Option<DeviceId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_at: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        login_url: Option<String>,
        /// The token that may still be used.
        #[serde(flatten)]
        token: Option<Held>,
    },
    /// The user does not have this grant any more.
    Gone { grant: GrantName },
    /// The user has no such grant, as far as the hub knows.
    Missing { grant: GrantName },
    /// This device's part in a redeem.
    Redeem {
        grant: GrantName,
        from_version: Version,
        #[serde(flatten)]
        step: Step,
    },
    /// The device slept, or its clock was set.
    Woke { gap_ms: u128 },
    /// The disk does not do its part.
    CacheTrouble { reason: String },
    /// The end.
    Stopped { code: u16, reason: String },
}

/// How far a redeem is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the library's events")]
pub enum Step {
    /// The hub asked, and this device said yes.
    Elected,
    /// The hub asked, and this device said no.
    Declined { reason: String },
    /// The provider is being asked.
    Redeeming,
    /// The result is sealed on disk.
    Sealed,
    /// The hub is being told.
    Publishing,
    /// The hub has it.
    Published { version: Version },
    /// There is no result.
    Failed { sent: bool, reason: String },
    /// The hub does not want it.
    Refused { reason: String },
}

/// A token, by what it can be told by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The beginning of its hash.
    pub fingerprint: String,
    /// When it expires, by the hub's clock.
    pub expires_at: Option<u64>,
    /// Seconds that are left.
    pub expires_in: Option<u64>,
    /// Where it came from: `login` or `refresh`.
    pub cause: &'static str,
}

/// What makes two states of a grant the same for people: not how much time is left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Key {
    version: Option<Version>,
    health: Option<Health>,
    fingerprint: Option<String>,
    status: Option<(Option<DeviceId>, Option<String>, Option<u64>)>,
}

impl Key {
    pub(super) fn of(state: &GrantState) -> Self {
        Self {
            version: state.version(),
            health: state.health(),
            fingerprint: state.token().map(|lease| fingerprint(&lease.access_token)),
            status: match state {
                GrantState::Status(status) => Some((
                    status.refreshing_by,
                    status.reason.clone(),
                    status.retry_at.map(|at| at.0),
                )),
                GrantState::Unknown | GrantState::Token(_) => None,
            },
        }
    }
}

impl Held {
    fn of(lease: &TokenLease) -> Self {
        Self {
            fingerprint: fingerprint(&lease.access_token),
            expires_at: lease.expires_at.map(|at| at.0),
            expires_in: lease.remaining().as_ref().map(Duration::as_secs),
            cause: match lease.cause {
                Cause::Login => "login",
                Cause::Refresh => "refresh",
            },
        }
    }
}

impl Said {
    /// What is to be said of an event; nothing of those that say themselves by what they change.
    pub fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Connecting { transport } => Self::Connecting {
                transport: transport.as_str(),
            },
            Event::Connected { transport, session } => Self::Connected {
                transport: transport.as_str(),
                session: session.map(|session| session.to_string()),
            },
            Event::Disconnected {
                transport,
                reason,
                retry_in,
            } => Self::Disconnected {
                transport: transport.as_str(),
                reason: reason.clone(),
                retry_in_ms: retry_in.as_millis(),
            },
            Event::TransportChanged { from, to, reason } => Self::Transport {
                from: from.as_str(),
                to: to.as_str(),
                reason: reason.clone(),
            },
            Event::Redeem {
                grant,
                from_version,
                step,
            } => Self::Redeem {
                grant: grant.clone(),
                from_version: *from_version,
                step: Step::of(step)?,
            },
            Event::Woke { gap } => Self::Woke {
                gap_ms: gap.as_millis(),
            },
            Event::CacheTrouble { reason } => Self::CacheTrouble { reason: reason.clone() },
            Event::Stopped(why) => Self::stopped(why),
            _ => return None,
        })
    }

    /// The end.
    pub fn stopped(why: &Stopped) -> Self {
        Self::Stopped {
            code: why.code(),
            reason: why.to_string(),
        }
    }

    /// What is held of a grant.
    pub fn state(grant: &GrantName, state: &GrantState) -> Self {
        let grant = grant.clone();
        match state {
            GrantState::Unknown => Self::Gone { grant },
            GrantState::Token(lease) => Self::Token {
                grant,
                version: lease.version,
                token: Held::of(lease),
            },
            GrantState::Status(status) if status.health == Health::Deleted => Self::Gone { grant },
            GrantState::Status(status) => Self::status(grant, status),
        }
    }

    fn status(grant: GrantName, status: &GrantStatus) -> Self {
        Self::Status {
            grant,
            version: status.version,
            health: match status.health {
                Health::Ok => "ok",
                Health::Refreshing => "refreshing",
                Health::Suspect => "suspect",
                Health::ReauthRequired => "reauth_required",
                Health::Deleted => "deleted",
            },
            refreshing_by: status.refreshing_by,
            reason: status.reason.clone(),
            retry_at: status.retry_at.map(|at| at.0),
            login_url: status.login_url.clone(),
            token: status.token.as_ref().map(Held::of),
        }
    }
}

impl Step {
    fn of(step: &RedeemStep) -> Option<Self> {
        Some(match step {
            RedeemStep::Elected => Self::Elected,
            RedeemStep::Declined { reason } => Self::Declined { reason: reason.clone() },
            RedeemStep::Redeeming => Self::Redeeming,
            RedeemStep::Sealed => Self::Sealed,
            RedeemStep::Publishing => Self::Publishing,
            RedeemStep::Published { version } => Self::Published { version: *version },
            RedeemStep::Failed { sent, reason } => Self::Failed {
                sent: *sent,
                reason: reason.clone(),
            },
            RedeemStep::Refused { reason } => Self::Refused { reason: reason.clone() },
            _ => return None,
        })
    }
}
