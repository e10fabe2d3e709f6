//! Several hubs over one PostgreSQL, with or without a Redis between them.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    admin::{Admin, Answer, http},
    device::{Enrolled, Session},
    hub::Hub,
    provider::{Provider, Rules},
    scene::GRANT,
    servers::{Postgres, Redis},
    settings::Settings,
    wait::eventually,
};

/// How long a thing may take that waits for a server's return, a lapse or a sweep on a busy machine.
pub const HEALED: Duration = Duration::from_secs(60);

/// Hubs that share everything but their spools.
pub struct Cluster {
    /// The provider named `example`.
    pub provider: Provider,
    /// What keeps the truth.
    pub postgres: Postgres,
    /// What carries facts, unless the store does.
    pub redis: Option<Redis>,
    /// The nodes.
    pub hubs: Vec<Hub>,
    _keys: TempDir,
}

impl Cluster {
    /// Three nodes with a Redis.
    pub async fn start() -> Self {
        Self::with(3, true, Rules::default(), |settings| settings).await
    }

    /// `nodes` nodes, with settings and a provider of the test's own.
    ///
    /// # Panics
    /// When one of them does not become ready.
    pub async fn with(nodes: usize, redis: bool, rules: Rules, change: impl Fn(Settings) -> Settings) -> Self {
        Self::with_each(nodes, redis, rules, |_, settings| change(settings)).await
    }

    /// The same, with settings that differ by node.
    ///
    /// # Panics
    /// When one of them does not become ready.
    pub async fn with_each(
        nodes: usize,
        redis: bool,
        rules: Rules,
        change: impl Fn(usize, Settings) -> Settings,
    ) -> Self {
        let (postgres, provider) = tokio::join!(Postgres::start(), Provider::with(rules));
        let redis = if redis { Some(Redis::start().await) } else { None };
        let keys = TempDir::with_prefix("lockstep-keys-").expect("a temporary directory");
        let key_file = keys.path().join("lockstep.key").display().to_string();
        let url = redis.as_ref().map_or_else(|| "local:".to_owned(), Redis::url);
        let settings = Settings::new(&provider.token_endpoint())
            .set("store.url", postgres.url())
            .set("store.key_file", key_file)
            .set("cluster.url", url)
            .set("identity.issuer", "https://hub.test");
        let mut hubs = Vec::new();
        for node in 0..nodes {
            hubs.push(Hub::start(change(node, settings.clone())).await);
        }
        let cluster = Self {
            provider,
            postgres,
            redis,
            hubs,
            _keys: keys,
        };
        cluster.all_say("ok").await;
        cluster
    }

    /// The admin API of one node.
    pub fn admin(&self, node: usize) -> Admin {
        self.hubs[node].admin()
    }

    /// A user with a login at the provider and one device.
    ///
    /// # Panics
    /// When the first node does not take the login.
    pub async fn user(&self, user: &str) -> Enrolled {
        let pair = self.provider.login(user);
        self.admin(0).login(user, GRANT, &pair.login()).await.expect(200);
        self.admin(0).enrol(user).await
    }

    /// A session of a device at one node.
    pub async fn session(&self, node: usize, device: &Enrolled) -> Session {
        Session::fresh(&self.hubs[node], device).await
    }

    /// A session of a new device of `user` at each node.
    pub async fn sessions(&self, user: &str) -> Vec<Session> {
        let mut sessions = Vec::new();
        for (node, hub) in self.hubs.iter().enumerate() {
            let device = self.admin(node).enrol(user).await;
            sessions.push(Session::fresh(hub, &device).await);
        }
        sessions
    }

    /// What one node says of itself.
    pub async fn readyz(&self, node: usize) -> Answer {
        Answer::to(self.admin(node).anonymous(Method::GET, "/readyz")).await
    }

    /// Waits until what every node says of the cluster begins with `word`.
    ///
    /// # Panics
    /// When one does not.
    pub async fn all_say(&self, word: &str) {
        for node in 0..self.hubs.len() {
            eventually(&format!("node {node} says {word}"), HEALED, async || {
                self.readyz(node).await.text("cluster").starts_with(word).then_some(())
            })
            .await;
        }
    }

    /// Waits until each of these nodes knows of so many, itself included.
    ///
    /// # Panics
    /// When one does not.
    pub async fn all_count(&self, living: &[usize], nodes: usize) {
        let wanted = format!("lockstep_cluster_nodes {nodes}");
        for node in living {
            eventually(&format!("node {node} counts {nodes}"), HEALED, async || {
                let metrics = Answer::to(self.admin(*node).anonymous(Method::GET, "/metrics")).await;
                let text = metrics.body.as_str().unwrap_or_default();
                text.lines().any(|line| line == wanted).then_some(())
            })
            .await;
        }
    }

    /// `GET …/token` at one node.
    pub async fn get_token(&self, node: usize, device: &Enrolled) -> Answer {
        let request = http().get(self.hubs[node].url(&format!("/v1/grants/{GRANT}/token")));
        Answer::to(request.bearer_auth(&device.access_token)).await
    }

    /// `GET /v1/tokens` at one node.
    pub async fn poll(&self, node: usize, device: &Enrolled, query: &str) -> Answer {
        let request = http().get(self.hubs[node].url(&format!("/v1/tokens{query}")));
        Answer::to(request.bearer_auth(&device.access_token)).await
    }

    /// Waits until one node shows a user's `example/main` as `wanted` has it.
    ///
    /// # Panics
    /// When it does not.
    pub async fn grant(&self, node: usize, user: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let admin = self.admin(node);
        eventually(&format!("{what} at node {node}"), HEALED, async || {
            Some(admin.grant(user, GRANT).await).filter(|grant| wanted(grant))
        })
        .await
    }
}

/// Waits until a session was sent a token of `version`.
///
/// # Panics
/// When it was not.
pub async fn holds(session: &mut Session, version: u64) -> Value {
    let known = session
        .token(GRANT)
        .filter(|frame| frame["version"] == version)
        .cloned();
    match known {
        Some(frame) => frame,
        None => {
            session
                .until(&format!("version {version}"), |frame| {
                    frame["type"] == "token" && frame["version"] == version
                })
                .await
        }
    }
}
