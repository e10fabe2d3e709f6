//! The Lockstep client: one handle that always has a good token.
//!
//! A [`Client`] keeps the newest access token of each of its user's grants in memory, pushed by the hub; it never
//! refreshes by itself. It connects over WebSocket, comes back by itself after whatever happens, and resumes where it
//! was.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use lockstep_client::{Client, DeviceFile, Secret};
//!
//! # async fn call_the_api(_: &Secret) -> Result<u16, std::io::Error> { Ok(200) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Made once, by `Builder::login` or `Builder::adopt`.
//! let file = DeviceFile::open("/home/me/.local/state/editor/device.json")?.ok_or("log in first")?;
//! let client = Client::builder(file.hub_url())
//!     .device_file(file)
//!     .cache("/home/me/.cache/editor/lockstep.json")
//!     .app("editor/1.2")
//!     .connect()
//!     .await?;
//!
//! let grant = "example/alice".parse()?;
//! // From memory; the hub is asked only when no good token is there.
//! let mut lease = client.token(&grant, Duration::from_secs(60)).await?;
//! if call_the_api(&lease.access_token).await? == 401 {
//!     // Refused before its time: say which version, get a newer one.
//!     lease = client.report_rejected(&grant, lease.version).await?;
//!     call_the_api(&lease.access_token).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What to do about an [`Error`]
//!
//! | error | what to do |
//! |---|---|
//! | [`Error::Retry`] | wait until `retry_at`; keep everything. [`Error::usable_token`] may hold a token that still works |
//! | [`Error::Reauth`] | show `login_url` to a person; a new login reaches this client by itself |
//! | [`Error::UnknownGrant`] | check the name, or log in for the first time |
//! | [`Error::Stopped`] | this client will not connect again; `Stopped` says why |
//! | [`Error::Misuse`] | mend the program |

/// The examples of the README, to be compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod builder;
mod cache;
mod client;
mod clock;
mod device_file;
mod driver;
mod enrol;
mod error;
mod event;
mod files;
mod machine;
mod shared;
mod state;
mod timing;
mod vault;

pub use lockstep_protocol::{
    DeviceId, GrantName, Secret, UnixSeconds, Version,
    frame::{Cause, Health, PresenceState},
};

pub use crate::{
    builder::Builder,
    client::{Client, Subscription},
    device_file::DeviceFile,
    driver::{
        identity::{AccessToken, SourceAnswer},
        net::Proxy,
    },
    enrol::{EnrolError, Enrolled, Login},
    error::{Error, Stopped},
    event::{Connection, Event, RedeemStep, Transport, TransportChoice},
    state::{GrantState, GrantStatus, TokenLease},
    timing::Timing,
};
