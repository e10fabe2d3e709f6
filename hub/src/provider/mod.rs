//! The provider client: sends a refresh token once, and tells exactly what was seen.
//!
//! It judges nothing: the rules of `lockstep-engine` make an outcome of what is reported here.

mod envelope;
mod limiter;
mod reply;
mod request;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unruly;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lockstep_engine::{grant::ProviderReply, policy::Policy};
use lockstep_protocol::Secret;
use reqwest::Client;
use url::Url;

use crate::{
    clock,
    cluster::Place,
    config::{Config, ProviderSettings, is_loopback},
    error::chain,
};

use envelope::{Envelope, Seal};
use limiter::Limiter;
pub use limiter::Permit;
use request::Credentials;

/// Why a provider cannot be talked to at all.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The file with the client secret cannot be read, or is empty.
    #[error("provider {name}: client_secret_file {file}: {why}")]
    SecretFile {
        /// The provider.
        name: String,
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// The HTTP client cannot be made: no usable TLS roots, most likely.
    #[error("provider {name}: HTTP client: {why}")]
    Client {
        /// The provider.
        name: String,
        /// Why.
        why: String,
    },
}

/// A request of a login to one of the provider's endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// Which.
    pub endpoint: &'a Url,
    /// What to say, besides who the client is.
    pub fields: &'a [(&'a str, &'a str)],
    /// How long to wait for the answer.
    pub deadline: Duration,
}

/// An authorization server and how to talk to it.
#[derive(Debug)]
pub struct Provider {
    name: String,
    settings: ProviderSettings,
    policy: Arc<Policy>,
    credentials: Credentials,
    client: Client,
    limiter: Limiter,
}

impl Provider {
    /// Makes a client for the provider called `name`. Nothing is sent.
    ///
    /// # Errors
    /// [`ProviderError`] when the client secret cannot be read or no HTTP client can be made.
    pub fn new(name: &str, settings: &ProviderSettings) -> Result<Self, ProviderError> {
        Ok(Self {
            name: name.to_owned(),
            policy: Arc::new(settings.policy()),
            credentials: Credentials::new(name, settings)?,
            client: client(name, settings)?,
            limiter: Limiter::new(settings.max_concurrent, settings.max_per_second),
            settings: settings.clone(),
        })
    }

    /// The first part of the names of its grants.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the rules need to know.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    /// All settings.
    pub const fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    /// Sends a refresh token to the token endpoint (RFC 6749 section 6), at most once, and reports what was seen.
    ///
    /// Nothing leaves later than `send_within` from now; nothing is waited for longer than `deadline` from now.
    /// [`ProviderReply::NotSent`] is certain: no byte of the refresh token has left this machine, nor will. In every
    /// other case without a whole answer it is [`ProviderReply::Lost`].
    pub async fn redeem(
        &self,
        refresh_token: &Secret,
        scope: Option<&str>,
        send_within: Duration,
        deadline: Duration,
    ) -> ProviderReply {
        let (body, content_type) = self.credentials.redeem_body(&self.settings, refresh_token, scope);
        let (envelope, seal) = Envelope::seal(body, clock::mono() + send_within);
        let mut request = self
            .client
            .post(self.settings.token_endpoint.clone())
            .header("content-type", content_type)
            .header("accept", "application/json")
            // A compressed answer could not be read, and is not worth its bombs.
            .header("accept-encoding", "identity")
            .body(envelope);
        if let Some(authorization) = self.credentials.authorization() {
            request = request.header("authorization", authorization);
        }
        match tokio::time::timeout(deadline, reply::receive(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => unanswered(&seal, why),
            Err(_) => unanswered(&seal, "no answer within the deadline".into()),
        }
    }

    /// Asks one of the provider's endpoints something else than a redeem: a step of a login. Answers with status and body.
    ///
    /// # Errors
    /// Why there is no whole answer; never a secret.
    pub async fn ask(&self, exchange: Exchange<'_>) -> Result<(u16, Secret), String> {
        let (body, content_type) = self.credentials.body(&self.settings, exchange.fields.to_vec());
        let mut request = self
            .client
            .post(exchange.endpoint.clone())
            .header("content-type", content_type)
            .header("accept", "application/json")
            .header("accept-encoding", "identity")
            .body(body.as_str().to_owned());
        if let Some(authorization) = self.credentials.authorization() {
            request = request.header("authorization", authorization);
        }
        match tokio::time::timeout(exchange.deadline, reply::receive(request)).await {
            Ok(Ok(ProviderReply::Answered { status, body, .. })) => Ok((status, body)),
            Ok(Ok(ProviderReply::NotSent(why) | ProviderReply::Lost(why)) | Err(why)) => Err(why),
            Err(_) => Err("no answer in time".into()),
        }
    }

    /// Waits in line for the right to redeem once, no longer than `wait`.
    ///
    /// # Errors
    /// How long from now to come again.
    pub async fn permit(&self, wait: Duration) -> Result<Permit, Duration> {
        self.limiter.permit(wait).await
    }

    /// Keeps to this node's share of the limits from now on.
    pub fn share_limits(&self, place: Place) {
        self.limiter.share(place);
    }

    /// As many permits as can be had without waiting, at most `n`. For the scheduler: permits come before claims.
    pub fn try_permits(&self, n: usize) -> Vec<Permit> {
        self.limiter.try_permits(n)
    }
}

/// A redeem that brought no whole answer: whether it left is the seal's word, not the error's.
fn unanswered(seal: &Seal, why: String) -> ProviderReply {
    if seal.withdraw() {
        ProviderReply::NotSent(why)
    } else {
        ProviderReply::Lost(why)
    }
}

fn client(name: &str, settings: &ProviderSettings) -> Result<Client, ProviderError> {
    let mut builder = Client::builder()
        .user_agent(concat!("lockstep-hub/", env!("CARGO_PKG_VERSION")))
        // A redirect would carry the refresh token to somebody else.
        .redirect(reqwest::redirect::Policy::none())
        // No second try behind our back, and no connection that died while idle: each redeem has its own.
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .http1_only()
        .referer(false);
    if is_loopback(&settings.token_endpoint) {
        // A proxy for the outside world is not meant for this machine's own servers.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| ProviderError::Client {
        name: name.to_owned(),
        why: chain(&error),
    })
}

/// All providers by name.
#[derive(Debug, Default)]
pub struct Providers(BTreeMap<String, Arc<Provider>>);

impl Providers {
    /// Makes a client for each provider of the settings.
    ///
    /// # Errors
    /// [`ProviderError`] of the first that cannot be made.
    pub fn new(config: &Config) -> Result<Self, ProviderError> {
        config
            .providers
            .iter()
            .map(|(name, settings)| Ok((name.clone(), Arc::new(Provider::new(name, settings)?))))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The provider called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Provider>> {
        self.0.get(name)
    }

    /// All of them, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.0.values()
    }
}
