//! The authorization server, seen over HTTP.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic as tests may"
)]

mod bench;
mod faults;
mod logins;
mod program;
mod rotation;
