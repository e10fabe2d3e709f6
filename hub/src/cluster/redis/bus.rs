//! Facts over pub/sub.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Address, Up, pump};
use crate::cluster::{Bus, Fact, Heard};

/// How many facts may wait to be sent; above it they are dropped.
const MOST_WAITING: usize = 8192;
/// A node that was not heard for this long is taken to be gone.
pub(super) const ALIVE_FOR: Duration = Duration::from_secs(4);

/// A fact and who tells it.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) node: String,
    #[serde(flatten)]
    pub(super) fact: Fact,
}

/// When each other node was last heard.
#[derive(Default)]
pub(super) struct Nodes(Mutex<HashMap<String, Instant>>);

impl Nodes {
    /// A node was heard.
    pub(super) fn heard(&self, node: String, fact: &Fact) {
        let mut nodes = self.0.lock();
        nodes.retain(|_, at| at.elapsed() < ALIVE_FOR);
        if *fact == Fact::Leaving {
            nodes.remove(&node);
        } else {
            nodes.insert(node, Instant::now());
        }
    }

    fn any(&self) -> bool {
        self.0.lock().values().any(|at| at.elapsed() < ALIVE_FOR)
    }
}

/// Facts over pub/sub.
pub(crate) struct RedisBus {
    say: mpsc::Sender<Fact>,
    nodes: Arc<Nodes>,
    up: Arc<Up>,
}

impl RedisBus {
    pub(super) fn start(address: Arc<Address>, node: String, hear: mpsc::Sender<Heard>, up: Arc<Up>) -> Self {
        let (say, to_say) = mpsc::channel(MOST_WAITING);
        let nodes = Arc::new(Nodes::default());
        tokio::spawn(pump::say(Arc::clone(&address), node.clone(), to_say));
        tokio::spawn(pump::hear(address, node, hear, Arc::clone(&nodes), Arc::clone(&up)));
        Self { say, nodes, up }
    }
}

impl Bus for RedisBus {
    fn tell(&self, fact: Fact) {
        // Full: Redis does not answer. What is dropped here is found by the other nodes' sweep.
        let _ = self.say.try_send(fact);
    }

    fn others_live(&self) -> bool {
        self.nodes.any()
    }

    fn is_up(&self) -> bool {
        self.up.is()
    }
}
