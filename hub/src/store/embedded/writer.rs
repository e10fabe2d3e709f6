//! The writer: one thread, one transaction for all writes that have queued up, one fsync, then all answers.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lockstep_engine::time::Unix;
use redb::Database;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    super::{
        Answer, StoreError,
        local::{Changes, GroupRow, Judged, Key, Rows},
    },
    file::{self, Files},
    rows::Batch,
};
use crate::clock;

/// The most writes in one transaction: past this, sharing an fsync among more saves little and latency grows.
const GROUP: usize = 256;
/// The most writes that wait; whoever brings more waits for room.
const QUEUE: usize = 1024;
/// The most lazy writes that are remembered. More are dropped: that is what lazy means.
const LAZY: usize = 4096;
/// The most lazy writes in one transaction: each may be about hundreds of rows, and somebody may wait for the others.
const LAZY_GROUP: usize = 4;
/// How long a lazy write waits for company.
const LAZY_WAIT: Duration = Duration::from_millis(500);
/// The same when more wait than fit in one transaction.
const LAZY_PAUSE: Duration = Duration::from_millis(10);

/// The writer's end that others hold. Dropping it ends the thread, with everything written that was accepted.
pub(super) struct Writer {
    sender: Option<mpsc::Sender<Message>>,
    places: Arc<Semaphore>,
    lazy: Arc<Mutex<Vec<Box<dyn Job>>>>,
    awake: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Write(Box<dyn Job>, OwnedSemaphorePermit),
    /// Look around: the file broke, or there is a lazy write.
    Wake,
}

impl Writer {
    pub(super) fn start(files: Arc<Files>) -> Answer<Self> {
        let (sender, receiver) = mpsc::channel();
        let (lazy, awake) = (Arc::default(), Arc::default());
        let desk = Desk {
            files,
            receiver,
            lazy: Arc::clone(&lazy),
            awake: Arc::clone(&awake),
        };
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || desk.work());
        let thread = thread.map_err(|error| StoreError::Refused(format!("no thread for the store: {error}")))?;
        Ok(Self {
            sender: Some(sender),
            places: Arc::new(Semaphore::new(QUEUE)),
            lazy,
            awake,
            thread: Some(thread),
        })
    }

    /// Judges and writes in one of the next transactions. Durable when it returns `Ok`.
    pub(super) async fn write<A: Send + 'static>(
        &self,
        judge: impl FnOnce(&dyn Rows, Unix) -> Answer<Judged<A>> + Send + 'static,
    ) -> Answer<A> {
        let gone = || StoreError::Refused("the store is closed".into());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| gone())?;
        let (asked, answer) = oneshot::channel();
        self.send(Message::Write(Box::new(Asked { judge, asked }), place));
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Writes with one of the next transactions, or half a second from now.
    pub(super) fn later(&self, judge: impl FnOnce(&dyn Rows, Unix) -> Answer<Judged<()>> + Send + 'static) {
        let (asked, _) = oneshot::channel();
        let mut lazy = self.lazy.lock().unwrap_or_else(PoisonError::into_inner);
        if lazy.len() < LAZY {
            lazy.push(Box::new(Asked { judge, asked }));
        }
        drop(lazy);
        self.wake();
    }

    /// Has the writer look around.
    pub(super) fn wake(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            self.send(Message::Wake);
        }
    }

    fn send(&self, message: Message) {
        if let Some(sender) = &self.sender {
            // Without a receiver the job is dropped, and whoever waits for it is told so.
            let _ = sender.send(message);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // So that the file is closed and unlocked when the store is gone: at most one transaction to wait for.
            let _ = thread.join();
        }
    }
}

/// One write.
trait Job: Send {
    /// Judges it: what changes, and how to tell whoever asked once that is durable (or not).
    fn judge(self: Box<Self>, rows: &dyn Rows, now: Unix) -> (Changes, Finish);

    /// Tells whoever asked that nothing was done.
    fn refuse(self: Box<Self>, why: StoreError);
}

type Finish = Box<dyn FnOnce(Answer<()>) + Send>;

struct Asked<A, F> {
    judge: F,
    asked: oneshot::Sender<Answer<A>>,
}

impl<A, F> Job for Asked<A, F>
where
    A: Send + 'static,
    F: FnOnce(&dyn Rows, Unix) -> Answer<Judged<A>> + Send + 'static,
{
    fn judge(self: Box<Self>, rows: &dyn Rows, now: Unix) -> (Changes, Finish) {
        let Self { judge, asked } = *self;
        let (changes, answer) = match judge(rows, now) {
            Ok(Judged { answer, changes }) => (changes, Ok(answer)),
            Err(error) => (Changes::default(), Err(error)),
        };
        // What nobody waits for any more is done all the same.
        (changes, Box::new(move |written| drop(asked.send(written.and(answer)))))
    }

    fn refuse(self: Box<Self>, why: StoreError) {
        drop(self.asked.send(Err(why)));
    }
}

