//! The hub under measurement.

use std::{
    net::SocketAddr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use lockstep_protocol::{DeviceId, Secret};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::{
    CALLERS, IN_FLIGHT, Options, SETTLE, SLOW_RATE,
    commits::WAITING,
    figures::{Common, Durable, HubFigures},
    phases::{Bench, BenchError, Group},
    system::Cores,
    target::{Enrolment, Target},
};
use crate::{
    authserver::{Authserver, Settings},
    hub::{HubProcess, HubSettings},
    term::Spinner,
};

/// Users without devices, for what a login alone costs.
const LONE_USERS: u32 = 1000;

/// Everything but durable commits: with the store in memory, so that what is left is the hub and not the disk.
pub(super) fn measure(options: Options, cores: Option<Cores>, spinner: &Spinner) -> Result<HubFigures, BenchError> {
    let provider = Provider::start()?;
    let hub = start(cores, "memory:", provider.token_endpoint())?;
    let groups = Groups::of(options);
    let mut bench = bench_of(&hub, groups.users())?;
    spinner.say("hub: logins and enrolments");
    login_all(&mut bench, groups.users())?;
    let crowd = enrol(&mut bench, groups.crowd)?;
    let family = enrol(&mut bench, groups.family)?;
    let common = measure_common(&mut bench, options, groups, &crowd, &family, spinner, "hub")?;

    spinner.say("hub: all devices of one user ask for a refresh at once");
    let redeems = ask_at_once(&mut bench, groups.family, &provider)?;
    Ok(HubFigures {
        common,
        askers: groups.family.devices_each,
        redeems,
    })
}

/// With the store on disk: how many logins become durable per second, and how long one takes to reach a device.
pub(super) fn measure_durable(
    options: Options,
    cores: Option<Cores>,
    spinner: &Spinner,
) -> Result<Durable, BenchError> {
    let provider = Provider::start()?;
    let hub = start(cores, "file:lockstep.db", provider.token_endpoint())?;
    let groups = Groups::of(Options {
        connections: options.connections.min(1000),
        big_user: 0,
        ..options
    });
    let mut bench = bench_of(&hub, groups.users())?;
    spinner.say("hub, durable store: logins and enrolments");
    login_all(&mut bench, groups.users())?;
    let crowd = enrol(&mut bench, groups.crowd)?;
    bench.connect(&crowd)?;
    spinner.say("hub, durable store: steady");
    let slow = bench.steady(groups.crowd, SLOW_RATE, options.window)?;
    spinner.say("hub, durable store: commits");
    let commits = bench.saturate(groups.lone, WAITING, options.window)?;
    Ok(Durable { slow, commits })
}

/// The measurements that hub and floor share.
pub(super) fn measure_common(
    bench: &mut Bench,
    options: Options,
    groups: Groups,
    crowd: &[Enrolment],
    family: &[Enrolment],
    spinner: &Spinner,
    who: &str,
) -> Result<Common, BenchError> {
    spinner.say(format!("{who}: what causing updates costs by itself"));
    let causes_per_second = SLOW_RATE / f64::from(groups.crowd.devices_each);
    let slow_causes = bench.steady(groups.lone, causes_per_second, options.window)?;
    let fast_causes = bench.saturate(groups.lone, IN_FLIGHT, options.window)?;
    let empty = bench.resident()?;

    spinner.say(format!("{who}: {} devices connect", crowd.len()));
    let connect_us = bench.connect(crowd)?;
    bench.rest(SETTLE)?;
    let cold = bench.resident()?;

    spinner.say(format!("{who}: {SLOW_RATE} updates per second"));
    let slow = bench.steady(groups.crowd, SLOW_RATE, options.window)?;
    spinner.say(format!("{who}: as many updates as it takes"));
    let fast = bench.saturate(groups.crowd, IN_FLIGHT, options.window)?;
    bench.rest(SETTLE)?;
    let warm = bench.resident()?;

    spinner.say(format!("{who}: one user with {} devices", family.len()));
    bench.connect(family)?;
    let last = bench.last_of(groups.family, options.rounds)?;
    let per_device = |now: u64| now.saturating_sub(empty) as f64 / 1024.0 / crowd.len().max(1) as f64;
    Ok(Common {
        cold_kib: per_device(cold),
        warm_kib: per_device(warm),
        connect_us,
        slow_causes,
        fast_causes,
        slow,
        fast,
        last,
    })
}

/// Who is who.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    /// Users with a few devices each: the main fleet.
    pub(super) crowd: Group,
    /// One user with many devices.
    pub(super) family: Group,
    /// Users without devices.
    pub(super) lone: Group,
}

