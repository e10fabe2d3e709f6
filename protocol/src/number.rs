//! Numbers of the protocol: all below 2^53, so that every JSON reader holds them exactly.

use std::fmt;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Unexpected, Visitor},
};

/// One above the largest number that may go over the wire (2^53; RFC 8259 section 6 on interoperable integers).
pub const NUMBER_BOUND: u64 = 1 << 53;

/// Takes a whole number from 0 to 2^53 - 1, however JSON writes it: `7`, `7.0` and `7e0` are the same number.
pub(crate) struct Whole;

impl Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 to 2^53 - 1")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        if number < NUMBER_BOUND {
            Ok(number)
        } else {
            Err(E::invalid_value(Unexpected::Unsigned(number), &self))
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number)
            .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
            .and_then(|number| self.visit_u64(number))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 is a power of two: a float holds it exactly"
    )]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and in range"
    )]
    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        if number.fract() == 0.0 && (0.0..NUMBER_BOUND as f64).contains(&number) {
            Ok(number as u64)
        } else {
            Err(E::invalid_value(Unexpected::Float(number), &self))
        }
    }
}

/// A whole number below 2^53.
pub(crate) fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Whole)
}

/// The same, or nothing.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Bounded(#[serde(deserialize_with = "bounded")] u64);
    Ok(Option::<Bounded>::deserialize(deserializer)?.map(|Bounded(number)| number))
}

fn to_u16<E: Error>(number: u64) -> Result<u16, E> {
    u16::try_from(number).map_err(|_| E::custom("number is not below 2^16"))
}

/// The same, for a field that holds 16 bits.
pub(crate) fn bounded_u16<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    bounded(deserializer).and_then(to_u16)
}

/// The same, or nothing, for a field that holds 16 bits.
pub(crate) fn optional_u16<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    optional(deserializer)?.map(to_u16).transpose()
}

/// The same, or nothing, for a field in which all from 255 up means the same.
pub(crate) fn optional_up_to_255<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    Ok(optional(deserializer)?.map(|number| u8::try_from(number).unwrap_or(u8::MAX)))
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(
            #[serde(deserialize_with = "bounded")]
            #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
            pub u64,
        );

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Of a grant: rises by one with each committed token set. What a device says was rejected. 0 means "none yet".
    Version
}

number! {
    /// Of a user: rises with each committed change of any of the user's grants. What cursors and acks count.
    Seq
}

number! {
    /// Seconds since 1970-01-01T00:00:00Z (RFC 7519 NumericDate, whole seconds).
    UnixSeconds
}

impl Version {
    /// The version that a commit upon this one makes.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Seq {
    /// The seq of the user's next committed change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
