//! Every section and every setting, with its default and its documentation. The one source of both.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use lockstep_engine::policy::{Policy, Refresher};
use lockstep_protocol::Secret;
use url::Url;

use super::{
    section::section,
    types::{
        ClientAuth, ClusterUrl, ForwardedHeader, Hidden, LogFormat, LogLevel, Network, Origin, RequestFormat, StoreUrl,
    },
    word::word_value,
};
use crate::{identity::SignedWith, store::DeviceKind};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

section! {
    /// Where the hub listens, and whom it lets in.
    pub struct Server {
        /// Address of `/v1/*`, `/oauth/*` and `/.well-known/*`. An address that is not loopback needs `[tls]` or
        /// `behind_proxy = true`.
        pub listen: SocketAddr = default(loopback(8787));
        /// Address of `/admin/v1/*`, `/metrics`, `/healthz` and `/readyz`.
        pub admin_listen: SocketAddr = default(loopback(8788));
        /// File with the token of the admin API; made (0600) if absent. The variable LOCKSTEP_ADMIN_TOKEN goes before it.
        pub admin_token_file: PathBuf = default("admin.token".into());
        /// The hub's address as devices see it, like "https://hub.example.com". Needed for metadata documents behind a
        /// proxy or with several nodes.
        pub public_url: Option<Url> = default(None);
        /// Origins of the web pages that may connect. A browser with any other origin is refused (403); a request
        /// without an Origin header is not a browser's.
        pub allowed_origins: Vec<Origin> = default(Vec::new());
        /// Whether a proxy in front of the hub does TLS.
        pub behind_proxy: bool = default(false);
        /// Networks of the proxies that are believed when they tell a client's address.
        pub trusted_proxies: Vec<Network> = default(Vec::new());
        /// The header in which they tell it: "x-forwarded-for" or "forwarded". The other one is not believed.
        pub forwarded_header: ForwardedHeader = default(ForwardedHeader::XForwardedFor);
        /// On shutdown: how long the sessions have to leave, each at its own moment. A hub that is the only node closes those
        /// that wait for nothing at once, and is back the sooner.
        pub drain: Duration = default(seconds(10));
        /// How often a session is pinged; two missed pongs end it.
        pub heartbeat: Duration = default(seconds(25));
        /// How much the hub takes on before it refuses more. 0 means no limit.
        pub limits: Limits = section;
    }
}

section! {
    /// TLS, served by the hub itself: on `listen`, and on `admin_listen` if that is not loopback. The files are read
    /// again when they change.
    pub struct Tls {
        /// PEM file with the certificate and those between it and the root.
        pub cert: PathBuf = required("cert.pem");
        /// PEM file with the private key.
        pub key: PathBuf = required("key.pem");
    }
}

section! {
    /// How much the hub takes on before it refuses more. 0 means no limit.
    pub struct Limits {
        /// Connections at once.
        pub max_connections: usize = default(100_000);
        /// Connections at once that have not said who they are.
        pub max_unauthenticated: usize = default(4_096);
        /// Connections at once from one address.
        pub max_connections_per_address: usize = default(0);
        /// Requests per second of one device, over all of its sessions and HTTP calls.
        pub requests_per_second_per_device: u32 = default(200);
        /// Failed authentications per minute from one address.
        pub failures_per_minute_per_address: u32 = default(300);
        /// Device codes that one address may ask for in a minute, and wrong ones that it may type.
        pub device_codes_per_minute_per_address: u32 = default(30);
    }
}

section! {
    /// Where everything durable lives.
    pub struct Store {
        /// "file:PATH" (embedded), "memory:" (nothing survives a restart) or "postgres://…" (for several nodes).
        pub url: StoreUrl = default(StoreUrl::File("lockstep.db".into()));
        /// File with the keys that seal token sets; made (0600) if absent. The variable LOCKSTEP_KEY goes before it.
        pub key_file: PathBuf = default("lockstep.key".into());
        /// Directory of this node's own: results that the store could not take, the witness, the node's name. It must
        /// survive restarts, and no other node may use it.
        pub spool: PathBuf = default("spool".into());
        /// PostgreSQL only: connections at once.
        pub pool: u32 = default(8);
        /// PostgreSQL only: the longest that one statement may take.
        pub statement_timeout: Duration = default(seconds(5));
    }
}

