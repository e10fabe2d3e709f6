//! How this client reaches the network: TLS roots, proxies, the HTTP client. Built once.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use lockstep_protocol::GrantName;
use reqwest::redirect::Policy;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_tungstenite::tungstenite::http::Uri;
use url::Url;

use crate::{error::Error, timing::Timing};

/// Which proxy to go through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// As `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say (lower case too).
    #[default]
    Environment,
    /// None, whatever the environment says.
    Direct,
    /// This one for everything: `http://`, `socks5://`, `socks5h://`, `socks4://` or `socks4a://`, with
    /// `user:password@` if it wants them.
    Url(Url),
}

/// Everything that opens connections.
#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) hub: Hub,
    pub(crate) http: reqwest::Client,
    pub(crate) tls: Arc<ClientConfig>,
    proxy: Proxy,
    proxies: Option<Arc<Matcher>>,
    pub(crate) timing: Timing,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Net {
    pub(crate) fn new(hub: Hub, roots: Option<&[u8]>, proxy: &Proxy, timing: Timing) -> Result<Self, Error> {
        let tls = match roots {
            None => system_tls()?,
            Some(pem) => Arc::new(tls(given_roots(pem)?)?),
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&tls))
            .connect_timeout(timing.connect)
            .tcp_nodelay(true)
            // A redirect would carry a token to somewhere that nobody named.
            .redirect(Policy::none())
            .referer(false);
        let proxy = if *proxy == Proxy::Environment && no_proxy_at_all() {
            &Proxy::Direct
        } else {
            proxy
        };
        let (http, proxies) = match proxy {
            Proxy::Environment => (http, Some(Matcher::from_env())),
            Proxy::Direct => (http.no_proxy(), None),
            Proxy::Url(url) => {
                let all = reqwest::Proxy::all(url.clone()).map_err(|e| Error::misuse(format!("proxy: {e}")))?;
                let matcher = Matcher::builder().all(url.to_string()).build();
                (http.no_proxy().proxy(all), Some(matcher))
            }
        };
        let http = http
            .build()
            .map_err(|error| Error::misuse(format!("HTTP client: {error}")))?;
        Ok(Self {
            hub,
            http,
            tls,
            proxy: proxy.clone(),
            proxies: proxies.map(Arc::new),
            timing,
        })
    }

    /// An HTTP client for one redeem: no second try behind our back, no connection that died while idle.
    pub(crate) fn provider_client(&self, direct: bool) -> Result<reqwest::Client, String> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&self.tls))
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .referer(false);
        let http = match &self.proxy {
            _ if direct => http.no_proxy(),
            Proxy::Environment => http,
            Proxy::Direct => http.no_proxy(),
            Proxy::Url(url) => http
                .no_proxy()
                .proxy(reqwest::Proxy::all(url.clone()).map_err(|e| e.to_string())?),
        };
        http.build().map_err(|error| format!("HTTP client: {error}"))
    }

    /// The proxy on the way to the hub, if there is one.
    pub(crate) fn proxy_to(&self, to: &Uri) -> Option<Intercept> {
        self.proxies.as_ref()?.intercept(to)
    }
}

/// The hub's address, and the addresses below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hub {
    base: Url,
}

impl Hub {
    /// Takes `http`, `https`, `ws` and `wss` addresses, with or without a path before `/v1`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::misuse(format!("hub address {text:?}: {why}"));
        let text = match text.split_once("://") {
            Some(("ws", rest)) => format!("http://{rest}"),
            Some(("wss", rest)) => format!("https://{rest}"),
            _ => text.to_owned(),
        };
        if !text.contains("://") {
            return Err(wrong("must begin with https:// (or http://, wss://, ws://)"));
        }
        let mut base = Url::parse(&text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong("must begin with https:// (or http://, wss://, ws://)"));
        }
        if base.host_str().is_none_or(str::is_empty) {
            return Err(wrong("has no host"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("may not hold a password"));
        }
        base.set_query(None);
        base.set_fragment(None);
        let path = format!("{}/", base.path().trim_end_matches('/'));
        base.set_path(&path);
        Ok(Self { base })
    }

    /// Without anything that may differ between two ways to write the same address.
    pub(crate) fn as_str(&self) -> &str {
        self.base.as_str()
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.base.scheme() == "https"
    }

    pub(crate) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// Scheme, host and port, for connecting and for asking whether a proxy is in the way.
    pub(crate) fn origin(&self) -> Result<Uri, String> {
        let port = self.base.port_or_known_default().unwrap_or(443);
        format!("{}://{}:{port}/", self.base.scheme(), self.host())
            .parse()
            .map_err(|error| format!("hub address: {error}"))
    }

    pub(crate) fn ws(&self) -> String {
        let rest = self.below("v1/ws");
        let rest = rest.as_str().trim_start_matches("http");
        format!("ws{rest}")
    }

    pub(crate) fn token_endpoint(&self) -> Url {
        self.below("oauth/token")
    }

    pub(crate) fn device_authorization(&self) -> Url {
        self.below("oauth/device_authorization")
    }

    pub(crate) fn tokens(&self) -> Url {
        self.below("v1/tokens")
    }

    pub(crate) fn refresh(&self, grant: &GrantName) -> Url {
        self.below(&format!("v1/grants/{}/{}/refresh", grant.provider(), grant.account()))
    }

    pub(crate) fn token(&self, grant: &GrantName) -> Url {
        self.below(&format!("v1/grants/{}/{}/token", grant.provider(), grant.account()))
    }

    fn below(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}{path}", self.base.path());
        url.set_path(&path);
        url
    }
}

/// `NO_PROXY=*` means every host; the libraries take it for every name, but for no address.
fn no_proxy_at_all() -> bool {
    let mut variables = ["no_proxy", "NO_PROXY"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok());
    variables.any(|value| value.trim() == "*")
}

fn given_roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| Error::misuse(format!("roots: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| Error::misuse(format!("roots: {error}")))?;
    }
    if roots.is_empty() {
        return Err(Error::misuse("roots: no certificate in the given PEM"));
    }
    Ok(roots)
}

/// The system's roots are read once: a program may run thousands of clients.
fn system_tls() -> Result<Arc<ClientConfig>, Error> {
    static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = SYSTEM.get() {
        return Ok(config.clone());
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system root certificate could not be read");
    }
    // A machine without roots can still talk plain HTTP to a hub on loopback; TLS then fails with a clear word.
    roots.add_parsable_certificates(found.certs);
    let config = Arc::new(tls(roots)?);
    Ok(SYSTEM.get_or_init(|| config).clone())
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, Error> {
    // The provider is named, so that a second one elsewhere in the process cannot make the first handshake panic.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::misuse(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
