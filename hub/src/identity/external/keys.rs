//! The identity provider's public keys, in memory: fetched at the start, now and then, and when a token names one that is
//! not known.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, Jwk, PublicKeyUse},
};
use lockstep_engine::time::Mono;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use url::Url;

use crate::{clock, config::is_loopback, error::chain};

/// How often keys are fetched although nobody asks: one that was withdrawn is not believed for longer.
const FETCH_EVERY: Duration = Duration::from_secs(10 * 60);
/// How long one fetch may take.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// The largest set, in bytes.
const MOST_BYTES: usize = 256 * 1024;
/// The most keys of a set that are read.
const MOST_KEYS: usize = 64;

/// Why there can be no keys.
#[derive(Debug, thiserror::Error)]
#[error("identity provider: HTTP client: {0}")]
pub struct Unusable(String);

struct Key {
    id: Option<String>,
    /// What it says it is for; none: whatever fits its type.
    algorithm: Option<String>,
    key: DecodingKey,
}

/// The keys.
pub(super) struct KeySet {
    url: Url,
    gap: Duration,
    client: reqwest::Client,
    keys: RwLock<Arc<Vec<Key>>>,
    asked: Notify,
    /// Counts the fetches that came to an end.
    fetched: watch::Sender<u64>,
    /// When the last one did, on the monotonic clock; 0: never.
    at: AtomicU64,
}

impl KeySet {
    pub(super) fn new(url: Url, gap: Duration) -> Result<Self, Unusable> {
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("lockstep-hub/", env!("CARGO_PKG_VERSION")))
            // Whoever the settings name is believed, and nobody that it points to.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH_WITHIN);
        if is_loopback(&url) {
            client = client.no_proxy();
        }
        Ok(Self {
            client: client.build().map_err(|error| Unusable(chain(&error)))?,
            url,
            gap,
            keys: RwLock::default(),
            asked: Notify::new(),
            fetched: watch::channel(0).0,
            at: AtomicU64::new(0),
        })
    }

    /// The key that a token names, if it may be used with `algorithm`. Whether its type fits is checked with the
    /// signature.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let word = format!("{algorithm:?}");
        let mut fitting = keys
            .iter()
            .filter(|key| key.algorithm.as_ref().is_none_or(|own| *own == word))
            .filter(|key| key.key.family().algorithms().contains(&algorithm));
        match id {
            Some(id) => fitting
                .find(|key| key.id.as_deref() == Some(id))
                .map(|key| key.key.clone()),
            // RFC 7515 section 4.1.4: it may be left out; then there must be no doubt.
            None => match (fitting.next(), fitting.next()) {
                (Some(key), None) => Some(key.key.clone()),
                _ => None,
            },
        }
    }

    /// Has the keys fetched, if that was not just done; whether they were.
    pub(super) async fn fetched_anew(&self) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        if at != 0 && clock::mono().since(Mono(at)) < self.gap {
            return false;
        }
        let mut fetched = self.fetched.subscribe();
        self.asked.notify_one();
        matches!(tokio::time::timeout(FETCH_WITHIN, fetched.changed()).await, Ok(Ok(())))
    }

    /// Fetches now and then, and when asked. Ends never.
    pub(super) async fn run(&self) {
        loop {
            match self.fetch().await {
                Ok(keys) => {
                    tracing::debug!(keys = keys.len(), "the identity provider's keys are fetched");
                    *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                }
                // The keys that are here stay good: an outage of the provider is none of the hub.
                Err(why) => tracing::warn!(url = %self.url, why, "the identity provider's keys cannot be fetched"),
            }
            self.at.store(clock::mono().0.max(1), Ordering::Relaxed);
            self.fetched.send_modify(|count| *count += 1);
            tokio::time::sleep(self.gap).await;
            let _ = tokio::time::timeout(FETCH_EVERY, self.asked.notified()).await;
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let request = self.client.get(self.url.clone()).header("accept", "application/json");
        let told = |error: reqwest::Error| chain(&error.without_url());
        let mut response = request.send().await.map_err(told)?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            if bytes.len() + chunk.len() > MOST_BYTES {
                return Err("its answer is too large".into());
            }
            bytes.extend_from_slice(&chunk);
        }
        read(&bytes)
    }
}

/// A set whose keys are read one by one: one of a new kind harms none of the others.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

fn read(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let set: Set = serde_json::from_slice(bytes).map_err(|_| "its answer is no key set".to_owned())?;
    let keys: Vec<Key> = set.keys.into_iter().take(MOST_KEYS).filter_map(key).collect();
    if keys.is_empty() {
        return Err("its answer holds no usable key".into());
    }
    Ok(keys)
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    // A shared secret in a public document is no secret.
    let is_public = matches!(
        jwk.algorithm,
        AlgorithmParameters::RSA(_) | AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_)
    );
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    if !is_public || !signs {
        return None;
    }
    Some(Key {
        key: DecodingKey::from_jwk(&jwk).ok()?,
        algorithm: jwk.common.key_algorithm.map(|algorithm| algorithm.to_string()),
        id: jwk.common.key_id,
    })
}
