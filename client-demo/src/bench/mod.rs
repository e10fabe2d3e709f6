//! Benchmarks: what a connection, an update and a commit cost the hub, beside a floor measured in the same run.
//!
//! The server under measurement runs in a process of its own on one core; the generator has another core.

mod commits;
mod figures;
mod floor;
mod floor_process;
mod generator;
mod hub_run;
mod phases;
mod report;
mod system;
mod target;

use std::time::Duration;

pub use phases::BenchError;
pub use report::{Figure, Report, Setting, show};

pub(crate) use floor::serve as serve_floor;

use crate::term::Terminal;
use system::Cores;

/// How big and how long.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Connections of the main fleet.
    pub connections: u32,
    /// Devices of each of its users.
    pub devices_per_user: u32,
    /// Devices of the one user with many.
    pub big_user: u32,
    /// How long one window of a rate is.
    pub window: Duration,
    /// Rounds in which the user with many devices is updated.
    pub rounds: u32,
}

impl Options {
    /// What the budgets are about.
    pub fn full() -> Self {
        Self {
            connections: 10_000,
            devices_per_user: 10,
            big_user: 1000,
            window: Duration::from_secs(3),
            rounds: 200,
        }
    }

    /// A tenth of it, for a quick look.
    pub fn quick() -> Self {
        Self {
            connections: 1000,
            devices_per_user: 10,
            big_user: 200,
            window: Duration::from_secs(1),
            rounds: 30,
        }
    }
}

/// Deliveries per second of the slow steady rate.
const SLOW_RATE: f64 = 2000.0;
/// Users that wait for an update at a time when the server is saturated.
const IN_FLIGHT: u64 = 64;
/// Keep-alive connections that cause updates.
const CALLERS: usize = 64;
/// How long the server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);
/// Descriptors beside those of the devices.
const SPARE_FILES: u64 = 500;

/// Measures everything.
///
/// # Errors
/// When there is no hub, when it refuses what the bench does, or when the system has too few descriptors.
pub fn run(options: Options, terminal: Terminal) -> Result<Report, BenchError> {
    let files = system::raise_open_files()?;
    let needed = u64::from(options.connections + options.big_user) + SPARE_FILES;
    if files < needed {
        let why = format!("the limit of open files is {files}, and {needed} are needed (ulimit -Hn)");
        return Err(std::io::Error::other(why).into());
    }
    let cores = Cores::choose();
    let spinner = terminal.spinner("the hub");
    let hub = hub_run::measure(options, cores, &spinner)?;
    let durable = hub_run::measure_durable(options, cores, &spinner)?;
    let floor = floor_process::measure(options, cores, &spinner)?;
    spinner.say("the floor's store");
    let bare_store = commits::bare_redb(options.window * 2)?;
    drop(spinner);
    Ok(figures::report(
        options,
        cores.is_some(),
        &hub,
        &durable,
        &floor,
        bare_store,
    ))
}
