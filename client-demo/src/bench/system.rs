//! What the kernel knows of a process, and where it runs.

use std::{collections::HashMap, ffi::OsString, fs, io, path::PathBuf, process, thread, time::Duration};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Adds up the CPU time of a process, user and system, over all its threads.
///
/// `/proc/PID/stat` counts in hundredths of a second, which is too coarse for a quiet server; the scheduler's own
/// count of each thread (in nanoseconds) is not. A thread that has ended counts with what it was last seen with.
#[derive(Debug)]
pub(super) struct CpuMeter {
    tasks: PathBuf,
    seen: HashMap<OsString, u64>,
}

impl CpuMeter {
    pub(super) fn new(pid: u32) -> Self {
        Self {
            tasks: format!("/proc/{pid}/task").into(),
            seen: HashMap::new(),
        }
    }

    /// CPU time so far.
    pub(super) fn read(&mut self) -> io::Result<Duration> {
        for task in fs::read_dir(&self.tasks)? {
            let task = task?;
            // A thread that ends between the two reads is no error.
            let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let nanos = stat.split_whitespace().next().and_then(|field| field.parse().ok());
            if let Some(nanos) = nanos {
                self.seen.insert(task.file_name(), nanos);
            }
        }
        Ok(Duration::from_nanos(self.seen.values().sum()))
    }
}

/// Resident memory of a process, in bytes.
pub(super) fn resident(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|value| value.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("no VmRSS in /proc/PID/status"))
}

/// The cores that the measured server and the generator run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cores {
    server: usize,
    generator: usize,
}

impl Cores {
    /// The first two that this process may use; `None` when there is only one.
    pub(super) fn choose() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        Some(Self {
            server: cores.next()?,
            generator: cores.next()?,
        })
    }

    /// Runs `start` on the server's core: what it starts inherits the core, threads and child processes alike.
    pub(super) fn on_server_core<T>(cores: Option<Self>, start: impl FnOnce() -> T) -> io::Result<T> {
        let Some(Self { server, generator }) = cores else {
            return Ok(start());
        };
        pin(server)?;
        let started = start();
        pin(generator)?;
        Ok(started)
    }
}

/// Keeps the calling thread on one core.
fn pin(core: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only)?;
    thread::yield_now();
    Ok(())
}

/// The meter of this very process.
pub(super) fn own_cpu() -> CpuMeter {
    CpuMeter::new(process::id())
}

/// Raises the limit of open files to the most that is allowed, here and for what is started later; tells how many.
pub(super) fn raise_open_files() -> io::Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(maximum.unwrap_or(u64::MAX))
}
