//! The same devices behind a hub.

use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use lockstep_client::{Client, GrantName, TransportChoice};
use reqwest::StatusCode;
use serde::Serialize;

use super::{Options, StormError, device_name, strict_authserver};
use crate::{
    authserver::Authserver,
    hub::{Admin, HubProcess, HubSettings},
    term::{Spinner, Terminal},
};

/// The user of the demonstration.
const USER: &str = "alice";
/// How long a device may take to come to the hub.
const CONNECTED_WITHIN: Duration = Duration::from_secs(15);
/// How long after a round all acks may take.
const ACKED_WITHIN: Duration = Duration::from_secs(10);

/// What came of the part with a hub.
#[derive(Debug, Clone, Serialize)]
pub struct With {
    /// Each expiry, in order.
    pub rounds: Vec<Round>,
    /// Redeems of all rounds together.
    pub redeems: u64,
    /// Updates acked in all rounds together.
    pub acked: usize,
    /// Refreshes that were answered `invalid_grant`.
    pub invalid_grants: u64,
    /// Devices without a good token at the end.
    pub logged_out: usize,
    /// Whether each version was redeemed once, acked by all, and nobody met an error.
    pub ok: bool,
}

/// What one expiry brought.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// The version that all devices hold after it.
    pub version: u64,
    /// Calls of the token endpoint.
    pub redeems: u64,
    /// Devices that acked the update.
    pub acked: usize,
    /// Each device, in order.
    pub devices: Vec<RoundDevice>,
}

/// What one expiry brought one device.
#[derive(Debug, Clone, Serialize)]
pub struct RoundDevice {
    /// Its name.
    pub name: String,
    /// How it talks to the hub: `ws` or `poll`.
    pub transport: &'static str,
    /// Milliseconds from its asking until it held the new token.
    pub waited_ms: f64,
    /// Whether the resource takes the new token.
    pub works: bool,
    /// Why it holds none.
    pub error: Option<String>,
}

impl Round {
    /// Devices that met an error, or whose new token does not work.
    pub fn errors(&self) -> usize {
        self.devices.iter().filter(|device| !device.works).count()
    }

    /// The longest that a device waited, in milliseconds.
    pub fn slowest_ms(&self) -> f64 {
        self.devices.iter().map(|device| device.waited_ms).fold(0.0, f64::max)
    }
}

/// A device that does as the client library says: on 401 it reports the version and uses what it is given.
struct Device {
    name: String,
    client: Client,
    http: reqwest::Client,
}

pub(super) async fn run(
    options: Options,
    terminal: Terminal,
    mut tell: impl FnMut(usize, &Round),
) -> Result<With, StormError> {
    let spinner = terminal.spinner("the hub starts");
    let server = strict_authserver(options.access_ttl).await?;
    let hub = start_hub(&server).await?;
    let admin = Admin::new(&hub);
    let grant = GrantName::new("demo", "main").map_err(|error| StormError::Name(error.to_string()))?;
    admin.login(USER, &server.grant()).await?;
    let devices = connect(options, &hub, &admin).await?;

    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let round = round(number, &devices, &grant, &server, &admin, &spinner).await?;
        spinner.aside(|| tell(number, &round));
        rounds.push(round);
    }
    let logged_out = rounds.last().map_or(0, Round::errors);
    join_all(devices.iter().map(|device| device.client.close())).await;
    drop(tokio::task::spawn_blocking(move || drop(hub)).await);

    let everyone = options.devices;
    Ok(With {
        redeems: rounds.iter().map(|round| round.redeems).sum(),
        acked: rounds.iter().map(|round| round.acked).sum(),
        invalid_grants: server.stats().invalid_grants,
        logged_out,
        ok: rounds
            .iter()
            .all(|round| round.redeems == 1 && round.acked == everyone && round.errors() == 0),
        rounds,
    })
}