section! {
    /// How several nodes find each other.
    pub struct Cluster {
        /// "local:" (one node; or several over a postgres:// store, which then carries the facts), "redis://…",
        /// "rediss://…" or "redis+sentinel://…".
        pub url: ClusterUrl = default(ClusterUrl::Local);
        /// This node's lasting name. Without it: the host's name and a random part that is kept in the spool.
        pub node: Option<String> = default(None);
        /// How many nodes there are at least: among so many the limits of the providers are shared while nodes do not know
        /// of each other, as after a start without Redis.
        pub nodes: usize = default(1);
    }
}

section! {
    /// An authorization server and how to talk to it.
    pub struct ProviderSettings {
        /// The token endpoint (RFC 6749 section 3.2). Plain http only to a loopback address, or with `allow_http`.
        pub token_endpoint: Url = required("https://provider.example.com/token");
        /// The client id that the provider knows this application by.
        pub client_id: String = required("app");
        /// The client secret, if there is one. Better: `client_secret_file`.
        pub client_secret: Option<Secret> = default(None);
        /// File with the client secret.
        pub client_secret_file: Option<PathBuf> = default(None);
        /// How the client shows who it is (RFC 6749 section 2.3.1): "none" (public client), "basic" or "post". Without
        /// it: "basic" if there is a secret, else "none".
        pub client_auth: Option<ClientAuth> = default(None);
        /// How the body of a redeem is written: "form" (RFC 6749) or "json".
        pub request_format: RequestFormat = default(RequestFormat::Form);
        /// Who redeems: "hub", or "device" (one of the user's devices, by election; needs `client_auth = "none"`).
        pub refresher: Refresher = default(Refresher::Hub);
        /// With `refresher = "device"`: whether the hub redeems when no device is left.
        pub hub_may_redeem: bool = default(true);
        /// How long ahead of expiry the hub refreshes; at most half the token's life.
        pub lead: Duration = default(seconds(300));
        /// How long the provider accepts the previous refresh token. Never set it longer than the provider says.
        pub grace: Duration = default(Duration::ZERO);
        /// The hard deadline of one redeem.
        pub timeout: Duration = default(seconds(20));
        /// How long a claim stands without renewal: 30 s to 60 s.
        pub lease: Duration = default(seconds(45));
        /// The least time between a commit and the next redeem that devices cause; "0s" turns the limit off.
        pub reject_interval: Duration = default(seconds(30));
        /// How long a late result of a device or another node is waited for, from when the outcome became unknown; the last
        /// try comes no sooner, and not while the access token is good.
        pub late_wait: Duration = default(seconds(60));
        /// Grants that nobody used for this long are not refreshed ahead of expiry.
        pub idle_after: Duration = default(seconds(7 * 24 * 3600));
        /// Whether to learn when each user is active: what nobody used for an hour is then not refreshed before its user is
        /// expected again. Nothing sleeps before a user has been known for a week.
        pub preload: bool = default(true);
        /// Over how long before a user is expected such refreshes are spread out; at most the token's life.
        pub preload_spread: Duration = default(seconds(3600));
        /// Redeems at once, of all nodes together; each takes its share, at least one.
        pub max_concurrent: usize = default(16);
        /// Redeems per second, of all nodes together; 0 means no limit.
        pub max_per_second: f64 = default(0.0);
        /// Whether plain http to an address that is not loopback is allowed.
        pub allow_http: bool = default(false);
        /// Where a user goes to log in again: told to devices with `reauth_required`.
        pub login_url: Option<Url> = default(None);
        /// The authorization endpoint, for `grants login`.
        pub authorization_endpoint: Option<Url> = default(None);
        /// The device authorization endpoint (RFC 8628), for `grants login`.
        pub device_authorization_endpoint: Option<Url> = default(None);
        /// The scope to ask for.
        pub scope: Option<String> = default(None);
    }
}

impl Election {
    /// The weight of a kind of device.
    pub fn priority(&self, kind: DeviceKind) -> u8 {
        match kind {
            DeviceKind::Desktop => self.desktop,
            DeviceKind::Web => self.web,
            DeviceKind::Cli => self.cli,
            DeviceKind::Server => self.server,
            DeviceKind::Mobile => self.mobile,
            DeviceKind::Iot => self.iot,
        }
    }
}

impl ProviderSettings {
    /// The settings that decisions depend on.
    pub fn policy(&self) -> Policy {
        Policy {
            refresher: self.refresher,
            hub_may_redeem: self.hub_may_redeem,
            lead: self.lead,
            grace: self.grace,
            timeout: self.timeout,
            lease: self.lease,
            reject_interval: self.reject_interval,
            late_wait: self.late_wait,
        }
    }

