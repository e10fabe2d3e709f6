//! The two tasks that keep facts moving, each with a connection of its own that it makes anew when it is lost.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use redis::{AsyncCommands, RedisResult, aio::ConnectionManager};
use tokio::{
    sync::mpsc,
    time::{interval, sleep, timeout},
};

use super::{Address, CONNECT_WITHIN, Up};
use crate::cluster::{
    Fact, Heard,
    nodes::{Nodes, Told},
};

/// The channel of all facts.
const CHANNEL: &str = "lockstep:facts";
/// How often a node says that it is alive. Its own word coming back proves that the subscription works.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Silence for this long, one's own word included, means that the subscription is lost.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// The longest pause between two attempts to connect; the actual one is drawn from zero to this.
const MOST_PAUSE: Duration = Duration::from_secs(1);

async fn pause() {
    sleep(MOST_PAUSE.mul_f64(rand::random::<f64>())).await;
}

/// Sends what this node has to tell.
pub(super) async fn say(address: Arc<Address>, node: String, mut facts: mpsc::Receiver<Fact>) {
    let mut alive = interval(ALIVE_EVERY);
    let mut connection: Option<ConnectionManager> = None;
    loop {
        let fact = tokio::select! {
            fact = facts.recv() => match fact {
                Some(fact) => fact,
                None => return,
            },
            _ = alive.tick() => Fact::Alive,
        };
        let told = Told::text(&node, fact);
        if connection.is_none() {
            connection = timeout(CONNECT_WITHIN, address.connect())
                .await
                .ok()
                .and_then(Result::ok);
        }
        let Some(live) = &mut connection else {
            // What waits meanwhile is old by the time there is a connection; the sweep has found it by then.
            while facts.try_recv().is_ok() {}
            pause().await;
            continue;
        };
        let said: RedisResult<()> = live.publish(CHANNEL, told).await;
        if said.is_err() {
            connection = None;
        }
    }
}

/// Takes in what all nodes tell, for as long as somebody wants to hear it.
pub(super) async fn hear(
    address: Arc<Address>,
    node: String,
    hear: mpsc::Sender<Heard>,
    nodes: Arc<Nodes>,
    up: Arc<Up>,
) {
    while !hear.is_closed() {
        let lost = subscription(&address, &node, &hear, &nodes, &up).await;
        up.set(false);
        tracing::debug!(error = lost.err().map(super::explain), "not subscribed");
        pause().await;
    }
}

async fn subscription(
    address: &Address,
    node: &str,
    hear: &mpsc::Sender<Heard>,
    nodes: &Nodes,
    up: &Up,
) -> RedisResult<()> {
    let connect = async {
        let mut subscription = address.client().await?.get_async_pubsub().await?;
        subscription.subscribe(CHANNEL).await?;
        RedisResult::Ok(subscription)
    };
    let Ok(connected) = timeout(CONNECT_WITHIN, connect).await else {
        return Ok(());
    };
    let mut subscription = connected?;
    let mut told = subscription.on_message();
    // Whatever was told before this moment is missed.
    let _ = hear.send(Heard::Gap).await;
    while let Ok(Some(message)) = timeout(SILENT_FOR, told.next()).await {
        up.set(true);
        nodes.take_in(message.get_payload_bytes(), node, hear).await;
    }
    Ok(())
}
