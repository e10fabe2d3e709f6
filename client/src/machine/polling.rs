//! What the hub says over long-poll.

use lockstep_protocol::{Code, RequestId, Version, frame::Token, http::PollAnswer};

use super::{Command, Entropy, HttpTrouble, Machine, PollId, Refusal, held::Applied};
use crate::{
    clock::Now,
    error::Stopped,
    event::{Event, Transport},
};

impl Machine {
    pub(super) fn polled(
        &mut self,
        poll: PollId,
        result: Result<Option<Box<PollAnswer>>, HttpTrouble>,
        now: Now,
        entropy: &mut dyn Entropy,
        out: &mut Vec<Command>,
    ) {
        if !self.poller.is_running(poll) {
            return;
        }
        match result {
            Ok(answer) => self.poll_answered(poll, answer, now, entropy, out),
            Err(trouble) => self.poll_failed(&trouble, now, entropy, out),
        }
    }

    fn poll_answered(
        &mut self,
        poll: PollId,
        answer: Option<Box<PollAnswer>>,
        now: Now,
        entropy: &mut dyn Entropy,
        out: &mut Vec<Command>,
    ) {
        self.access.accepted();
        let first = !self.poller.synced;
        let cursor = answer.as_ref().map(|answer| answer.cursor);
        if first {
            out.push(Command::Event(Event::Connected {
                transport: Transport::Poll,
                session: None,
            }));
        }
        if let Some(answer) = answer {
            self.poll_applied(*answer, now, out);
        }
        let Some(spins) = self.poller.answered(poll, cursor, &self.setup.timing, now) else {
            return;
        };
        if spins {
            let wait = self.backoff.next(entropy);
            self.poller.poll_at(now.mono + wait);
        } else {
            self.backoff.reset();
            if let Some(mark) = self.persist.pending() {
                self.poller.poll_after_persist(mark);
            }
        }
        if first {
            out.push(Command::Event(Event::Synced {
                transport: Transport::Poll,
            }));
        }
        if let Some(reason) = self.route.poll_worked(&self.setup.timing, now, entropy) {
            self.persist.touch();
            out.push(Command::Event(Event::TransportChanged {
                from: Transport::Ws,
                to: Transport::Poll,
                reason,
            }));
        }
    }

    fn poll_applied(&mut self, answer: PollAnswer, now: Now, out: &mut Vec<Command>) {
        self.told_time(answer.time, now, out);
        self.begin(answer.epoch, answer.resume);
        self.persist.touch();
        for token in answer.tokens {
            let grant = token.grant.clone();
            if self.held.token(&token) == Applied::Changed {
                self.show(&grant, out);
            }
        }
        for status in answer.statuses {
            let grant = status.grant.clone();
            if matches!(self.held.status(status, now), Applied::Changed | Applied::Passing) {
                self.show(&grant, out);
            }
        }
        self.held.synced(answer.cursor);
        self.show_dropped(out);
    }

    fn poll_failed(&mut self, trouble: &HttpTrouble, now: Now, entropy: &mut dyn Entropy, out: &mut Vec<Command>) {
        let refused = matches!(trouble, HttpTrouble::Status { status: 401, .. });
        let revoked = matches!(
            trouble,
            HttpTrouble::Status {
                status: 403,
                problem: Some(_),
                ..
            }
        );
        let long = match trouble {
            HttpTrouble::Broken(_) => true,
            HttpTrouble::Status { status, .. } => matches!(status, 408 | 502 | 504 | 524),
            HttpTrouble::Unreachable(_) => false,
        };
        if long && self.poller.shorten(now) {
            return;
        }
        if revoked {
            self.stop(Stopped::Revoked, out);
            return;
        }
        if refused && !self.access.refused() {
            let reason = "a fresh access token was refused too".into();
            self.stop(Stopped::NotAuthenticated { reason }, out);
            return;
        }
        self.poller.stop();
        if refused {
            self.connect_at = Some(now.mono);
            return;
        }
        let (reason, after) = describe(trouble, &self.held, now);
        let back = self.route.poll_failed(now);
        self.persist.touch();
        let wait = self.backoff.next(entropy).max(after);
        if back {
            out.push(Command::Event(Event::Connecting {
                transport: Transport::Ws,
            }));
        }
        self.try_again_in(wait, reason, now, out);
    }

    /// A token that was asked for over HTTP.
    pub(super) fn fetched(
        &mut self,
        id: &RequestId,
        result: Result<Box<Token>, HttpTrouble>,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        let token = match result {
            Ok(token) => token,
            Err(trouble) => return self.refreshed(id, Err(trouble), now, out),
        };
        if self.held.fetched(&token) == Applied::Changed {
            self.persist.touch();
            self.show(&token.grant, out);
        }
        let lease = self.held.lease_of(&token);
        self.asks.fetched(id, &lease, &self.held, out);
    }

    /// The answer to a `refresh` over HTTP.
    pub(super) fn refreshed(
        &mut self,
        id: &RequestId,
        result: Result<Version, HttpTrouble>,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        match result {
            Ok(version) => {
                self.access.accepted();
                self.asks.done(id, version, now);
            }
            Err(HttpTrouble::Status { status: 401, .. }) if self.access.refused() => self.asks.lost(id),
            Err(HttpTrouble::Status {
                problem: Some(problem), ..
            }) => self.asks.refused(id, &problem, &mut self.held, now, out),
            Err(trouble) => {
                // Asking again is harmless: the hub answers with what it has. Not at once, though.
                let (message, _) = describe(&trouble, &self.held, now);
                let refusal = Refusal {
                    code: Code::Unavailable,
                    message,
                    retry_at: None,
                };
                self.asks.refused(id, &refusal, &mut self.held, now, out);
            }
        }
    }
}

/// A failure in words, and how long the hub asks to be left alone.
fn describe(trouble: &HttpTrouble, held: &super::held::Held, now: Now) -> (String, std::time::Duration) {
    match trouble {
        HttpTrouble::Unreachable(why) | HttpTrouble::Broken(why) => (why.clone(), std::time::Duration::ZERO),
        HttpTrouble::Status {
            status,
            retry_after,
            problem,
        } => {
            let told = problem
                .as_ref()
                .and_then(|problem| problem.retry_at)
                .map(|at| crate::clock::Unix::from_wire(at).since(held.clock.at(now)));
            let words = problem.as_ref().map_or_else(
                || format!("HTTP {status}"),
                |problem| format!("HTTP {status}: {}", problem.message),
            );
            (words, retry_after.or(told).unwrap_or_default())
        }
    }
}
