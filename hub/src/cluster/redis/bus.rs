//! Facts over pub/sub.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Address, Up, pump};
use crate::cluster::{Bus, Fact, Heard, Place, nodes::Nodes};

/// How many facts may wait to be sent; above it they are dropped.
const MOST_WAITING: usize = 8192;
/// Facts over pub/sub.
pub(crate) struct RedisBus {
    say: mpsc::Sender<Fact>,
    nodes: Arc<Nodes>,
    up: Arc<Up>,
    node: String,
    /// What was known last: a node that hears nothing is not alone for that.
    place: Mutex<Place>,
}

impl RedisBus {
    pub(super) fn start(address: Arc<Address>, node: String, hear: mpsc::Sender<Heard>, up: Arc<Up>) -> Self {
        let (say, to_say) = mpsc::channel(MOST_WAITING);
        let nodes = Arc::new(Nodes::default());
        tokio::spawn(pump::say(Arc::clone(&address), node.clone(), to_say));
        tokio::spawn(pump::hear(
            address,
            node.clone(),
            hear,
            Arc::clone(&nodes),
            Arc::clone(&up),
        ));
        Self {
            say,
            nodes,
            up,
            node,
            place: Mutex::new(Place::ALONE),
        }
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

    fn place(&self) -> Place {
        let mut place = self.place.lock();
        if self.up.is() {
            *place = self.nodes.place_of(&self.node);
        }
        *place
    }

    fn trouble(&self) -> Option<&'static str> {
        (!self.up.is()).then_some("changes on other nodes are found by the sweep")
    }
}
