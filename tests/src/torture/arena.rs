//! Everything that takes part: providers, store, bus, hubs, links between them, users with their devices.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tempfile::TempDir;

use super::stalls::Stalls;
use crate::{
    device::Follower,
    hub::Hub,
    link::{Link, Weather},
    network::Island,
    provider::{Provider, Rules},
    servers::{Postgres, Redis},
    settings::Settings,
};

/// How long the tokens live that the providers issue.
const LIFE: Duration = Duration::from_secs(6);
/// How long the graceful provider takes a used refresh token: longer than any fault lasts.
const GRACE: Duration = Duration::from_secs(120);
/// How many hubs.
const NODES: usize = 3;
/// How many users, each with as many devices.
const USERS: usize = 12;
const DEVICES: usize = 5;

/// What a link of a node leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// Its store.
    Postgres,
    /// Its bus.
    Redis,
    /// The providers.
    Providers,
    /// Its devices.
    Devices,
}

impl Wire {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Redis, Self::Providers, Self::Devices];
}

/// The wire that is never cut, beside [`Wire::ALL`]: by it the test itself speaks to a hub.
const OPERATORS: u8 = 4;
const WIRES: u8 = 5;

/// What links are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Proxies on loopback: a cut link is a reset, a silent one keeps everything for later.
    Proxies,
    /// Each hub in a network of its own, with a wire for each link: whatever breaks, packets vanish both ways, and nobody
    /// is told. Hubs have no wire to each other, for they speak by Redis or the store only. Only inside
    /// [`crate::network::apart`].
    Islands,
}

/// A hub and the links that it has.
pub struct Node {
    /// The hub.
    pub hub: Hub,
    /// Where devices connect.
    pub listen: SocketAddr,
    /// Where the hub is, if not on this machine's own loopback.
    pub island: Option<Island>,
    postgres: Link,
    redis: Link,
    providers: [Link; 2],
    devices: Link,
}

impl Node {
    /// Changes what a link of it does.
    pub fn turn(&self, wire: Wire, weather: Weather) {
        if let Some(island) = &self.island {
            island.swallow(wire as u8, weather != Weather::Fair);
            return;
        }
        match wire {
            Wire::Postgres => self.postgres.turn(weather),
            Wire::Redis => self.redis.turn(weather),
            Wire::Providers => self.providers.iter().for_each(|link| link.turn(weather)),
            Wire::Devices => self.devices.turn(weather),
        }
    }
}

/// A user, one grant, and the devices that follow it.
pub struct User {
    /// Its name; also the family at the provider.
    pub name: String,
    /// Whether its provider forgives a used refresh token for a while.
    pub graceful: bool,
    /// Half of them on long-poll.
    pub devices: Vec<Follower>,
}

impl User {
    /// The grant's name.
    pub fn grant(&self) -> &'static str {
        if self.graceful { "graceful/main" } else { "strict/main" }
    }
}

/// All of it.
pub struct Arena {
    /// Takes a used refresh token again within [`GRACE`].
    pub graceful: Provider,
    /// Revokes a family when a refresh token comes twice.
    pub strict: Provider,
    /// The store.
    pub postgres: Postgres,
    /// The bus.
    pub redis: Redis,
    /// The hubs.
    pub nodes: Vec<Node>,
    /// The users.
    pub users: Vec<User>,
    /// When the test stood still.
    pub stalls: Stalls,
    _keys: TempDir,
}

