//! Settings: a TOML file, then the environment.
//!
//! Every setting is declared once, in [`settings`]: name, type, default and documentation. Reading, checking, printing
//! and the reference are made from that.

mod check;
mod environment;
mod error;
mod print;
mod reader;
mod section;
mod settings;
#[cfg(test)]
mod tests;
mod types;
mod value;
mod word;

use std::{collections::BTreeMap, path::Path, time::Duration};

use toml::de::DeTable;

pub use error::{ConfigError, ConfigErrors, Place};
pub use settings::{Alerts, Audit, Cluster, Election, Identity, Limits, Log, ProviderSettings, Server, Store, Tls};
pub use types::{
    ClientAuth, ClusterUrl, ForwardedHeader, Hidden, LogFormat, LogLevel, Network, Origin, RequestFormat, StoreUrl,
};

use crate::{
    identity::{ExternalSettings, IdentitySettings, Issuer},
    store::DeviceKind,
};
use environment::Overlay;
use reader::{Document, Found};
pub(crate) use value::is_loopback;

/// All settings, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the hub listens, and whom it lets in.
    pub server: Server,
    /// TLS, if the hub serves it itself.
    pub tls: Option<Tls>,
    /// Where everything durable lives.
    pub store: Store,
    /// How several nodes find each other.
    pub cluster: Cluster,
    /// Providers by name, the first part of a grant's name.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// Weight of each kind of device in elections.
    pub election: Election,
    /// Who devices are.
    pub identity: Identity,
    /// The audit log.
    pub audit: Audit,
    /// The built-in alert rules.
    pub alerts: Alerts,
    /// Logs.
    pub log: Log,
}

impl Config {
    /// Reads a file, then the environment (`LOCKSTEP_SECTION__KEY`), and checks all of it.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(path: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigErrors(vec![ConfigError {
                place: Place::File(file.clone()),
                key: String::new(),
                what: format!("cannot be read: {error}"),
            }])
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&file, &text, base, environment)
    }

    /// Reads settings from `text`, called `file` in messages, with paths relative to `base`.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn parse(
        file: &str,
        text: &str,
        base: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let overlay = Overlay::new(environment);
        let document = Document::new(file, text, base, &overlay);
        let (table, mistakes) = DeTable::parse_recoverable(text);
        for mistake in &mistakes {
            let place = document.place(&mistake.span().unwrap_or_default());
            document.error(place, "", format!("not TOML: {}", mistake.message()));
        }
        let config = read(&document, table.get_ref());
        let Found {
            mut errors,
            mut unknown,
            places,
            named,
        } = document.found();
        unknown.extend(
            overlay
                .left()
                .map(|(name, key)| (Place::Environment(name.to_owned()), key)),
        );
        errors.extend(check::unknown(unknown, &named));
        if let Some(config) = &config {
            errors.extend(check::rules(config, &places, file));
        }
        match config {
            Some(config) if errors.is_empty() => Ok(config),
            _ => {
                errors.sort_by(|a, b| a.place.cmp(&b.place));
                Err(ConfigErrors(errors))
            }
        }
    }

    /// The effective settings as TOML, secrets redacted.
    pub fn print(&self) -> String {
        print::effective(self)
    }

    /// All settings with their defaults and what they mean, as TOML.
    pub fn reference() -> String {
        print::reference()
    }

    /// All settings as a page in Markdown.
    pub fn page() -> String {
        print::page()
    }

    /// Whether the admin API is served over TLS: only where others could listen in.
    pub fn serves_admin_over_tls(&self) -> bool {
        self.tls.is_some() && !self.server.admin_listen.ip().is_loopback()
    }

    /// The identity provider, if one is set.
    fn external(&self) -> Option<ExternalSettings> {
        let identity = &self.identity;
        Some(ExternalSettings {
            jwks_url: identity.jwks_url.clone()?,
            issuer: identity.issuer.clone()?,
            audience: identity.audience.clone()?,
            algorithms: identity.algorithms.iter().copied().collect(),
            user_claim: identity.user_claim.clone(),
            device_claim: identity.device_claim.clone(),
            fetch_gap: Duration::from_secs(5),
        })
    }

    /// What identity is told. `listening` is this node's own URL, for when no public one is configured.
    pub fn identity(&self, listening: &str) -> IdentitySettings {
        let own = &self.identity;
        let external = self.external();
        let (issuer, audience) = match external {
            // They are the identity provider's.
            Some(_) => (None, None),
            None => (own.issuer.clone(), own.audience.clone()),
        };
        let public = issuer.or_else(|| {
            let url = self.server.public_url.as_ref()?;
            Some(url.as_str().trim_end_matches('/').to_owned())
        });
        IdentitySettings {
            issuer: public.map_or_else(|| Issuer::Listening(listening.to_owned()), Issuer::Public),
            audience: audience.unwrap_or_else(|| "lockstep".into()),
            external,
            access_ttl: self.identity.access_token_lifetime,
            kind_priority: DeviceKind::ALL
                .into_iter()
                .map(|kind| (kind, self.election.priority(kind)))
                .collect(),
            code_ttl: self.identity.device_code_lifetime,
            code_interval: self.identity.device_code_interval,
            codes_per_minute: self.server.limits.device_codes_per_minute_per_address,
            devices_approve: self.identity.devices_approve,
            ..IdentitySettings::default()
        }
    }
}

fn read(document: &Document<'_>, table: &DeTable<'_>) -> Option<Config> {
    let mut root = document.root(table);
    // All sections are read before the first one that is missing ends it: every mistake is to be found.
    let server = root.section("server");
    let tls = root.maybe("tls");
    let store = root.section("store");
    let cluster = root.section("cluster");
    let providers = root.named("providers", check::provider_name);
    let election = root.section("election");
    let identity = root.section("identity");
    let audit = root.section("audit");
    let alerts = root.section("alerts");
    let log = root.section("log");
    root.refuse_the_rest();
    Some(Config {
        server: server?,
        tls: tls?,
        store: store?,
        cluster: cluster?,
        providers: providers?,
        election: election?,
        identity: identity?,
        audit: audit?,
        alerts: alerts?,
        log: log?,
    })
}
