//! Records, lines, links.
//!
//! A line is a JSON object whose last members are `link` and, on some lines, `sig`. What comes before them, byte for byte, is
//! the record; it holds the link of the line before as `prev`. A link is the SHA-256 of the record under a domain of its
//! own, so one link speaks for the whole history up to it. A signature signs the line's link, and with it all before.

use std::fmt;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_engine::time::Unix;
use serde::{Deserialize, Serialize};

use super::{Event, PublicKey, Signer};

/// What a record's hash begins with, so that it is the hash of nothing else.
const DOMAIN: &[u8] = b"lockstep audit record v1\0";
/// Longer lines are not ours.
pub const LONGEST_LINE: usize = 16 * 1024;

/// The hash of a record, and so of all before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Link(#[serde(with = "hex")] pub [u8; 32]);

impl Link {
    /// What the first record holds as `prev`.
    pub const NONE: Self = Self([0; 32]);

    /// Reads the 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex::read(text).map(Self)
    }

    fn of(record: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(DOMAIN);
        context.update(record.as_bytes());
        let mut link = [0; 32];
        link.copy_from_slice(context.finish().as_ref());
        Self(link)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The link of a record, for tests that play the forger.
#[cfg(test)]
pub(super) fn link_of(record: &str) -> Link {
    Link::of(record)
}

/// How far a chain has come: enough to tell, later, that nothing up to here was changed or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The number of the newest record; 0: none yet.
    pub n: u64,
    /// Its link.
    pub link: Link,
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self { n: 0, link: Link::NONE };
}

/// A record as it stands in a line, before link and signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts from 1, without a gap.
    pub n: u64,
    /// When, in Unix milliseconds.
    pub at: Unix,
    /// The node that wrote it.
    pub node: String,
    /// The link of the record before.
    pub prev: Link,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Writes the line after `head`, signed if there is a signer. Moves `head` on. The line ends in a line feed.
pub(super) fn append(
    head: &mut Head,
    node: &str,
    (at, event): (Unix, Event),
    signer: Option<&Signer>,
    out: &mut Vec<u8>,
) {
    let record = Record {
        n: head.n + 1,
        at,
        node: node.to_owned(),
        prev: head.link,
        event,
    };
    // Plain structs with string keys: serde_json has no way to fail on them.
    let mut line = serde_json::to_string(&record).unwrap_or_default();
    let _ = line.pop();
    *head = Head {
        n: record.n,
        link: Link::of(&line),
    };
    line.push_str(&format!(",\"link\":\"{}\"", head.link));
    if let Some(signer) = signer {
        line.push_str(&format!(
            ",\"sig\":\"{}\"",
            URL_SAFE_NO_PAD.encode(signer.sign(head.link))
        ));
    }
    line.push_str("}\n");
    out.extend_from_slice(line.as_bytes());
}

/// A line, read and found to be consistent in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The record.
    pub record: Record,
    /// Its link, computed.
    pub link: Link,
    /// Whether it bears a signature, and that fits.
    pub signed: bool,
}

/// Why a line is not one that the log wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// Not a record with a link.
    #[error("not a record")]
    Shape,
    /// The record does not hash to its link: it was altered.
    #[error("altered: its hash is not its link")]
    Altered,
    /// The signature does not fit the link.
    #[error("its signature does not fit")]
    Signature,
}

impl Line {
    /// How far the chain is with this line.
    pub const fn head(&self) -> Head {
        Head {
            n: self.record.n,
            link: self.link,
        }
    }

    /// Reads a line and checks its link, but not its signature.
    pub(super) fn read_link(text: &str) -> Result<Self, BadLine> {
        Self::read_with(text, |_, _| true)
    }

    /// Reads a line without its line feed, and checks its link and its signature.
    ///
    /// # Errors
    /// [`BadLine`] when it does not hold together.
    pub fn read(text: &str, public: &PublicKey) -> Result<Self, BadLine> {
        Self::read_with(text, |link, signature| public.verifies(link, signature))
    }

    fn read_with(text: &str, verifies: impl Fn(Link, &[u8]) -> bool) -> Result<Self, BadLine> {
        let (record, tail) = split(text).ok_or(BadLine::Shape)?;
        let tail: Tail = serde_json::from_str(&format!("{{{tail}")).map_err(|_| BadLine::Shape)?;
        let link = Link::of(record);
        if link != tail.link {
            return Err(BadLine::Altered);
        }
        if let Some(signature) = &tail.sig {
            let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| BadLine::Signature)?;
            if !verifies(link, &signature) {
                return Err(BadLine::Signature);
            }
        }
        let record = serde_json::from_str(&format!("{record}}}")).map_err(|_| BadLine::Shape)?;
        Ok(Self {
            record,
            link,
            signed: tail.sig.is_some(),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    link: Link,
    sig: Option<String>,
}

/// The record of a line, as it is hashed.
pub(super) fn record_of(text: &str) -> Option<&str> {
    split(text).map(|(record, _)| record)
}

/// The record, without its closing brace; and `"link":…}`.
fn split(text: &str) -> Option<(&str, &str)> {
    // A name or path inside the record cannot hold the marker: there its quotes are escaped.
    let at = text.rfind(",\"link\":\"")?;
    Some((&text[..at], &text[at + 1..]))
}

/// 32 bytes as 64 hex digits.
pub(super) mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&super::Link(*bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        read(&text).ok_or_else(|| D::Error::custom("not 64 hex digits"))
    }

    pub(crate) fn read(text: &str) -> Option<[u8; 32]> {
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(bytes)
    }
}
