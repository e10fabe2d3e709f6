//! The second phase: a device that is known and up to date.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use lockstep_engine::{
    grant::{Input, WaiterId},
    time::Mono,
};
use lockstep_protocol::{
    ClientFrame, Close, decode_client,
    limits::{ACK_WITHIN, MAX_BAD_FRAMES},
};
use tokio::time::{Instant, Sleep};

use super::{Session, requests};
use crate::{
    app::Hub,
    clock, telemetry,
    transport::socket::{Ended, Received, Socket},
    user::User,
};

/// After this many pings without an answer the device is gone.
const MOST_MISSED: u32 = 2;
/// A device that was told so often between two pings that it asks too often does not listen, and is closed.
const MOST_TURNED_AWAY: u32 = 1000;

/// A session of a device that is known.
pub struct Live {
    pub(super) hub: Arc<Hub>,
    pub(super) user: Arc<User>,
    pub(super) session: Arc<Session>,
    bad: u32,
    missed: u32,
    turned_away: u32,
    next_ping: Mono,
}

enum Event {
    Received(Received),
    Ended(Ended),
    Timer,
}

impl Live {
    pub(super) fn new(hub: Arc<Hub>, user: Arc<User>, session: Arc<Session>) -> Self {
        // Drawn, so that devices that came all at once are not pinged all at once for ever after.
        let first = hub.config.server.heartbeat.mul_f64(rand::random_range(0.25..=1.0));
        let next_ping = clock::mono() + first;
        Self {
            hub,
            user,
            session,
            bad: 0,
            missed: 0,
            turned_away: 0,
            next_ping,
        }
    }

    /// Serves the session until it ends, and says how.
    pub async fn run(mut self, socket: &mut Socket) -> Ended {
        let first = self.next_check(clock::mono()).mul_f64(rand::random_range(0.25..=1.0));
        let mut timer = pin!(tokio::time::sleep(first));
        let ended = loop {
            let event = poll_fn(|cx| next(socket, timer.as_mut(), cx)).await;
            let done = match event {
                Event::Received(received) => self.received(received),
                Event::Timer => self.check(socket, timer.as_mut()),
                Event::Ended(ended) => Err(ended),
            };
            if let Err(ended) = done {
                break ended;
            }
        };
        self.leave();
        ended
    }

    fn received(&mut self, received: Received) -> Result<(), Ended> {
        self.missed = 0;
        match received {
            Received::Text(text) => match decode_client(&text) {
                Ok(ClientFrame::Ack(ack)) => {
                    let settled = self.session.ack(ack.seq);
                    telemetry::metrics::acked(settled.owed_since.map(|since| clock::mono().since(since)));
                    Ok(())
                }
                Ok(frame) => self.asked(frame),
                Err(error) => self.bad_frame(error),
            },
            Received::Drained => {
                // Whatever the device missed while its socket was full: only the newest of it.
                self.session.link.offer(&self.user.board(), clock::mono());
                Ok(())
            }
            Received::Ping | Received::Pong => Ok(()),
        }
    }

    fn asked(&mut self, frame: ClientFrame) -> Result<(), Ended> {
        let Err(come_back) = self.hub.rates.request(self.session.device) else {
            requests::take(self, frame);
            return Ok(());
        };
        self.turned_away += 1;
        if self.turned_away > MOST_TURNED_AWAY {
            telemetry::metrics::refused("flood");
            return Err(Ended::Close(Close::TooMany));
        }
        requests::turn_away(self, frame, come_back);
        Ok(())
    }

    fn bad_frame(&mut self, error: lockstep_protocol::BadFrame) -> Result<(), Ended> {
        self.bad += 1;
        telemetry::metrics::bad_frame();
        if self.bad >= MAX_BAD_FRAMES {
            return Err(Ended::Close(Close::Protocol));
        }
        self.session.say(&requests::bad_frame(error));
        Ok(())
    }

    /// Looks at what is overdue, and sets the timer anew. One timer a session: pushes and acks do not touch it.
    fn check(&mut self, socket: &mut Socket, timer: Pin<&mut Sleep>) -> Result<(), Ended> {
        let now = clock::mono();
        if self
            .session
            .link
            .owing()
            .is_some_and(|since| now.since(since) >= ACK_WITHIN)
        {
            return Err(Ended::Close(Close::Timeout));
        }
        if now >= self.next_ping {
            if self.missed >= MOST_MISSED {
                return Err(Ended::Gone);
            }
            self.missed += 1;
            self.turned_away = 0;
            self.next_ping = now + self.hub.config.server.heartbeat;
            socket.ping();
        }
        timer.reset(Instant::now() + self.next_check(now));
        Ok(())
    }

    /// When to look again. What is sent meanwhile is not overdue before the next ping is, as long as that is due within
    /// the time that an ack may take.
    fn next_check(&self, now: Mono) -> Duration {
        let ping = self.next_ping.since(now).min(ACK_WITHIN);
        let owed = self.session.link.owing().map(|since| (since + ACK_WITHIN).since(now));
        owed.map_or(ping, |owed| owed.min(ping)).max(Duration::from_millis(10))
    }

    fn leave(&self) {
        self.user.unregister(self.session.id);
        self.hub.left(&self.user, &self.session);
        let grants: Vec<_> = {
            let mut inner = self.user.lock();
            inner.idle_since = Some(clock::mono());
            inner.slots.keys().cloned().collect()
        };
        if self.session.redeemer {
            for grant in &grants {
                self.hub.tell(&self.user, grant, Input::SessionLeft(self.session.id));
            }
        }
        for (waiter, grant) in self.waiting() {
            self.hub.tell(&self.user, &grant, Input::Left(waiter));
        }
    }

    /// Requests of this session that nobody can answer any more.
    fn waiting(&self) -> Vec<(WaiterId, lockstep_protocol::GrantName)> {
        self.user.lock().forget_waiters_of(&self.session)
    }
}

fn next(socket: &mut Socket, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Event> {
    match socket.poll_next(cx) {
        Poll::Ready(Ok(received)) => return Poll::Ready(Event::Received(received)),
        Poll::Ready(Err(ended)) => return Poll::Ready(Event::Ended(ended)),
        Poll::Pending => {}
    }
    timer.poll(cx).map(|()| Event::Timer)
}
