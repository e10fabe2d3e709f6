//! Numbers of the protocol: all below 2^53, so that every JSON reader holds them exactly.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// One above the largest number that may go over the wire (2^53; RFC 8259 section 6 on interoperable integers).
pub const NUMBER_BOUND: u64 = 1 << 53;

fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if number < NUMBER_BOUND {
        Ok(number)
    } else {
        Err(serde::de::Error::custom("number is not below 2^53"))
    }
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
