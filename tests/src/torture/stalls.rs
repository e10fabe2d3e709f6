//! When the test itself stood still: its providers answered nobody then, and a hub may have given up waiting.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::sleep};

use super::chaos::{Event, What};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(100);
/// A look that is later than this is worth an event.
const LATE: Duration = Duration::from_secs(1);

/// Watches until it is dropped.
pub struct Stalls {
    seen: Arc<Mutex<Vec<Event>>>,
    watch: JoinHandle<()>,
}

impl Stalls {
    /// Begins to watch the runtime that it is called in.
    pub fn watch() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let watch = tokio::spawn(watch(Arc::clone(&seen)));
        Self { seen, watch }
    }

    /// Each time that it stood still.
    pub fn events(&self) -> Vec<Event> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn watch(seen: Arc<Mutex<Vec<Event>>>) {
    let mut last = Instant::now();
    loop {
        sleep(EVERY).await;
        let from = mem::replace(&mut last, Instant::now());
        if last - from > LATE {
            let event = Event {
                what: What::Stall,
                from,
                to: Some(last),
            };
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
    }
}
