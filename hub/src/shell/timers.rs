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

/// Which machine is to be woken when, earliest first. Of a machine's entries only the one that its slot names counts: an
/// entry that an earlier one has overtaken is dropped when its time comes, or they would multiply.
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

    fn take_due(&self, now: Mono) -> Vec<(Mono, UserId, GrantName)> {
        let mut heap = self.heap.lock();
        let mut due = Vec::new();
        while heap.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            due.extend(heap.pop().map(|Reverse(entry)| entry));
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
        for (at, user, grant) in hub.timers.take_due(clock::mono()) {
            let Some(user) = hub.users.resident(&user) else {
                continue;
            };
            if user.lock().disarm(&grant, at) {
                hub.tell(&user, &grant, Input::Tick);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_engine::{grant::Grant, record::Holder};

    use super::*;
    use crate::user::{Slot, User};

    /// A machine that wants to be woken at each of `wishes` in turn; each is armed if it is earlier than what is armed.
    fn arm(timers: &Timers, user: &User, grant: &GrantName, wishes: &[u64]) {
        let mut inner = user.lock();
        let Some(slot) = inner.slots.get_mut(grant) else { return };
        for at in wishes.iter().copied().map(Mono) {
            if slot.armed.is_none_or(|armed| at < armed) {
                slot.armed = Some(at);
                timers.arm(at, user.id.clone(), grant.clone());
            }
        }
    }

    #[test]
    fn of_a_machines_entries_only_the_newest_wakes_it_and_none_begets_another() {
        let (timers, user) = (Timers::default(), User::new("alice".parse().unwrap()));
        let grant: GrantName = "example/main".parse().unwrap();
        let me = Holder {
            node: "a".into(),
            incarnation: 1,
        };
        let slot = Slot {
            machine: Grant::new(me, Arc::default()),
            armed: None,
            tickets: Vec::new(),
            passing: None,
        };
        user.lock().slots.insert(grant.clone(), slot);
        let mut woken = 0;
        for round in 0..100 {
            // Always something far away, and now and then something near.
            arm(&timers, &user, &grant, &[round * 10 + 1000, round * 10 + 5]);
            for (at, ..) in timers.take_due(Mono(round * 10 + 9)) {
                woken += usize::from(user.lock().disarm(&grant, at));
            }
        }
        assert_eq!(woken, 100);
        let waiting = timers.take_due(Mono(1_000_000));
        let living = waiting
            .iter()
            .filter(|(at, ..)| user.lock().disarm(&grant, *at))
            .count();
        assert!(living <= 1, "{living} of {} wake it again", waiting.len());
    }
}
