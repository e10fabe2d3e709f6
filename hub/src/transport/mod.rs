//! Bytes in, bytes out.

pub mod doors;
pub mod link;
pub mod listener;
pub mod socket;
pub mod text;
pub mod wire;
pub mod ws;
