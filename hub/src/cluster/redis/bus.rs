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
use crate::cluster::{Bus, Fact, Heard, Place};

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

    /// Where `node` stands among the living, in order of name: every node that hears the same counts the same.
    fn place_of(&self, node: &str) -> Place {
        let nodes = self.0.lock();
        let living = nodes.iter().filter(|(_, at)| at.elapsed() < ALIVE_FOR);
        let (before, all) = living.fold((0, 0), |(before, all), (name, _)| {
            (before + usize::from(name.as_str() < node), all + 1)
        });
        Place {
            nth: before,
            of: all + 1,
        }
    }
}

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

    fn is_up(&self) -> bool {
        self.up.is()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_hear_each_other_agree_on_their_places() {
        let names = ["a", "b", "c"];
        let places = names.map(|me| {
            let nodes = Nodes::default();
            names
                .iter()
                .filter(|name| **name != me)
                .for_each(|name| nodes.heard((*name).to_owned(), &Fact::Alive));
            nodes.place_of(me)
        });
        assert_eq!(places, [0, 1, 2].map(|nth| Place { nth, of: 3 }));
    }

    #[test]
    fn a_node_that_leaves_makes_room() {
        let nodes = Nodes::default();
        nodes.heard("a".to_owned(), &Fact::Alive);
        assert_eq!(nodes.place_of("b"), Place { nth: 1, of: 2 });
        nodes.heard("a".to_owned(), &Fact::Leaving);
        assert_eq!(nodes.place_of("b"), Place::ALONE);
    }
}
