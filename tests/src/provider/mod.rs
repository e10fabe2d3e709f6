//! A strict rotating authorization server inside the test: it records every call and does what the test tells it.
//!
//! It is a second opinion on what was legal: it knows nothing of the hub, only of tokens.

mod fault;
mod model;
mod serve;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::task::AbortHandle;

pub use fault::{Fault, Gate, Reply};
pub use model::{Outcome, Pair, Rules};

use crate::{
    ports::free_port,
    wait::{BOUND, eventually},
};
use model::Model;

/// One token call.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it arrived.
    pub arrived: Instant,
    /// When it was answered or cut; none while it is in flight.
    pub over: Option<Instant>,
    /// The refresh token that it carried.
    pub refresh_token: String,
    /// Whose token it was; empty for an unknown one.
    pub family: String,
    /// The generation of the token that was sent; 0 for an unknown one.
    pub generation: u64,
    /// The login that it came from.
    pub login: u64,
    /// Whether it met a fault.
    pub faulted: bool,
    /// What became of it.
    pub outcome: Outcome,
    /// `content-type` of the request.
    pub content_type: String,
    /// `authorization` of the request.
    pub authorization: Option<String>,
    /// The request's parameters, form or JSON.
    pub parameters: HashMap<String, String>,
}

struct State {
    model: Model,
    calls: Vec<Call>,
    once: VecDeque<Fault>,
    once_for: HashMap<String, VecDeque<Fault>>,
    always: Option<Fault>,
}

/// The server. It stops when dropped.
pub struct Provider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: Mutex<Option<AbortHandle>>,
}

impl Provider {
    /// A server with the usual rules: strict rotation, access tokens of an hour.
    pub async fn start() -> Self {
        Self::with(Rules::default()).await
    }

    /// A server with these rules.
    ///
    /// # Panics
    /// When loopback has no port left.
    pub async fn with(rules: Rules) -> Self {
        let state = Arc::new(Mutex::new(State {
            model: Model::new(rules),
            calls: Vec::new(),
            once: VecDeque::new(),
            once_for: HashMap::new(),
            always: None,
        }));
        let (address, serving) = eventually("a free port on loopback", BOUND, async || {
            // Not one that somebody's connection may have while this is closed.
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            serve::serve(address, state.clone()).await.ok()
        })
        .await;
        Self {
            address,
            state,
            serving: Mutex::new(Some(serving)),
        }
    }

    /// The token endpoint.
    pub fn token_endpoint(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// A resource that asks for a live access token.
    pub fn resource(&self) -> String {
        format!("http://{}/resource", self.address)
    }

    /// A user logs in: the first pair of a family, or a fresh one.
    pub fn login(&self, family: &str) -> Pair {
        self.state().model.login(family)
    }

    /// Somebody outside the hub redeems.
    pub fn redeem(&self, refresh_token: &str) -> Option<Pair> {
        self.state().model.redeem(refresh_token).1
    }

    /// The newest pair of a family.
    ///
    /// # Panics
    /// When there is no such family.
    pub fn newest(&self, family: &str) -> Pair {
        self.state()
            .model
            .newest(family)
            .cloned()
            .expect("a family that logged in")
    }

    /// Ends a family, as after a reuse or by the user's wish.
    pub fn revoke(&self, family: &str) {
        self.state().model.revoke(family);
    }

    /// Whether a family was ended.
    pub fn is_revoked(&self, family: &str) -> bool {
        self.state().model.is_revoked(family)
    }

    /// Whether a resource server would accept this access token now.
    pub fn is_live(&self, access_token: &str) -> bool {
        self.state().model.is_live(access_token)
    }

    /// Changes the rules for what comes.
    pub fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.state().model.rules);
    }

    /// The next call, whoever makes it, meets this fault. Faults queue up.
    pub fn fault(&self, fault: Fault) {
        self.state().once.push_back(fault);
    }

    /// The next call for this family meets this fault. Faults queue up.
    pub fn fault_for(&self, family: &str, fault: Fault) {
        self.state()
            .once_for
            .entry(family.to_owned())
            .or_default()
            .push_back(fault);
    }

    /// Every call meets this fault, or none any more.
    pub fn always(&self, fault: Option<Fault>) {
        self.state().always = fault;
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// All calls so far with tokens of one family.
    pub fn calls_of(&self, family: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.family == family).collect()
    }

    /// Waits until at least `count` calls for a family have arrived.
    ///
    /// # Panics
    /// When they have not within `bound`.
    pub async fn called(&self, family: &str, count: usize, bound: Duration) -> Vec<Call> {
        eventually(&format!("{count} token calls for {family}"), bound, async || {
            Some(self.calls_of(family)).filter(|calls| calls.len() >= count)
        })
        .await
    }

    /// Every token ever issued.
    pub fn tokens(&self) -> Vec<String> {
        self.state().model.tokens()
    }

    /// The generation of the pair that `access_token` is of.
    pub fn generation(&self, access_token: &str) -> Option<u64> {
        self.state()
            .model
            .pair_of_access(access_token)
            .map(|pair| pair.generation)
    }

    /// Stops listening: connections are refused, those that stand are cut.
    pub fn close(&self) {
        if let Some(serving) = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take() {
            serving.abort();
        }
    }

    /// Listens again on the same port.
    pub async fn reopen(&self) {
        let state = &self.state;
        let serving = eventually("the provider's port is free again", BOUND, async || {
            serve::serve(self.address, state.clone()).await.ok()
        })
        .await;
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving.1);
    }

    /// Calls that overlapped another with the same refresh token (promise P1).
    pub fn overlapping(&self) -> Vec<(Call, Call)> {
        let calls = self.calls();
        let overlap =
            |a: &Call, b: &Call| a.refresh_token == b.refresh_token && a.over.is_none_or(|over| b.arrived < over);
        let mut found = Vec::new();
        for (index, first) in calls.iter().enumerate() {
            found.extend(
                calls[index + 1..]
                    .iter()
                    .filter(|b| overlap(first, b))
                    .map(|b| (first.clone(), b.clone())),
            );
        }
        found
    }

    /// Calls that sent a refresh token after somebody had seen an access token of a later generation: its successor
    /// was committed then (promises P1 and P2). `sent` tells when a call left, if that is known to be before it arrived.
    pub fn sent_after_successor<'a>(
        &self,
        seen: impl IntoIterator<Item = (Instant, &'a str)>,
        sent: impl Fn(&Call) -> Instant,
    ) -> Vec<Call> {
        let calls = self.calls();
        let state = self.state();
        let mut found = Vec::new();
        for (at, access_token) in seen {
            let Some(pair) = state.model.pair_of_access(access_token) else {
                continue;
            };
            let late = |call: &&Call| {
                (&call.family, call.login) == (&pair.family, pair.login)
                    && call.generation < pair.generation
                    && sent(call) > at
                    && rotates(&state)
            };
            found.extend(calls.iter().filter(late).cloned());
        }
        found
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.close();
    }
}

fn rotates(state: &State) -> bool {
    state.model.rules.rotate
}

/// A provider's usual answer (RFC 6749 section 5.1).
fn answer(pair: &Pair, rules: &Rules) -> Value {
    let mut body = serde_json::json!({"access_token": pair.access_token, "token_type": "Bearer"});
    if rules.rotate {
        body["refresh_token"] = pair.refresh_token.clone().into();
    }
    if let Some(expires_in) = pair.expires_in {
        body["expires_in"] = expires_in.into();
    }
    body
}
