//! A refresh token on its way to the provider, and the answer on its way back.

use super::{Happening, World, device_id, name};
use crate::{
    grant::{Command, Input, ProviderReply},
    sim::{
        bench::answered,
        law::{Attempt, By, Row, millis, must},
        provider::{Decision, Pair},
        script::{Millis, Moment, Step, Weather},
    },
};

/// What the law does not need to know of an attempt.
#[derive(Debug)]
pub(crate) struct Flying {
    ordered: Millis,
    send_within: Millis,
    /// Its sender heard an answer, or gave up.
    told: bool,
    /// Its sender is dead: no answer reaches it.
    pub(super) deaf: bool,
}

/// An answer as its sender sees it, and which row of the table that is.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(super) row: Row,
    pub(super) reply: ProviderReply,
    pub(super) pair: Option<Pair>,
}

impl Answer {
    pub(super) fn of(row: Row, reply: ProviderReply) -> Self {
        Self { row, reply, pair: None }
    }

    fn lost(why: &str) -> Self {
        Self::of(Row::Unknown, ProviderReply::Lost(why.to_owned()))
    }

    fn not_sent(why: &str) -> Self {
        Self::of(Row::NotProcessed, ProviderReply::NotSent(why.to_owned()))
    }

    fn limited(status: u16, seconds: Option<u64>) -> Self {
        let reply = ProviderReply::Answered {
            status,
            retry_after: seconds.map(std::time::Duration::from_secs),
            body: "".into(),
        };
        Self::of(Row::NotProcessed, reply)
    }
}

