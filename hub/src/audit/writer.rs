//! The one thread that writes a node's chain.
//!
//! A record waits [`COMPANY`] for others. All that waits is written at once, and the last line of it signed: a quiet hub
//! signs every record, a busy one signs for many. What is written survives the process; it is brought to disk within
//! [`SYNC_WITHIN`], and only then is the head told.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use lockstep_engine::time::Unix;
use tokio::sync::{oneshot, watch};

use super::{
    AuditError, Event, Head, Signer, chain,
    file::{self, End},
    keep::{self, Keep},
    known,
};
use crate::clock;

/// The most time between a record being written and its being on disk.
const SYNC_WITHIN: Duration = Duration::from_millis(100);
/// How long a record waits for company. Most of what a record costs is its batch: waking up, the signature, the write.
const COMPANY: Duration = Duration::from_millis(5);
/// The most records that are written at once and before the one that is signed.
pub(super) const LARGEST_BATCH: usize = 256;
/// A file that has grown to this is closed, and the chain goes on in the next. Small, because the last one is read when the
/// hub starts.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// What the thread is told.
pub(super) enum Message {
    Record(Unix, Event),
    /// Bring all to disk, then say so.
    Flush(oneshot::Sender<()>),
}

pub(super) struct Writer {
    dir: PathBuf,
    node: String,
    signer: Arc<Signer>,
    /// The end of the chain, lines that are not written yet included.
    head: Head,
    /// The last file, its number, and how much of it is whole lines.
    file: File,
    number: u64,
    size: u64,
    /// When the first record in it was written; none: it is empty.
    began: Option<Unix>,
    /// Lines that are not in the file yet.
    pending: Vec<u8>,
    /// Since when something in the file may not be on disk.
    dirty: Option<Instant>,
    keep: Keep,
}

impl Writer {
    /// Opens the chain in `dir`, and writes down how it was found.
    pub(super) fn open(
        dir: &Path,
        node: &str,
        signer: Arc<Signer>,
        keep: Keep,
        known: Head,
    ) -> Result<Self, AuditError> {
        file::make_dir(dir)?;
        let numbers = file::numbers(dir)?;
        let number = numbers.last().copied().unwrap_or(1);
        let file = file::open(dir, number)?;
        let End { head, began, cut } = end_of(dir, &numbers, number)?;
        let size = file.metadata().map_err(|error| file::io(dir, error))?.len();
        let mut writer = Self {
            dir: dir.to_owned(),
            node: node.to_owned(),
            signer,
            head,
            file,
            number,
            size,
            began,
            pending: Vec::new(),
            dirty: None,
            keep,
        };
        for event in writer.first_words(known, cut)? {
            // Each is signed for itself: that is what tells it from a made up one.
            writer.add([(clock::unix(), event)]);
        }
        let written = writer.write().and_then(|()| writer.sync());
        written.map_err(|error| file::io(dir, error))?;
        Ok(writer)
    }

