//! Which other nodes are alive, by whatever way they are heard.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Fact, Heard, Place};

/// A node that was not heard for this long is taken to be gone.
const ALIVE_FOR: Duration = Duration::from_secs(4);

/// A fact and who tells it.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) node: String,
    #[serde(flatten)]
    pub(super) fact: Fact,
}

impl Told {
    /// As it travels.
    pub(super) fn text(node: &str, fact: Fact) -> String {
        let node = node.to_owned();
        lockstep_protocol::encode(&Self { node, fact })
    }
}

/// When each other node was last heard.
#[derive(Default)]
pub(super) struct Nodes(Mutex<HashMap<String, Instant>>);

impl Nodes {
    fn heard(&self, node: String, fact: &Fact) {
        let mut nodes = self.0.lock();
        nodes.retain(|_, at| at.elapsed() < ALIVE_FOR);
        if *fact == Fact::Leaving {
            nodes.remove(&node);
        } else {
            nodes.insert(node, Instant::now());
        }
    }

    pub(super) fn any(&self) -> bool {
        self.0.lock().values().any(|at| at.elapsed() < ALIVE_FOR)
    }

    /// Where `node` stands among the living, in order of name: every node that hears the same counts the same.
    pub(super) fn place_of(&self, node: &str) -> Place {
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

    /// Takes in what came, unless it is this node's own word or none.
    pub(super) async fn take_in(&self, text: &[u8], own: &str, hear: &mpsc::Sender<Heard>) {
        let Ok(Told { node, fact }) = serde_json::from_slice::<Told>(text) else {
            return;
        };
        if node == own {
            return;
        }
        self.heard(node, &fact);
        if !matches!(fact, Fact::Alive | Fact::Leaving) && hear.try_send(Heard::Fact(fact)).is_err() {
            // The hub is behind: one look at everything stands for all that is dropped.
            let _ = hear.send(Heard::Gap).await;
        }
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
