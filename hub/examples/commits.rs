//! How many durable commits a store takes per second while many wait.
//!
//! `cargo run --release -p lockstep-hub --example commits -- [--url file:commits.db] [--waiting 64] [--grants 10000]
//! [--bytes 1200] [--seconds 5]`
//!
//! Each of `waiting` tasks commits the next version of one grant after the other; every commit is fsynced when it is
//! counted. The same run measures the disk: one append and fsync for 64 records of the same size.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures and tells"
)]

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lockstep_engine::time::Unix;
use lockstep_hub::store::{self, CommitRow, Committed, Hash, Sealed, Store};
use lockstep_protocol::{GrantName, LeaseId, UserId, Version, frame::Cause};
use uuid::Uuid;

struct Options {
    url: String,
    waiting: u64,
    grants: u64,
    bytes: usize,
    seconds: u64,
}

fn options() -> Options {
    let mut options = Options {
        url: "file:commits.db".into(),
        waiting: 64,
        grants: 10_000,
        bytes: 1_200,
        seconds: 5,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap();
        match word.as_str() {
            "--url" => options.url = value,
            "--waiting" => options.waiting = value.parse().unwrap(),
            "--grants" => options.grants = value.parse().unwrap(),
            "--bytes" => options.bytes = value.parse().unwrap(),
            "--seconds" => options.seconds = value.parse().unwrap(),
            other => panic!("{other} is no option"),
        }
    }
    options
}

#[tokio::main]
async fn main() {
    let options = Arc::new(options());
    let dir = tempfile::tempdir_in(".").unwrap();
    let floor = floor(dir.path(), options.bytes);
    println!("floor: append and fsync of 64 records at once   {floor:>9.0} records/s");

    let store = store::open(&options.url, dir.path()).await.unwrap();
    let filled = Instant::now();
    run(&store, &options, |done| done < options.grants).await;
    println!("filled: {} grants in {:.1?}", options.grants, filled.elapsed());

    let end = Instant::now() + Duration::from_secs(options.seconds);
    let (cpu, start) = (cpu(), Instant::now());
    let reads = tokio::spawn(reads(Arc::clone(&store), Arc::clone(&options), end));
    let mut latencies = run(&store, &options, |_| Instant::now() < end).await;
    let (took, cpu) = (start.elapsed(), self::cpu() - cpu);
    latencies.sort_unstable();
    let rate = latencies.len() as f64 / took.as_secs_f64();
    println!(
        "commits: {rate:.0}/s with {} waiting; {:.1} µs of CPU each; p50 {:.2?} p99 {:.2?} p99.9 {:.2?}; floor/commits {:.1}",
        options.waiting,
        cpu.as_secs_f64() * 1e6 / latencies.len() as f64,
        percentile(&latencies, 0.5),
        percentile(&latencies, 0.99),
        percentile(&latencies, 0.999),
        floor / rate,
    );
    let mut reads = reads.await.unwrap();
    reads.sort_unstable();
    println!(
        "reads meanwhile: p50 {:.1?} p99 {:.1?} worst {:.1?}",
        percentile(&reads, 0.5),
        percentile(&reads, 0.99),
        reads.last().unwrap()
    );
}

/// Commits on grant after grant, round and round, as long as `go_on` says so of the number of commits begun.
async fn run(store: &Arc<dyn Store>, options: &Arc<Options>, go_on: impl Fn(u64) -> bool + Sync) -> Vec<Duration> {
    let begun = AtomicU64::new(0);
    let tasks = (0..options.waiting).map(|task| {
        let (begun, go_on) = (&begun, &go_on);
        async move {
            let mut latencies = Vec::new();
            // Each task has grants of its own, spread over the whole range.
            let own = (options.grants / options.waiting).max(1);
            let mut next = 0;
            while go_on(begun.fetch_add(1, Ordering::Relaxed)) {
                let number = (next % own) * options.waiting + task;
                let row = commit(store, number, options.bytes).await;
                let start = Instant::now();
                let committed = store.commit(row).await.unwrap();
                latencies.push(start.elapsed());
                assert!(matches!(committed, Committed::Done(_)), "somebody else committed");
                next += 1;
            }
            latencies
        }
    });
    futures::future::join_all(tasks).await.concat()
}

async fn commit(store: &Arc<dyn Store>, number: u64, bytes: usize) -> CommitRow {
    let (user, grant) = name(number);
    let from_version = store
        .load(&user, &grant)
        .await
        .unwrap()
        .map_or(Version(0), |record| record.version);
    let now = 1_700_000_000_000 + number;
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    CommitRow {
        user,
        grant,
        lease: Some(LeaseId(Uuid::new_v4())),
        from_version,
        tokens: Sealed {
            key: 1,
            bytes: vec![7; bytes],
        },
        expires_at: Some(Unix(now + 3_600_000)),
        cause: Cause::Refresh,
        refreshed_at: Unix(now),
        due_at: Some(Unix(now + 3_300_000 + from_version.0)),
        wake_at: None,
        retire: Some(Hash(hash)),
        unless_retired: None,
        rejected_in_a_row: 0,
    }
}

fn name(number: u64) -> (UserId, GrantName) {
    // Scattered, as users' names are.
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (
        format!("user-{scattered:016x}").parse().unwrap(),
        "example/main".parse().unwrap(),
    )
}

async fn reads(store: Arc<dyn Store>, options: Arc<Options>, end: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut number = 0;
    while Instant::now() < end {
        let (user, _) = name(number % options.grants);
        let start = Instant::now();
        store.user(&user).await.unwrap();
        latencies.push(start.elapsed());
        number += 7;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    latencies
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn floor(dir: &Path, bytes: usize) -> f64 {
    let mut file = File::create(dir.join("floor")).unwrap();
    let records = vec![7; 64 * (bytes + 800)];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(1) {
        file.write_all(&records).unwrap();
        file.sync_data().unwrap();
        count += 64;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// CPU time of this process, user and system.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}
