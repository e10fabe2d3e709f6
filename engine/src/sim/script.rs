//! What happens in one run: who is there, and the troubles that befall them. Drawn from a seed, written so that a person
//! can read it, and made of independent lines so that a failing run can be shrunk line by line.

use std::fmt;

use super::{bench::Seeded, provider::Rotation};
use crate::{
    entropy::Entropy,
    policy::{Policy, Refresher},
};

/// Milliseconds since the start of the run, and spans of them.
pub(crate) type Millis = u64;

/// After this no trouble begins, and what there is ends: the world heals.
pub(crate) const HEALED_AT: Millis = 150_000;

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// What everything incidental is drawn from: latencies, lots, lease ids.
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    /// In order of time.
    pub(crate) events: Vec<Event>,
}

/// Who is there.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    pub(crate) devices: usize,
    pub(crate) rotation: Rotation,
    /// The life of access tokens, in seconds.
    pub(crate) life: u64,
    pub(crate) policy: Policy,
    /// Whether the nodes redeem ahead of expiry.
    pub(crate) schedules: bool,
    /// Whether latencies vary.
    pub(crate) jitter: bool,
}

/// Something happens at a time.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: Millis,
    pub(crate) what: What,
}

/// What may happen. Nodes and devices are numbered; a number too large names nobody.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A device reports its token, or one that it never had.
    Ask { device: usize, of: Reported },
    /// A reader of a node needs more validity.
    Read { node: usize },
    /// An operator wants a refresh.
    Operate { node: usize },
    /// A node dies and comes back after a while: now, or at the next such moment.
    Crash {
        node: usize,
        at: Option<Moment>,
        down: Millis,
    },
    /// A node stands still: its timers and whatever reaches it wait.
    Stall { node: usize, span: Millis },
    /// A node's clock jumps.
    Clock { node: usize, by: i64 },
    /// A node's spool takes nothing.
    DiskFull { node: usize, span: Millis },
    /// A node's limiter has no permits.
    NoPermits { node: usize, span: Millis },
    /// A device is away for a while. If it dies, the answer that it waits for is lost.
    Away { device: usize, span: Millis, dies: bool },
    /// How a device meets what is asked of it from now on.
    Mood { device: usize, mood: Mood },
    /// What the provider does for a while.
    Provider { weather: Weather, span: Millis },
    /// What the store does for a while.
    Store { weather: Storm, span: Millis },
    /// No node hears of another.
    Deaf { span: Millis },
    /// Somebody logs in.
    LogIn { node: usize, with: Brought },
    /// The grant is deleted.
    Delete { node: usize },
}

/// The version that a device reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    Held,
    Older,
    Newer,
}

/// What a login brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brought {
    Fresh,
    /// Only a refresh token.
    Half,
    /// A refresh token that was brought before.
    Again,
}

/// How a device behaves when it is elected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Willing,
    Declines,
    /// Does not answer `elected`.
    Silent,
    /// Accepts, is given the refresh token, and is gone.
    Vanishes,
    /// Does all of it, slowly, and tells late.
    Slow,
}

/// A step of a node at which it may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the order is carried out.
    Before(Step),
    /// After it took effect, and before the node hears of it.
    After(Step),
}

/// A step of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Claim,
    HandOut,
    Hand,
    Redeem,
    Commit,
    Spool,
    Settle,
    Alternate,
    Push,
}

/// What a provider does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// The connection is refused.
    Refuses,
    /// 500, not processed.
    Fails,
    /// 503 with `Retry-After` in seconds, or without.
    Busy(Option<u64>),
    /// 429 with `Retry-After`.
    Limits(u64),
    /// The connection is cut before it is processed.
    LosesRequests,
    /// Processed, and the connection is cut.
    LosesAnswers,
    /// Processed, and the answer comes this much later.
    Slow(Millis),
    /// Processed or not, a gateway says 502 or 504.
    Gateway,
    /// Processed, and answered 500: a lie.
    Lies,
    /// Processed, and answered 200 with a page of HTML.
    Garbage,
    /// Not processed, and refused with an empty 400.
    Rejects,
    /// Not processed, and said to be used up: a lie of another kind.
    SaysUsed,
    /// Not processed: it does not know the client.
    Misconfigured,
}