impl Arena {
    /// Starts everything and waits for nothing but the hubs. These wait `timeout` for an answer of a provider.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start(ground: Ground, timeout: &str) -> Self {
        let rules = |grace| Rules {
            ttl: Some(LIFE),
            grace,
            ..Rules::default()
        };
        let (graceful, strict) = tokio::join!(Provider::with(rules(GRACE)), Provider::with(rules(Duration::ZERO)));
        let (postgres, redis) = tokio::join!(Postgres::start(), Redis::start());
        let keys = TempDir::with_prefix("lockstep-keys-").expect("a temporary directory");
        let key = keys.path().join("lockstep.key").display().to_string();
        let mut nodes = Vec::new();
        for nth in 0..NODES {
            let shared = Shared {
                key: &key,
                postgres: &postgres.url(),
                redis: &redis.url(),
                providers: [&graceful, &strict],
                timeout,
            };
            nodes.push(node(nth, ground, shared).await);
        }
        let mut arena = Self {
            graceful,
            strict,
            postgres,
            redis,
            nodes,
            users: Vec::new(),
            stalls: Stalls::watch(),
            _keys: keys,
        };
        // One by one: what is to be tortured is not setting up.
        for nth in 0..USERS {
            let user = arena.user(nth).await;
            arena.users.push(user);
        }
        arena
    }

    /// The provider of a user's grant.
    pub fn provider(&self, user: &User) -> &Provider {
        if user.graceful { &self.graceful } else { &self.strict }
    }

    /// Brings a fresh login of a user, through whichever node takes it. False: none did.
    pub async fn log_in(&self, user: &User) -> bool {
        let pair = self.provider(user).login(&user.name);
        for node in &self.nodes {
            let request = node.hub.admin().request(
                reqwest::Method::PUT,
                &format!("/admin/v1/users/{}/grants/{}", user.name, user.grant()),
            );
            let request = request.json(&pair.login()).timeout(Duration::from_secs(5));
            if crate::Answer::try_to(request)
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                return true;
            }
        }
        false
    }

    async fn user(&self, nth: usize) -> User {
        let mut user = User {
            name: format!("user-{nth}"),
            graceful: nth.is_multiple_of(2),
            devices: Vec::new(),
        };
        assert!(self.log_in(&user).await, "a login of {}", user.name);
        for device in 0..DEVICES {
            let enrolled = self.nodes[nth % NODES].hub.admin().enrol(&user.name).await;
            let mut hubs: Vec<SocketAddr> = self.nodes.iter().map(|node| node.listen).collect();
            hubs.rotate_left((nth + device) % NODES);
            let polls = (nth + device) % 2 == 1;
            user.devices.push(if polls {
                Follower::polling(hubs, enrolled)
            } else {
                Follower::roaming(hubs, enrolled)
            });
        }
        user
    }
}

/// What all nodes have in common.
struct Shared<'a> {
    key: &'a str,
    postgres: &'a str,
    redis: &'a str,
    providers: [&'a Provider; 2],
    timeout: &'a str,
}

async fn node(nth: usize, ground: Ground, shared: Shared<'_>) -> Node {
    let nth_island = u8::try_from(nth).expect("a few nodes");
    let island = (ground == Ground::Islands).then(|| Island::rise(nth_island, WIRES));
    let link = async |wire: Wire, url: &str| {
        let url = url::Url::parse(url).expect("a URL");
        let target = url.socket_addrs(|| None).expect("an address")[0];
        let here = island.as_ref().map(|island| island.here(wire as u8));
        Link::at(here.unwrap_or(Ipv4Addr::LOCALHOST), target).await
    };
    let endpoints = shared.providers.map(Provider::token_endpoint);
    let (postgres, redis) = tokio::join!(link(Wire::Postgres, shared.postgres), link(Wire::Redis, shared.redis));
    let providers = [
        link(Wire::Providers, &endpoints[0]).await,
        link(Wire::Providers, &endpoints[1]).await,
    ];
    let mut settings = Settings::new("http://127.0.0.1:1/unused")
        .set("store.url", postgres.over(shared.postgres))
        .set("store.key_file", shared.key)
        .set("cluster.url", redis.over(shared.redis))
        .set("cluster.node", format!("node-{nth}"))
        .set("cluster.nodes", i64::try_from(NODES).unwrap_or(1))
        .set("server.drain", "2s")
        .set("identity.issuer", "https://hub.test")
        .set("identity.access_token_lifetime", "24h");
    for (name, endpoint, link, grace) in [
        ("graceful", &endpoints[0], &providers[0], "100s"),
        ("strict", &endpoints[1], &providers[1], "0s"),
    ] {
        settings = provider(settings, name, &link.over(endpoint), nth, grace)
            .set(&format!("providers.{name}.timeout"), shared.timeout);
    }
    let (hub, listen, devices);
    if let Some(island) = &island {
        settings = settings
            .set("server.listen", format!("{}:0", island.there(Wire::Devices as u8)))
            .set("server.admin_listen", format!("{}:0", island.there(OPERATORS)))
            .set("server.behind_proxy", true);
        hub = Hub::start_inside(settings, island.enter()).await;
        devices = Link::to(hub.listen).await;
        listen = hub.listen;
    } else {
        hub = Hub::start(settings).await;
        devices = Link::to(hub.listen).await;
        listen = devices.address;
    }
    Node {
        hub,
        listen,
        island,
        postgres,
        redis,
        providers,
        devices,
    }
}

fn provider(mut settings: Settings, name: &str, endpoint: &str, nth: usize, grace: &str) -> Settings {
    settings = settings
        .provider(name, endpoint)
        .set(&format!("providers.{name}.allow_http"), true);
    // The judge knows by it which node made a call.
    for (setting, value) in [
        ("client_id", format!("node-{nth}").as_str()),
        ("grace", grace),
        ("lead", "2s"),
        ("lease", "30s"),
        ("late_wait", "2s"),
    ] {
        settings = settings.set(&format!("providers.{name}.{setting}"), value);
    }
    settings
}
