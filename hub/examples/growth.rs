//! What a redeem and an idle grant cost a store as grants grow in number.
//!
//! `cargo run --release -p lockstep-hub --example growth -- [--url file:growth.db | postgres://…] [--sizes
//! 1000,10000,100000] [--bytes 1200]`
//!
//! A redeem is what the hub asks of the store for one: a claim and a commit, one after the other, nobody else about. An
//! idle grant costs its place, and what looking for due ones costs when none is. An empty database is expected.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures and tells"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use lockstep_engine::{
    record::{Holder, Purpose},
    time::Unix,
};
use lockstep_hub::store::{self, ClaimRow, Claimed, CommitRow, Committed, DueQuery, Hash, Sealed, Store};
use lockstep_protocol::{GrantName, LeaseId, UserId, Version, frame::Cause};
use uuid::Uuid;

/// How many times each is measured.
const SAMPLES: u64 = 500;

struct Options {
    url: String,
    sizes: Vec<u64>,
    bytes: usize,
}

fn options() -> Options {
    let mut options = Options {
        url: "file:growth.db".into(),
        sizes: vec![1_000, 10_000, 100_000],
        bytes: 1_200,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap();
        match word.as_str() {
            "--url" => options.url = value,
            "--sizes" => options.sizes = value.split(',').map(|size| size.parse().unwrap()).collect(),
            "--bytes" => options.bytes = value.parse().unwrap(),
            other => panic!("{other} is no option"),
        }
    }
    options
}

#[tokio::main]
async fn main() {
    let options = options();
    let dir = tempfile::tempdir_in(".").unwrap();
    let store = store::open(&options.url, dir.path()).await.unwrap();
    println!(
        "| grants | bytes each | claim p50 / p99 | commit p50 / p99 | hub CPU per redeem | nothing due | 64 due, each | user | 1000 seqs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut filled = 0;
    for size in options.sizes {
        fill(&store, filled..size, options.bytes).await;
        filled = size;
        let bytes = size_of(&options.url, dir.path()).await;
        let cpu = self::cpu();
        let (claims, commits) = redeems(&store, size, options.bytes).await;
        let cpu = (self::cpu() - cpu).as_secs_f64() * 1e6 / SAMPLES as f64;
        let nothing = timed(100, async |_| assert!(due(&store, "example").await == 0)).await;
        let some = due_at_once(&store, size, options.bytes).await;
        let user = timed(SAMPLES, async |n| {
            drop(store.user(&name(n * 7 % size).0).await.unwrap());
        })
        .await;
        let users: Vec<UserId> = (0..1000).map(|n| name(n).0).collect();
        let seqs = timed(50, async |_| assert_eq!(store.seqs(&users).await.unwrap().len(), 1000)).await;
        println!(
            "| {size} | {} | {} / {} | {} / {} | {cpu:.0} µs | {} | {some:.0} µs | {} | {} |",
            bytes / size,
            micros(&claims, 0.5),
            micros(&claims, 0.99),
            micros(&commits, 0.5),
            micros(&commits, 0.99),
            micros(&nothing, 0.5),
            micros(&user, 0.5),
            micros(&seqs, 0.5),
        );
    }
}

async fn fill(store: &Arc<dyn Store>, numbers: std::ops::Range<u64>, bytes: usize) {
    let commits = numbers.map(|number| {
        let store = Arc::clone(store);
        async move { commit(&store, "example", number, Version(0), None, bytes).await }
    });
    stream::iter(commits).buffer_unordered(64).collect::<Vec<_>>().await;
}

/// One redeem after the other, all over the range: how long each claim and each commit took.
async fn redeems(store: &Arc<dyn Store>, size: u64, bytes: usize) -> (Vec<Duration>, Vec<Duration>) {
    let (mut claims, mut commits) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let number = sample.wrapping_mul(0x9e37_79b9) % size;
        let (user, grant) = name(number);
        let record = store.load(&user, &grant).await.unwrap().unwrap();
        let lease = LeaseId(Uuid::new_v4());
        let row = ClaimRow {
            user,
            grant,
            lease,
            holder: me(),
            from_version: record.version,
            over: None,
            fence: Some(record.fence),
            ttl_ms: 45_000,
            purpose: Purpose::Redeem,
            for_device: false,
            doubt: None,
        };
        let start = Instant::now();
        assert!(matches!(store.claim(row).await.unwrap(), Claimed::Won(_)));
        claims.push(start.elapsed());
        let start = Instant::now();
        commit(store, "example", number, record.version, Some(lease), bytes).await;
        commits.push(start.elapsed());
    }
    claims.sort_unstable();
    commits.sort_unstable();
    (claims, commits)
}

