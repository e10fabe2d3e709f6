//! The rules of Lockstep, sans-io.
//!
//! Every decision of the hub is made here: the machines take an input, the time and entropy, and return commands. There
//! is no tokio, no clock, no socket and no randomness in this crate, so a test can drive years of trouble in a second.
//!
//! Start at [`grant::Grant`]: one grant's machine.

pub mod entropy;
pub mod grant;
pub mod policy;
pub mod preload;
pub mod record;
pub mod time;

#[cfg(test)]
mod sim;