/// What a store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storm {
    /// Writes are refused; reads go on.
    RefusesWrites,
    /// Nothing reaches it.
    Away,
    /// The answers to writes are lost; what was written is there, is not, or comes to be there a little later.
    LosesAnswers,
    /// Everything takes up to this long.
    Slow(Millis),
}

/// Draws from a seed.
pub(crate) struct Dice(pub(crate) Seeded);

impl Dice {
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0.bits() % most.max(1)
    }

    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap_or(0)]
    }

    fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.below(below as u64)).unwrap_or(0)
    }
}

impl Script {
    /// The run that a seed stands for.
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice(Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x10c5_7e90));
        let setup = Setup::draw(&mut dice);
        let count = dice.between(3, 14);
        let mut events: Vec<_> = (0..count)
            .map(|_| Event {
                at: dice.between(1_000, HEALED_AT - 20_000),
                what: What::draw(&mut dice, &setup),
            })
            .collect();
        // Trouble is worth little while nothing happens: somebody asks soon after some of it began.
        let asks = events.iter().filter(|event| event.what.is_trouble());
        let asks: Vec<_> = asks.map(|event| event.at).collect();
        for at in asks {
            if dice.chance(70) {
                let what = What::asking(&mut dice, &setup);
                let at = at + dice.between(0, 3_000);
                events.push(Event { at, what });
            }
        }
        events.sort_by_key(|event| event.at);
        Self { seed, setup, events }
    }
}

impl Setup {
    fn draw(dice: &mut Dice) -> Self {
        let nodes = [1, 1, 2, 2, 2, 3][dice.index(6)];
        let grace = dice.pick(&[5_000, 10_000, 30_000, 60_000]);
        let rotation = dice.pick(&[
            Rotation::Strict,
            Rotation::Strict,
            Rotation::Once,
            Rotation::GraceSame(grace),
            Rotation::GraceFresh(grace),
            Rotation::Never,
        ]);
        let grace = match rotation {
            Rotation::Strict | Rotation::Once => 0,
            Rotation::GraceSame(grace) | Rotation::GraceFresh(grace) => grace,
            Rotation::Never => dice.pick(&[0, 60_000]),
        };
        let ms = std::time::Duration::from_millis;
        let policy = Policy {
            refresher: if dice.chance(40) {
                Refresher::Device
            } else {
                Refresher::Hub
            },
            hub_may_redeem: dice.chance(80),
            lead: ms(dice.pick(&[10_000, 30_000, 300_000])),
            grace: ms(grace),
            timeout: ms(dice.pick(&[3_000, 10_000, 20_000])),
            lease: ms(dice.pick(&[30_000, 45_000, 60_000])),
            reject_interval: ms(dice.pick(&[0, 0, 5_000, 30_000])),
            late_wait: ms(dice.pick(&[10_000, 30_000, 60_000])),
        };
        Self {
            nodes,
            devices: dice.index(5),
            rotation,
            life: dice.pick(&[40, 60, 90, 120, 300, 3600]),
            policy,
            schedules: dice.chance(50),
            jitter: true,
        }
    }
}

