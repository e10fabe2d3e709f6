//! The shell around the machine: one task that owns the socket, runs the requests, and executes the commands.

pub(crate) mod dial;
pub(crate) mod http;
pub(crate) mod identity;
pub(crate) mod net;
mod provider;
mod socket;

use std::{collections::HashMap, io, pin::Pin, sync::Arc, time::Duration};

use futures::{
    StreamExt as _,
    future::{AbortHandle, Abortable},
    stream::FuturesUnordered,
};
use lockstep_protocol::{GrantName, Secret, Version, frame::PresenceState};
use tokio::sync::{mpsc, oneshot};

use self::{
    dial::WsStream,
    identity::Identity,
    net::Net,
    socket::{Socket, Word},
};
use crate::{
    cache::{Cache, Snapshot},
    clock,
    error::Error,
    machine::{Command, Entropy, Input, LinkId, Machine, Need, NotOpened, WaiterId, redeem},
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

    /// Everything that this client may do, in one place.
    fn execute(&mut self, command: Command) {
        match command {
            Command::Buy { refused } => self.buy(refused),
            Command::Open(link) => self.open(link),
            Command::Send(link, frame) => {
                if let Some(socket) = self.socket.as_mut().filter(|socket| socket.link == link) {
                    socket.send(&frame);
                }
            }
            Command::Shut(link, code) => self.shut(link, code),
            Command::Poll {
                poll,
                token,
                after,
                wait,
            } => {
                let net = self.net.clone();
                let abort = self.abortable(async move {
                    let result = http::poll(&net, &token, after, wait).await;
                    Outcome::Input(Box::new(Input::Polled(poll, result)))
                });
                self.polling = Some(abort);
            }
            Command::StopPoll => {
                if let Some(abort) = self.polling.take() {
                    abort.abort();
                }
            }
            Command::PostRefresh {
                id,
                token,
                grant,
                version,
            } => {
                let net = self.net.clone();
                self.job(async move {
                    let result = http::refresh(&net, &token, &grant, version).await;
                    Outcome::Input(Box::new(Input::Refreshed(id, result)))
                });
            }
            Command::Show(grant, state) => self.shared.show(&grant, state),
            Command::Answer(waiter, result) => {
                if let Some(answer) = self.waiters.remove(&waiter) {
                    // Whoever asked may have given up.
                    let _ = answer.send(result);
                }
            }
            Command::Persist { mark, snapshot } => self.persist(mark, *snapshot),
            Command::Event(event) => self.shared.tell(event),
            Command::Connection(connection) => self.shared.connected(connection),
            Command::Redeem(command) => self.redeem(command),
            Command::Stop => self.stopped = true,
        }
    }

    fn buy(&mut self, refused: Option<Secret>) {
        let (identity, net) = (self.identity.clone(), self.net.clone());
        self.job(async move {
            let access = identity.buy(&net, refused).await;
            Outcome::Input(Box::new(Input::Access(access)))
        });
    }

    fn open(&mut self, link: LinkId) {
        let net = self.net.clone();
        let abort = self.abortable(async move {
            match dial::open(&net).await {
                Ok(ws) => Outcome::Opened(link, Box::new(ws)),
                Err(why) => not_opened(link, why),
            }
        });
        self.opening = Some((link, abort));
    }

    fn shut(&mut self, link: LinkId, code: u16) {
        if let Some((_, abort)) = self.opening.take_if(|(opening, _)| *opening == link) {
            abort.abort();
        }
        if let Some(socket) = self.socket.take_if(|socket| socket.link == link) {
            self.job(async move {
                socket.close(code).await;
                Outcome::Nothing
            });
        }
    }

    fn persist(&self, mark: u64, snapshot: Snapshot) {
        let cache = self.cache.clone();
        self.job(async move {
            let kept = blocking(move || cache.map_or(Ok(()), |cache| cache.keep(&snapshot))).await;
            let kept = kept.map_err(|error| error.to_string());
            Outcome::Input(Box::new(Input::Persisted { mark, kept }))
        });
    }

    fn redeem(&self, command: redeem::Command) {
        let Some(vault) = self.vault.clone() else {
            return;
        };
        match command {
            redeem::Command::Send { note, redeem, leave_by } => {
                let net = self.net.clone();
                self.job(async move {
                    let lease = note.lease;
                    let reply = match blocking(move || vault.keep(&note)).await {
                        Ok(()) => provider::redeem(&net, &redeem, leave_by).await,
                        Err(error) => redeem::Reply::NotSent(format!("a result could not be kept here: {error}")),
                    };
                    redeemed(redeem::Input::Came(lease, reply))
                });
            }
            redeem::Command::Keep(kept) => self.job(async move {
                let lease = kept.lease;
                if let Err(error) = blocking(move || vault.keep(&kept)).await {
                    // Published all the same: better in one place than in none.
                    tracing::error!(%error, %lease, "the result of a redeem could not be kept on disk");
                }
                redeemed(redeem::Input::Kept(lease))
            }),
            redeem::Command::Forget(lease) => self.job(async move {
                if let Err(error) = blocking(move || vault.forget(lease)).await {
                    tracing::warn!(%error, %lease, "a result that the hub has could not be removed");
                }
                Outcome::Nothing
            }),
        }
    }

    fn job(&self, job: impl Future<Output = Outcome> + Send + 'static) {
        self.jobs.push(Box::pin(job));
    }

    fn abortable(&self, job: impl Future<Output = Outcome> + Send + 'static) -> AbortHandle {
        let (abort, registration) = AbortHandle::new_pair();
        let job = Abortable::new(job, registration);
        self.job(async move { job.await.unwrap_or(Outcome::Nothing) });
        abort
    }
}

/// Disk work, off the task that keeps the connection alive.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn redeemed(input: redeem::Input) -> Outcome {
    Outcome::Input(Box::new(Input::Redeem(input)))
}

fn not_opened(link: LinkId, why: NotOpened) -> Outcome {
    Outcome::Input(Box::new(Input::NotOpened(link, why)))
}

async fn step(socket: &mut Option<Socket>) -> (LinkId, Word) {
    match socket {
        Some(socket) => (socket.link, socket.step().await),
        None => std::future::pending().await,
    }
}
