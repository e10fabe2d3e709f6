//! The measurements, each on a [`Bench`]: a server under load and its fleet.

use std::{
    io,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    generator::Fleet,
    system::{CpuMeter, own_cpu, resident},
    target::{Enrolment, Target},
};

/// Devices whose handshake is under way at a time.
const CONNECTING: usize = 64;
/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Windows of a steady measurement; their median counts.
const WINDOWS: usize = 3;

/// Why a measurement came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The system, or a connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is no hub.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// The server did not do what was waited for.
    #[error("{what} took longer than {} s; last refusal: {refusal}", PATIENCE.as_secs())]
    Stuck {
        /// What was waited for.
        what: &'static str,
        /// What the server last refused.
        refusal: String,
    },
    /// The server refused.
    #[error("{what}: refused {count} times, the last with {last}")]
    Refused {
        /// What was refused.
        what: &'static str,
        /// How often.
        count: u64,
        /// In what words.
        last: String,
    },
    /// An answer was not what the admin API promises.
    #[error("the hub's answer to an enrolment cannot be read")]
    Answer,
    /// The bare store failed.
    #[error("the floor's store: {0}")]
    Store(String),
}

/// A group of users, each with the same number of devices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) first: u32,
    pub(super) users: u32,
    pub(super) devices_each: u32,
}

impl Group {
    fn user(self, n: u64) -> u32 {
        self.first + u32::try_from(n % u64::from(self.users.max(1))).unwrap_or(0)
    }
}

/// A server and the fleet that loads it.
pub(super) struct Bench {
    pub(super) target: Target,
    pub(super) fleet: Fleet,
    pid: u32,
    server_cpu: CpuMeter,
    own_cpu: CpuMeter,
    updates: u64,
    request: Vec<u8>,
}

/// Updates at a rate.
#[derive(Debug)]
pub(super) struct Rated {
    /// Updates that arrived and were acked, per second.
    pub(super) rate: f64,
    /// Server CPU per delivered update, in microseconds, the cost of causing them included.
    pub(super) cpu_us: f64,
    /// Updates caused per update delivered.
    pub(super) causes: f64,
    /// From cause to device.
    pub(super) latency: Histogram<u64>,
    /// Share of its core that the server used.
    pub(super) busy: f64,
    /// Share of its core that the generator used.
    pub(super) generator_busy: f64,
}

impl Bench {
    pub(super) fn new(target: Target, pid: u32, callers: usize, users: u32) -> io::Result<Self> {
        let fleet = Fleet::new(target.control(), callers, users as usize)?;
        Ok(Self {
            target,
            fleet,
            pid,
            server_cpu: CpuMeter::new(pid),
            own_cpu: own_cpu(),
            updates: 0,
            request: Vec::new(),
        })
    }

    /// Causes one update of `user`.
    pub(super) fn update(&mut self, user: u32, devices: u32) {
        self.updates += 1;
        let caused_at = self.fleet.now();
        self.target.update(user, self.updates, caused_at, &mut self.request);
        self.fleet.expect(user, devices);
        self.fleet.call(user, &self.request);
    }

