//! The handle that applications hold.

use std::{sync::Arc, time::Duration};

use futures::Stream;
use lockstep_protocol::{GrantName, Version, frame::PresenceState};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    builder::Builder,
    clock,
    driver::Call,
    error::{Error, Stopped},
    event::{Connection, Event},
    machine::Need,
    shared::Shared,
    state::{GrantState, TokenLease},
};

/// A device's connection to its hub. Cheap to clone; all clones share one background task, which ends when
/// [`Client::close`] is called or the last clone (and the last [`Subscription`]) is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) calls: mpsc::Sender<Call>,
    pub(crate) patience: Duration,
}

impl Client {
    /// Begins to set up a client of the hub at this address: `https://hub.example` (also `http`, `wss`, `ws`), with a
    /// path if the hub lives below one.
    pub fn builder(hub_url: impl Into<String>) -> Builder {
        Builder::new(hub_url.into())
    }

    /// A token that is good for at least `min_validity`, or for half the life of the grant's tokens if that is less.
    ///
    /// From memory when there is one, without a word to the hub. Otherwise the hub is asked, once for all callers in
    /// this process, and whatever brings a newer token first serves them all.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::usable_token`] may hold a token that is good for less than was asked.
    pub async fn token(&self, grant: &GrantName, min_validity: Duration) -> Result<TokenLease, Error> {
        if let Some(lease) = self.shared.state(grant).token()
            && lease.lasts(min_validity, clock::now())
        {
            return Ok(lease.clone());
        }
        let (answer, answered) = oneshot::channel();
        let call = Call::Ask {
            grant: grant.clone(),
            need: Need::Validity(min_validity),
            patience: self.patience,
            answer,
        };
        self.call(call, answered).await
    }

    /// A resource server refused this version (RFC 6750 `invalid_token`, a 401): asks for a newer one and waits for
    /// it. When a newer one is held already, it is given at once. The refused version is not given out by this client
    /// any more.
    ///
    /// # Errors
    /// As [`Client::token`]. [`Error::Retry`] with a time means that the hub wants to see the refusal last before it
    /// believes it.
    pub async fn report_rejected(&self, grant: &GrantName, version: Version) -> Result<TokenLease, Error> {
        let (answer, answered) = oneshot::channel();
        let call = Call::Rejected {
            grant: grant.clone(),
            version,
            patience: self.patience,
            answer,
        };
        self.call(call, answered).await
    }

    async fn call(
        &self,
        call: Call,
        answered: oneshot::Receiver<Result<TokenLease, Error>>,
    ) -> Result<TokenLease, Error> {
        if self.calls.send(call).await.is_err() {
            return Err(self.why_stopped().into());
        }
        answered.await.unwrap_or_else(|_| Err(self.why_stopped().into()))
    }

    /// The newest state of a grant, now and whenever it changes.
    pub fn subscribe(&self, grant: &GrantName) -> Subscription {
        Subscription {
            state: self.shared.watch(grant),
            client: self.clone(),
        }
    }

    /// The newest state of a grant as it is now.
    pub fn state(&self, grant: &GrantName) -> GrantState {
        self.shared.state(grant)
    }

    /// All grants of the user that are known, by name.
    pub fn grants(&self) -> Vec<(GrantName, GrantState)> {
        self.shared.grants()
    }

    /// Waits until the client holds the newest of everything.
    ///
    /// # Errors
    /// [`Stopped`] when it stopped before that.
    pub async fn synced(&self) -> Result<(), Stopped> {
        let mut connection = self.shared.connection();
        let found = connection
            .wait_for(|connection| connection.synced || connection.stopped.is_some())
            .await
            .map(|connection| connection.stopped.clone());
        match found {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(why),
            Err(_) => Err(Stopped::Closed),
        }
    }

    /// How the connection is now, and whenever it changes.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.shared.connection()
    }

    /// What happens to the connection from now on. A listener that falls far behind misses some.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.listen()
    }

    /// Says whether somebody is using the device; matters for who is elected to redeem.
    pub async fn set_presence(&self, state: PresenceState) {
        let _ = self.calls.send(Call::Presence(state)).await;
    }

    /// The application knows that the network changed or the device woke: connect anew and catch up at once. Not needed
    /// for correctness; the client notices by itself, only later.
    pub async fn resync(&self) {
        let _ = self.calls.send(Call::Resync).await;
    }

    /// Says goodbye to the hub, sees a running redeem through, and ends the background task of all clones.
    pub async fn close(&self) {
        let (done, finished) = oneshot::channel();
        if self.calls.send(Call::Close(done)).await.is_ok() {
            let _ = finished.await;
        }
    }

    fn why_stopped(&self) -> Stopped {
        let connection = self.shared.connection();
        let stopped = connection.borrow().stopped.clone();
        stopped.unwrap_or(Stopped::Closed)
    }
}

/// The newest state of one grant. States in between may be skipped: only the newest matters.
#[derive(Debug, Clone)]
pub struct Subscription {
    state: watch::Receiver<GrantState>,
    client: Client,
}

impl Subscription {
    /// The newest state; it counts as seen.
    pub fn current(&mut self) -> GrantState {
        self.state.borrow_and_update().clone()
    }

    /// Waits for a state that was not seen yet.
    ///
    /// # Errors
    /// [`Stopped`] when the client has stopped: nothing newer will come.
    pub async fn changed(&mut self) -> Result<GrantState, Stopped> {
        let mut connection = self.client.shared.connection();
        tokio::select! {
            biased;
            changed = self.state.changed() => match changed {
                Ok(()) => Ok(self.current()),
                Err(_) => Err(self.client.why_stopped()),
            },
            stopped = connection.wait_for(|connection| connection.stopped.is_some()) => {
                let why = stopped.ok().and_then(|connection| connection.stopped.clone());
                Err(why.unwrap_or(Stopped::Closed))
            }
        }
    }

    /// The same as a stream: first the state of now, then each newer one, until the client stops.
    pub fn into_stream(mut self) -> impl Stream<Item = GrantState> + Send {
        self.state.mark_changed();
        futures::stream::unfold(self, |mut subscription| async move {
            let state = subscription.changed().await.ok()?;
            Some((state, subscription))
        })
    }
}
