//! Rules that hold between settings, and words for settings that nobody knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lockstep_engine::policy::Refresher;
use lockstep_protocol::GrantName;
use url::Url;

use super::{
    ClientAuth, ClusterUrl, Config, ConfigError, Place, ProviderSettings, StoreUrl,
    environment::Overlay,
    print,
    value::{is_loopback, key_text},
};

/// Whether `name` may be the first part of a grant's name.
pub(super) fn provider_name(name: &str) -> Result<(), String> {
    GrantName::new(name, "main")
        .map(drop)
        .map_err(|error| format!("a provider's name {error}"))
}

/// Names longer than this, in bytes, are told apart without counting letters.
const LONGEST_TYPO: usize = 100;

/// Names each unknown setting with the nearest known one.
pub(super) fn unknown(unknown: Vec<(Place, String)>, providers: &BTreeSet<String>) -> Vec<ConfigError> {
    let known = print::known_settings(providers);
    unknown
        .into_iter()
        .map(|(place, key)| {
            let nearest = known.iter().min_by_key(|candidate| distance(&key, candidate));
            let what = match (nearest, &place) {
                (Some(nearest), Place::Environment(_)) => {
                    format!(
                        "unknown setting; the nearest known one is {}",
                        Overlay::name_of(nearest)
                    )
                }
                (Some(nearest), _) => format!("unknown setting; the nearest known one is \"{nearest}\""),
                (None, _) => "unknown setting".to_owned(),
            };
            ConfigError { place, key, what }
        })
        .collect()
}

/// How unlike two settings are. The right key in the wrong table is nearest of all.
fn distance(unknown: &str, known: &str) -> (usize, usize) {
    let (table, key) = unknown.rsplit_once('.').unwrap_or(("", unknown));
    let (known_table, known_key) = known.rsplit_once('.').unwrap_or(("", known));
    let (of_keys, of_tables) = (unlike(key, known_key), unlike(table, known_table));
    if of_keys == 0 {
        (0, of_tables)
    } else {
        (of_keys + of_tables, of_tables)
    }
}

/// How many letters apart two words are. Nobody mistypes a name so long that counting exactly would take seconds.
fn unlike(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > LONGEST_TYPO {
        return if a == b { 0 } else { LONGEST_TYPO };
    }
    strsim::damerau_levenshtein(a, b)
}

/// What is wrong between settings that are each right.
pub(super) fn rules(config: &Config, places: &BTreeMap<String, Place>, file: &str) -> Vec<ConfigError> {
    let mut rules = Rules {
        places,
        file,
        errors: Vec::new(),
    };
    rules.listeners(config);
    rules.stores(config);
    rules.spans(config);
    rules.identity(config);
    for (name, provider) in &config.providers {
        rules.provider(&format!("providers.{}", key_text(name)), provider);
    }
    rules.errors
}

struct Rules<'a> {
    places: &'a BTreeMap<String, Place>,
    file: &'a str,
    errors: Vec<ConfigError>,
}

