//! When a user is usually there.

use serde::{Deserialize, Serialize, de};

use crate::time::Unix;

const HOUR_MS: u64 = 3_600_000;
/// Hours of a week, in UTC: the week's beginning does not matter as long as it is always the same.
const HOURS: usize = 168;
/// The bit of the newest week.
const THIS_WEEK: u8 = 0x80;
/// From here on a user is expected: seen in that hour last week, or in each of the two weeks before that.
const EXPECTED: u8 = 0x30;

/// The hours of the week in which a user was active, for the last eight weeks.
///
/// One byte for each hour of the week, one bit for each week, the newest the highest: as a number it decays by half with
/// every week, and so forgets by itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Hours {
    /// The week (counted from 1970) that the highest bits stand for.
    week: u32,
    /// The hour (counted from 1970) since which anything is known.
    since: u32,
    seen: [u8; HOURS],
}

impl Hours {
    const BYTES: usize = 8 + HOURS;

    /// What is known at a user's first use.
    pub fn new(at: Unix) -> Self {
        let mut seen = [0; HOURS];
        seen[hour(at)] = THIS_WEEK;
        Self {
            week: week(at),
            since: u32::try_from(at.0 / HOUR_MS).unwrap_or(u32::MAX),
            seen,
        }
    }

    /// The user is active at `at`. False: that was known.
    pub fn learn(&mut self, at: Unix) -> bool {
        let week = week(at);
        if week.saturating_add(1) < self.week {
            // A clock had jumped ahead: what was learned by it is worth nothing.
            *self = Self::new(at);
            return true;
        }
        if week > self.week {
            let passed = week - self.week;
            self.seen.iter_mut().for_each(|seen| *seen = older(*seen, passed));
            self.week = week;
        }
        // Clocks of several nodes may be on two sides of a week's end.
        let bit = older(THIS_WEEK, self.week - week);
        let seen = &mut self.seen[hour(at)];
        let is_news = *seen & bit != bit;
        *seen |= bit;
        is_news
    }

    /// Whether a whole week is known, without which nothing is said about hours that were not seen.
    pub fn is_learned(&self, now: Unix) -> bool {
        now.0 / HOUR_MS >= u64::from(self.since) + HOURS as u64
    }

    /// Whether the user is usually active in the hour of `at`.
    pub fn expects(&self, at: Unix) -> bool {
        older(self.seen[hour(at)], week(at).saturating_sub(self.week)) >= EXPECTED
    }

    /// When the user is expected: `from` if that lies in such an hour, else the beginning of the next one. None: not
    /// within a week.
    pub fn next_expected(&self, from: Unix) -> Option<Unix> {
        if self.expects(from) {
            return Some(from);
        }
        let this = from.0 / HOUR_MS;
        let mut later = (1..=HOURS as u64).map(|n| Unix((this + n) * HOUR_MS));
        later.find(|at| self.expects(*at))
    }

    /// As a store keeps it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(&self.week.to_be_bytes());
        bytes.extend_from_slice(&self.since.to_be_bytes());
        bytes.extend_from_slice(&self.seen);
        bytes
    }

    /// From what a store kept. None: that is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (week, rest) = bytes.split_first_chunk()?;
        let (since, seen) = rest.split_first_chunk()?;
        Some(Self {
            week: u32::from_be_bytes(*week),
            since: u32::from_be_bytes(*since),
            seen: seen.try_into().ok()?,
        })
    }
}

impl Serialize for Hours {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Hours;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} bytes", Hours::BYTES)
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Hours, E> {
                Hours::from_bytes(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Whoever sees them need not see a table of a person's week.
impl std::fmt::Debug for Hours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Hours(week {}, {} known)",
            self.week,
            self.seen.iter().filter(|seen| **seen > 0).count()
        )
    }
}

fn older(seen: u8, weeks: u32) -> u8 {
    seen.checked_shr(weeks).unwrap_or(0)
}

fn week(at: Unix) -> u32 {
    u32::try_from(at.0 / (HOUR_MS * HOURS as u64)).unwrap_or(u32::MAX)
}

fn hour(at: Unix) -> usize {
    (at.0 / HOUR_MS % HOURS as u64) as usize
}
