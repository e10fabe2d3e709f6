//! One timer for all grants' machines.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use lockstep_engine::{grant::Input, time::Mono};
use lockstep_protocol::{GrantName, UserId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{app::Hub, clock};

/// The runtime's timers stand still while the machine sleeps; the machines' deadlines do not. So the clock is looked at
/// this often at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Due = Reverse<(Mono, UserId, GrantName)>;

/// Which machine is to be woken when, earliest first. A machine that meanwhile wants to be woken later is woken for
/// nothing, once.
#[derive(Default)]
pub struct Timers {
    heap: Mutex<BinaryHeap<Due>>,
    earlier: Notify,
}

impl Timers {
    /// Has a machine woken at `at`.
    pub fn arm(&self, at: Mono, user: UserId, grant: GrantName) {
        let mut heap = self.heap.lock();
        let is_first = heap.peek().is_none_or(|Reverse((first, ..))| at < *first);
        heap.push(Reverse((at, user, grant)));
        drop(heap);
        if is_first {
            self.earlier.notify_one();
        }
    }

    fn take_due(&self, now: Mono) -> Vec<(UserId, GrantName)> {
        let mut heap = self.heap.lock();
        let mut due = Vec::new();
        while heap.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            if let Some(Reverse((_, user, grant))) = heap.pop() {
                due.push((user, grant));
            }
        }
        due
    }

    fn pause(&self, now: Mono) -> Duration {
        let heap = self.heap.lock();
        heap.peek()
            .map_or(LOOK_EVERY, |Reverse((at, ..))| at.since(now).min(LOOK_EVERY))
    }
}

/// Wakes machines when they are due, until the hub stops.
pub(crate) async fn run(hub: Arc<Hub>) {
    loop {
        let pause = hub.timers.pause(clock::mono());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hub.timers.earlier.notified() => continue,
        }
        for (user, grant) in hub.timers.take_due(clock::mono()) {
            let Some(user) = hub.users.resident(&user) else {
                continue;
            };
            if let Some(slot) = user.lock().slots.get_mut(&grant) {
                slot.armed = None;
            }
            hub.tell(&user, &grant, Input::Tick);
        }
    }
}
