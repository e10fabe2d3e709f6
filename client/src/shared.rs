//! What the driver shows and the handles read.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use lockstep_protocol::GrantName;
use tokio::sync::{broadcast, watch};

use crate::{
    event::{Connection, Event},
    state::GrantState,
};

/// How many events a slow listener may fall behind before it misses some.
const EVENTS: usize = 64;

#[derive(Debug)]
pub(crate) struct Shared {
    grants: Mutex<HashMap<GrantName, watch::Sender<GrantState>>>,
    connection: watch::Sender<Connection>,
    events: broadcast::Sender<Event>,
}

impl Shared {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            grants: Mutex::default(),
            connection: watch::Sender::new(connection),
            events: broadcast::Sender::new(EVENTS),
        }
    }

    fn with<T>(&self, grant: &GrantName, look: impl FnOnce(&watch::Sender<GrantState>) -> T) -> T {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = grants.get(grant) {
            return look(sender);
        }
        look(grants.entry(grant.clone()).or_default())
    }

    pub(crate) fn show(&self, grant: &GrantName, state: GrantState) {
        let changed = self.with(grant, |sender| {
            sender.send_if_modified(|shown| {
                let changed = *shown != state;
                *shown = state;
                changed
            })
        });
        if changed {
            self.tell(Event::Changed { grant: grant.clone() });
        }
    }

    /// The newest state, without making a register for a grant that nobody has heard of.
    pub(crate) fn state(&self, grant: &GrantName) -> GrantState {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        grants
            .get(grant)
            .map_or(GrantState::Unknown, |sender| sender.borrow().clone())
    }

    pub(crate) fn watch(&self, grant: &GrantName) -> watch::Receiver<GrantState> {
        self.with(grant, watch::Sender::subscribe)
    }

    pub(crate) fn grants(&self) -> Vec<(GrantName, GrantState)> {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<_> = grants
            .iter()
            .map(|(grant, sender)| (grant.clone(), sender.borrow().clone()))
            .filter(|(_, state)| *state != GrantState::Unknown)
            .collect();
        known.sort_by(|a, b| a.0.cmp(&b.0));
        known
    }

    pub(crate) fn tell(&self, event: Event) {
        tracing::debug!(?event);
        // Nobody listening is as good as somebody.
        let _ = self.events.send(event);
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(crate) fn connected(&self, connection: Connection) {
        self.connection.send_replace(connection);
    }

    pub(crate) fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }
}
