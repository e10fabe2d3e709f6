//! The client's rules, without any I/O: input and the time go in, commands come out.
//!
//! One call of [`Machine::handle`] per thing that happens; its commands are executed in order. Afterwards
//! [`Machine::next_timeout`] says when to call again with [`Input::Tick`], should nothing happen before. An early or
//! superfluous tick does no harm.

mod access;
mod asks;
mod backoff;
mod connect;
mod held;
mod io;
mod persist;
mod poller;
mod polling;
pub(crate) mod redeem;
mod route;
mod session;
mod wake;
mod ws;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lockstep_protocol::{Cursor, DeviceId, GrantName, frame::PresenceState};

use self::{
    access::Access, asks::Asks, backoff::Backoff, held::Held, persist::Persist, poller::Poller, redeem::Redeemer,
    route::Route, wake::Wake, ws::Ws,
};
pub(crate) use self::{
    held::{Refreshing, Register},
    io::{Bought, Command, HttpTrouble, Input, LinkId, Need, NoAccess, NotOpened, PollId, Refusal, WaiterId},
    persist::Snapshot,
};
use crate::{
    clock::{HubClock, Mono, Now, Unix},
    error::Stopped,
    event::{Connection, Event, Transport, TransportChoice},
    timing::Timing,
};

/// How long a redeem that is under way may hold up the end of the client.
const LONGEST_FAREWELL: Duration = Duration::from_secs(60);

/// Where random numbers come from: the operating system in a program, a seed in tests.
pub(crate) trait Entropy {
    /// Sixty-four random bits.
    fn bits(&mut self) -> u64;
}

/// What a machine is made of.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) device: DeviceId,
    pub(crate) app: String,
    pub(crate) presence: PresenceState,
    pub(crate) priority: Option<u8>,
    pub(crate) transport: TransportChoice,
    pub(crate) timing: Timing,
    /// Whether acks wait for a disk cache.
    pub(crate) cached: bool,
    /// Whether elections are accepted.
    pub(crate) redeemer: bool,
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) cursor: Option<Cursor>,
    pub(crate) grants: BTreeMap<GrantName, Register>,
    pub(crate) skew_ms: i64,
    pub(crate) blocked_until: Option<Unix>,
    /// Redeems that were not brought to an end.
    pub(crate) redeems: Vec<redeem::Kept>,
}

/// The whole client, as rules.
#[derive(Debug)]
pub(crate) struct Machine {
    setup: Setup,
    held: Held,
    asks: Asks,
    access: Access,
    ws: Ws,
    poller: Poller,
    route: Route,
    backoff: Backoff,
    persist: Persist,
    wake: Wake,
    redeemer: Redeemer,
    /// When the carrier is tried next; none while it is up, being tried, or waits for an access token.
    connect_at: Option<Mono>,
    /// An attempt waits for an access token.
    wants_access: bool,
    /// When the client stops, because the application is done.
    close_by: Option<Mono>,
    /// Grants that a `reset` dropped, until it is certain that they are gone.
    dropped: BTreeSet<GrantName>,
    shown: Option<Connection>,
    stopped: Option<Stopped>,
}

impl Machine {
    pub(crate) fn new(setup: Setup, remembered: Remembered, now: Now, entropy: &mut dyn Entropy) -> Self {
        let clock = HubClock::guess(now, remembered.skew_ms);
        let held = match remembered.cursor {
            Some(cursor) => Held::load(clock, cursor, remembered.grants),
            None => Held::new(clock),
        };
        let timing = &setup.timing;
        Self {
            held,
            asks: Asks::default(),
            access: Access::new(timing),
            ws: Ws::new(),
            poller: Poller::new(timing),
            route: Route::new(setup.transport, remembered.blocked_until, timing, now, entropy),
            backoff: Backoff::new(timing.backoff_first, timing.backoff_most),
            persist: Persist::new(setup.cached),
            wake: Wake::new(timing, now),
            redeemer: Redeemer::new(setup.redeemer, remembered.redeems),
            connect_at: Some(now.mono),
            wants_access: false,
            close_by: None,
            dropped: BTreeSet::new(),
            shown: None,
            stopped: None,
            setup,
        }
    }

    /// What an earlier run left, to be shown before anything else happens.
    pub(crate) fn show_all(&self) -> Vec<Command> {
        let grants = self.held.iter().map(|(grant, _)| grant);
        grants
            .map(|grant| Command::Show(grant.clone(), self.held.state(grant)))
            .collect()
    }

    /// Something happened. The commands are to be executed in order.
    pub(crate) fn handle(&mut self, input: Input, now: Now, entropy: &mut dyn Entropy) -> Vec<Command> {
        let mut out = Vec::new();
        if self.stopped.is_some() {
            self.handle_stopped(input, now, &mut out);
            return out;
        }
        if let Some(gap) = self.wake.gap(now) {
            self.woke(gap, now, &mut out);
        }
        self.dispatch(input, now, entropy, &mut out);
        if self.stopped.is_none() {
            self.settle(now, entropy, &mut out);
        }
        out
    }

