//! Ids that programs make.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};
use uuid::Uuid;

use crate::number::{NUMBER_BOUND, Seq, Whole};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// One installed client.
    DeviceId
}
uuid_id! {
    /// One live connection of a device. Unique per connection, so that a late disconnect cannot evict its replacement.
    SessionId
}
uuid_id! {
    /// The right to redeem one version of a grant. Random: it is also what lets a device publish.
    LeaseId
}

/// Random id of a store's lifetime; a new one whenever the store may have gone back in time. 16 hex digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not an epoch or a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an epoch or cursor of this protocol")]
pub struct BadCursor;

impl FromStr for Epoch {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        // `from_str_radix` alone would let a sign through.
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadCursor);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| BadCursor)
    }
}

/// "I hold everything up to here": epoch and seq in one string that clients treat as opaque.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The store's lifetime that `seq` belongs to.
    pub epoch: Epoch,
    /// Everything of the user up to this seq is held.
    pub seq: Seq,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (epoch, seq) = text.split_once('.').ok_or(BadCursor)?;
        if seq.is_empty() || seq.len() > 16 || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadCursor);
        }
        let seq = seq.parse::<u64>().ok().filter(|s| *s < NUMBER_BOUND).ok_or(BadCursor)?;
        Ok(Self {
            epoch: epoch.parse()?,
            seq: Seq(seq),
        })
    }
}

macro_rules! as_text {
    ($name:ident, $schema:tt) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

as_text!(Epoch, { "type": "string", "pattern": "^[0-9a-fA-F]{16}$" });
// No pattern: what a cursor looks like is nobody's business but the hub's.
as_text!(Cursor, { "type": "string", "description": "Opaque: keep it, and give it back as it was." });

/// A device's own name for one of its requests; the one answer to it carries the same.
///
/// A text of at most 128 characters. Clients that like to count may use a number instead: it is answered as a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct RequestId(Written);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Number(u64),
}

impl RequestId {
    /// The longest id, in characters (Unicode scalar values).
    pub const LONGEST: usize = 128;

    /// Wraps `text`, unless it is too long.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (text.chars().count() <= Self::LONGEST).then_some(Self(Written::Text(text)))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Written::Text(text) => f.write_str(text),
            Written::Number(number) => number.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNumber;

        impl Visitor<'_> for TextOrNumber {
            type Value = RequestId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text of at most 128 characters, or a whole number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RequestId, E> {
                RequestId::new(text).ok_or_else(|| E::invalid_length(text.chars().count(), &self))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<RequestId, E> {
                Whole.visit_u64(number).map(Written::Number).map(RequestId)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<RequestId, E> {
                Whole.visit_i64(number).map(Written::Number).map(RequestId)
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<RequestId, E> {
                Whole.visit_f64(number).map(Written::Number).map(RequestId)
            }
        }

        deserializer.deserialize_any(TextOrNumber)
    }
}

impl JsonSchema for RequestId {
    fn schema_name() -> Cow<'static, str> {
        "RequestId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "A device's own name for one of its requests; the one answer to it carries the same.",
            "type": ["string", "integer"],
            "maxLength": Self::LONGEST,
            "minimum": 0,
            "maximum": NUMBER_BOUND - 1,
        })
    }
}
