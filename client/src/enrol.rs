//! Becoming a device: by the user's approval (RFC 8628), or with what an operator handed over.

use std::{fmt, time::Duration};

use lockstep_protocol::{DeviceId, Secret};
use tokio::time::{Instant, sleep};

use crate::{
    driver::{
        enrol::{self, Asked, Begun},
        net::Net,
    },
    error::Error,
};

/// What `slow_down` adds to the interval (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// The longest pause while the hub cannot be reached.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A device and the token that proves it; to be kept in a [`DeviceFile`](crate::DeviceFile).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enrolled {
    /// The device.
    pub device: DeviceId,
    /// The device refresh token (`lsd_…`). It rotates with each use.
    pub refresh_token: Secret,
}

impl Enrolled {
    /// What an enrolment elsewhere gave.
    pub const fn new(device: DeviceId, refresh_token: Secret) -> Self {
        Self { device, refresh_token }
    }
}

/// Why a device could not be enrolled.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// No answer, or one that is not a hub's. Nothing is lost by asking again.
    #[error("{0}")]
    Unreachable(String),
    /// The hub asks for patience. Nothing is lost by asking again.
    #[error("{reason}")]
    Later {
        /// Why, in words for people.
        reason: String,
        /// When to ask again, if the hub said.
        retry_after: Option<Duration>,
    },
    /// There is nothing at this address that enrols devices.
    #[error("no device login is offered at this address (HTTP {0})")]
    NotOffered(u16),
    /// The user said no.
    #[error("the login was denied")]
    Denied,
    /// Nobody approved in time.
    #[error("the code has expired before anybody approved it")]
    Expired,
    /// The hub does not take the token or the code.
    #[error("{0}")]
    Refused(String),
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] Error),
}

/// A login that waits for the user's approval (RFC 8628): show [`Login::user_code`] and [`Login::verification_uri`],
/// then wait in [`Login::approved`].
pub struct Login {
    net: Net,
    begun: Begun,
    until: Instant,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("verification_uri", &self.begun.verification_uri)
            .finish_non_exhaustive()
    }
}

impl Login {
    pub(crate) async fn begin(net: Net, name: &str, kind: &str) -> Result<Self, EnrolError> {
        let begun = enrol::begin(&net, name, kind).await?;
        let until = Instant::now() + begun.expires_in;
        Ok(Self { net, begun, until })
    }

    /// What the user types in, or compares.
    pub fn user_code(&self) -> &str {
        &self.begun.user_code
    }

    /// Where the user goes.
    pub fn verification_uri(&self) -> &str {
        &self.begun.verification_uri
    }

    /// The same with the code in it, for a link or a QR code.
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.begun.verification_uri_complete.as_deref()
    }

    /// How long the code is good.
    pub fn expires_in(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits until the user has approved. Asks the hub no more often than it likes, and goes on through its outages.
    ///
    /// # Errors
    /// [`EnrolError`] when the user said no, or nothing, or the hub knows of no such login.
    pub async fn approved(self) -> Result<Enrolled, EnrolError> {
        let mut interval = self.begun.interval;
        let mut pause = interval;
        loop {
            if Instant::now() + pause >= self.until {
                return Err(EnrolError::Expired);
            }
            sleep(pause).await;
            match enrol::ask(&self.net, &self.begun.device_code).await {
                Ok(Asked::Enrolled(enrolled)) => return Ok(enrolled),
                Ok(Asked::Pending) => pause = interval,
                Ok(Asked::SlowDown) => {
                    interval += SLOWER;
                    pause = interval;
                }
                Err(EnrolError::Unreachable(why)) => {
                    pause = (pause * 2).min(LONGEST_PAUSE).max(interval);
                    tracing::warn!(why, "the hub does not answer; the login goes on");
                }
                Err(EnrolError::Later { reason, retry_after }) => {
                    pause = (pause * 2).min(LONGEST_PAUSE).max(retry_after.unwrap_or(interval));
                    tracing::warn!(reason, "the hub asks for patience; the login goes on");
                }
                Err(error) => return Err(error),
            }
        }
    }
}
