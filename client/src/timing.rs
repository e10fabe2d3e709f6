//! How long things may take.

use std::time::Duration;

/// Time-outs and waits. The defaults suit the open internet; change them to suit a test or a strange network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// To connect: name, TCP, proxy, TLS, each half again for the upgrade.
    pub connect: Duration,
    /// From `hello` to `welcome`.
    pub greet: Duration,
    /// From `welcome` to `synced`.
    pub sync: Duration,
    /// How long a WebSocket must carry the protocol before it counts as working.
    pub stable: Duration,
    /// The first back-off: full jitter, from zero to this.
    pub backoff_first: Duration,
    /// The longest back-off.
    pub backoff_most: Duration,
    /// How long the hub may hold a long-poll (at most 55 s).
    pub poll_wait: Duration,
    /// How long an answer may take beyond what it was allowed to be held.
    pub answer: Duration,
    /// How long after a WebSocket was found to be blocked the next one is tried; doubles with each failure.
    pub probe_first: Duration,
    /// The longest wait between such tries.
    pub probe_most: Duration,
    /// How long it is remembered, across restarts too, that WebSockets are blocked here.
    pub blocked_for: Duration,
    /// How often the clocks are compared, to notice that the device slept.
    pub watch: Duration,
    /// How long [`Client::token`](crate::Client::token) waits at most.
    pub patience: Duration,
}

/// What suits the open internet.
pub(crate) const DEFAULT: Timing = Timing {
    connect: Duration::from_secs(10),
    greet: Duration::from_secs(10),
    sync: Duration::from_secs(20),
    stable: Duration::from_secs(5),
    backoff_first: Duration::from_millis(500),
    backoff_most: Duration::from_secs(30),
    poll_wait: Duration::from_secs(25),
    answer: Duration::from_secs(15),
    probe_first: Duration::from_secs(30),
    probe_most: Duration::from_secs(15 * 60),
    blocked_for: Duration::from_secs(60 * 60),
    watch: Duration::from_secs(5),
    patience: Duration::from_secs(60),
};

impl Default for Timing {
    fn default() -> Self {
        DEFAULT
    }
}
