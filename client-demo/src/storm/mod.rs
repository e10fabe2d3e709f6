//! The storm, before and after: N devices on one grant whose access token expires for all of them at the same moment.
//!
//! First each device refreshes by itself, as programs do today; then the same devices sit behind a hub.

mod show;
mod with;
mod without;

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use crate::{
    authserver::{Authserver, Settings},
    hub::{AdminError, HubError},
    term::Terminal,
};

pub use with::{Round, RoundDevice, With};
pub use without::{LoneDevice, Without};

/// How big the storm is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many devices.
    pub devices: usize,
    /// How often the access token expires in the part with a hub.
    pub rounds: usize,
    /// How long an access token is good.
    pub access_ttl: Duration,
    /// Whether every second device uses long-poll in the part with a hub.
    pub mixed: bool,
}

/// What the storm did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Each device by itself.
    pub without: Without,
    /// The same devices behind a hub.
    pub with: With,
}

/// Why the storm could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum StormError {
    /// The authorization server could not be started.
    #[error("the authorization server cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// A call of the authorization server failed.
    #[error("the authorization server does not answer: {0}")]
    Authserver(#[from] reqwest::Error),
    /// There is no hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The hub's admin API failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A device's client failed.
    #[error("a device: {0}")]
    Client(#[from] lockstep_client::Error),
    /// Devices did not come to the hub in time.
    #[error("the devices did not connect in time{0}")]
    NotConnected(String),
    /// A name is not one.
    #[error("a name: {0}")]
    Name(String),
}

/// The kinds of device that take part, one after the other.
const KINDS: [&str; 6] = ["desktop", "web", "cli", "mobile", "server", "iot"];

/// The kind and the name of the device with the number `index`.
fn device_name(index: usize) -> (&'static str, String) {
    let kind = KINDS[index % KINDS.len()];
    (kind, format!("{kind}-{}", index + 1))
}

/// A strict authorization server: no grace, the family dies with a reused refresh token.
async fn strict_authserver(access_ttl: Duration) -> Result<Authserver, StormError> {
    let settings = Settings {
        access_ttl,
        ..Settings::default()
    };
    Ok(Authserver::start(SocketAddr::from(([127, 0, 0, 1], 0)), settings).await?)
}

/// Shows the storm on `terminal`.
///
/// # Errors
/// When something that it needs cannot be started, or does not answer.
pub async fn run(options: Options, terminal: Terminal) -> Result<Report, StormError> {
    show::intro(terminal, options);
    let without = without::run(options, terminal).await?;
    show::without(terminal, &without);
    show::with_heading(terminal, options);
    let with = with::run(options, terminal, |number, round| show::round(terminal, number, round)).await?;
    show::with(terminal, &with, options);
    Ok(Report { without, with })
}