impl What {
    fn draw(dice: &mut Dice, setup: &Setup) -> Self {
        let node = dice.index(setup.nodes);
        let device = dice.index(setup.devices.max(1));
        let span = dice.between(200, 30_000);
        match dice.below(100) {
            0..=21 => Self::asking(dice, setup),
            22..=39 => Self::Crash {
                node,
                at: dice.chance(80).then(|| Moment::draw(dice)),
                down: dice.pick(&[50, 1_000, 5_000, 20_000, 60_000]),
            },
            40..=42 => Self::Stall { node, span },
            43..=47 => Self::Clock {
                node,
                by: i64::try_from(dice.between(0, 120_000)).unwrap_or(0) - 60_000,
            },
            48..=50 => Self::DiskFull { node, span },
            51..=52 => Self::NoPermits { node, span },
            53..=58 => Self::Away {
                device,
                span,
                dies: dice.chance(30),
            },
            59..=64 => Self::Mood {
                device,
                mood: dice.pick(&[Mood::Declines, Mood::Silent, Mood::Vanishes, Mood::Vanishes, Mood::Slow]),
            },
            65..=80 => Self::Provider {
                weather: Weather::draw(dice),
                span,
            },
            81..=90 => Self::Store {
                weather: Storm::draw(dice),
                span,
            },
            91..=94 => Self::Deaf { span },
            95..=98 => Self::LogIn {
                node,
                with: dice.pick(&[Brought::Fresh, Brought::Half, Brought::Again]),
            },
            _ => Self::Delete { node },
        }
    }

    fn asking(dice: &mut Dice, setup: &Setup) -> Self {
        let node = dice.index(setup.nodes);
        if setup.devices > 0 && dice.chance(60) {
            let of = dice.pick(&[
                Reported::Held,
                Reported::Held,
                Reported::Held,
                Reported::Older,
                Reported::Newer,
            ]);
            let device = dice.index(setup.devices);
            return Self::Ask { device, of };
        }
        if dice.chance(50) {
            Self::Read { node }
        } else {
            Self::Operate { node }
        }
    }

    fn is_trouble(&self) -> bool {
        !matches!(self, Self::Ask { .. } | Self::Read { .. } | Self::Operate { .. })
    }
}

impl Moment {
    fn draw(dice: &mut Dice) -> Self {
        let step = dice.pick(&[
            Step::Claim,
            Step::HandOut,
            Step::Hand,
            Step::Redeem,
            Step::Redeem,
            Step::Commit,
            Step::Commit,
            Step::Spool,
            Step::Settle,
            Step::Alternate,
            Step::Push,
        ]);
        if dice.chance(50) {
            Self::Before(step)
        } else {
            Self::After(step)
        }
    }
}

impl Weather {
    fn draw(dice: &mut Dice) -> Self {
        match dice.below(13) {
            0 => Self::Refuses,
            1 => Self::Fails,
            2 => Self::Busy(dice.chance(60).then_some(dice.pick(&[1, 4, 20]))),
            3 => Self::Limits(dice.pick(&[1, 10, 30])),
            4 => Self::LosesRequests,
            5 | 6 => Self::LosesAnswers,
            7 => Self::Slow(dice.between(1_000, 40_000)),
            8 => Self::Gateway,
            9 => Self::Lies,
            10 => Self::Garbage,
            11 => Self::Rejects,
            _ => dice.pick(&[Self::SaysUsed, Self::Misconfigured]),
        }
    }
}

impl Storm {
    fn draw(dice: &mut Dice) -> Self {
        match dice.below(4) {
            0 => Self::RefusesWrites,
            1 => Self::Away,
            2 => Self::LosesAnswers,
            _ => Self::Slow(dice.between(500, 6_000)),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup {
            nodes,
            devices,
            rotation,
            life,
            policy,
            schedules,
            ..
        } = &self.setup;
        writeln!(
            f,
            "{nodes} nodes, {devices} devices, {rotation:?}, access tokens live {life} s, scheduler {}",
            if *schedules { "on" } else { "off" }
        )?;
        writeln!(f, "{policy:?}")?;
        for event in &self.events {
            writeln!(f, "{} {:?}", clock(event.at), event.what)?;
        }
        Ok(())
    }
}

/// A time of the run as people read it.
pub(crate) fn clock(at: Millis) -> String {
    format!("{:>4}.{:03}", at / 1000, at % 1000)
}
