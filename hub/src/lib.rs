//! The Lockstep hub: effects around the rules of `lockstep-engine`.
//!
//! Follow one token update: [`transport`] (frame in) → [`session`] (what it asks) → [`shell`] (the engine decides, the
//! shell executes) → [`store`] (persist) → [`user`] (fan out) → [`transport`] (frame out) → [`session`] (ack).

pub mod app;
pub mod audit;
mod buckets;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod error;
pub mod hangup;
pub mod http;
pub mod identity;
pub mod parsers;
pub mod provider;
pub mod scheduler;
pub mod session;
pub mod shell;
pub mod spool;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod transport;
pub mod user;
pub mod vault;
