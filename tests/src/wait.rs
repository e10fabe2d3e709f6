//! Waiting on conditions, with bounds.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// How long a thing that should happen at once may take on a busy machine before the test calls it a failure.
pub const BOUND: Duration = Duration::from_secs(45);

/// How often a condition is looked at: well under the 200 requests a second that the hub grants a device
/// (`server.limits.requests_per_second_per_device`), for many looks are such a request and a quick machine adds no time.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// Waits until `look` returns something.
///
/// # Panics
/// When it has not within `bound`; the message names `what`.
pub async fn eventually<T>(what: &str, bound: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        sleep(LOOK_EVERY).await;
    }
}

/// Waits for `future`.
///
/// # Panics
/// When it is not done within `bound`; the message names `what`.
pub async fn within<F: Future>(what: &str, bound: Duration, future: F) -> F::Output {
    timeout(bound, future)
        .await
        .unwrap_or_else(|_| panic!("not within {bound:?}: {what}"))
}
