//! The demo program of Lockstep: it reproduces the refresh storm of many devices on one OAuth grant, and cures it.
//!
//! - [`authserver`]: a strict, rotating authorization server with faults on demand
//! - [`storm`]: N devices whose token expires together, without a hub and with it
//! - [`device`]: one device that shows what it is pushed
//! - [`mod@bench`]: what the hub costs, beside a floor
//! - [`hub`]: the hub as a child process
//! - [`term`]: words on a terminal

pub mod authserver;
pub mod bench;
pub mod cli;
pub mod device;
pub mod hub;
pub mod storm;
pub mod term;
