//! The demo program of Lockstep: it reproduces the refresh storm of many devices on one OAuth grant, and cures it.
//!
//! - [`authserver`]: a strict, rotating authorization server with faults on demand

pub mod authserver;
pub mod cli;