/// What claiming costs of each of 64 that are due at once, in microseconds: grants of another provider, due since long.
async fn due_at_once(store: &Arc<dyn Store>, size: u64, bytes: usize) -> f64 {
    let mut took = Duration::ZERO;
    for round in 0..5 {
        let provider = format!("due-{size}-{round}");
        for number in 0..64 {
            commit(store, &provider, number, Version(0), None, bytes).await;
        }
        let start = Instant::now();
        assert_eq!(due(store, &provider).await, 64);
        took += start.elapsed();
    }
    took.as_secs_f64() * 1e6 / (5.0 * 64.0)
}

async fn due(store: &Arc<dyn Store>, provider: &str) -> usize {
    let query = DueQuery {
        provider: provider.to_owned(),
        holder: me(),
        ttl_ms: 45_000,
        used_since: Unix(0),
        in_use_since: Unix(0),
        lost: Vec::new(),
        leases: (0..64).map(|_| LeaseId(Uuid::new_v4())).collect(),
    };
    store.claim_due(query).await.unwrap().len()
}

async fn commit(
    store: &Arc<dyn Store>,
    provider: &str,
    number: u64,
    from_version: Version,
    lease: Option<LeaseId>,
    bytes: usize,
) {
    let (user, _) = name(number);
    let now = store_clock();
    let due_at = if provider == "example" {
        now + 3_300_000
    } else {
        1 + number
    };
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    let row = CommitRow {
        user,
        grant: GrantName::new(provider, "main").unwrap(),
        lease,
        from_version,
        tokens: Sealed {
            key: 1,
            bytes: vec![7; bytes],
        },
        expires_at: Some(Unix(now + 3_600_000)),
        cause: if lease.is_some() { Cause::Refresh } else { Cause::Login },
        refreshed_at: Unix(now),
        due_at: Some(Unix(due_at)),
        wake_at: None,
        retire: lease.map(|_| Hash(hash)),
        unless_retired: None,
        rejected_in_a_row: 0,
    };
    assert!(matches!(store.commit(row).await.unwrap(), Committed::Done(_)));
}

fn store_clock() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn me() -> Holder {
    Holder {
        node: "growth".into(),
        incarnation: 1,
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

async fn timed(times: u64, mut work: impl AsyncFnMut(u64)) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 0..times {
        let start = Instant::now();
        work(number).await;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    took
}

fn micros(sorted: &[Duration], share: f64) -> String {
    let at = sorted[((sorted.len() - 1) as f64 * share) as usize];
    format!("{:.0} µs", at.as_secs_f64() * 1e6)
}

/// The store's size on disk.
async fn size_of(url: &str, dir: &std::path::Path) -> u64 {
    if let Some(file) = url.strip_prefix("file:") {
        return std::fs::metadata(dir.join(file)).unwrap().len();
    }
    let pool = sqlx::PgPool::connect(url).await.unwrap();
    let bytes: i64 = sqlx::query_scalar(
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'lockstep'::regnamespace",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    bytes.unsigned_abs()
}

/// CPU time of this process, user and system.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}
