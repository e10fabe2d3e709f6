//! What the tests drive: the hub as a process, a provider that keeps a record of every call, raw devices.
//!
//! Nothing here uses the hub's code, and only [`fleet`] uses the client's. The protocol's types are shared, and only to
//! check that every frame that a hub sends is one that a client can read.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a harness that cannot do its part fails the test that called it"
)]

pub mod admin;
pub mod authserver;
pub mod binaries;
pub mod browser;
pub mod cluster;
pub mod demo;
pub mod device;
pub mod fleet;
pub mod hub;
pub mod link;
pub mod naive;
pub mod network;
pub mod nginx;
pub mod oidc;
mod ports;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod restart;
pub mod scene;
pub mod servers;
pub mod settings;
pub mod skew;
pub mod torture;
pub mod volume;
pub mod wait;

pub use admin::{Admin, Answer};
pub use authserver::Authserver;
pub use cluster::Cluster;
pub use demo::Demo;
pub use device::{Enrolled, Event, Follower, Session};
pub use fleet::Fleet;
pub use hub::Hub;
pub use link::{Link, Weather};
pub use nginx::Nginx;
pub use oidc::Oidc;
pub use provider::{Fault, Provider};
pub use proxy::Proxy;
pub use scene::{GRANT, Scene};
pub use servers::{Postgres, Redis};
pub use settings::Settings;
pub use skew::Skew;
pub use volume::Volume;
pub use wait::{BOUND, eventually, within};