    /// What is to be said of the chain as it was found. This is signed for, and with it all before: what the signature
    /// must not cover up is named.
    fn first_words(&self, known: Head, cut: u64) -> Result<impl Iterator<Item = Event> + use<>, AuditError> {
        let public = self.signer.public();
        let is_missing = !known::is_in(&self.dir, known, public)?;
        if is_missing {
            tracing::error!(
                known = known.n,
                end = self.head.n,
                "the audit log does not have a record that was in it: it was cut off, or written anew"
            );
        }
        let records = file::unsigned_at_end(&self.dir, public)?;
        if records > 0 {
            tracing::error!(records, "nobody signed for the audit log's newest records");
        }
        let unsigned = (records > 0).then_some(Event::Unsigned { records });
        let missing = is_missing.then_some(Event::Missing {
            known: known.n,
            was: known.link,
        });
        let started = Event::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            key: public.as_str().to_owned(),
        };
        let repaired = (cut > 0).then_some(Event::Repaired { bytes: cut });
        Ok([unsigned, missing, Some(started), repaired].into_iter().flatten())
    }

    /// Starts the thread, which ends when all senders are gone.
    pub(super) fn start(self, queue: Receiver<Message>) -> Result<watch::Receiver<Head>, AuditError> {
        let (tell, head) = watch::channel(self.head);
        let dir = self.dir.clone();
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || self.run(&queue, &tell))
            .map_err(|error| file::io(&dir, error))?;
        Ok(head)
    }

    fn run(mut self, queue: &Receiver<Message>, tell: &watch::Sender<Head>) {
        let mut flushes = Vec::new();
        loop {
            if self.drop_old() {
                tell.send_replace(self.head);
            }
            let mut batch = Vec::new();
            let mut take = |message| match message {
                Message::Record(at, event) => batch.push((at, event)),
                Message::Flush(done) => flushes.push(done),
            };
            let ended = match queue.recv_timeout(self.patience()) {
                Ok(message) => {
                    if matches!(message, Message::Record(..)) {
                        std::thread::sleep(COMPANY);
                    }
                    take(message);
                    queue.try_iter().take(LARGEST_BATCH).for_each(take);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            self.add(batch);
            self.insist("written", Self::write);
            if ended || !flushes.is_empty() || self.patience().is_zero() {
                self.insist("brought to disk", Self::sync);
                tell.send_replace(self.head);
                for done in flushes.drain(..) {
                    let _ = done.send(());
                }
            }
            if ended {
                return;
            }
        }
    }

    /// How long the thread may wait for more.
    fn patience(&self) -> Duration {
        self.dirty.map_or(self.keep.patience(), |since| {
            SYNC_WITHIN.saturating_sub(since.elapsed())
        })
    }

    /// Does it until it works. Meanwhile the queue fills, and what does not fit is counted as lost.
    fn insist(&mut self, what: &str, mut attempt: impl FnMut(&mut Self) -> std::io::Result<()>) {
        while let Err(error) = attempt(self) {
            tracing::error!(%error, "audit log cannot be {what}; its records wait");
            metrics::counter!("lockstep_audit_errors_total").increment(1);
            std::thread::sleep(SYNC_WITHIN * 10);
        }
    }

    /// Makes lines of records; the last of them is signed.
    fn add(&mut self, records: impl IntoIterator<Item = (Unix, Event)>) {
        let mut records = records.into_iter().peekable();
        while let Some(record) = records.next() {
            let signer = records.peek().is_none().then_some(&*self.signer);
            chain::append(&mut self.head, &self.node, record, signer, &mut self.pending);
        }
    }

    fn write(&mut self) -> std::io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let now = clock::unix();
        if self.size >= LARGEST_FILE || self.keep.closes(self.began, now) {
            self.next_file()?;
        }
        if let Err(error) = self.file.write_all(&self.pending) {
            // Half a batch must not stay: the next attempt begins at the same place.
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += self.pending.len() as u64;
        self.began.get_or_insert(now);
        self.pending.clear();
        self.dirty.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn next_file(&mut self) -> std::io::Result<()> {
        self.file.sync_data()?;
        self.file = file::open(&self.dir, self.number + 1).map_err(std::io::Error::other)?;
        self.number += 1;
        self.size = 0;
        self.began = None;
        Ok(())
    }

    /// Drops the oldest file if its records were kept long enough, and if it is time to look. It is named in a record that is
    /// on disk before it goes. Whether there is such a record now. One file at a time: meanwhile the queue fills.
    fn drop_old(&mut self) -> bool {
        let Some(before) = self.keep.due(clock::unix()) else {
            return false;
        };
        let begun = self.head;
        let dropped = self.drop_before(before);
        if let Err(error) = dropped {
            tracing::error!(%error, "old audit records are not dropped");
            metrics::counter!("lockstep_audit_errors_total").increment(1);
        }
        self.head != begun
    }

    fn drop_before(&mut self, before: Unix) -> Result<(), AuditError> {
        let public = self.signer.public();
        let Some(due) = keep::oldest_due(&mut self.keep, public, &self.dir, self.number, before)? else {
            return Ok(());
        };
        let expired = Event::Expired {
            through: due.end.n,
            last: due.end.link,
        };
        self.add([(clock::unix(), expired)]);
        self.insist("written", Self::write);
        self.insist("brought to disk", Self::sync);
        keep::remove(&self.dir, due.number)?;
        self.keep.named(due.end);
        tracing::info!(through = due.end.n, "old audit records dropped");
        Ok(())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        if self.dirty.is_some() {
            self.file.sync_data()?;
            self.dirty = None;
        }
        Ok(())
    }
}

/// The end of the chain: in the last file, or in the one before if the last is still empty.
fn end_of(dir: &Path, numbers: &[u64], last: u64) -> Result<End, AuditError> {
    let before = numbers.iter().rev().nth(1);
    let before = before.map(|number| file::find_end(dir, None, *number)).transpose()?;
    let end = file::find_end(dir, before.as_ref().map(|end| end.head), last)?;
    Ok(End {
        head: end.head,
        began: end.began,
        cut: end.cut + before.map_or(0, |end| end.cut),
    })
}

#[cfg(test)]
mod tests;
