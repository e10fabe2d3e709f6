//! Types of single settings that std does not have.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use lockstep_protocol::Secret;
use url::Url;

use super::{
    value::{Raw, Value, Why, quoted, text_value},
    word::word_value,
};

/// How a client shows the token endpoint who it is (RFC 6749 section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// A public client: its id in the body, no secret.
    None,
    /// HTTP Basic.
    Basic,
    /// Id and secret in the body.
    Post,
}

/// How the body of a token request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFormat {
    /// `application/x-www-form-urlencoded`, as RFC 6749 has it.
    Form,
    /// A JSON object, as some providers want it.
    Json,
}

/// Which header the proxies in front of the hub set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, as most do.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What somebody must look at.
    Error,
    /// What may become one.
    Warn,
    /// What an operator wants to have read.
    Info,
    /// What a developer wants to have read.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

word_value! { ClientAuth { None = "none", Basic = "basic", Post = "post" } }
word_value! { RequestFormat { Form = "form", Json = "json" } }
word_value! { ForwardedHeader { XForwardedFor = "x-forwarded-for", Forwarded = "forwarded" } }
word_value! { LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" } }
word_value! { LogFormat { Text = "text", Json = "json" } }

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory:` – nothing survives a restart.
    Memory,
    /// `file:PATH` – embedded, one file.
    File(PathBuf),
    /// `postgres://…`; holds a password.
    Postgres(Hidden<Url>),
}

impl Value for StoreUrl {
    fn expected() -> String {
        "\"file:PATH\", \"memory:\" or \"postgres://…\"".into()
    }

    fn example() -> String {
        quoted("file:lockstep.db")
    }

    fn read(raw: Raw<'_>, base: &std::path::Path) -> Result<Self, Why> {
        let text = raw.text()?;
        match text.split_once(':') {
            Some(("memory", "")) => Ok(Self::Memory),
            // Not as a URL: "file:lockstep.db" is a path relative to the file of settings.
            Some(("file", path)) if !path.trim_start_matches('/').is_empty() => {
                Ok(Self::File(base.join(path.strip_prefix("//").unwrap_or(path))))
            }
            Some(("postgres" | "postgresql", _)) => Hidden::parse(text).map(Self::Postgres),
            _ => Err(None),
        }
    }

    fn under(self, base: &std::path::Path) -> Self {
        match self {
            Self::File(path) => Self::File(base.join(path)),
            Self::Memory | Self::Postgres(_) => self,
        }
    }

    fn toml(&self) -> Option<String> {
        Some(match self {
            Self::Memory => quoted("memory:"),
            Self::File(path) => quoted(&format!("file:{}", path.display())),
            Self::Postgres(url) => quoted(&url.to_string()),
        })
    }
}

/// How nodes find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterUrl {
    /// `local:` – one node.
    Local,
    /// `redis://…`, `rediss://…`, `redis+sentinel://…`; may hold a password.
    Redis(Hidden<Url>),
}

impl Value for ClusterUrl {
    fn expected() -> String {
        "\"local:\", \"redis://…\", \"rediss://…\" or \"redis+sentinel://…\"".into()
    }

    fn example() -> String {
        quoted("redis://127.0.0.1:6379")
    }

    fn read(raw: Raw<'_>, _: &std::path::Path) -> Result<Self, Why> {
        let text = raw.text()?;
        match text.split_once(':') {
            Some(("local", "")) => Ok(Self::Local),
            Some(("redis" | "rediss" | "redis+sentinel" | "rediss+sentinel", _)) => {
                Hidden::parse(text).map(Self::Redis)
            }
            _ => Err(None),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(match self {
            Self::Local => quoted("local:"),
            Self::Redis(url) => quoted(&url.to_string()),
        })
    }
}

/// A URL that may hold a secret: only scheme, host and port are ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden<T> {
    whole: Secret,
    shown: String,
    of: std::marker::PhantomData<T>,
}

impl Hidden<Url> {
    fn parse(text: &str) -> Result<Self, Why> {
        let url: Url = text.parse().map_err(|error: url::ParseError| Some(error.to_string()))?;
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self {
            shown: format!("{}://{host}{port}/…", url.scheme()),
            whole: Secret::new(text),
            of: std::marker::PhantomData,
        })
    }

    /// The whole text. Every call is a place to review.
    pub fn expose(&self) -> &str {
        self.whole.expose()
    }
}

impl<T> fmt::Display for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Value for Hidden<Url> {
    fn expected() -> String {
        Url::expected()
    }

    fn example() -> String {
        Url::example()
    }

    fn read(raw: Raw<'_>, _: &std::path::Path) -> Result<Self, Why> {
        Self::parse(raw.text()?)
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.shown))
    }
}

/// An origin as browsers send it (RFC 6454 section 6.2): scheme, host, and port if it is not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// As browsers send it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|error: url::ParseError| error.to_string())?;
        let origin = url.origin();
        // Extensions and the like have an opaque origin in the URL standard, and are sent as they are written.
        let (serialized, rest) = if origin.is_tuple() {
            (origin.ascii_serialization(), url.path() != "/")
        } else {
            (text.trim_end_matches('/').to_owned(), !matches!(url.path(), "" | "/"))
        };
        if rest || url.query().is_some() || url.fragment().is_some() || url.host_str().is_none() {
            return Err("no path may follow the host".into());
        }
        Ok(Self(serialized))
    }
}

text_value!(
    Origin,
    "an origin like \"https://app.example.com\"",
    "https://app.example.com"
);

/// A network: an address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address that came over an IPv6 socket counts as the IPv4 address it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(one)) => same_bits(net.to_bits().into(), one.to_bits().into(), 32, self.bits),
            (IpAddr::V6(net), IpAddr::V6(one)) => same_bits(net.to_bits(), one.to_bits(), 128, self.bits),
            _ => false,
        }
    }
}

fn same_bits(a: u128, b: u128, width: u8, bits: u8) -> bool {
    (a ^ b).checked_shr(u32::from(width - bits)).unwrap_or(0) == 0
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| "not an IP address".to_owned())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|b| *b <= width)
                .ok_or(format!("after the slash: a number from 0 to {width}"))?,
        };
        Ok(Self { address, bits })
    }
}

text_value!(Network, "a network like \"10.0.0.0/8\" or one address", "10.0.0.0/8");
