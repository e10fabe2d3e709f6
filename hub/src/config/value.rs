//! The types that a setting may have: how each is read from TOML or the environment, and written back.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use lockstep_protocol::Secret;
use toml::de::DeValue;
use url::{Host, Url};

/// A setting as it was found, before it has a type.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// In the file.
    Toml(&'a DeValue<'a>),
    /// In the environment: always text.
    Text(&'a str),
}

/// Why a value was refused, beyond having the wrong type; never repeats the value, which may be a secret.
pub(super) type Why = Option<String>;

/// A type that a setting may have.
pub(super) trait Value: Sized {
    /// What is expected, in words that follow "expected".
    fn expected() -> String;

    /// An example, as TOML.
    fn example() -> String;

    /// Reads it. Relative paths are relative to `base`.
    ///
    /// # Errors
    /// [`Why`] it is not such a value.
    fn read(raw: Raw<'_>, base: &Path) -> Result<Self, Why>;

    /// The same value, if it is a relative path, relative to `base`. For defaults.
    #[must_use]
    fn under(self, _base: &Path) -> Self {
        self
    }

    /// Writes it as TOML, secrets redacted. None: not set.
    fn toml(&self) -> Option<String>;
}

impl<'a> Raw<'a> {
    /// As text.
    pub(super) fn text(self) -> Result<&'a str, Why> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Toml(value) => value.as_str().ok_or_else(|| self.found()),
        }
    }

    /// What it is instead, for an error.
    pub(super) fn found(self) -> Why {
        match self {
            Self::Text(_) => None,
            Self::Toml(value) => Some(format!("found {} {}", article(value.type_str()), value.type_str())),
        }
    }

    fn number<T: std::str::FromStr>(self) -> Result<T, Why> {
        let text = match self {
            Self::Text(text) => text,
            Self::Toml(DeValue::Integer(number)) if number.radix() == 10 => number.as_str(),
            Self::Toml(DeValue::Float(number)) => number.as_str(),
            Self::Toml(_) => return Err(self.found()),
        };
        text.parse().map_err(|_| None)
    }

    fn list(self) -> Result<Vec<Self>, Why> {
        match self {
            Self::Text(text) => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|t| !t.is_empty())
                .map(Self::Text)
                .collect()),
            Self::Toml(DeValue::Array(items)) => Ok(items.iter().map(|item| Self::Toml(item.get_ref())).collect()),
            Self::Toml(_) => Err(self.found()),
        }
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

/// A text as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Whether a URL stays on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A name as a TOML key: bare if it can be.
pub(crate) fn key_text(name: &str) -> String {
    let is_bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(is_bare) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// Writes a [`Value`] that is parsed from one text and displayed as one.
macro_rules! text_value {
    ($type:ty, $expected:literal, $example:literal) => {
        impl $crate::config::value::Value for $type {
            fn expected() -> String {
                $expected.into()
            }

            fn example() -> String {
                $crate::config::value::quoted($example)
            }

            fn read(
                raw: $crate::config::value::Raw<'_>,
                _: &std::path::Path,
            ) -> Result<Self, $crate::config::value::Why> {
                raw.text()?
                    .parse()
                    .map_err(|error: <Self as std::str::FromStr>::Err| Some(error.to_string()))
            }

            fn toml(&self) -> Option<String> {
                Some($crate::config::value::quoted(&self.to_string()))
            }
        }
    };
}
pub(crate) use text_value;

text_value!(
    SocketAddr,
    "an IP address and port like \"127.0.0.1:8787\"",
    "127.0.0.1:8787"
);
text_value!(IpAddr, "an IP address", "127.0.0.1");
text_value!(Url, "a URL", "https://example.com/");

impl Value for bool {
    fn expected() -> String {
        "true or false".into()
    }

    fn example() -> String {
        "true".into()
    }

    fn read(raw: Raw<'_>, _: &Path) -> Result<Self, Why> {
        match raw {
            Raw::Text("true" | "1") | Raw::Toml(DeValue::Boolean(true)) => Ok(true),
            Raw::Text("false" | "0") | Raw::Toml(DeValue::Boolean(false)) => Ok(false),
            _ => Err(raw.found()),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! number_value {
    ($type:ty, $expected:literal) => {
        impl Value for $type {
            fn expected() -> String {
                $expected.into()
            }

            fn example() -> String {
                "1".into()
            }

            fn read(raw: Raw<'_>, _: &Path) -> Result<Self, Why> {
                raw.number()
            }

            fn toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    };
}

number_value!(u8, "a whole number from 0 to 255");
number_value!(u32, "a whole number, 0 or more");
number_value!(usize, "a whole number, 0 or more");

impl Value for f64 {
    fn expected() -> String {
        "a number, 0 or more".into()
    }

    fn example() -> String {
        "1.0".into()
    }

    fn read(raw: Raw<'_>, _: &Path) -> Result<Self, Why> {
        raw.number()
            .and_then(|n: Self| if n.is_finite() && n >= 0.0 { Ok(n) } else { Err(None) })
    }

    fn toml(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Value for Duration {
    fn expected() -> String {
        "a duration like \"30s\" or \"1h 30m\"".into()
    }

    fn example() -> String {
        quoted("30s")
    }

    fn read(raw: Raw<'_>, _: &Path) -> Result<Self, Why> {
        humantime::parse_duration(raw.text()?).map_err(|error| Some(error.to_string()))
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&humantime::format_duration(*self).to_string()))
    }
}

impl Value for String {
    fn expected() -> String {
        "a text that is not empty".into()
    }

    fn example() -> String {
        quoted("text")
    }

    fn read(raw: Raw<'_>, _: &Path) -> Result<Self, Why> {
        match raw.text()? {
            "" => Err(None),
            text => Ok(text.to_owned()),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Value for Secret {
    fn expected() -> String {
        String::expected()
    }

    fn example() -> String {
        quoted("…")
    }

    fn read(raw: Raw<'_>, base: &Path) -> Result<Self, Why> {
        String::read(raw, base).map(Self::new)
    }

    fn toml(&self) -> Option<String> {
        Some(quoted("[secret]"))
    }
}

impl Value for PathBuf {
    fn expected() -> String {
        "a path".into()
    }

    fn example() -> String {
        quoted("path")
    }

    fn read(raw: Raw<'_>, base: &Path) -> Result<Self, Why> {
        match raw.text()? {
            "" => Err(None),
            text => Ok(base.join(text)),
        }
    }

    fn under(self, base: &Path) -> Self {
        base.join(self)
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl<T: Value> Value for Option<T> {
    fn expected() -> String {
        T::expected()
    }

    fn example() -> String {
        T::example()
    }

    fn read(raw: Raw<'_>, base: &Path) -> Result<Self, Why> {
        T::read(raw, base).map(Some)
    }

    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(Value::toml)
    }
}

impl<T: Value> Value for Vec<T> {
    fn expected() -> String {
        format!("a list, each {}", T::expected())
    }

    fn example() -> String {
        format!("[{}]", T::example())
    }

    fn read(raw: Raw<'_>, base: &Path) -> Result<Self, Why> {
        raw.list()?.into_iter().map(|item| T::read(item, base)).collect()
    }

    fn toml(&self) -> Option<String> {
        let items: Vec<_> = self.iter().filter_map(Value::toml).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}
