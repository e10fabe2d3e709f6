//! The embedded store: one file, kept by redb.
//!
//! redb was chosen for trust first: one file, copy-on-write with two commit slots, no log to replay and no background
//! work; what a crash leaves is the last commit. Writes go through one thread, which takes what has queued up into one
//! transaction and one fsync (group commit); each write is judged on its own inside it.
//!
//! Reads run where they are asked for, on async threads: they never wait for the writer or its fsync (copy-on-write), and
//! a miss of redb's cache costs one `pread`, from the page cache as a rule. Handing each to another thread would cost more
//! than the read.

mod file;
mod rows;
mod writer;

use std::{path::Path, sync::Arc};

use lockstep_engine::time::Unix;

use self::{
    file::{Disk, Files, RealDisk},
    rows::Snapshot,
    writer::Writer,
};
use super::{
    Answer, Store,
    local::{Backend, Judged, Local, Rows},
};
use crate::clock;

/// Opens the store in the file `path`, made (0600) if absent.
pub(super) fn open(path: &Path) -> Answer<Arc<dyn Store>> {
    open_on(path, Box::new(RealDisk))
}

fn open_on(path: &Path, disk: Box<dyn Disk>) -> Answer<Arc<dyn Store>> {
    let files = Arc::new(Files::open(path, disk)?);
    let writer = Writer::start(Arc::clone(&files))?;
    Ok(Arc::new(Local(Embedded { files, writer })))
}

struct Embedded {
    files: Arc<Files>,
    writer: Writer,
}

impl Backend for Embedded {
    fn clock(&self) -> Unix {
        clock::unix()
    }

    fn read<A>(&self, read: impl FnOnce(&dyn Rows) -> Answer<A>) -> Answer<A> {
        let done = self.files.with(|db| read(&Snapshot::of(db)?));
        if self.files.is_broken() {
            self.writer.wake();
        }
        done
    }

    async fn write<A: Send + 'static>(
        &self,
        judge: impl FnOnce(&dyn Rows, Unix) -> Answer<Judged<A>> + Send + 'static,
    ) -> Answer<A> {
        self.writer.write(judge).await
    }

    fn later(&self, judge: impl FnOnce(&dyn Rows, Unix) -> Answer<Judged<()>> + Send + 'static) -> Answer<()> {
        self.writer.later(judge);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
