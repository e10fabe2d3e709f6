//! From nothing to a connection: when to try, by which transport, and what a failure means.

use std::time::Duration;

use lockstep_protocol::{
    ClientFrame, Seq, UnixSeconds,
    frame::{Hello, HelloDevice, PresenceState},
};

use super::{
    Command, Entropy, LinkId, Machine, NoAccess, NotOpened,
    route::{End, Was},
    ws::{Overdue, Phase},
};
use crate::{
    clock::{HubClock, Now},
    error::Stopped,
    event::{Event, Transport},
};

/// What is to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    Ws,
    /// A WebSocket beside the long-poll that works.
    Probe,
    Poll,
}

impl Machine {
    /// Starts what is due, if there is an access token to do it with.
    pub(super) fn attempt(&mut self, now: Now, out: &mut Vec<Command>) {
        while let Some(attempt) = self.due(now) {
            let Some(token) = self.access.get(now, out) else {
                self.wants_access = self.access.is_buying();
                return;
            };
            match attempt {
                Try::Ws => {
                    self.connect_at = None;
                    out.push(Command::Event(Event::Connecting {
                        transport: Transport::Ws,
                    }));
                    self.ws.open(&self.setup.timing, now, out);
                }
                Try::Probe => self.ws.open(&self.setup.timing, now, out),
                Try::Poll => {
                    if self.connect_at.take().is_some() {
                        out.push(Command::Event(Event::Connecting {
                            transport: Transport::Poll,
                        }));
                    }
                    let after = self.held.cursor();
                    let (poll, wait) = self.poller.start(after, now);
                    out.push(Command::Poll {
                        poll,
                        token,
                        after,
                        wait,
                    });
                }
            }
        }
    }

    fn due(&self, now: Now) -> Option<Try> {
        if !self.may_attempt() {
            return None;
        }
        let connect = self.connect_at.is_some_and(|at| at <= now.mono);
        match self.route.carrier() {
            Transport::Ws if connect && self.ws.is_down() => Some(Try::Ws),
            Transport::Poll if connect && self.poller.is_off() => Some(Try::Poll),
            Transport::Poll if self.poller.is_due(now) => Some(Try::Poll),
            Transport::Poll if self.poller.synced && self.ws.is_down() && self.route.probe_due(now) => Some(Try::Probe),
            Transport::Ws | Transport::Poll => None,
        }
    }

    pub(super) fn access_answered(
        &mut self,
        result: Result<super::Bought, NoAccess>,
        now: Now,
        entropy: &mut dyn Entropy,
        out: &mut Vec<Command>,
    ) {
        let refused = match result {
            Ok(bought) => {
                self.access.bought(bought, now);
                self.wants_access = false;
                return;
            }
            Err(NoAccess::Later { reason, retry_after }) => {
                self.access.not_bought();
                let wait = self.access.rest(retry_after, now, entropy);
                // Wanted only to ask something over HTTP: what is connected stays so.
                if std::mem::take(&mut self.wants_access) {
                    self.try_again_in(wait, reason, now, out);
                }
                return;
            }
            Err(NoAccess::Refused(reason)) => reason,
            Err(NoAccess::Fixed) => "the access token was refused or has expired, and there is no other".into(),
        };
        self.access.not_bought();
        self.wants_access = false;
        self.stop(Stopped::NotAuthenticated { reason: refused }, out);
    }

    /// Waits before the next attempt of the carrier.
    pub(super) fn try_again_in(&mut self, wait: Duration, reason: String, now: Now, out: &mut Vec<Command>) {
        let transport = self.route.carrier();
        let at = now.mono + wait;
        // A poller that still has its state waits itself; everything else starts from nothing.
        if transport == Transport::Poll && !self.poller.is_off() {
            self.poller.poll_at(at);
        } else {
            self.connect_at = Some(at);
        }
        out.push(Command::Event(Event::Disconnected {
            transport,
            reason,
            retry_in: at.since(now.mono),
        }));
    }

    pub(super) fn opened(&mut self, link: LinkId, now: Now, out: &mut Vec<Command>) {
        if link != self.ws.link || !matches!(self.ws.phase, Phase::Opening { .. }) {
            out.push(Command::Shut(link, 1000));
            return;
        }
        let Some(token) = self.access.get(now, out) else {
            // It expired while the connection was made; the next attempt has a fresh one.
            out.push(Command::Shut(link, 1000));
            self.ws.down();
            self.wants_access = self.access.is_buying();
            self.connect_at = Some(now.mono);
            return;
        };
        let cursor = self.held.cursor();
        let hello = Hello {
            token,
            device: HelloDevice {
                id: self.setup.device,
                app: self.setup.app.clone(),
            },
            cursor: cursor.map(|cursor| cursor.to_string()),
            state: self.setup.presence,
            priority: self.setup.priority,
        };
        out.push(Command::Send(link, Box::new(ClientFrame::Hello(hello))));
        let acked = cursor.map_or(Seq(0), |cursor| cursor.seq);
        self.ws.greeted(acked, &self.setup.timing, now);
    }

