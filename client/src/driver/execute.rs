//! What the driver does for each command of the machine.

use futures::future::{AbortHandle, Abortable};
use lockstep_protocol::{ClientFrame, Secret};

use super::{Driver, Outcome, blocking, dial, http, provider};
use crate::{
    clock,
    error::Error,
    machine::{Command, Input, LinkId, Snapshot, WaiterId, redeem},
    state::TokenLease,
};

impl Driver {
    /// Everything that this client may do, in one place.
    pub(super) fn execute(&mut self, command: Command) {
        match command {
            Command::Buy { refused } => self.buy(refused),
            Command::Open(link) => self.open(link),
            Command::Send(link, frame) => self.send(link, &frame),
            Command::Shut(link, code) => self.shut(link, code),
            Command::Poll {
                poll,
                token,
                after,
                wait,
            } => {
                let net = self.net.clone();
                self.polling = Some(self.abortable(async move {
                    Outcome::input(Input::Polled(poll, http::poll(&net, &token, after, wait).await))
                }));
            }
            Command::StopPoll => self.stop_poll(),
            Command::PostRefresh {
                id,
                token,
                grant,
                version,
            } => {
                let net = self.net.clone();
                self.job(async move {
                    Outcome::input(Input::Refreshed(id, http::refresh(&net, &token, &grant, version).await))
                });
            }
            Command::Fetch {
                id,
                token,
                grant,
                min_validity,
            } => {
                let net = self.net.clone();
                self.job(async move {
                    Outcome::input(Input::Fetched(
                        id,
                        http::fetch(&net, &token, &grant, min_validity).await,
                    ))
                });
            }
            Command::Show(grant, state) => self.shared.show(&grant, state),
            Command::Answer(waiter, result) => self.answer(waiter, result),
            Command::Persist { mark, snapshot } => self.persist(mark, *snapshot),
            Command::Event(event) => self.shared.tell(event),
            Command::Connection(connection) => self.shared.connected(connection),
            Command::Redeem(command) => self.redeem(command),
            Command::Stop => self.stopped = true,
        }
    }

    fn send(&mut self, link: LinkId, frame: &ClientFrame) {
        if let Some(socket) = self.socket.as_mut().filter(|socket| socket.link == link) {
            socket.send(frame);
        }
    }

    fn stop_poll(&mut self) {
        if let Some(abort) = self.polling.take() {
            abort.abort();
        }
    }

    fn answer(&mut self, waiter: WaiterId, result: Result<TokenLease, Error>) {
        if let Some(answer) = self.waiters.remove(&waiter) {
            // Whoever asked may have given up.
            let _ = answer.send(result);
        }
    }

    fn buy(&mut self, refused: Option<Secret>) {
        let (identity, net) = (self.identity.clone(), self.net.clone());
        self.job(async move {
            let access = identity.buy(&net, refused).await;
            Outcome::input(Input::Access(access))
        });
    }

    fn open(&mut self, link: LinkId) {
        let net = self.net.clone();
        let abort = self.abortable(async move {
            match dial::open(&net).await {
                Ok(ws) => Outcome::Opened(link, Box::new(ws)),
                Err(why) => Outcome::input(Input::NotOpened(link, why)),
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
            Outcome::input(Input::Persisted { mark, kept })
        });
    }

    fn redeem(&self, command: redeem::Command) {
        let Some(vault) = self.vault.clone() else {
            return;
        };
        match command {
            redeem::Command::Send {
                note,
                redeem,
                leave_by,
                answer_by,
            } => {
                let net = self.net.clone();
                self.job(async move {
                    let lease = note.lease;
                    let reply = match blocking(move || vault.keep(&note, clock::now())).await {
                        Ok(()) => provider::redeem(&net, &redeem, leave_by, answer_by).await,
                        Err(error) => redeem::Reply::NotSent(format!("a result could not be kept here: {error}")),
                    };
                    redeemed(redeem::Input::Came(lease, reply))
                });
            }
            redeem::Command::Keep(kept) => self.job(async move {
                let lease = kept.lease;
                if let Err(error) = blocking(move || vault.keep(&kept, clock::now())).await {
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

    pub(super) fn job(&self, job: impl Future<Output = Outcome> + Send + 'static) {
        self.jobs.push(Box::pin(job));
    }

    fn abortable(&self, job: impl Future<Output = Outcome> + Send + 'static) -> AbortHandle {
        let (abort, registration) = AbortHandle::new_pair();
        let job = Abortable::new(job, registration);
        self.job(async move { job.await.unwrap_or(Outcome::Nothing) });
        abort
    }
}

fn redeemed(input: redeem::Input) -> Outcome {
    Outcome::input(Input::Redeem(input))
}