    /// When to call [`Machine::handle`] with [`Input::Tick`] at the latest.
    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        if self.stopped.is_some() {
            return None;
        }
        // A probe waits for a long-poll that works: until then its time does not count.
        let may_probe = self.poller.synced && self.ws.is_down() && self.may_attempt();
        let probe = self.route.next_timeout().filter(|_| may_probe);
        [
            self.connect_at.filter(|_| self.can_connect()),
            probe,
            self.ws.next_timeout(&self.setup.timing),
            self.poller.next_timeout().filter(|_| self.may_attempt()),
            self.access.next_timeout(),
            self.asks.next_timeout(),
            self.held.next_lapse(),
            self.redeemer.next_timeout(self.ws.is_live()),
            self.close_by,
            Some(self.wake.next()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn dispatch(&mut self, input: Input, now: Now, entropy: &mut dyn Entropy, out: &mut Vec<Command>) {
        match input {
            Input::Tick => {}
            Input::Access(result) => self.access_answered(result, now, entropy, out),
            Input::Opened(link) => self.opened(link, now, out),
            Input::NotOpened(link, why) => self.not_opened(link, why, now, entropy, out),
            Input::Frame(link, frame) => self.frame(link, *frame, now, entropy, out),
            Input::Heard(link) => {
                if link == self.ws.link {
                    self.ws.heard(now);
                }
            }
            Input::Ended(link, code) => self.ended(link, code, now, entropy, out),
            Input::Polled(poll, result) => self.polled(poll, result, now, entropy, out),
            Input::Refreshed(id, result) => self.refreshed(&id, result, now, out),
            Input::Fetched(id, result) => self.fetched(&id, result, now, out),
            Input::Persisted { mark, kept } => self.persisted(mark, kept, now, out),
            Input::Ask {
                waiter,
                grant,
                need,
                patience,
            } => self.asks.add(waiter, grant, need, now.mono + patience, out),
            Input::Rejected(grant, version) => {
                if self.held.reject(&grant, version) {
                    self.show(&grant, out);
                }
            }
            Input::Presence(state) => self.presence(state, out),
            Input::Resync => self.resync(now, out),
            Input::Close => self.close(now),
            Input::Redeem(input) => self.redeemer.handle(input, now, out),
        }
    }

    /// After whatever happened: deadlines, then what became possible.
    fn settle(&mut self, now: Now, entropy: &mut dyn Entropy, out: &mut Vec<Command>) {
        self.access.settle(now);
        self.check_session(now, entropy, out);
        for grant in self.held.lapse(now) {
            self.show(&grant, out);
        }
        if self
            .close_by
            .is_some_and(|at| at <= now.mono || !self.redeemer.is_busy())
        {
            self.stop(Stopped::Closed, out);
        }
        if self.stopped.is_some() {
            return;
        }
        self.attempt(now, out);
        if self.stopped.is_some() {
            return;
        }
        self.asks.review(&self.held, self.is_synced(), now, out);
        self.ask_hub(now, out);
        self.redeemer.settle(self.live_link(), now, out);
        self.persist(now, out);
        self.ack(out);
        self.show_connection(out);
    }

    /// Whether anything can be tried at all: not while an access token is on order, nor while none is to be had.
    const fn may_attempt(&self) -> bool {
        !self.wants_access && !self.access.is_resting()
    }

    /// Whether the time to connect is worth waking up for: not when nothing can be tried, nor while a WebSocket
    /// that began as a probe may yet turn out to work.
    fn can_connect(&self) -> bool {
        let free = match self.route.carrier() {
            Transport::Ws => self.ws.is_down(),
            Transport::Poll => self.poller.is_off(),
        };
        free && self.may_attempt()
    }

    fn is_synced(&self) -> bool {
        self.ws.is_live() || self.poller.synced
    }

    fn live_link(&self) -> Option<LinkId> {
        self.ws.is_live().then_some(self.ws.link)
    }

    fn show(&self, grant: &GrantName, out: &mut Vec<Command>) {
        out.push(Command::Show(grant.clone(), self.held.state(grant)));
    }

    fn show_connection(&mut self, out: &mut Vec<Command>) {
        let transport = if self.ws.is_live() {
            Transport::Ws
        } else {
            self.route.carrier()
        };
        let connection = Connection {
            transport,
            synced: self.is_synced(),
            stopped: self.stopped.clone(),
        };
        if self.shown.as_ref() != Some(&connection) {
            self.shown = Some(connection.clone());
            out.push(Command::Connection(connection));
        }
    }

    /// The application is done. A redeem that has begun is not: its result is worth waiting for.
    fn close(&mut self, now: Now) {
        self.redeemer.retire();
        let wait = if self.redeemer.is_busy() && self.ws.is_live() {
            LONGEST_FAREWELL
        } else {
            Duration::ZERO
        };
        self.close_by.get_or_insert(now.mono + wait);
    }

    /// Whether a redeem is under way that the end of the program would cut off.
    pub(crate) fn is_redeeming(&self) -> bool {
        self.redeemer.is_under_way()
    }

    fn stop(&mut self, why: Stopped, out: &mut Vec<Command>) {
        if !self.ws.is_down() {
            out.push(Command::Shut(self.ws.link, 1000));
            self.ws.down();
        }
        if self.poller.stop() {
            out.push(Command::StopPoll);
        }
        self.asks.stop(&why, out);
        self.stopped = Some(why.clone());
        self.show_connection(out);
        out.push(Command::Event(Event::Stopped(why)));
        out.push(Command::Stop);
    }

    /// Nothing is connected any more, but a redeem that has begun is seen through.
    fn handle_stopped(&mut self, input: Input, now: Now, out: &mut Vec<Command>) {
        match input {
            Input::Redeem(input) => self.redeemer.handle(input, now, out),
            Input::Ask { waiter, .. } => {
                if let Some(why) = self.stopped.clone() {
                    out.push(Command::Answer(waiter, Err(why.into())));
                }
            }
            _ => {}
        }
    }
}
