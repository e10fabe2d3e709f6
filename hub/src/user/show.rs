//! How records become what devices see.

use std::sync::Arc;

use lockstep_engine::{grant::view, record::GrantRecord, time::Now};
use lockstep_protocol::{Epoch, GrantName, HubFrame, Seq, frame::Health};

use super::{Entry, Inner};

/// The most records held back for a gap to close; above it they are dropped, and the read that closes the gap brings them.
const MOST_HELD_BACK: usize = 256;

/// What came of showing a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The board moved: fan out.
    Moved,
    /// Known already.
    Old,
    /// A change with a lower seq is missing: read the user from the store.
    Gap,
}

/// What encoding needs besides the record.
pub struct Face<'a> {
    /// The store's lifetime.
    pub epoch: Epoch,
    /// The hub's clocks.
    pub now: Now,
    /// Where people log in again, by grant.
    pub login_url: &'a dyn Fn(&GrantName) -> Option<String>,
}

impl Face<'_> {
    fn entry(&self, grant: &GrantName, record: &GrantRecord) -> Entry {
        let mut frame = view::frame_of(record, grant, self.epoch, self.now);
        if let HubFrame::Status(status) = &mut frame
            && status.health == Health::ReauthRequired
        {
            status.login_url = (self.login_url)(grant);
        }
        Entry::new(
            record,
            grant,
            &frame,
            view::word_of(record, grant, self.epoch, self.now),
        )
    }
}

impl Inner {
    /// Takes one record into the board.
    ///
    /// Only in order of seq: a device that acked a seq, or keeps it as its cursor, holds everything up to it. A change
    /// that overtook a lower one waits for it.
    pub fn show(&mut self, grant: &GrantName, record: Box<GrantRecord>, face: &Face<'_>) -> Shown {
        if self.board.entry(grant).is_some_and(|e| e.seq >= record.seq) {
            return Shown::Old;
        }
        if record.seq > self.next_seq() {
            if self.held_back.len() < MOST_HELD_BACK {
                self.held_back.insert(record.seq, (grant.clone(), record));
            }
            return Shown::Gap;
        }
        let seq = self.board.seq.max(record.seq);
        self.board = Arc::new(self.board.with(seq, face.entry(grant, &record)));
        self.catch_up(face);
        Shown::Moved
    }

    /// The change of this seq has nothing to show: those above it need not wait for it.
    pub fn leave_out(&mut self, seq: Seq) {
        if seq > self.board.seq && self.left_out.len() < MOST_HELD_BACK {
            self.left_out.insert(seq);
        }
    }

    /// Shows what waited for the board to come this far.
    fn catch_up(&mut self, face: &Face<'_>) {
        while let Some((grant, record)) = self.held_back.remove(&self.next_seq()) {
            self.board = Arc::new(self.board.with(record.seq, face.entry(&grant, &record)));
        }
        self.left_out = self.left_out.split_off(&self.board.seq.next());
    }

    /// The lowest seq above the board's that is to be shown.
    fn next_seq(&self) -> Seq {
        let mut next = self.board.seq.next();
        while self.left_out.contains(&next) {
            next = next.next();
        }
        next
    }

    /// Takes a consistent read of the whole user into the board: everything up to `seq` is in `records`.
    pub fn show_all(&mut self, seq: Seq, records: &[(GrantName, GrantRecord)], face: &Face<'_>) -> Shown {
        let before = self.board.seq;
        let mut board = Arc::clone(&self.board);
        for (grant, record) in records {
            if board.entry(grant).is_none_or(|e| e.seq < record.seq) {
                board = Arc::new(board.with(board.seq, face.entry(grant, record)));
            }
        }
        let seq = seq.max(before);
        self.board = Arc::new(board.settled(seq));
        self.held_back.retain(|held, _| *held > seq);
        self.catch_up(face);
        if self.board.seq > before {
            Shown::Moved
        } else {
            Shown::Old
        }
    }

    /// Re-encodes what has died since: no one is sent a token past its expiry.
    pub fn bury(&mut self, face: &Face<'_>) {
        if !self.board.is_stale(face.now.unix) {
            return;
        }
        let mut board = Arc::clone(&self.board);
        for dead in self
            .board
            .entries()
            .iter()
            .filter(|e| e.dies_at.is_some_and(|at| at <= face.now.unix))
        {
            // The record must be the one shown: a newer one that waits for a gap to close has no place yet.
            let record = self.record(&dead.grant);
            if let Some(record) = record.filter(|r| r.seq == dead.seq) {
                board = Arc::new(board.with(board.seq, face.entry(&dead.grant, record)));
            }
        }
        self.board = board;
    }
}

#[cfg(test)]
mod tests;
