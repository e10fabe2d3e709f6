//! The hunt: seeds are run until one breaks a promise; that one is shrunk and told so that a person can read it.

use std::{
    env, fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::{
    law::Violation,
    script::{Script, What},
    world::{Ran, run},
};
use crate::grant::broken::Broken;

/// A seed that breaks a promise, shrunk.
pub(crate) struct Found {
    seed: u64,
    script: Script,
    ran: Ran,
}

/// Runs seeds `from..from + count`, or, with `go_on`, for as long as that says so. Returns the first that breaks a promise,
/// and how many were run.
pub(crate) fn hunt(
    from: u64,
    count: u64,
    broken: Option<Broken>,
    go_on: &(dyn Fn() -> bool + Sync),
) -> (Option<u64>, Tally) {
    let (next, over) = (AtomicU64::new(from), AtomicBool::new(false));
    let found = Mutex::new(None::<u64>);
    let tally = Mutex::new(Tally::default());
    let work = || {
        let mut mine = Tally::default();
        while !over.load(Ordering::Relaxed) && go_on() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from.saturating_add(count) {
                break;
            }
            let ran = run(&Script::of(seed), broken, false);
            mine.take(&ran);
            if ran.violation.is_some() {
                over.store(true, Ordering::Relaxed);
                let mut found = found.lock().unwrap();
                *found = Some(found.map_or(seed, |other| other.min(seed)));
            }
        }
        tally.lock().unwrap().add(&mine);
    };
    let workers = thread::available_parallelism().map_or(1, |n| n.get().min(2));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    (found.into_inner().unwrap(), tally.into_inner().unwrap())
}

/// What was run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) schedules: u64,
    pub(crate) steps: u64,
    pub(crate) versions: u64,
}

impl Tally {
    fn take(&mut self, ran: &Ran) {
        self.schedules += 1;
        self.steps += ran.steps;
        self.versions += ran.versions;
    }

    fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.versions += other.versions;
    }
}

/// Shrinks a seed that breaks a promise: drops what it can while the same promise breaks.
pub(crate) fn shrink(seed: u64, broken: Option<Broken>) -> Found {
    let mut script = Script::of(seed);
    let first = run(&script, broken, false);
    let promise = first.violation.as_ref().map(|violation| violation.promise);
    let fails = |script: &Script| run(script, broken, false).violation.map(|violation| violation.promise) == promise;
    loop {
        let before = script.events.len();
        drop_lines(&mut script, &fails);
        drop_people(&mut script, &fails);
        soften(&mut script, &fails);
        if script.events.len() == before {
            break;
        }
    }
    let ran = run(&script, broken, true);
    Found { seed, script, ran }
}

fn drop_lines(script: &mut Script, fails: &dyn Fn(&Script) -> bool) {
    let mut chunk = script.events.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < script.events.len() {
            let mut less = script.clone();
            let end = (at + chunk).min(less.events.len());
            less.events.drain(at..end);
            if fails(&less) {
                *script = less;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
}

fn drop_people(script: &mut Script, fails: &dyn Fn(&Script) -> bool) {
    let tries: [fn(&mut Script); 4] = [
        |s| s.setup.jitter = false,
        |s| s.setup.schedules = false,
        |s| s.setup.devices = s.setup.devices.saturating_sub(1),
        |s| s.setup.nodes = s.setup.nodes.saturating_sub(1).max(1),
    ];
    for change in tries.iter().chain(&tries) {
        let mut less = script.clone();
        change(&mut less);
        if fails(&less) {
            *script = less;
        }
    }
}

/// Makes lines weaker: a crash at once instead of at a moment, and shorter spans.
fn soften(script: &mut Script, fails: &dyn Fn(&Script) -> bool) {
    for index in 0..script.events.len() {
        let mut less = script.clone();
        if let What::Crash { down, .. } = &mut less.events[index].what {
            *down = 1_000;
        }
        if fails(&less) {
            *script = less;
        }
    }
}

impl Found {
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.ran.violation.as_ref()
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.seed;
        match self.violation() {
            Some(violation) => writeln!(f, "seed {seed} breaks a promise. {violation}")?,
            None => writeln!(f, "seed {seed} breaks no promise.")?,
        }
        writeln!(
            f,
            "replay: LOCKSTEP_SIM_SEED={seed} cargo test -p lockstep-engine --lib sim::hunt::schedules -- --nocapture"
        )?;
        writeln!(f, "\nThe script, shrunk:\n{}\nWhat happens:", self.script)?;
        for line in &self.ran.trace {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many schedules the test command runs.
    const SCHEDULES: u64 = 20_000;

    fn number(name: &str) -> Option<u64> {
        env::var(name)
            .ok()
            .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
    }

    #[test]
    fn schedules_keep_every_promise() {
        if let Some(seed) = number("LOCKSTEP_SIM_SEED") {
            let found = shrink(seed, None);
            println!("{found}");
            assert!(found.violation().is_none(), "seed {seed} breaks a promise");
            return;
        }
        let (from, count) = (number("LOCKSTEP_SIM_FROM").unwrap_or(0), number("LOCKSTEP_SIM_SEEDS"));
        #[expect(clippy::disallowed_methods, reason = "how long the hunt goes on, not what it does")]
        let started = std::time::Instant::now();
        let hours = number("LOCKSTEP_SIM_HOURS").map(|hours| std::time::Duration::from_secs(hours * 3600));
        let go_on = || hours.is_none_or(|most| started.elapsed() < most);
        let count = count.unwrap_or(if hours.is_some() { u64::MAX } else { SCHEDULES });
        let (found, tally) = hunt(from, count, None, &go_on);
        println!("{tally:?} in {:?}", started.elapsed());
        if let Some(seed) = found {
            panic!("{}", shrink(seed, None));
        }
    }
}
