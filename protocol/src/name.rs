//! Names that people choose: users and grants. Parsed once, at the edge; what holds one of these types is valid.

use std::{fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty or longer than the limit.
    #[error("must have 1 to {0} characters")]
    Length(usize),
    /// A character outside `[A-Za-z0-9._@-]`.
    #[error("may hold only A-Z a-z 0-9 . _ @ -")]
    Character,
    /// `.` and `..` would be eaten by URL normalization.
    #[error("may not be . or ..")]
    Dots,
    /// A grant is `provider/account`.
    #[error("must be provider/account")]
    Shape,
}

fn check(text: &str, longest: usize) -> Result<(), NameError> {
    if text.is_empty() || text.len() > longest {
        return Err(NameError::Length(longest));
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'-'))
    {
        return Err(NameError::Character);
    }
    if text == "." || text == ".." {
        return Err(NameError::Dots);
    }
    Ok(())
}

/// Whoever owns grants: the unit of isolation. `[A-Za-z0-9._@-]{1,128}`, and not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// The longest user id, in characters.
    pub const LONGEST: usize = 128;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, Self::LONGEST)?;
        Ok(Self(text.into()))
    }
}

/// One OAuth authorization of one user at one provider: `provider/account`, each part `[A-Za-z0-9._@-]{1,64}`, and not
/// `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantName(Arc<str>);

impl GrantName {
    /// The longest part (provider or account), in characters.
    pub const LONGEST_PART: usize = 64;

    /// Puts a grant name together from its two parts.
    ///
    /// # Errors
    /// [`NameError`] when a part is not a name.
    pub fn new(provider: &str, account: &str) -> Result<Self, NameError> {
        check(provider, Self::LONGEST_PART)?;
        check(account, Self::LONGEST_PART)?;
        Ok(Self(format!("{provider}/{account}").into()))
    }

    /// The name of the provider, the part before the slash.
    pub fn provider(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(provider, _)| provider)
    }

    /// The account at the provider, the part after the slash.
    pub fn account(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, account)| account)
    }

    /// `provider/account`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GrantName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (provider, account) = text.split_once('/').ok_or(NameError::Shape)?;
        Self::new(provider, account)
    }
}

macro_rules! text_type {
    ($name:ident, $pattern:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(|e| serde::de::Error::custom(format_args!(concat!(stringify!($name), " {}"), e)))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "not": { "pattern": "(^|/)\\.{1,2}(/|$)" },
                })
            }
        }
    };
}

text_type!(UserId, "^[A-Za-z0-9._@-]{1,128}$");
text_type!(GrantName, "^[A-Za-z0-9._@-]{1,64}/[A-Za-z0-9._@-]{1,64}$");