impl Rules<'_> {
    fn demand(&mut self, holds: bool, key: &str, what: &str) {
        if holds {
            return;
        }
        // The setting may be a default: then the table that it stands in, else the file.
        let place = [key, key.rsplit_once('.').map_or(key, |(table, _)| table)]
            .iter()
            .find_map(|k| self.places.get(*k).cloned());
        self.errors.push(ConfigError {
            place: place.unwrap_or_else(|| Place::File(self.file.to_owned())),
            key: key.to_owned(),
            what: what.to_owned(),
        });
    }

    fn listeners(&mut self, config: &Config) {
        let server = &config.server;
        self.demand(
            server.listen.ip().is_loopback() || config.tls.is_some() || server.behind_proxy,
            "server.listen",
            "not a loopback address: tokens would travel unencrypted; set [tls], or behind_proxy = true if a proxy does TLS",
        );
        self.demand(
            server.admin_listen.ip().is_loopback() || config.tls.is_some() || server.behind_proxy,
            "server.admin_listen",
            "not a loopback address: the admin token would travel unencrypted; set [tls], or behind_proxy = true if a proxy does TLS",
        );
        self.demand(
            server.listen != server.admin_listen || server.listen.port() == 0,
            "server.admin_listen",
            "the same as listen: the admin API has its own listener",
        );
        if let Some(url) = &server.public_url {
            self.demand(
                matches!(url.scheme(), "http" | "https"),
                "server.public_url",
                "neither http nor https",
            );
        }
    }

    fn stores(&mut self, config: &Config) {
        self.demand(
            config.store.url != StoreUrl::Memory || config.cluster.url == ClusterUrl::Local,
            "cluster.url",
            "several nodes cannot share a store that lives in one node's memory: set cluster.url = \"local:\" or another store.url",
        );
        self.demand(
            !matches!(config.store.url, StoreUrl::File(_)) || config.cluster.url == ClusterUrl::Local,
            "cluster.url",
            "several nodes cannot share an embedded store: set cluster.url = \"local:\" or a postgres:// store.url",
        );
        self.demand(config.store.pool > 0, "store.pool", "expected at least 1");
    }

    fn spans(&mut self, config: &Config) {
        let least = Duration::from_secs(1);
        self.demand(
            config.server.heartbeat >= least,
            "server.heartbeat",
            "expected at least \"1s\"",
        );
        self.demand(
            config.identity.access_token_lifetime >= least,
            "identity.access_token_lifetime",
            "expected at least \"1s\"",
        );
        self.demand(
            config.identity.device_code_lifetime >= least,
            "identity.device_code_lifetime",
            "expected at least \"1s\"",
        );
        self.demand(
            config.store.statement_timeout > Duration::ZERO,
            "store.statement_timeout",
            "expected more than \"0s\"",
        );
        self.demand(
            config.audit.keep.is_zero() || config.audit.keep >= least,
            "audit.keep",
            "expected at least \"1s\", or \"0s\": for ever",
        );
        self.demand(
            config.alerts.conflict_rate <= 1.0,
            "alerts.conflict_rate",
            "a share: expected 0.0 to 1.0",
        );
        self.demand(
            config.alerts.conflict_rate_window >= least,
            "alerts.conflict_rate_window",
            "expected at least \"1s\"",
        );
    }

    fn identity(&mut self, config: &Config) {
        let identity = &config.identity;
        let Some(url) = &identity.jwks_url else { return };
        self.endpoint("identity.jwks_url", url, false);
        self.demand(
            identity.issuer.is_some() && identity.audience.is_some(),
            "identity.jwks_url",
            "needs identity.issuer and identity.audience: those of the identity provider's tokens",
        );
        self.demand(
            !identity.algorithms.is_empty(),
            "identity.algorithms",
            "expected at least one",
        );
    }

    fn provider(&mut self, table: &str, provider: &ProviderSettings) {
        let key = |name: &str| format!("{table}.{name}");
        let lease = Duration::from_secs(30)..=Duration::from_secs(60);
        self.demand(
            lease.contains(&provider.lease),
            &key("lease"),
            "expected \"30s\" to \"60s\"",
        );
        self.demand(
            provider.timeout > Duration::ZERO && provider.timeout < provider.lease,
            &key("timeout"),
            "expected more than \"0s\" and less than lease: a redeem ends while its claim stands",
        );
        self.demand(
            provider.refresher == Refresher::Hub || provider.client_auth() == ClientAuth::None,
            &key("refresher"),
            "\"device\" needs client_auth = \"none\": the client secret stays in the hub",
        );
        self.demand(
            provider.max_concurrent > 0,
            &key("max_concurrent"),
            "expected at least 1",
        );
        let secrets = [provider.client_secret.is_some(), provider.client_secret_file.is_some()];
        self.demand(
            secrets != [true, true],
            &key("client_secret_file"),
            "client_secret is set as well: only one of them",
        );
        self.demand(
            provider.client_auth() == ClientAuth::None || secrets != [false, false],
            &key("client_auth"),
            "needs client_secret or client_secret_file",
        );
        self.endpoint(&key("token_endpoint"), &provider.token_endpoint, provider.allow_http);
        for (name, url) in [
            ("authorization_endpoint", &provider.authorization_endpoint),
            ("device_authorization_endpoint", &provider.device_authorization_endpoint),
        ] {
            if let Some(url) = url {
                self.endpoint(&key(name), url, provider.allow_http);
            }
        }
    }

    fn endpoint(&mut self, key: &str, url: &Url, allow_http: bool) {
        self.demand(matches!(url.scheme(), "http" | "https"), key, "neither http nor https");
        self.demand(
            url.scheme() != "http" || is_loopback(url) || allow_http,
            key,
            "plain http to an address that is not loopback: tokens would travel unencrypted; use https, or set allow_http = true",
        );
        self.demand(
            url.username().is_empty() && url.password().is_none(),
            key,
            "a URL here may hold no credentials: use client_id and client_secret_file",
        );
        self.demand(
            url.fragment().is_none(),
            key,
            "a URL here may hold no fragment (RFC 6749 section 3.2)",
        );
    }
}
