//! Devices on the real SDK. The one place here that uses the client's code: where networks misbehave, the client's part
//! is half of what is tested.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::future::join_all;
use lockstep_client::{Builder, Client, GrantName, Proxy, Secret, Transport};

use crate::{admin::Admin, device::Enrolled, scene::GRANT, wait::within};

/// A device and its client.
pub struct Member {
    /// The device.
    pub device: Enrolled,
    /// Its client.
    pub client: Client,
}

impl Member {
    /// Starts the client of a device; `set` gets what the tests usually want, and may change it.
    ///
    /// # Panics
    /// When the settings make no sense.
    pub async fn start(hub_url: &str, device: Enrolled, set: impl FnOnce(Builder) -> Builder) -> Self {
        let id = device.id.parse().expect("a device id of the hub");
        let builder = Client::builder(hub_url)
            .device(id, Secret::new(device.refresh_token.as_str()))
            .app("fleet/1")
            .proxy(Proxy::Direct);
        let client = set(builder).connect().await.expect("settings that make sense");
        Self { device, client }
    }

    /// Waits until it holds a token of `example/main` of at least `version`; tells how long that took.
    ///
    /// # Panics
    /// When it does not within `bound`.
    pub async fn reaches(&self, version: u64, bound: Duration) -> Duration {
        let began = Instant::now();
        let grant: GrantName = GRANT.parse().expect("the name of a grant");
        let mut state = self.client.subscribe(&grant);
        let what = format!("device {} holds version {version}", self.device.id);
        within(&what, bound, async {
            while state.current().version().map_or(0, |held| held.0) < version {
                if let Err(stopped) = state.changed().await {
                    panic!("{what}: it stopped: {stopped}");
                }
            }
        })
        .await;
        began.elapsed()
    }

    /// The transport that carries its updates now.
    pub fn transport(&self) -> Transport {
        self.client.connection().borrow().transport
    }
}

/// Devices of one user.
pub struct Fleet {
    /// The devices.
    pub members: Vec<Member>,
}

impl Fleet {
    /// Enrols `count` devices of `user` and starts their clients.
    ///
    /// # Panics
    /// When the hub refuses.
    pub async fn start(
        admin: &Admin,
        hub_url: &str,
        user: &str,
        count: usize,
        set: impl Fn(Builder) -> Builder,
    ) -> Self {
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(Member::start(hub_url, admin.enrol(user).await, &set).await);
        }
        Self { members }
    }

    /// Waits until each device holds at least `version`; tells how long the last one took.
    ///
    /// # Panics
    /// When one does not within `bound`.
    pub async fn reach(&self, version: u64, bound: Duration) -> Duration {
        let all = join_all(self.members.iter().map(|member| member.reaches(version, bound))).await;
        all.into_iter().max().unwrap_or_default()
    }

    /// How many devices use which transport now.
    pub fn transports(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for member in &self.members {
            *counts.entry(member.transport().as_str()).or_default() += 1;
        }
        counts
    }

    /// Ends the clients, with a farewell to the hub.
    pub async fn close(&self) {
        join_all(self.members.iter().map(|member| member.client.close())).await;
    }
}
