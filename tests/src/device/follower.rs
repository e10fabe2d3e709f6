//! A device that follows its grants by itself: connects, acks, reconnects with its cursor, and keeps a diary.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{Enrolled, Event, Session, poller, session::is_state};
use crate::wait::{eventually, within};

/// How soon it tries again when the hub is gone. Short: tests kill hubs often.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long it waits for the hub's `welcome`.
const PATIENCE: Duration = Duration::from_secs(10);

/// One `token` or `status` as the device saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it arrived.
    pub at: Instant,
    /// The epoch it belongs to.
    pub epoch: String,
    /// The frame.
    pub frame: Value,
}

#[derive(Default)]
pub(super) struct Diary {
    seen: Vec<Seen>,
    held: HashMap<String, Value>,
    pub(super) cursor: Option<String>,
    epoch: String,
    connects: usize,
    closes: Vec<u16>,
    faults: Vec<String>,
}

/// A device that runs until dropped.
pub struct Follower {
    /// Which device.
    pub device: Enrolled,
    diary: Arc<Mutex<Diary>>,
    task: AbortHandle,
}

impl Follower {
    /// Starts it. It needs no hub to be there yet.
    pub fn start(listen: SocketAddr, device: Enrolled) -> Self {
        Self::roaming(vec![listen], device)
    }

    /// The same, going on to the next of several hubs whenever one is lost.
    pub fn roaming(hubs: Vec<SocketAddr>, device: Enrolled) -> Self {
        let diary = Arc::new(Mutex::new(Diary::default()));
        let task = tokio::spawn(follow(hubs, device.clone(), diary.clone())).abort_handle();
        Self { device, diary, task }
    }

    /// The same on long-poll.
    pub fn polling(hubs: Vec<SocketAddr>, device: Enrolled) -> Self {
        let diary = Arc::new(Mutex::new(Diary::default()));
        let task = tokio::spawn(poller::poll(hubs, device.clone(), diary.clone())).abort_handle();
        Self { device, diary, task }
    }

    /// Everything it saw.
    pub fn seen(&self) -> Vec<Seen> {
        self.diary().seen.clone()
    }

    /// The `token` or `status` that it holds for a grant.
    pub fn holds(&self, grant: &str) -> Option<Value> {
        self.diary().held.get(grant).cloned()
    }

    /// The version that it holds a token of; 0 if none.
    pub fn version(&self, grant: &str) -> u64 {
        let held = self.holds(grant).filter(|frame| frame["type"] == "token");
        held.and_then(|frame| frame["version"].as_u64()).unwrap_or(0)
    }

    /// Waits until it holds a token of at least `version`.
    ///
    /// # Panics
    /// When it does not within `bound`.
    pub async fn reaches(&self, grant: &str, version: u64, bound: Duration) -> Value {
        eventually(
            &format!("{} holds version {version} of {grant}", self.device.id),
            bound,
            async || {
                self.holds(grant)
                    .filter(|frame| frame["type"] == "token" && frame["version"].as_u64() >= Some(version))
            },
        )
        .await
    }

    /// How often it was welcomed.
    pub fn connects(&self) -> usize {
        self.diary().connects
    }

    /// The close codes that it met.
    pub fn closes(&self) -> Vec<u16> {
        self.diary().closes.clone()
    }

    /// What broke promise P3, in words: a version, or a seq, that went back within an epoch.
    pub fn faults(&self) -> Vec<String> {
        self.diary().faults.clone()
    }

    /// The access tokens that it saw, with the time of each.
    pub fn tokens(&self) -> Vec<(Instant, String)> {
        let token = |seen: &Seen| Some((seen.at, seen.frame["access_token"].as_str()?.to_owned()));
        self.diary().seen.iter().filter_map(token).collect()
    }

    fn diary(&self) -> MutexGuard<'_, Diary> {
        lock(&self.diary)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(hubs: Vec<SocketAddr>, device: Enrolled, diary: Arc<Mutex<Diary>>) {
    for listen in hubs.iter().cycle() {
        if let Ok(Ok(mut session)) = timeout(PATIENCE, Session::open(*listen)).await {
            session.acks = true;
            let cursor = lock(&diary).cursor.clone();
            session.send(&device.hello(cursor.as_deref())).await;
            let mut patience = PATIENCE;
            while let Some(event) = session.next_within(patience).await {
                match event {
                    Event::Frame(frame) => {
                        lock(&diary).take(frame);
                        // Once welcomed, silence is normal.
                        patience = Duration::from_secs(3600);
                        session.frames.clear();
                    }
                    Event::Closed(code) => {
                        lock(&diary).closes.push(code);
                        break;
                    }
                    Event::Lost => break,
                }
            }
        }
        sleep(AGAIN_AFTER).await;
    }
}

impl Diary {
    pub(super) fn take(&mut self, frame: Value) {
        if frame["type"] == "welcome" {
            self.connects += 1;
            frame["epoch"].as_str().unwrap_or_default().clone_into(&mut self.epoch);
            if frame["resume"] == "reset" {
                self.held.clear();
            }
        }
        let is_passing = frame["health"] == "refreshing";
        if let Some(cursor) = frame["cursor"].as_str().filter(|_| !is_passing) {
            self.cursor = Some(cursor.to_owned());
        }
        if is_state(&frame) {
            self.judge(&frame);
            self.seen.push(Seen {
                at: Instant::now(),
                epoch: self.epoch.clone(),
                frame: frame.clone(),
            });
            let grant = frame["grant"].as_str().unwrap_or_default().to_owned();
            if !is_passing {
                self.held.insert(grant, frame);
            }
        }
    }

    fn judge(&mut self, frame: &Value) {
        let same = |seen: &&Seen| seen.epoch == self.epoch && seen.frame["grant"] == frame["grant"];
        let Some(last) = self.seen.iter().rev().find(same) else {
            return;
        };
        for number in ["version", "seq"] {
            if frame[number].as_u64() < last.frame[number].as_u64() {
                self.faults
                    .push(format!("{number} went back from {} to {frame}", last.frame[number]));
            }
        }
    }
}

/// All devices' P3 faults, and the calls that sent a refresh token after one of them had seen its successor.
///
/// # Panics
/// When there are any.
pub fn assert_lawful(followers: &[Follower], provider: &crate::Provider) {
    for follower in followers {
        assert_eq!(
            follower.faults(),
            Vec::<String>::new(),
            "promise P3, device {}",
            follower.device.id
        );
        let tokens = follower.tokens();
        let late = provider.sent_after_successor(tokens.iter().map(|(at, token)| (*at, token.as_str())), |call| {
            call.arrived
        });
        assert!(
            late.is_empty(),
            "a refresh token was sent after its successor was seen: {late:?}"
        );
    }
    let overlapping = provider.overlapping();
    assert!(
        overlapping.is_empty(),
        "promise P1: two redeems of one version at once: {overlapping:?}"
    );
}

/// Waits until all hold a token of at least `version`.
///
/// # Panics
/// When one does not within `bound`.
pub async fn all_reach(followers: &[Follower], grant: &str, version: u64, bound: Duration) {
    let all = futures::future::join_all(followers.iter().map(|follower| follower.reaches(grant, version, bound)));
    within("all devices converge", bound + Duration::from_secs(1), all).await;
}

pub(super) fn lock(diary: &Mutex<Diary>) -> MutexGuard<'_, Diary> {
    diary.lock().unwrap_or_else(PoisonError::into_inner)
}
