//! What the operating system says about this process.

use metrics::gauge;

use super::metrics::{CPU_SECONDS, OPEN_FILES, RESIDENT_MEMORY};

/// Sets the gauges about this process. What cannot be read stays as it was.
#[expect(
    clippy::cast_precision_loss,
    reason = "bytes and ticks of one process are far below 2^52"
)]
pub(super) fn measure() {
    if let Some(bytes) = resident_bytes() {
        gauge!(RESIDENT_MEMORY).set(bytes as f64);
    }
    if let Some(seconds) = cpu_seconds() {
        gauge!(CPU_SECONDS).set(seconds);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge!(OPEN_FILES).set(files.count() as f64);
    }
}

/// proc(5): the second field of `statm` is resident pages.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn cpu_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    let seconds = u32::try_from(time.tv_sec).ok()?;
    Some(f64::from(seconds) + f64::from(nanos) / 1e9)
}
