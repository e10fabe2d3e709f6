//! The Lockstep hub: effects around the rules of `lockstep-engine`.

pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod identity;
pub mod provider;
pub mod spool;
pub mod store;
pub mod telemetry;
pub mod vault;
