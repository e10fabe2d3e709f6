//! What breaks, when, and for how long: all from one seed.

use std::{
    fmt,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use rustix::process::Signal;
use tokio::time::{Instant as Timer, sleep, sleep_until};

use super::arena::{Arena, Wire};
use crate::{link::Weather, provider::Fault};

/// How long something stays broken, in milliseconds.
const BROKEN: std::ops::Range<u64> = 300..6_000;
/// How long it is until the next thing breaks, in milliseconds.
const PAUSE: std::ops::Range<u64> = 200..1_800;
/// How often users whose grant was lost log in again.
const LOGINS_EVERY: Duration = Duration::from_secs(5);
/// How long a login takes to reach the devices that wait for it, about.
const LOGIN_ARRIVES_WITHIN: Duration = Duration::from_secs(1);

/// One thing that broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// `kill -9` of a hub.
    Kill(usize),
    /// A hub stopped in its tracks.
    Pause(usize),
    /// A link of a hub was cut.
    Cut(usize, Wire),
    /// A link of a hub fell silent.
    Silence(usize, Wire),
    /// `kill -9` of Redis.
    RedisKill,
    /// Redis stopped in its tracks.
    RedisPause,
    /// Redis was emptied.
    RedisFlush,
    /// PostgreSQL stopped as after a loss of power.
    PostgresStop,
    /// A provider met one call with a fault.
    Provider(&'static str),
    /// The test itself stood still, and the providers with it.
    Stall,
}

/// What broke, and from when to when.
#[derive(Debug, Clone)]
pub struct Event {
    /// What.
    pub what: What,
    /// Since when.
    pub from: Instant,
    /// Until when, once it is over.
    pub to: Option<Instant>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.to.map_or(Duration::ZERO, |to| to - self.from);
        write!(f, "{:?} for {span:?}", self.what)
    }
}

/// What the run left behind.
pub struct Chaos {
    /// Everything that broke.
    pub events: Vec<Event>,
    /// Users who had to log in again; some of them often.
    pub lost: Vec<Lost>,
}

impl Chaos {
    /// Whoever is told to log in again does so.
    pub async fn log_in_the_lost(&mut self, arena: &Arena) {
        for user in &arena.users {
            let told = |follower: &crate::Follower| {
                let held = follower.holds(user.grant())?;
                (held["health"] == "reauth_required").then(|| held["reason"].to_string())
            };
            let Some(reason) = user.devices.iter().find_map(told) else {
                continue;
            };
            self.lost.push(Lost {
                user: user.name.clone(),
                graceful: user.graceful,
                reason,
                at: Instant::now(),
            });
            arena.log_in(user).await;
        }
    }

    /// The same when nothing is broken any more, and devices soon hear of it.
    pub async fn log_in_the_last(&mut self, arena: &Arena) {
        let before = self.lost.len();
        self.log_in_the_lost(arena).await;
        if self.lost.len() > before {
            sleep(LOGIN_ARRIVES_WITHIN).await;
        }
    }
}

/// A grant that was given up.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Whose.
    pub user: String,
    /// Whether its provider has a grace.
    pub graceful: bool,
    /// What the devices were told.
    pub reason: String,
    /// When the run found out.
    pub at: Instant,
}

struct Run<'a> {
    arena: &'a mut Arena,
    chance: StdRng,
    /// What is broken now: when it is to be mended, and its event.
    broken: Vec<(Timer, usize)>,
    chaos: Chaos,
}

/// Breaks things for so long, and mends them all in the end.
pub async fn run(arena: &mut Arena, seed: u64, span: Duration) -> Chaos {
    let end = Timer::now() + span;
    let mut run = Run {
        arena,
        chance: StdRng::seed_from_u64(seed),
        broken: Vec::new(),
        chaos: Chaos {
            events: Vec::new(),
            lost: Vec::new(),
        },
    };
    let mut strike = Timer::now();
    let mut logins = Timer::now() + LOGINS_EVERY;
    while Timer::now() < end {
        let mend = run.broken.iter().map(|(at, _)| *at).min().unwrap_or(end);
        sleep_until(strike.min(mend).min(logins).min(end)).await;
        run.mend_due().await;
        if Timer::now() >= logins {
            run.chaos.log_in_the_lost(run.arena).await;
            logins = Timer::now() + LOGINS_EVERY;
        }
        if Timer::now() >= strike {
            run.strike().await;
            let pause = run.chance.random_range(PAUSE);
            strike = Timer::now() + Duration::from_millis(pause);
        }
    }
    while let Some((_, nth)) = run.broken.pop() {
        run.mend(nth).await;
    }
    run.chaos
}