    /// How the client shows who it is, once the default is applied.
    pub fn client_auth(&self) -> ClientAuth {
        self.client_auth
            .unwrap_or(if self.client_secret.is_some() || self.client_secret_file.is_some() {
                ClientAuth::Basic
            } else {
                ClientAuth::None
            })
    }
}

word_value! { SignedWith {
    RS256 = "RS256", RS384 = "RS384", RS512 = "RS512", PS256 = "PS256", PS384 = "PS384", PS512 = "PS512",
    ES256 = "ES256", ES384 = "ES384", EdDSA = "EdDSA",
} }
word_value! { Refresher { Hub = "hub", Device = "device" } }

section! {
    /// Weight of each kind of device in elections; the highest redeems.
    pub struct Election {
        /// Desktop applications.
        pub desktop: u8 = default(60);
        /// Browsers.
        pub web: u8 = default(50);
        /// Command lines.
        pub cli: u8 = default(40);
        /// Servers and containers.
        pub server: u8 = default(30);
        /// Phones and tablets.
        pub mobile: u8 = default(20);
        /// Anything small.
        pub iot: u8 = default(10);
    }
}

section! {
    /// Who devices are.
    pub struct Identity {
        /// Keys (RFC 7517) of an identity provider whose JWTs stand for users and devices too. Then `issuer` and
        /// `audience` are those of its tokens, and both are needed.
        pub jwks_url: Option<Url> = default(None);
        /// With `jwks_url`: `iss` of the identity provider's tokens. Else: `iss` of the device access tokens (RFC 9068);
        /// without it `server.public_url`, else the address that the hub listens on.
        pub issuer: Option<String> = default(None);
        /// With `jwks_url`: `aud` of the identity provider's tokens. Else: `aud` of the device access tokens; without it
        /// "lockstep".
        pub audience: Option<String> = default(None);
        /// With `jwks_url`: what the identity provider may sign with. Only algorithms with a public key.
        pub algorithms: Vec<SignedWith> = default(vec![SignedWith::RS256, SignedWith::PS256, SignedWith::ES256, SignedWith::EdDSA]);
        /// With `jwks_url`: the claim that names the user.
        pub user_claim: String = default("sub".into());
        /// With `jwks_url`: the claim that names the device. Without it in a token, a device is what it calls itself in
        /// `hello`, or in the header `Lockstep-Device`.
        pub device_claim: String = default("device_id".into());
        /// How long a device access token is good.
        pub access_token_lifetime: Duration = default(seconds(15 * 60));
        /// How long the codes of the device flow (RFC 8628) are good.
        pub device_code_lifetime: Duration = default(seconds(10 * 60));
        /// How long a device waits between two asks whether its code is approved.
        pub device_code_interval: Duration = default(seconds(5));
        /// Whether a user may approve a device on the page `/oauth/device`, with an access token of a device that is
        /// enrolled already. If not, only the operator can.
        pub devices_approve: bool = default(true);
    }
}

section! {
    /// The audit log: who did what, in the directory of the spool.
    pub struct Audit {
        /// How long records are kept, like "90d". Older ones are dropped, a whole file at a time, and a signed record says
        /// so, so that the rest can still be verified. "0s": for ever.
        pub keep: Duration = default(Duration::ZERO);
    }
}

section! {
    /// The built-in alert rules, and who is told.
    pub struct Alerts {
        /// URL that gets a POST with a JSON body when an alert starts or ends.
        pub webhook: Option<Hidden<Url>> = default(None);
        /// Share of redeems that end in a conflict, above which an alert starts.
        pub conflict_rate: f64 = default(0.05);
        /// The fewest redeems in the window from which a share is taken.
        pub conflict_rate_min_redeems: u32 = default(1);
        /// The window of the conflict rate.
        pub conflict_rate_window: Duration = default(seconds(300));
        /// Waits for a lease that timed out in one minute, above which an alert starts; it escalates at twice and at
        /// four times as many.
        pub lease_wait_timeouts_per_minute: u32 = default(3);
        /// How long a value must stay below its threshold before the alert ends.
        pub calm: Duration = default(seconds(120));
    }
}

section! {
    /// Logs, to stderr.
    pub struct Log {
        /// "error", "warn", "info", "debug" or "trace". The variable LOCKSTEP_LOG goes before it, and also takes filters
        /// like "info,lockstep_hub::store=debug".
        pub level: LogLevel = default(LogLevel::Info);
        /// "text" or "json".
        pub format: LogFormat = default(LogFormat::Text);
    }
}