/// The thread.
struct Desk {
    files: Arc<Files>,
    receiver: mpsc::Receiver<Message>,
    lazy: Arc<Mutex<Vec<Box<dyn Job>>>>,
    awake: Arc<AtomicBool>,
}

impl Desk {
    fn work(self) {
        let mut more = true;
        while more {
            let mut group = Group::default();
            let first = match self.lazy.lock().unwrap_or_else(PoisonError::into_inner).len() {
                0 => None,
                1..=LAZY_GROUP => Some(LAZY_WAIT),
                _ => Some(LAZY_PAUSE),
            };
            let first = match first {
                None => self.next(),
                Some(wait) => self.receiver.recv_timeout(wait),
            };
            match first {
                Ok(Message::Write(job, place)) => group.add(job, place),
                Ok(Message::Wake) => {
                    self.awake.store(false, Ordering::Release);
                    // Nobody waits for this; whoever writes next is told how it stands.
                    let _ = self.files.mend();
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => more = false,
            }
            self.gather(&mut group, if more { LAZY_GROUP } else { LAZY });
            self.finish(group);
        }
    }

    fn next(&self) -> Result<Message, RecvTimeoutError> {
        self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
    }

    /// Takes what has queued up.
    fn gather(&self, group: &mut Group, most_lazy: usize) {
        while group.waiting.len() < GROUP {
            match self.receiver.try_recv() {
                Ok(Message::Write(job, place)) => group.add(job, place),
                Ok(Message::Wake) => self.awake.store(false, Ordering::Release),
                Err(_) => break,
            }
        }
        let mut lazy = self.lazy.lock().unwrap_or_else(PoisonError::into_inner);
        let some = lazy.len().min(most_lazy);
        group.waiting.extend(lazy.drain(..some));
    }

    fn finish(&self, mut group: Group) {
        if group.waiting.is_empty() {
            return;
        }
        let mut written = self.files.mend().and_then(|()| self.files.has_room());
        if written.is_ok() {
            written = self.files.with(|db| group.write(db));
        }
        if let (Err(StoreError::Unknown(why)), Some(number)) = (&written, group.number) {
            written = Err(self.what_became_of(number, why));
        }
        if let Err(error) = &written {
            tracing::error!(%error, writes = group.waiting.len() + group.judged.len(), "nothing is written");
        }
        group.answer(&written);
    }

    /// A commit failed: opened again, the file says whether it happened. If it is there, it may yet not be on the disk:
    /// that stays unknown to whoever asked.
    fn what_became_of(&self, number: u64, why: &str) -> StoreError {
        let last = self.files.mend().and_then(|()| self.files.with(file::group));
        match last {
            Ok(last) if last < number => StoreError::Refused(why.to_owned()),
            _ => StoreError::Unknown(why.to_owned()),
        }
    }
}

/// Writes that share a transaction.
#[derive(Default)]
struct Group {
    waiting: VecDeque<Box<dyn Job>>,
    judged: Vec<Finish>,
    /// Given back when all is answered.
    places: Vec<OwnedSemaphorePermit>,
    /// The number of the transaction, once it is committed or tried to.
    number: Option<u64>,
}

impl Group {
    fn add(&mut self, job: Box<dyn Job>, place: OwnedSemaphorePermit) {
        self.waiting.push_back(job);
        self.places.push(place);
    }

    fn write(&mut self, db: &Database) -> Answer<()> {
        let batch = Batch::begin(db)?;
        let number = self.judge(&batch)?;
        let Some(number) = number else {
            return batch.abort();
        };
        self.number = Some(number);
        batch.commit().map_err(|error| StoreError::Unknown(error.to_string()))
    }

    /// Judges each upon what the ones before it left, and gives the transaction's number if anything changes.
    fn judge(&mut self, batch: &Batch) -> Answer<Option<u64>> {
        let mut rows = batch.rows()?;
        let (mut whole, mut changed) = (Changes::default(), false);
        while let Some(job) = self.waiting.pop_front() {
            let (changes, finish) = job.judge(&rows, clock::unix());
            self.judged.push(finish);
            changed |= !changes.rows.is_empty();
            whole.grants += changes.grants;
            whole.epoch = changes.epoch.or(whole.epoch);
            rows.apply(changes)?;
        }
        if !changed {
            return Ok(None);
        }
        whole.move_mark(&rows)?;
        let number = file::group_in(&rows)? + 1;
        whole.put(Key::group(), &GroupRow { number });
        rows.apply(whole)?;
        Ok(Some(number))
    }

    fn answer(self, written: &Answer<()>) {
        for finish in self.judged {
            finish(written.clone());
        }
        if let Err(error) = written {
            self.waiting.into_iter().for_each(|job| job.refuse(error.clone()));
        }
    }
}