    /// Turns until `done` says so.
    pub(super) fn until(&mut self, what: &'static str, done: impl Fn(&Fleet) -> bool) -> Result<(), BenchError> {
        let until = Instant::now() + PATIENCE;
        while !done(&self.fleet) {
            if Instant::now() > until {
                return Err(BenchError::Stuck {
                    what,
                    refusal: self.fleet.tally.refused.1.clone(),
                });
            }
            self.fleet.turn(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Fails when anything was refused since the tally was last taken.
    pub(super) fn check(&self, what: &'static str) -> Result<(), BenchError> {
        match &self.fleet.tally.refused {
            (0, _) => Ok(()),
            (count, last) => Err(BenchError::Refused {
                what,
                count: *count,
                last: last.clone(),
            }),
        }
    }

    /// Lets `span` pass while the fleet goes on reading.
    pub(super) fn rest(&mut self, span: Duration) -> io::Result<()> {
        let until = Instant::now() + span;
        while Instant::now() < until {
            self.fleet.turn(Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Connects all `devices` and waits until each is up to date; server CPU per connect, in microseconds.
    pub(super) fn connect(&mut self, devices: &[Enrolment]) -> Result<f64, BenchError> {
        let upgrade = self.target.upgrade();
        let (already_open, already_live) = (self.fleet.devices(), self.fleet.tally.live);
        let before = self.server_cpu.read()?;
        for device in devices {
            let hello = self.target.hello(device);
            let open = self.fleet.devices() - already_open;
            self.until("the handshake of the devices", |fleet| {
                open - (fleet.tally.live - already_live) < CONNECTING || fleet.tally.closed > 0
            })?;
            self.check("connecting the devices")?;
            self.fleet.open(self.target.listen(), device.user, &upgrade, &hello)?;
            self.fleet.turn(Duration::ZERO)?;
        }
        self.until("the handshake of the devices", |fleet| {
            fleet.tally.live - already_live == devices.len() || fleet.tally.closed > 0
        })?;
        self.check("connecting the devices")?;
        let cpu = self.server_cpu.read()?.saturating_sub(before);
        Ok(micros(cpu) / devices.len().max(1) as f64)
    }

    /// Updates at `per_second` deliveries for `WINDOWS` times `window`; the medians of the windows. A group without
    /// devices gives what causing the updates costs alone, per update caused.
    pub(super) fn steady(&mut self, group: Group, per_second: f64, window: Duration) -> Result<Rated, BenchError> {
        let causes = per_second / f64::from(group.devices_each.max(1));
        self.windows(group, |bench| bench.pace(group, causes, window))
    }

    /// As many updates as the server takes: always `in_flight` users wait for one.
    pub(super) fn saturate(&mut self, group: Group, in_flight: u64, window: Duration) -> Result<Rated, BenchError> {
        let in_flight = in_flight.min(u64::from(group.users));
        self.windows(group, |bench| bench.push(group, in_flight, window))
    }

    /// Measures `WINDOWS` runs of `load`, which tells how many updates it caused.
    fn windows(
        &mut self,
        group: Group,
        load: impl Fn(&mut Self) -> Result<u64, BenchError>,
    ) -> Result<Rated, BenchError> {
        let mut latency = self.fleet.take_tally()?.latency;
        latency.reset();
        let mut windows = Vec::new();
        for _ in 0..WINDOWS {
            let started = Instant::now();
            let (server, own) = (self.server_cpu.read()?, self.own_cpu.read()?);
            let caused = load(self)?;
            let expected = caused * u64::from(group.devices_each);
            self.until("the delivery of the updates", |fleet| {
                fleet.tally.delivered >= expected && fleet.is_quiet()
            })?;
            let took = started.elapsed();
            let server = self.server_cpu.read()?.saturating_sub(server);
            let own = self.own_cpu.read()?.saturating_sub(own);
            self.check("the updates")?;
            let tally = self.fleet.take_tally()?;
            latency.add(&tally.latency).map_err(io::Error::other)?;
            windows.push(Window::new(took, server, own, tally.delivered, caused));
        }
        Ok(Window::median(windows, latency))
    }

    fn pace(&mut self, group: Group, per_second: f64, window: Duration) -> Result<u64, BenchError> {
        let interval = Duration::from_secs_f64(1.0 / per_second);
        let started = Instant::now();
        let (mut next, mut caused) = (started, 0);
        while started.elapsed() < window {
            while next <= Instant::now() && self.fleet.can_call() {
                self.update(group.user(caused), group.devices_each);
                caused += 1;
                next += interval;
            }
            let wait = next.saturating_duration_since(Instant::now());
            self.fleet.turn(wait.min(Duration::from_millis(20)))?;
        }
        Ok(caused)
    }

    fn push(&mut self, group: Group, in_flight: u64, window: Duration) -> Result<u64, BenchError> {
        let started = Instant::now();
        let (already, mut caused) = (self.fleet.completed, 0);
        while started.elapsed() < window {
            while self.outstanding(group, caused, already) < in_flight && self.fleet.can_call() {
                self.update(group.user(caused), group.devices_each);
                caused += 1;
            }
            self.fleet.turn(Duration::from_millis(20))?;
        }
        Ok(caused)
    }

    fn outstanding(&self, group: Group, caused: u64, already: u64) -> u64 {
        let completed = if group.devices_each == 0 {
            self.fleet.tally.calls
        } else {
            self.fleet.completed - already
        };
        caused.saturating_sub(completed)
    }

    /// One user, all of whose devices are updated at once: until the last has it.
    pub(super) fn last_of(&mut self, group: Group, rounds: u32) -> Result<Histogram<u64>, BenchError> {
        let mut last = self.fleet.take_tally()?.latency;
        last.reset();
        for _ in 0..rounds {
            self.update(group.first, group.devices_each);
            self.until("the delivery to the devices of one user", |fleet| {
                fleet.tally.delivered >= u64::from(group.devices_each) && fleet.is_quiet()
            })?;
            self.check("updating one user")?;
            let tally = self.fleet.take_tally()?;
            last.saturating_record(tally.latency.max());
            self.rest(Duration::from_millis(20))?;
        }
        Ok(last)
    }

    /// Resident memory of the server, in bytes.
    pub(super) fn resident(&self) -> io::Result<u64> {
        resident(self.pid)
    }
}

struct Window {
    rate: f64,
    cpu_us: f64,
    causes: f64,
    busy: f64,
    generator_busy: f64,
}

impl Window {
    fn new(took: Duration, server: Duration, own: Duration, delivered: u64, caused: u64) -> Self {
        // Without devices, the causes themselves are what is counted.
        let counted = if delivered == 0 { caused } else { delivered }.max(1) as f64;
        Self {
            rate: counted / took.as_secs_f64(),
            cpu_us: micros(server) / counted,
            causes: caused as f64 / counted,
            busy: server.as_secs_f64() / took.as_secs_f64(),
            generator_busy: own.as_secs_f64() / took.as_secs_f64(),
        }
    }

    fn median(mut windows: Vec<Self>, latency: Histogram<u64>) -> Rated {
        windows.sort_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us));
        let Self {
            rate,
            cpu_us,
            causes,
            busy,
            generator_busy,
        } = windows.swap_remove(windows.len() / 2);
        Rated {
            rate,
            cpu_us,
            causes,
            latency,
            busy,
            generator_busy,
        }
    }
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
