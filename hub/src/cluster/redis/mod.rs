//! Facts and locks over Redis.
//!
//! Redis may be gone, slow, restarted or emptied at any time: then nothing here is known, and nothing here is needed.

mod bus;
mod lock;
mod pump;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::redis::{
    Client, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
    sentinel::{SentinelClient, SentinelServerType},
};
use tokio::sync::{Mutex, mpsc};

use super::Heard;
pub(super) use bus::RedisBus;
use lock::RedisLock;

/// No answer within this time is no answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// No connection within this time is none.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Where Redis is.
enum Address {
    /// One server: `redis://` or `rediss://`.
    Server(Box<Client>),
    /// Whichever server the sentinels name: `redis+sentinel://host:port,host:port/service[/db]`.
    Sentinel(Box<Mutex<SentinelClient>>),
}

impl Address {
    fn parse(url: &str) -> Result<Self, String> {
        let sentinel = url
            .strip_prefix("redis+sentinel://")
            .map(|rest| (rest, "redis"))
            .or_else(|| url.strip_prefix("rediss+sentinel://").map(|rest| (rest, "rediss")));
        let Some((rest, scheme)) = sentinel else {
            return Client::open(url)
                .map(|client| Self::Server(Box::new(client)))
                .map_err(explain);
        };
        let (hosts, service) = rest.split_once('/').ok_or("redis+sentinel://HOST:PORT,…/SERVICE")?;
        let nodes: Vec<String> = hosts.split(',').map(|host| format!("{scheme}://{host}")).collect();
        SentinelClient::build(nodes, service, None, SentinelServerType::Master)
            .map(|client| Self::Sentinel(Box::new(Mutex::new(client))))
            .map_err(explain)
    }

    /// The server as of now.
    async fn client(&self) -> RedisResult<Client> {
        match self {
            Self::Server(client) => Ok(Client::clone(client)),
            Self::Sentinel(sentinel) => sentinel.lock().await.async_get_client().await,
        }
    }

    async fn connect(&self) -> RedisResult<ConnectionManager> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_number_of_retries(0);
        self.client().await?.get_connection_manager_with_config(config).await
    }
}

/// Redis's words may hold the URL, and with it a password: only the kind of error is told.
#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn explain(error: ::redis::RedisError) -> String {
    error.category().to_owned()
}

/// Whether Redis answers.
#[derive(Default)]
struct Up(AtomicBool);

impl Up {
    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, up: bool) {
        if self.0.swap(up, Ordering::Relaxed) != up {
            crate::telemetry::metrics::cluster_available(up);
            if up {
                tracing::info!("redis answers");
            } else {
                tracing::warn!("redis does not answer: leases by the store alone, changes found by the sweep");
            }
        }
    }
}

/// Connects, now and whenever the connection is lost.
pub(super) fn join(url: &str, node: &str, hear: mpsc::Sender<Heard>) -> Result<(RedisBus, RedisLock), String> {
    let address = Arc::new(Address::parse(url)?);
    let up = Arc::new(Up::default());
    let bus = RedisBus::start(Arc::clone(&address), node.to_owned(), hear, Arc::clone(&up));
    Ok((bus, RedisLock::new(address, up)))
}
