//! The same devices behind a hub.

use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use lockstep_client::{Client, GrantName, Proxy, Secret, TransportChoice, Version};
use reqwest::StatusCode;
use serde::Serialize;

use super::{Options, StormError, device_name, strict_authserver};
use crate::{
    authserver::Authserver,
    hub::{Admin, HubProcess, HubSettings, direct},
    term::Terminal,
};

/// The user of the demonstration.
const USER: &str = "alice";
/// How long a device may take to come to the hub.
const CONNECTED_WITHIN: Duration = Duration::from_secs(15);
/// How long after a round a call of the token endpoint may be under way.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// How many tokens a device tries, should each have expired before it was used.
const ATTEMPTS: usize = 3;
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
    /// How many versions it took: more than one if the token expired again meanwhile.
    pub versions: u64,
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

    /// Whether the promise held: one redeem of each version, every device acked, nobody met an error.
    pub fn kept(&self, everyone: usize) -> bool {
        self.redeems > 0
            && self.redeems == self.versions
            && self.acked == everyone
            && self.devices.len() == everyone
            && self.errors() == 0
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
    spinner.say("the devices connect");
    let devices = connect(options, &hub, &admin).await?;

    let scene = Scene {
        devices,
        grant,
        server,
        admin,
    };
    let mut at = Reached { calls: 0, version: 1 };
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        spinner.say(format!(
            "expiry {number}: all devices work; their token is about to expire"
        ));
        let refused = scene.expired().await?;
        spinner.say(format!("expiry {number}: all devices ask the hub"));
        let (round, reached) = scene.round(refused, at).await?;
        at = reached;
        spinner.aside(|| tell(number, &round));
        rounds.push(round);
    }
    let logged_out = rounds.last().map_or(0, Round::errors);
    join_all(scene.devices.iter().map(|device| device.client.close())).await;
    drop(tokio::task::spawn_blocking(move || drop(hub)).await);

    let everyone = options.devices;
    Ok(With {
        redeems: rounds.iter().map(|round| round.redeems).sum(),
        acked: rounds.iter().map(|round| round.acked).sum(),
        invalid_grants: scene.server.stats().invalid_grants,
        logged_out,
        ok: rounds.iter().all(|round| round.kept(everyone)),
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
                .proxy(Proxy::Direct)
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
                http: direct(),
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

/// Everyone who takes part.
struct Scene {
    devices: Vec<Device>,
    grant: GrantName,
    server: Authserver,
    admin: Admin,
}

/// How often the token endpoint was called, and which version that led to.
#[derive(Debug, Clone, Copy)]
struct Reached {
    calls: u64,
    version: u64,
}

impl Scene {
    /// Waits until the resource refuses the token that the devices hold now, and tells its version.
    async fn expired(&self) -> Result<Version, StormError> {
        let Some(lease) = self.devices[0].client.state(&self.grant).token().cloned() else {
            return Ok(Version::default());
        };
        while self.devices[0].works(&lease.access_token, &self.server).await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(lease.version)
    }

    /// All devices were refused at the same moment.
    async fn round(&self, refused: Version, from: Reached) -> Result<(Round, Reached), StormError> {
        let devices = self.devices.iter();
        let outcomes = try_join_all(devices.map(|device| device.on_401(&self.grant, refused, &self.server))).await?;
        let acked = acks(&self.admin, self.devices.len()).await?;
        let reached = self.reached().await?;
        let round = Round {
            version: reached.version,
            versions: reached.version.saturating_sub(from.version),
            redeems: reached.calls.saturating_sub(from.calls),
            acked,
            devices: outcomes,
        };
        Ok((round, reached))
    }

    /// Once no call is under way: each has led to a version, or one of them was one too many.
    async fn reached(&self) -> Result<Reached, StormError> {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let view = self.admin.user(USER).await?;
            let mut grants = view.grants.iter().filter(|view| view.grant == self.grant);
            let reached = Reached {
                version: grants.next().map_or(0, |view| view.version.0),
                calls: self.server.stats().calls,
            };
            if reached.calls + 1 == reached.version || Instant::now() > until {
                return Ok(reached);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Device {
    async fn works(&self, token: &Secret, server: &Authserver) -> Result<bool, reqwest::Error> {
        let request = self.http.get(server.resource()).bearer_auth(token.expose());
        Ok(request.send().await?.status() == StatusCode::OK)
    }

    /// The resource refused the token: what a program that uses the library does.
    async fn on_401(
        &self,
        grant: &GrantName,
        refused: Version,
        server: &Authserver,
    ) -> Result<RoundDevice, StormError> {
        let started = Instant::now();
        let mut answer = self.client.report_rejected(grant, refused).await;
        let waited_ms = started.elapsed().as_secs_f64() * 1000.0;
        let mut works = false;
        for _ in 0..ATTEMPTS {
            let Ok(lease) = &answer else { break };
            works = self.works(&lease.access_token, server).await?;
            if works || !lease.remaining().is_some_and(|left| left.is_zero()) {
                break;
            }
            // On a busy machine a token of two seconds may well have expired before it is used.
            answer = self.client.report_rejected(grant, lease.version).await;
        }
        Ok(RoundDevice {
            name: self.name.clone(),
            transport: self.client.connection().borrow().transport.as_str(),
            waited_ms,
            works,
            error: answer.err().map(|error| error.to_string()),
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

#[cfg(test)]
mod tests {
    use super::{Round, RoundDevice};

    fn round(redeems: u64, acked: usize, works: [bool; 2]) -> Round {
        let device = |works| RoundDevice {
            name: "cli-1".into(),
            transport: "ws",
            waited_ms: 1.0,
            works,
            error: None,
        };
        Round {
            version: 2,
            versions: 1,
            redeems,
            acked,
            devices: works.map(device).into(),
        }
    }

    #[test]
    fn the_promise_is_one_redeem_all_acked_and_no_error() {
        assert!(round(1, 2, [true, true]).kept(2));
        for broken in [
            round(0, 2, [true, true]),
            round(2, 2, [true, true]),
            round(1, 1, [true, true]),
            round(1, 2, [true, false]),
        ] {
            assert!(!broken.kept(2), "{broken:?}");
        }
        assert!(!round(1, 2, [true, true]).kept(3), "a device is missing");
    }
}
