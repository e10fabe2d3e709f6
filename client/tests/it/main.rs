//! The client against a small hub that speaks the real protocol over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic, and has no readers but its own"
)]

mod cache;
mod environment;
mod hub;
mod patience;
mod poll;
mod proxy;
mod redeem;
mod ws;

use std::time::Duration;

use lockstep_client::{Builder, Client, DeviceId, GrantName, Secret, Timing};

pub fn grant() -> GrantName {
    "example/alice".parse().unwrap()
}

pub fn device() -> DeviceId {
    "8f14e45f-ceea-467f-a8f4-000000000001".parse().unwrap()
}

/// Waits of a test, not of the internet. Only what a test waits for is short: a limit that a hub keeps is not to run
/// out because the machine stood still.
pub fn hurry() -> Timing {
    let mut timing = Timing::default();
    timing.connect = Duration::from_secs(20);
    timing.greet = Duration::from_secs(20);
    timing.stable = Duration::from_millis(300);
    timing.backoff_first = Duration::from_millis(50);
    timing.backoff_most = Duration::from_millis(400);
    timing.probe_first = Duration::from_millis(400);
    timing.probe_most = Duration::from_millis(800);
    timing.patience = Duration::from_secs(30);
    timing
}

/// A client in a hurry.
pub fn quick(hub: &hub::Hub) -> Builder {
    Client::builder(hub.url())
        .device(device(), Secret::new("lsd_0"))
        .app("test/1")
        .proxy(lockstep_client::Proxy::Direct)
        .timing(hurry())
}

/// Whatever takes longer than this has failed.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(hub::BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}
