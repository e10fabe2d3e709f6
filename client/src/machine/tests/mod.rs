//! The rules, as tables. Nothing here is real: a test says what happens and when, and reads what the machine did about
//! it, a line for each command.

mod acks;
mod asks;
mod backoff;
mod ends;
mod holding;
mod redeeming;
mod transport;
mod waking;
mod walk;
mod world;

use std::time::Duration;

use lockstep_protocol::frame::Resume;

use self::world::World;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A client that holds `seq` on a WebSocket that is synced, though not yet stable.
fn young(seq: u64) -> World {
    World::new()
        .start()
        .opened()
        .welcomed(Resume::Reset)
        .token(seq)
        .synced(seq)
        .read()
}

/// The same, once the WebSocket counts as working.
fn stable(seq: u64) -> World {
    young(seq).pass(secs(6)).read()
}

/// A client that holds `seq` by long-poll, because WebSockets were found to be blocked.
fn blocked(seq: u64) -> World {
    World::new().start().refused(403, None).polled_token(seq).read()
}