impl Groups {
    pub(super) fn of(options: Options) -> Self {
        let users = options.connections / options.devices_per_user;
        Self {
            crowd: Group {
                first: 0,
                users,
                devices_each: options.devices_per_user,
            },
            family: Group {
                first: users,
                users: 1,
                devices_each: options.big_user,
            },
            lone: Group {
                first: users + 1,
                users: LONE_USERS,
                devices_each: 0,
            },
        }
    }

    pub(super) fn users(self) -> u32 {
        self.lone.first + self.lone.users
    }
}

fn start(cores: Option<Cores>, store: &'static str, token_endpoint: String) -> Result<HubProcess, BenchError> {
    let settings = HubSettings {
        token_endpoint,
        store,
        provider: "reject_interval = \"0s\"",
        more: "",
    };
    Ok(Cores::on_server_core(cores, || HubProcess::start(&settings))??)
}

fn bench_of(hub: &HubProcess, users: u32) -> Result<Bench, BenchError> {
    let target = Target::Hub {
        listen: hub.listening(),
        admin: hub.admin(),
        admin_token: hub.admin_token().clone(),
    };
    Ok(Bench::new(target, hub.pid(), CALLERS, users)?)
}

/// Gives each user a grant.
fn login_all(bench: &mut Bench, users: u32) -> Result<(), BenchError> {
    for user in 0..users {
        bench.until("the logins", |fleet| fleet.can_call() || fleet.tally.refused.0 > 0)?;
        bench.update(user, 0);
        bench.check("the logins")?;
    }
    bench.until("the logins", |fleet| fleet.is_quiet() || fleet.tally.refused.0 > 0)?;
    bench.check("the logins")
}

/// The part of an answer to an enrolment that a device needs.
#[derive(Deserialize)]
struct Enrolled {
    device_id: DeviceId,
    access_token: Secret,
}

fn enrol(bench: &mut Bench, group: Group) -> Result<Vec<Enrolment>, BenchError> {
    bench.fleet.keep_answers = true;
    let mut request = Vec::new();
    for user in (group.first..group.first + group.users)
        .cycle()
        .take((group.users * group.devices_each) as usize)
    {
        bench.until("the enrolments", |fleet| fleet.can_call() || fleet.tally.refused.0 > 0)?;
        bench.target.enrol(user, &mut request);
        bench.fleet.call(user, &request);
        bench.check("the enrolments")?;
    }
    bench.until("the enrolments", |fleet| fleet.is_quiet() || fleet.tally.refused.0 > 0)?;
    bench.check("the enrolments")?;
    bench.fleet.keep_answers = false;
    bench
        .fleet
        .answers
        .drain(..)
        .map(|answer| {
            let enrolled: Enrolled = serde_json::from_slice(&answer.body).map_err(|_| BenchError::Answer)?;
            Ok(Enrolment {
                user: answer.tag,
                identity: Some((enrolled.device_id, enrolled.access_token)),
            })
        })
        .collect()
}

/// A real login at the provider, so that there is something to redeem; then everybody asks.
fn ask_at_once(bench: &mut Bench, family: Group, provider: &Provider) -> Result<u64, BenchError> {
    let granted = provider.server.grant();
    let body = json!({
        "access_token": granted.access_token,
        "refresh_token": granted.refresh_token,
        "expires_in": granted.expires_in,
    });
    let request = bench.target.login(family.first, body.to_string().as_bytes());
    bench.fleet.take_tally()?;
    bench.fleet.call(family.first, &request);
    let everyone = u64::from(family.devices_each);
    bench.until("the login", |fleet| fleet.tally.delivered >= everyone)?;
    bench.fleet.take_tally()?;
    let asked = bench.fleet.ask_for_refresh(family.first)?;
    bench.until("the answers to the refreshes", |fleet| {
        fleet.tally.done == asked && fleet.tally.delivered >= everyone || fleet.tally.refused.0 > 0
    })?;
    bench.check("asking for a refresh")?;
    Ok(provider.server.stats().calls)
}

/// The authorization server, on a thread of its own: the generator's thread never waits for it.
struct Provider {
    server: Authserver,
    _running: oneshot::Sender<()>,
}

impl Provider {
    fn start() -> Result<Self, BenchError> {
        let (tell, told) = mpsc::sync_channel(1);
        let (running, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let settings = Settings {
                    access_ttl: Duration::from_secs(86_400),
                    access_bytes: 1000,
                    ..Settings::default()
                };
                let listen = SocketAddr::from(([127, 0, 0, 1], 0));
                let _ = tell.send(Authserver::start(listen, settings).await);
                let _ = stopped.await;
            });
        });
        let started = Instant::now();
        let server = told
            .recv_timeout(Duration::from_secs(10))
            .map_err(|_| std::io::Error::other(format!("no authorization server after {:?}", started.elapsed())))??;
        Ok(Self {
            server,
            _running: running,
        })
    }

    fn token_endpoint(&self) -> String {
        self.server.token_endpoint()
    }
}