    pub(super) fn not_opened(
        &mut self,
        link: LinkId,
        why: NotOpened,
        now: Now,
        entropy: &mut dyn Entropy,
        out: &mut Vec<Command>,
    ) {
        if link == self.ws.link && !self.ws.is_down() {
            self.ws_ended(&End::NotOpened(why), now, entropy, out);
        }
    }

    pub(super) fn ended(
        &mut self,
        link: LinkId,
        code: Option<u16>,
        now: Now,
        entropy: &mut dyn Entropy,
        out: &mut Vec<Command>,
    ) {
        if link != self.ws.link || self.ws.is_down() {
            return;
        }
        let was = match self.ws.phase {
            Phase::Live { stable: true, .. } => Was::Stable,
            Phase::Live { stable: false, .. } => Was::Young,
            _ => Was::Fresh,
        };
        self.ws_ended(&End::Ended { code, was }, now, entropy, out);
    }

    /// Deadlines of the session, and its coming of age.
    pub(super) fn check_session(&mut self, now: Now, entropy: &mut dyn Entropy, out: &mut Vec<Command>) {
        if self.ws.became_stable(&self.setup.timing, now) {
            self.backoff.reset();
            // Whatever else was to be tried: this works.
            self.connect_at = None;
            if self.route.ws_stable() {
                self.poller.stop();
                self.persist.touch();
                out.push(Command::Event(Event::TransportChanged {
                    from: Transport::Poll,
                    to: Transport::Ws,
                    reason: "WebSocket works again".into(),
                }));
            }
        }
        if let Some(overdue) = self.ws.overdue(now) {
            let code = if overdue == Overdue::Leave { 1001 } else { 1000 };
            out.push(Command::Shut(self.ws.link, code));
            self.ws_ended(&End::Overdue(overdue), now, entropy, out);
        }
    }

    /// The WebSocket is gone, one way or another.
    fn ws_ended(&mut self, end: &End, now: Now, entropy: &mut dyn Entropy, out: &mut Vec<Command>) {
        let left = self.ws.leave_at.take();
        self.ws.down();
        self.held.broke_off();
        self.asks.all_lost();
        if let End::Ended { code: Some(code), .. } = end
            && !self.may_return(*code, out)
        {
            return;
        }
        if self.route.carrier() == Transport::Poll {
            self.route.probe_failed(&self.setup.timing, now, entropy);
            self.persist.touch();
            if self.poller.is_off() {
                self.poller.poll_at(now.mono);
            }
            return;
        }
        if self.route.ws_ended(end) {
            // Another way to the same hub: when that asked to be left alone for a while, this holds for both ways.
            let wait = end.retry_after().unwrap_or_default();
            self.connect_at = Some(now.mono + wait);
            out.push(Command::Event(Event::Disconnected {
                transport: Transport::Ws,
                reason: end.words(),
                retry_in: wait,
            }));
            return;
        }
        let mut wait = self.backoff.next(entropy).max(end.retry_after().unwrap_or_default());
        if let Some(left) = left {
            // `goaway` has already spread the clients: the time it gave stands in place of the back-off.
            wait = left.since(now.mono);
        }
        self.try_again_in(wait, end.words(), now, out);
    }

    /// What a close code allows: to come back, or not.
    fn may_return(&mut self, code: u16, out: &mut Vec<Command>) -> bool {
        let stopped = match code {
            4400 => Stopped::Protocol,
            4401 if self.access.refused() => return true,
            4401 => Stopped::NotAuthenticated {
                reason: "a fresh access token was refused too".into(),
            },
            4403 => Stopped::Revoked,
            4409 => Stopped::Replaced,
            _ => return true,
        };
        self.stop(stopped, out);
        false
    }

    pub(super) fn presence(&mut self, state: PresenceState, out: &mut Vec<Command>) {
        if self.setup.presence == state {
            return;
        }
        self.setup.presence = state;
        if let Some(link) = self.live_link() {
            let frame = ClientFrame::Presence(lockstep_protocol::frame::Presence { state });
            out.push(Command::Send(link, Box::new(frame)));
        }
    }

    /// The hub told its time.
    pub(super) fn told_time(&mut self, time: UnixSeconds, now: Now, out: &mut Vec<Command>) {
        let told = HubClock::told(now, time);
        if told.agrees(self.held.clock, now) {
            return;
        }
        self.held.clock = told;
        self.persist.touch();
        out.extend(self.show_all());
    }
}
