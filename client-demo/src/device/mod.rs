//! One device that shows what it is pushed, live.

mod first_start;
mod said;
mod show;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use lockstep_client::{Client, Event, GrantName, GrantState, Stopped};
use tokio::sync::broadcast::{Receiver, error::RecvError};

pub use first_start::{FirstStart, FirstStartError, NewDevice, token_in};
pub use said::{Said, Step, fingerprint};
pub use show::Show;

use said::Key;

/// Shows one client's grants and its connection.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    /// The grants to be shown; all of them if there are none here.
    wanted: BTreeSet<GrantName>,
    show: Show,
    seen: BTreeMap<GrantName, Key>,
    synced: bool,
}

impl Watch {
    /// Of `wanted`, or of all grants if that is empty.
    pub fn new(client: Client, wanted: Vec<GrantName>, show: Show) -> Self {
        Self {
            client,
            wanted: wanted.into_iter().collect(),
            show,
            seen: BTreeMap::new(),
            synced: false,
        }
    }

    /// Shows everything until the client stops for good.
    ///
    /// # Errors
    /// When nobody reads what is shown.
    pub async fn run(&mut self, mut events: Receiver<Event>) -> io::Result<Stopped> {
        // What an earlier run left in the cache is there before anything is heard.
        self.all()?;
        loop {
            if let Some(why) = self.event(events.recv().await)? {
                return Ok(why);
            }
        }
    }

    fn event(&mut self, event: Result<Event, RecvError>) -> io::Result<Option<Stopped>> {
        match event {
            Ok(Event::Changed { grant }) => self.grant(&grant)?,
            Ok(Event::Stopped(why)) => return Ok(Some(why)),
            Ok(Event::Synced { transport }) => {
                self.all()?;
                let grants = self.client.grants().len();
                self.show.say(&Said::Synced {
                    transport: transport.as_str(),
                    grants,
                })?;
                self.missing()?;
            }
            Ok(event) => {
                if let Some(said) = Said::of(&event) {
                    self.show.say(&said)?;
                }
            }
            // Too much happened at once: the newest of everything says it all.
            Err(RecvError::Lagged(_)) => {
                self.all()?;
                return Ok(self.client.connection().borrow().stopped.clone());
            }
            Err(RecvError::Closed) => return Ok(Some(Stopped::Closed)),
        }
        Ok(None)
    }

    fn all(&mut self) -> io::Result<()> {
        let mut names: BTreeSet<_> = self.client.grants().into_iter().map(|(name, _)| name).collect();
        names.extend(self.seen.keys().cloned());
        names.iter().try_for_each(|name| self.grant(name))
    }

    fn grant(&mut self, grant: &GrantName) -> io::Result<()> {
        if !self.wanted.is_empty() && !self.wanted.contains(grant) {
            return Ok(());
        }
        let state = self.client.state(grant);
        let key = Key::of(&state);
        if self.seen.get(grant) == Some(&key) || (state == GrantState::Unknown && !self.seen.contains_key(grant)) {
            return Ok(());
        }
        self.seen.insert(grant.clone(), key);
        self.show.say(&Said::state(grant, &state))
    }

    /// Once everything has come: which of the wanted grants the user does not have.
    fn missing(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.synced, true) {
            return Ok(());
        }
        let missing = self.wanted.iter().filter(|grant| !self.seen.contains_key(grant));
        missing
            .into_iter()
            .try_for_each(|grant| self.show.say(&Said::Missing { grant: grant.clone() }))
    }
}
