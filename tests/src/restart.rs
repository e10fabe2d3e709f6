//! A restart under many connected devices, measured: how long until all hold the newest again, and what that costs the hub.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use lockstep_client::{Builder, Timing, TransportChoice};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;

use crate::{
    admin::Answer,
    fleet::{Fleet, Member},
    hub::Hub,
    provider::Provider,
    scene::GRANT,
    settings::Settings,
    wait::eventually,
};

/// How long anything may take before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(600);
/// Calls of the admin API at a time.
const AT_ONCE: usize = 32;
/// Descriptors beside those of the devices.
const SPARE_FILES: u64 = 500;

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Devices in all; every other one polls.
    pub devices: usize,
    /// Devices of each user.
    pub devices_per_user: usize,
    /// Whether the hub is killed, and not asked to go.
    pub kill: bool,
}

/// What was measured.
#[derive(Debug)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// From the signal until the new hub was ready.
    pub down: Duration,
    /// From then on, until each device held what was committed after the restart; sorted.
    pub converged: Vec<Duration>,
    /// From then on, until the hub knew that nobody was behind.
    pub acked: Duration,
    /// What the new hub used until then.
    pub after: Usage,
    /// What the former one had used.
    pub before: Usage,
    /// Connections and requests that the new hub refused in that time.
    pub refused: u64,
}

/// What a process used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// The most memory that was resident, in KiB.
    pub peak_kib: u64,
    /// Processor time.
    pub cpu: Duration,
}

/// Restarts a hub under connected devices.
///
/// # Panics
/// When a device does not come back, or anything else goes wrong.
pub async fn run(plan: Plan) -> Report {
    raise_open_files(plan);
    let provider = Provider::start().await;
    let mut hub = Hub::start(Settings::new(&provider.token_endpoint())).await;
    let users: Vec<_> = (0..plan.devices.div_ceil(plan.devices_per_user.max(1)))
        .map(|n| format!("user-{n}"))
        .collect();
    let fleet = gather(&hub, &provider, &users, plan).await;
    fleet.reach(1, PATIENCE).await;
    let before = usage(&hub);

    let began = Instant::now();
    if plan.kill {
        hub.kill9().await;
    } else {
        hub.signal(Signal::TERM);
        hub.ended(Duration::from_secs(60)).await;
    }
    hub.start_again().await;
    let ready = Instant::now();
    // What is committed while they come back: each must hold this.
    let admin = hub.admin();
    let (_, converged) = tokio::join!(
        each(&users, async |user| admin.refresh(user, GRANT).await.expect(200)),
        arrivals(&fleet, ready)
    );
    nobody_is_behind(&hub, &users).await;
    let acked = ready.elapsed();
    let report = Report {
        plan,
        down: ready - began,
        converged,
        acked,
        after: usage(&hub),
        before,
        refused: refused(&hub).await,
    };
    fleet.close().await;
    report
}

/// Users, their grants and devices.
async fn gather(hub: &Hub, provider: &Provider, users: &[String], plan: Plan) -> Fleet {
    let (admin, url) = (hub.admin(), hub.url(""));
    each(users, async |user| {
        let login = provider.login(user).login();
        admin.login(user, GRANT, &login).await.expect(200)
    })
    .await;
    let owners: Vec<_> = (0..plan.devices)
        .map(|n| &users[n / plan.devices_per_user.max(1)])
        .collect();
    let enrolled = each(&owners, async |user| {
        admin.enrol_as(user, &json!({"kind": "cli", "name": "restart"})).await
    })
    .await;
    let mut members = Vec::new();
    for (nth, device) in enrolled.into_iter().enumerate() {
        let choice = [TransportChoice::Auto, TransportChoice::Poll][nth % 2];
        let set = |builder: Builder| builder.transport(choice).timing(Timing::default());
        members.push(Member::start(&url, device, set).await);
    }
    Fleet { members }
}

/// Does something for each, a few at a time.
async fn each<A, T>(all: &[A], of: impl AsyncFn(&A) -> T) -> Vec<T> {
    stream::iter(all).map(|one| of(one)).buffered(AT_ONCE).collect().await
}

/// How long after `ready` each device held version 2.
async fn arrivals(fleet: &Fleet, ready: Instant) -> Vec<Duration> {
    let arrivals = fleet.members.iter().map(async |member| {
        member.reaches(2, PATIENCE).await;
        ready.elapsed()
    });
    let mut arrivals = futures::future::join_all(arrivals).await;
    arrivals.sort_unstable();
    arrivals
}

async fn nobody_is_behind(hub: &Hub, users: &[String]) {
    let admin = hub.admin();
    each(users, async |user| {
        eventually("nobody is behind", PATIENCE, async || {
            let view = admin.user(user).await.body;
            let devices = view["devices"].as_array()?;
            let even = |device: &serde_json::Value| device["acked"] == view["seq"];
            devices.iter().all(even).then_some(())
        })
        .await;
    })
    .await;
}

/// What the hub's process used so far (proc(5)).
fn usage(hub: &Hub) -> Usage {
    let Some(pid) = hub.process().pid() else {
        return Usage::default();
    };
    let place = format!("/proc/{}", pid.as_raw_nonzero());
    let status = fs::read_to_string(format!("{place}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
    let stat = fs::read_to_string(format!("{place}/stat")).unwrap_or_default();
    // The name in brackets may hold anything; what follows is numbers. User and system time are fields 14 and 15.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|text| text.parse::<u64>().ok()).sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Usage {
        peak_kib: peak.unwrap_or(0),
        cpu: Duration::from_millis(ticks * 1000 / per_second),
    }
}

/// All that the hub counted as refused at its doors.
async fn refused(hub: &Hub) -> u64 {
    let metrics = hub.admin().anonymous(reqwest::Method::GET, "/metrics");
    let text = Answer::to(metrics).await.body;
    let lines = text.as_str().unwrap_or_default().lines();
    let lines = lines.filter(|line| line.starts_with("lockstep_connections_refused"));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Each device is a descriptor or two, here as there.
fn raise_open_files(plan: Plan) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).ok();
    let needed = plan.devices as u64 * 3 + SPARE_FILES;
    assert!(
        limit.maximum.is_none_or(|most| most >= needed),
        "the limit of open files is {:?}, and {needed} are needed (ulimit -Hn)",
        limit.maximum
    );
}

impl Report {
    /// How long it took until this share of the devices held the newest.
    pub fn converged_share(&self, percent: usize) -> Duration {
        let nth = self.converged.len() * percent / 100;
        let last = self.converged.len().saturating_sub(1);
        self.converged.get(nth.min(last)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.plan.kill { "killed" } else { "restarted" };
        writeln!(
            f,
            "{} devices, every other one on long-poll; the hub was {how}",
            self.plan.devices
        )?;
        writeln!(f, "  no hub for                {:>9.1?}", self.down)?;
        for percent in [50, 99, 100] {
            let share = self.converged_share(percent);
            writeln!(
                f,
                "  {percent:>3} % hold the newest      {share:>9.1?} after it was ready"
            )?;
        }
        writeln!(f, "  all acked                 {:>9.1?}", self.acked)?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        for (when, usage) in [("before", self.before), ("after", self.after)] {
            writeln!(f, "  hub {when:<6} peak memory    {:>6.1} MiB", mib(usage.peak_kib))?;
            writeln!(f, "  hub {when:<6} processor time {:>9.1?}", usage.cpu)?;
        }
        write!(f, "  refused and come back     {:>6}", self.refused)
    }
}
