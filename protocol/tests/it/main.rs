//! The protocol, seen from outside.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod arbitrary;
mod codec;
mod page;
mod properties;
mod schema;
mod vectors;