impl World<'_> {
    /// The node of an attempt, if it is a node's.
    pub(super) fn node_of(&self, id: usize) -> Option<usize> {
        match self.law.attempts.get(id)?.by {
            By::Node(node, _) => Some(node),
            By::Device(_) => None,
        }
    }

    /// A node is to redeem.
    pub(super) fn redeem(&mut self, node: usize, command: Command) {
        let Command::Redeem {
            lease,
            refresh_token,
            send_within,
            deadline,
            ..
        } = command
        else {
            return;
        };
        let n = &self.nodes[node];
        let (by, permits) = (By::Node(node, n.life), n.permits);
        self.check(must(permits > 0, "P6 permits", || {
            "a redeem without a permit".to_owned()
        }));
        let known = n_version(self, node);
        let deadline_at = self.now + millis(deadline);
        let attempt = Attempt::new(lease, refresh_token.expose().to_owned(), known, by, deadline_at);
        let delay = if self.by_chance(5) {
            self.latency(0, 7_000)
        } else {
            self.latency(0, 5)
        };
        let late = if self.by_chance(5) {
            self.latency(1_500, 10_000)
        } else {
            0
        };
        self.launch(attempt, millis(send_within), delay, late);
    }

    /// An attempt begins: it is sent after `delay`, and given up `late` after its deadline.
    pub(super) fn launch(&mut self, attempt: Attempt, send_within: Millis, delay: Millis, late: Millis) -> usize {
        let id = self.law.attempts.len();
        let wait = attempt.deadline - self.now;
        self.law.attempts.push(attempt);
        self.flying.push(Flying {
            ordered: self.now,
            send_within,
            told: false,
            deaf: false,
        });
        self.after(delay, Happening::Send(id));
        self.after(wait + late, Happening::GiveUp(id));
        id
    }

    fn sender(&self, id: usize) -> String {
        match self.law.attempts[id].by {
            By::Node(node, _) => name(node),
            By::Device(device) => format!("device {device}"),
        }
    }

    /// Whether whoever sent it lives. A device that dies over it has sent it before.
    fn is_dead(&self, id: usize) -> bool {
        match self.law.attempts[id].by {
            By::Node(node, life) => !self.lives(node, life),
            By::Device(_) => false,
        }
    }

    pub(super) fn send(&mut self, id: usize) {
        if self.is_dead(id) || self.flying[id].told {
            return;
        }
        let weather = self
            .weather
            .iter()
            .rfind(|(until, _)| *until > self.now)
            .map(|(_, w)| *w);
        let flying = &self.flying[id];
        if self.now > flying.ordered + flying.send_within {
            let answer = Answer::not_sent("too late to send");
            return self.after(0, Happening::Told { id, answer });
        }
        if weather == Some(Weather::Refuses) {
            let answer = Answer::not_sent("connection refused");
            return self.after(5, Happening::Told { id, answer });
        }
        let clock = match self.law.attempts[id].by {
            By::Node(node, _) => self.clock(node),
            By::Device(_) => self.store_time(),
        };
        let token = self.law.attempts[id].token.clone();
        let sender = self.sender(id);
        self.say(|| format!("{sender} sends {token}"));
        let verdict = self.law.sends(id, self.store.record.as_ref(), clock, self.now);
        self.check(verdict);
        let pause = self.latency(5, 80);
        self.after(pause, Happening::Arrive { id, weather });
    }

    /// The request arrives at the provider.
    pub(super) fn arrive(&mut self, id: usize, weather: Option<Weather>) {
        let coin = self.by_chance(50);
        let html = "<html><body>It works!</body></html>";
        let (processed, answer) = match weather {
            Some(Weather::Fails) => (false, Some(Answer::of(Row::NotProcessed, answered(500, html)))),
            Some(Weather::Busy(seconds)) => (false, Some(Answer::limited(503, seconds))),
            Some(Weather::Limits(seconds)) => (false, Some(Answer::limited(429, Some(seconds)))),
            Some(Weather::LosesRequests) => (false, Some(Answer::lost("connection reset"))),
            Some(Weather::LosesAnswers) => (true, Some(Answer::lost("connection reset"))),
            Some(Weather::Gateway) => (coin, Some(Answer::of(Row::Unknown, answered(502, html)))),
            Some(Weather::Lies) => (true, Some(Answer::of(Row::NotProcessed, answered(500, "")))),
            Some(Weather::Garbage) => (true, Some(Answer::of(Row::Unknown, answered(200, html)))),
            Some(Weather::Rejects) => (false, Some(Answer::of(Row::Refused, answered(400, "")))),
            Some(Weather::SaysUsed) => (false, Some(used_up(400))),
            Some(Weather::Misconfigured) => {
                let reply = answered(401, r#"{"error":"invalid_client"}"#);
                (false, Some(Answer::of(Row::Misconfigured, reply)))
            }
            Some(Weather::Refuses | Weather::Slow(_)) | None => (true, None),
        };
        let token = self.law.attempts[id].token.clone();
        let decision = processed.then(|| self.provider.redeem(&token, self.now));
        self.say(|| {
            format!(
                "provider: {token} → {}",
                crate::sim::trace::decision(decision.as_ref(), weather)
            )
        });
        let answer = answer.unwrap_or_else(|| match decision {
            Some(Decision::Issued(pair)) => self.issued(pair),
            _ => used_up(if coin { 400 } else { 403 }),
        });
        let slow = match weather {
            Some(Weather::Slow(span)) => span,
            _ => 0,
        };
        let pause = self.latency(5, 120) + slow;
        self.after(pause, Happening::Told { id, answer });
        if let By::Node(node, life) = self.law.attempts[id].by
            && self.lives(node, life)
        {
            self.dies_at(node, Moment::After(Step::Redeem));
        }
    }

    fn issued(&self, pair: Pair) -> Answer {
        let life = self.script.setup.life;
        let refresh = pair
            .refresh
            .as_ref()
            .map_or(String::new(), |token| format!(r#","refresh_token":"{token}""#));
        let body = format!(
            r#"{{"access_token":"{}","token_type":"bearer","expires_in":{life}{refresh}}}"#,
            pair.access
        );
        Answer {
            row: Row::Committed,
            reply: answered(200, &body),
            pair: Some(pair),
        }
    }

    /// Whoever sent it hears the answer.
    pub(super) fn told(&mut self, id: usize, answer: Answer) {
        if self.flying[id].told || self.flying[id].deaf || self.is_dead(id) {
            return;
        }
        self.flying[id].told = true;
        let sender = self.sender(id);
        self.say(|| format!("{sender} hears: {:?}", answer.row));
        self.law.attempts[id].row = Some(answer.row);
        if let Some(pair) = &answer.pair {
            self.law.holds(id, &pair.access, pair.refresh.as_deref(), self.now);
        }
        match self.law.attempts[id].by {
            By::Node(node, _) => {
                self.law.attempts[id].over = true;
                let lease = self.law.attempts[id].lease;
                let reply = answer.reply;
                self.tell(node, Input::Redeemed { lease, reply });
            }
            By::Device(device) => self.device_is_told(device, id, answer),
        }
    }

    pub(super) fn give_up_waiting(&mut self, id: usize) {
        if !self.flying[id].told {
            self.told(id, Answer::lost("no answer in time"));
        }
    }

    /// The token of a hand-over leaves for a device.
    pub(super) fn check_hand(&mut self, lease: lockstep_protocol::LeaseId, device: usize) {
        let verdict = crate::sim::law::Law::hands(self.store.record.as_ref(), lease, device_id(device));
        self.check(verdict);
    }
}

/// The version that a node's machine knows.
fn n_version(world: &World<'_>, node: usize) -> lockstep_protocol::Version {
    let machine = world.nodes[node].machine.as_ref();
    let record = machine.and_then(|machine| machine.record());
    record.map_or(lockstep_protocol::Version(0), |record| record.version)
}

fn used_up(status: u16) -> Answer {
    Answer::of(Row::Conflict, answered(status, r#"{"error":"invalid_grant"}"#))
}
