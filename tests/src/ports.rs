//! Ports for servers that are started again on the same port.

use std::{
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the ports that Linux hands out to connections (`ip_local_port_range`, 32768 and up): while a server is down,
/// somebody's connection would otherwise take its port.
const LOWEST: u32 = 10_000;
const HOW_MANY: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port on loopback that nobody has now, and nobody gets by chance.
///
/// # Panics
/// When there is none.
pub(crate) fn free_port() -> u16 {
    // Several test processes at once begin in different places.
    let start = process::id().wrapping_mul(7_919) % HOW_MANY;
    let mut ports = (0..HOW_MANY).map(|_| LOWEST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % HOW_MANY);
    ports
        .find_map(|port| {
            let port = u16::try_from(port).ok()?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
        })
        .expect("a free port on loopback")
}
