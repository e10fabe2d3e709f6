//! The audit log: one history that many parties can check without trusting the hub's word.
//!
//! Append-only records without secrets. Each holds the link of the one before ([`chain`]), and links are signed with a
//! key that all nodes share ([`Signer`]); every node writes a chain of its own ([`writer`]). [`verify`] finds any record
//! altered, dropped, reordered or added. What the end of a chain was is kept in the store too ([`anchor`]), because a chain
//! alone cannot tell that its newest records were cut off; [`known`] compares them when the log is opened. Old records go by
//! [`keep`], which leaves a signed word of it.

pub mod anchor;
pub mod chain;
mod event;
mod file;
mod keep;
mod known;
mod receipt;
mod signer;
pub mod verify;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use lockstep_protocol::{GrantName, UserId, Version};
use tokio::sync::{Semaphore, oneshot, watch};

pub use anchor::Anchor;
pub use chain::{Head, Link};
pub use event::{By, Event, HexHash, RevokedWhy};
pub use receipt::Receipt;
pub use signer::{PublicKey, Signer};

use crate::clock;
use keep::Keep;
use writer::{Message, Writer};

/// The most records that wait to be written. A record takes a few microseconds; more than this waiting means that the
/// disk stands still, and then the log says how many it lost.
const LONGEST_QUEUE: usize = 16 * 1024;
/// How long whoever wants the last records on disk waits for it: a disk that stands still holds up neither a stop nor a
/// request for long.
const LONGEST_FLUSH: Duration = Duration::from_secs(5);

/// Why the audit log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The disk.
    #[error("audit log {path}: {error}")]
    Io {
        /// The file or directory.
        path: std::path::PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// What is there is not a log that can be gone on with.
    #[error("audit log {path}: {why}: move it away, and find out who changed it")]
    Broken {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The newest records do not get to disk.
    #[error("audit log: the newest records do not get to disk")]
    Behind,
    /// The log's signing key.
    #[error("audit log's signing key: {0}")]
    Key(String),
    /// The store that keeps key and anchor.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// Where records go. Cheap to clone; all clones write one chain.
#[derive(Clone)]
pub struct Audit(Option<Arc<Inner>>);

struct Inner {
    queue: SyncSender<Message>,
    lost: AtomicU64,
    head: watch::Receiver<Head>,
    signer: Arc<Signer>,
    dir: PathBuf,
    /// One search of the files at a time.
    search: Semaphore,
}

impl Audit {
    /// Goes on with the chain in `dir` (made, 0700, if absent), or begins one. Records are kept for `keep`; none: for ever.
    /// One process at a time: the directory lies in the node's spool, which is locked. `known` is what the store says of
    /// the chain ([`Head::START`]: nothing); if the chain does not have it, it says so for ever.
    ///
    /// # Errors
    /// [`AuditError`] when the directory cannot be used, or the end of the chain in it cannot be read.
    pub fn open(
        dir: &Path,
        node: &str,
        signer: Signer,
        keep: Option<Duration>,
        known: Head,
    ) -> Result<Self, AuditError> {
        let signer = Arc::new(signer);
        let (queue, records) = sync_channel(LONGEST_QUEUE);
        let writer = Writer::open(dir, node, Arc::clone(&signer), Keep::new(keep), known)?;
        let head = writer.start(records)?;
        Ok(Self::on(queue, head, signer, dir))
    }

    fn on(queue: SyncSender<Message>, head: watch::Receiver<Head>, signer: Arc<Signer>, dir: &Path) -> Self {
        Self(Some(Arc::new(Inner {
            queue,
            lost: AtomicU64::new(0),
            head,
            signer,
            dir: dir.to_owned(),
            search: Semaphore::new(1),
        })))
    }

    /// A log that keeps nothing: for tests, and for a hub in memory.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Takes down what happened. Never waits; if the queue is full, the record is counted as lost, and the next one that
    /// fits says so.
    pub fn record(&self, event: Event) {
        let Some(inner) = &self.0 else { return };
        let now = clock::unix();
        let lost = inner.lost.swap(0, Ordering::Relaxed);
        if lost > 0
            && inner
                .queue
                .try_send(Message::Record(now, Event::Lost { count: lost }))
                .is_err()
        {
            inner.lost.fetch_add(lost, Ordering::Relaxed);
        }
        if inner.queue.try_send(Message::Record(now, event)).is_err() {
            inner.lost.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("lockstep_audit_lost_total").increment(1);
        }
    }

    /// The end of the chain as it is on disk, and a view that follows it. None when the log is off.
    pub fn head(&self) -> Option<watch::Receiver<Head>> {
        self.0.as_ref().map(|inner| inner.head.clone())
    }

    /// What verifies the links. None when the log is off.
    pub fn public_key(&self) -> Option<&PublicKey> {
        self.0.as_ref().map(|inner| inner.signer.public())
    }

    /// The record of the commit of a version, signed; none if it is not in this node's chain, or too far back.
    ///
    /// # Errors
    /// When the files cannot be read, or the disk is behind.
    pub async fn receipt(
        &self,
        user: UserId,
        grant: GrantName,
        version: Version,
    ) -> Result<Option<Receipt>, AuditError> {
        let Some(inner) = &self.0 else { return Ok(None) };
        if !self.flush().await {
            return Err(AuditError::Behind);
        }
        let Ok(_alone) = inner.search.acquire().await else {
            return Ok(None);
        };
        let work = {
            let inner = Arc::clone(inner);
            move || receipt::find(&inner.dir, &inner.signer, &user, &grant, version)
        };
        let searched = tokio::task::spawn_blocking(work).await;
        searched.unwrap_or_else(|error| Err(file::io(&inner.dir, std::io::Error::other(error))))
    }

    /// Waits until every record taken so far is on disk, but no longer than 5 s. Whether it is.
    #[must_use]
    pub async fn flush(&self) -> bool {
        self.flush_within(LONGEST_FLUSH).await
    }

    async fn flush_within(&self, limit: Duration) -> bool {
        let Some(inner) = &self.0 else { return true };
        let (done, flushed) = oneshot::channel();
        let is_told = inner.queue.try_send(Message::Flush(done)).is_ok();
        is_told && matches!(tokio::time::timeout(limit, flushed).await, Ok(Ok(())))
    }
}
