//! The shell around the machine: one task that owns the socket, runs the requests, and executes the commands.

pub(crate) mod dial;
pub(crate) mod enrol;
mod execute;
pub(crate) mod http;
pub(crate) mod identity;
pub(crate) mod net;
mod provider;
mod socket;

use std::{collections::HashMap, io, pin::Pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::AbortHandle, stream::FuturesUnordered};
use lockstep_protocol::{GrantName, Version, frame::PresenceState};
use tokio::sync::{mpsc, oneshot};

use self::{
    dial::WsStream,
    identity::Identity,
    net::Net,
    socket::{Socket, Word},
};
use crate::{
    cache::Cache,
    clock,
    error::Error,
    machine::{Entropy, Input, LinkId, Machine, Need, WaiterId},
    shared::Shared,
    state::TokenLease,
    vault::Vault,
};

/// How long the last writes may take once the client has stopped.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// What an application's handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Call {
    Ask {
        grant: GrantName,
        need: Need,
        patience: Duration,
        answer: oneshot::Sender<Result<TokenLease, Error>>,
    },
    Rejected {
        grant: GrantName,
        version: Version,
        patience: Duration,
        answer: oneshot::Sender<Result<TokenLease, Error>>,
    },
    Presence(PresenceState),
    Resync,
    /// The sender is dropped when everything is done.
    Close(oneshot::Sender<()>),
}

/// What a piece of I/O came to.
enum Outcome {
    Input(Box<Input>),
    Opened(LinkId, Box<WsStream>),
    Nothing,
}

impl Outcome {
    fn input(input: Input) -> Self {
        Self::Input(Box::new(input))
    }
}

type Job = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The operating system's randomness.
pub(crate) struct Os;

impl Entropy for Os {
    fn bits(&mut self) -> u64 {
        rand::random()
    }
}

pub(crate) struct Driver {
    machine: Machine,
    net: Net,
    identity: Arc<Identity>,
    cache: Option<Cache>,
    vault: Option<Vault>,
    shared: Arc<Shared>,
    calls: mpsc::Receiver<Call>,
    jobs: FuturesUnordered<Job>,
    socket: Option<Socket>,
    opening: Option<(LinkId, AbortHandle)>,
    polling: Option<AbortHandle>,
    waiters: HashMap<WaiterId, oneshot::Sender<Result<TokenLease, Error>>>,
    last_waiter: u64,
    closing: Vec<oneshot::Sender<()>>,
    /// The last handle is gone.
    abandoned: bool,
    stopped: bool,
}

impl Driver {
    pub(crate) fn new(
        machine: Machine,
        net: Net,
        identity: Identity,
        cache: Option<Cache>,
        vault: Option<Vault>,
        shared: Arc<Shared>,
        calls: mpsc::Receiver<Call>,
    ) -> Self {
        Self {
            machine,
            net,
            identity: Arc::new(identity),
            cache,
            vault,
            shared,
            calls,
            jobs: FuturesUnordered::new(),
            socket: None,
            opening: None,
            polling: None,
            waiters: HashMap::new(),
            last_waiter: 0,
            closing: Vec::new(),
            abandoned: false,
            stopped: false,
        }
    }

    /// Runs until the machine stops or the last handle is dropped.
    pub(crate) async fn run(mut self) {
        for command in self.machine.show_all() {
            self.execute(command);
        }
        self.input(Input::Tick);
        while !self.stopped {
            self.turn().await;
        }
        let start = clock::now().mono;
        // What is on its way to the disk gets there, and the answer of a provider is waited for.
        while clock::now().mono.since(start) < LAST_WRITES || self.machine.is_redeeming() {
            match tokio::time::timeout(LAST_WRITES, self.jobs.next()).await {
                Ok(Some(outcome)) => self.outcome(outcome),
                Ok(None) => break,
                Err(_) => {}
            }
        }
    }

    async fn turn(&mut self) {
        let due = self.machine.next_timeout().map(|at| at.since(clock::now().mono));
        let wait = due.unwrap_or(Duration::from_secs(60));
        tokio::select! {
            call = self.calls.recv(), if !self.abandoned => self.call(call),
            Some(outcome) = self.jobs.next(), if !self.jobs.is_empty() => self.outcome(outcome),
            (link, word) = step(&mut self.socket), if self.socket.is_some() => self.word(link, word),
            () = tokio::time::sleep(wait) => self.input(Input::Tick),
        }
    }

    fn call(&mut self, call: Option<Call>) {
        match call {
            // The last handle is gone: nobody can use what the hub sends.
            None => {
                self.abandoned = true;
                self.input(Input::Close);
            }
            Some(Call::Ask {
                grant,
                need,
                patience,
                answer,
            }) => self.ask(grant, need, patience, answer),
            Some(Call::Rejected {
                grant,
                version,
                patience,
                answer,
            }) => {
                self.input(Input::Rejected(grant.clone(), version));
                self.ask(grant, Need::Newer(version), patience, answer);
            }
            Some(Call::Presence(state)) => self.input(Input::Presence(state)),
            Some(Call::Resync) => self.input(Input::Resync),
            Some(Call::Close(done)) => {
                self.closing.push(done);
                self.input(Input::Close);
            }
        }
    }

    fn ask(
        &mut self,
        grant: GrantName,
        need: Need,
        patience: Duration,
        answer: oneshot::Sender<Result<TokenLease, Error>>,
    ) {
        self.last_waiter += 1;
        let waiter = WaiterId(self.last_waiter);
        self.waiters.insert(waiter, answer);
        self.input(Input::Ask {
            waiter,
            grant,
            need,
            patience,
        });
    }

    fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Input(input) => self.input(*input),
            Outcome::Opened(link, ws) => {
                self.opening = None;
                self.socket = Some(Socket::new(link, *ws));
                self.input(Input::Opened(link));
            }
        }
    }

    fn word(&mut self, link: LinkId, word: Word) {
        match word {
            Word::Frame(frame) => self.input(Input::Frame(link, frame)),
            Word::Other => self.input(Input::Heard(link)),
            Word::End(code) => {
                if let Some(socket) = self.socket.take() {
                    self.job(async move {
                        socket.close(1000).await;
                        Outcome::Nothing
                    });
                }
                self.input(Input::Ended(link, code));
            }
        }
    }

    fn input(&mut self, input: Input) {
        for command in self.machine.handle(input, clock::now(), &mut Os) {
            self.execute(command);
        }
    }
}

/// Disk work, off the task that keeps the connection alive.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

async fn step(socket: &mut Option<Socket>) -> (LinkId, Word) {
    match socket {
        Some(socket) => (socket.link, socket.step().await),
        None => std::future::pending().await,
    }
}
