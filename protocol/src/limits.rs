//! Limits that both sides know.

use std::time::Duration;

/// The largest frame, in bytes of its JSON text. A larger one ends the session with close code 1009.
pub const MAX_FRAME: usize = 64 * 1024;
/// The longest access or refresh token, in bytes: with its grant's name and the longest scope it fits into a frame.
pub const MAX_TOKEN: usize = 32 * 1024;
/// The longest scope, in bytes.
pub const MAX_SCOPE: usize = 16 * 1024;
/// How long after the connection opens `hello` must have arrived.
pub const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long a session may owe an ack for something it was sent before it is closed with 4408.
pub const ACK_WITHIN: Duration = Duration::from_secs(30);
/// How many bad frames a session may send before it is closed with 4400.
pub const MAX_BAD_FRAMES: u32 = 20;
/// The longest `wait` of a long-poll, in seconds; larger ones are clamped to it.
pub const MAX_POLL_WAIT: u64 = 55;
/// How long after its last long-poll a device still counts as connected.
pub const POLLER_CONNECTED: Duration = Duration::from_secs(60);
/// A `refreshing` status is sent only when a redeem takes longer than this.
pub const REFRESHING_AFTER: Duration = Duration::from_millis(250);
/// How long an elected device has to answer `accept`.
pub const ACCEPT_WITHIN: Duration = Duration::from_secs(5);
/// How long after its claim a holder may still send the refresh token.
pub const SEND_WITHIN: Duration = Duration::from_secs(5);