impl Run<'_> {
    /// Draws always as much from the seed, whatever is broken already: so the same seed gives the same plan.
    fn draw(&mut self) -> (What, Duration) {
        let node = self.chance.random_range(0..self.arena.nodes.len());
        let wire = Wire::ALL[self.chance.random_range(0..Wire::ALL.len())];
        let fault = ["cut before", "cut after", "slow", "busy"][self.chance.random_range(0..4)];
        let what = match self.chance.random_range(0..100) {
            0..15 => What::Kill(node),
            15..28 => What::Pause(node),
            28..48 => What::Cut(node, wire),
            48..63 => What::Silence(node, wire),
            63..69 => What::RedisKill,
            69..73 => What::RedisPause,
            73..78 => What::RedisFlush,
            78..84 => What::PostgresStop,
            _ => What::Provider(fault),
        };
        (what, Duration::from_millis(self.chance.random_range(BROKEN)))
    }

    async fn strike(&mut self) {
        let (what, span) = self.draw();
        if self
            .broken
            .iter()
            .any(|(_, nth)| clashes(self.chaos.events[*nth].what, what))
        {
            return;
        }
        let from = Instant::now();
        let nodes = &mut self.arena.nodes;
        match what {
            What::Kill(node) => nodes[node].hub.kill9().await,
            What::Pause(node) => nodes[node].hub.signal(Signal::STOP),
            What::Cut(node, wire) => nodes[node].turn(wire, Weather::Cut),
            What::Silence(node, wire) => nodes[node].turn(wire, Weather::Silent),
            What::RedisKill => self.arena.redis.kill9().await,
            What::RedisPause => self.arena.redis.pause(),
            What::RedisFlush => self.arena.redis.flush().await,
            What::PostgresStop => self.arena.postgres.stop_at_once().await,
            What::Provider(fault) => {
                let fault = match fault {
                    "cut before" => Fault::CutBefore,
                    "cut after" => Fault::CutAfter,
                    "slow" => Fault::SlowAnswer(span.min(Duration::from_secs(3))),
                    _ => Fault::status(503),
                };
                // Never an unknown outcome at the strict one by its own doing: that one is for the hubs' troubles.
                let unknown = matches!(fault, Fault::CutAfter | Fault::CutBefore);
                let provider = if unknown {
                    &self.arena.graceful
                } else {
                    &self.arena.strict
                };
                provider.fault(fault);
            }
            // Nobody's doing: it is never drawn.
            What::Stall => return,
        }
        self.chaos.events.push(Event { what, from, to: None });
        self.broken.push((Timer::now() + span, self.chaos.events.len() - 1));
    }

    async fn mend_due(&mut self) {
        while let Some(at) = self.broken.iter().position(|(at, _)| *at <= Timer::now()) {
            let (_, nth) = self.broken.swap_remove(at);
            self.mend(nth).await;
        }
    }

    async fn mend(&mut self, nth: usize) {
        match self.chaos.events[nth].what {
            What::Kill(node) => {
                // A hub does not start without its store.
                self.mend_first(|what| {
                    matches!(what, What::PostgresStop)
                        || matches!(what, What::Cut(n, Wire::Postgres) | What::Silence(n, Wire::Postgres) if n == node)
                })
                .await;
                self.arena.nodes[node].hub.start_again().await;
            }
            What::Pause(node) => self.arena.nodes[node].hub.signal(Signal::CONT),
            What::Cut(node, wire) | What::Silence(node, wire) => self.arena.nodes[node].turn(wire, Weather::Fair),
            What::RedisKill => self.arena.redis.start_again().await,
            What::RedisPause => self.arena.redis.resume(),
            What::PostgresStop => self.arena.postgres.start_again().await,
            What::RedisFlush | What::Provider(_) | What::Stall => {}
        }
        self.chaos.events[nth].to = Some(Instant::now());
    }

    async fn mend_first(&mut self, which: impl Fn(What) -> bool) {
        while let Some(at) = self
            .broken
            .iter()
            .position(|(_, nth)| which(self.chaos.events[*nth].what))
        {
            let (_, nth) = self.broken.swap_remove(at);
            Box::pin(self.mend(nth)).await;
        }
    }
}

/// Whether two things cannot be broken at once, because they are the same thing.
fn clashes(one: What, other: What) -> bool {
    match (one, other) {
        (What::Kill(a) | What::Pause(a), What::Kill(b) | What::Pause(b)) => a == b,
        (What::Cut(a, v) | What::Silence(a, v), What::Cut(b, w) | What::Silence(b, w)) => (a, v) == (b, w),
        (
            What::RedisKill | What::RedisPause | What::RedisFlush,
            What::RedisKill | What::RedisPause | What::RedisFlush,
        ) => true,
        (one, other) => one == other,
    }
}