async fn start_hub(server: &Authserver) -> Result<HubProcess, StormError> {
    let settings = HubSettings {
        token_endpoint: server.token_endpoint(),
        store: "file:lockstep.db",
        // The hub would refresh ahead of the expiry and nobody would notice one: here the storm is let in.
        provider: "lead = \"0s\"\nreject_interval = \"0s\"",
        more: "",
    };
    let started = tokio::task::spawn_blocking(move || HubProcess::start(&settings)).await;
    Ok(started.map_err(std::io::Error::other)??)
}

async fn connect(options: Options, hub: &HubProcess, admin: &Admin) -> Result<Vec<Device>, StormError> {
    let url = format!("http://{}", hub.listening());
    let devices = try_join_all((0..options.devices).map(|index| {
        let url = url.clone();
        async move {
            let (kind, name) = device_name(index);
            let enrolled = admin.enrol(USER, kind, &name).await?;
            let poller = options.mixed && index % 2 == 1;
            let client = Client::builder(url)
                .device(enrolled.device_id, enrolled.device_refresh_token)
                .app("client-demo storm")
                .transport(if poller {
                    TransportChoice::Poll
                } else {
                    TransportChoice::Ws
                })
                .connect()
                .await?;
            Ok::<_, StormError>(Device {
                name,
                client,
                http: reqwest::Client::new(),
            })
        }
    }))
    .await?;
    let synced = join_all(devices.iter().map(|device| device.client.synced()));
    let synced = tokio::time::timeout(CONNECTED_WITHIN, synced).await;
    for outcome in synced.map_err(|_| StormError::NotConnected(hub.log_tail().to_string()))? {
        outcome.map_err(lockstep_client::Error::from)?;
    }
    Ok(devices)
}

async fn round(
    number: usize,
    devices: &[Device],
    grant: &GrantName,
    server: &Authserver,
    admin: &Admin,
    spinner: &Spinner,
) -> Result<Round, StormError> {
    spinner.say(format!(
        "round {number}: all devices work; their token is about to expire"
    ));
    while devices[0].token_works(grant, server).await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    spinner.say(format!("round {number}: all devices ask the hub"));
    let before = server.stats().calls;
    let outcomes = try_join_all(devices.iter().map(|device| device.on_401(grant, server))).await?;
    let acked = acks(admin, devices.len()).await?;
    Ok(Round {
        version: devices[0].client.state(grant).version().map_or(0, |version| version.0),
        redeems: server.stats().calls - before,
        acked,
        devices: outcomes,
    })
}

impl Device {
    async fn token_works(&self, grant: &GrantName, server: &Authserver) -> Result<bool, reqwest::Error> {
        let state = self.client.state(grant);
        let Some(lease) = state.token() else {
            return Ok(false);
        };
        let request = self.http.get(server.resource());
        let response = request.bearer_auth(lease.access_token.expose()).send().await?;
        Ok(response.status() == StatusCode::OK)
    }

    /// The resource refused the token: what a program that uses the library does.
    async fn on_401(&self, grant: &GrantName, server: &Authserver) -> Result<RoundDevice, StormError> {
        let started = Instant::now();
        let version = self.client.state(grant).version().unwrap_or_default();
        let answer = self.client.report_rejected(grant, version).await;
        let waited_ms = started.elapsed().as_secs_f64() * 1000.0;
        let error = answer.err().map(|error| error.to_string());
        Ok(RoundDevice {
            name: self.name.clone(),
            transport: self.client.connection().borrow().transport.as_str(),
            waited_ms,
            works: error.is_none() && self.token_works(grant, server).await?,
            error,
        })
    }
}

/// How many devices have acked the newest seq; waits for all of them within bounds.
async fn acks(admin: &Admin, everyone: usize) -> Result<usize, StormError> {
    let until = Instant::now() + ACKED_WITHIN;
    loop {
        let view = admin.user(USER).await?;
        let acked = view
            .devices
            .iter()
            .filter(|device| device.acked == Some(view.seq) && device.behind.is_empty())
            .count();
        if acked == everyone || Instant::now() > until {
            return Ok(acked);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
