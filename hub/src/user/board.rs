//! What devices see of a user: the newest frame of each grant, encoded once.

use bytes::Bytes;
use lockstep_engine::{record::GrantRecord, time::Unix};
use lockstep_protocol::{
    GrantName, HubFrame, Seq, Version, encode,
    frame::{Health, Status},
};

use crate::transport::text;

/// The newest of everything of one user, in order of seq. Immutable: a change makes a new board.
#[derive(Debug, Default)]
pub struct Board {
    /// The seq of the newest change. Everything up to it is here.
    pub seq: Seq,
    entries: Vec<Entry>,
}

/// The newest frame of one grant.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The seq of its newest change.
    pub seq: Seq,
    /// The grant.
    pub grant: GrantName,
    /// The newest version.
    pub version: Version,
    /// What is shown.
    pub shows: Shows,
    /// When the frame stops being true by itself: a shown token expires.
    pub dies_at: Option<Unix>,
    frames: Bytes,
    /// Where the first frame ends.
    first: usize,
}

/// What an entry shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// A token.
    Token,
    /// A status: the grant has no good token.
    Status,
    /// A status: the grant is gone. Of no interest to one who holds nothing.
    Gone,
}

impl Entry {
    /// Encodes a frame, and the word that goes with it if there is one, once for all who will get them.
    pub fn new(record: &GrantRecord, grant: &GrantName, frame: &HubFrame, word: Option<Status>) -> Self {
        let shows = match frame {
            HubFrame::Token(_) => Shows::Token,
            HubFrame::Status(status) if status.health == Health::Deleted => Shows::Gone,
            _ => Shows::Status,
        };
        let mut frames = text::framed(&encode(frame));
        let first = frames.len();
        if let Some(word) = word {
            frames = [frames, text::framed(&encode(&HubFrame::Status(word)))].concat().into();
        }
        Self {
            seq: record.seq,
            grant: grant.clone(),
            version: record.version,
            shows,
            dies_at: record.expires_at.filter(|_| shows == Shows::Token),
            frames,
            first,
        }
    }

    /// The frames as they go over a WebSocket.
    pub const fn frames(&self) -> &Bytes {
        &self.frames
    }

    /// The first frame's JSON: a token or a status.
    pub fn json(&self) -> &str {
        text::payload(&self.frames[..self.first])
    }

    /// The JSON of the status that goes with a token, if one does.
    pub fn word(&self) -> Option<&str> {
        let rest = &self.frames[self.first..];
        (!rest.is_empty()).then(|| text::payload(rest))
    }
}

impl Board {
    /// This board with `entry` in place of what it had of the same grant. `seq` is the user's.
    #[must_use]
    pub fn with(&self, seq: Seq, entry: Entry) -> Self {
        let mut entries: Vec<Entry> = Vec::with_capacity(self.entries.len() + 1);
        entries.extend(self.entries.iter().filter(|e| e.grant != entry.grant).cloned());
        let at = entries.partition_point(|e| e.seq <= entry.seq);
        entries.insert(at, entry);
        Self { seq, entries }
    }

    /// The same board, known to be complete up to `seq`.
    #[must_use]
    pub fn settled(&self, seq: Seq) -> Self {
        Self {
            seq,
            entries: self.entries.clone(),
        }
    }

    /// All entries, in order of seq.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What changed above `seq`, in order.
    pub fn since(&self, seq: Seq) -> &[Entry] {
        let at = self.entries.partition_point(|e| e.seq <= seq);
        &self.entries[at..]
    }

    /// The entry of one grant.
    pub fn entry(&self, grant: &GrantName) -> Option<&Entry> {
        self.entries.iter().find(|e| &e.grant == grant)
    }

    /// Whether some shown token is past its expiry.
    pub fn is_stale(&self, now: Unix) -> bool {
        self.entries.iter().any(|e| e.dies_at.is_some_and(|at| at <= now))
    }
}
