//! The wire itself: takes packets in at each end and gives them out at the other, or does not.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::nat::{Nat, Segment, Way};

/// The most packets under way; what comes on top is lost, as in a router.
const MOST_UNDER_WAY: usize = 10_000;
/// How often to look whether the wire was cut.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the wire does to packets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// The share of packets that is lost, each way.
    pub loss: f64,
    /// How long a packet is under way.
    pub delay: Duration,
    /// Nothing passes at all, and nobody is told.
    pub hole: bool,
    /// A flow that was idle for this long is forgotten: nothing of it passes any more, and nobody is told.
    pub forgets_after: Option<Duration>,
}

/// What went over the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that were given out at the other end.
    pub passed: u64,
    /// Packets that were lost, swallowed or forgotten.
    pub lost: u64,
    /// Attempts of the devices to open a connection, those that were lost included.
    pub opened: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Wire(Mutex<State>);

/// When a packet is due, its number, its way, and itself.
type UnderWay = (Instant, u64, Way, Vec<u8>);

#[derive(Default)]
struct State {
    weather: Weather,
    nat: Nat,
    counts: Counts,
    /// By the time each is due; in order of their coming where that is the same.
    under_way: BinaryHeap<Reverse<UnderWay>>,
    last: u64,
    cut: bool,
}

impl Wire {
    pub(super) fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.state().weather);
    }

    pub(super) fn forget(&self) {
        self.state().nat.forget();
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts
    }

    pub(super) fn cut(&self) {
        self.state().cut = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries packets until the wire is cut.
    pub(super) fn carry(&self, near: &OwnedFd, far: &OwnedFd) {
        let mut buffer = vec![0; 65_536];
        loop {
            let now = Instant::now();
            for (end, way) in [(near, Way::Out), (far, Way::In)] {
                while let Ok(length) = rustix::io::read(end, &mut buffer) {
                    self.state().take(&buffer[..length], way, now);
                }
            }
            let wait = {
                let mut state = self.state();
                if state.cut {
                    return;
                }
                while let Some((packet, way)) = state.due(now) {
                    let end = if way == Way::In { near } else { far };
                    // An interface whose queue is full loses the packet, like any other.
                    let passed = rustix::io::write(end, &packet).is_ok();
                    state.count(passed);
                }
                state.next(now)
            };
            let mut ends = [PollFd::new(near, PollFlags::IN), PollFd::new(far, PollFlags::IN)];
            let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 1 });
            match poll(&mut ends, Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl State {
    fn take(&mut self, packet: &[u8], way: Way, now: Instant) {
        // Whatever is not TCP over IPv4 is the kernel's chatter about its neighbours.
        let Some(segment) = Segment::read(packet, way) else {
            return;
        };
        self.counts.opened += u64::from(segment.opens);
        let weather = self.weather;
        let forgotten = weather
            .forgets_after
            .is_some_and(|idle| !self.nat.passes(segment, idle, now));
        let lost = weather.hole || forgotten || rand::random::<f64>() < weather.loss;
        if lost || self.under_way.len() >= MOST_UNDER_WAY {
            self.count(false);
            return;
        }
        self.last += 1;
        self.under_way
            .push(Reverse((now + weather.delay, self.last, way, packet.to_vec())));
    }

    fn due(&mut self, now: Instant) -> Option<(Vec<u8>, Way)> {
        if self.under_way.peek()?.0.0 > now {
            return None;
        }
        let Reverse((_, _, way, packet)) = self.under_way.pop()?;
        Some((packet, way))
    }

    fn next(&self, now: Instant) -> Duration {
        let next = self.under_way.peek().map(|under_way| under_way.0.0);
        next.map_or(LOOK_EVERY, |at| at.saturating_duration_since(now).min(LOOK_EVERY))
    }

    fn count(&mut self, passed: bool) {
        if passed {
            self.counts.passed += 1;
        } else {
            self.counts.lost += 1;
        }
    }
}
