//! A device: holds the newest it was shown, reports what will not do, redeems when elected, publishes until answered.

use lockstep_protocol::{Code, LeaseId, Seq, Version};

use super::{Happening, World, redeem::Answer, session};
use crate::{
    grant::{ProviderReply, Reply},
    sim::{
        law::{Attempt, By, Row, must},
        provider::Pair,
        script::{Millis, Mood, Reported},
    },
    time::Unix,
};

/// How often a device looks at what it holds.
const WAKE_EVERY: Millis = 10_000;
/// How long it waits for the answer to what it published.
const PUBLISH_AGAIN: Millis = 8_000;

/// One device.
#[derive(Debug, Default)]
pub(crate) struct Device {
    pub(super) node: Option<usize>,
    /// Its newest session, by number.
    pub(super) session: u64,
    /// Up to when this session's frames are on their way.
    pub(super) delivered: Millis,
    pub(super) away_until: Millis,
    mood: Mood,
    version: Version,
    seq: Seq,
    pub(super) acked: Seq,
    token: Option<(String, Option<Unix>)>,
    /// A request of its is not answered.
    pub(super) asking: bool,
    /// The redeem it is at.
    pub(super) redeeming: Option<usize>,
    /// Results that are not answered yet. On its disk.
    results: Vec<Result>,
}

/// What a device redeemed.
#[derive(Debug, Clone)]
pub(crate) struct Result {
    pub(super) id: usize,
    pub(super) lease: LeaseId,
    pub(crate) from: Version,
    pub(crate) pair: Pair,
    pub(super) at: Millis,
}

/// What a node says to a device.
#[derive(Debug, Clone)]
pub(crate) enum Word {
    Shown {
        version: Version,
        seq: Seq,
        /// The access token and its expiry; none: a status.
        token: Option<(String, Option<Unix>)>,
    },
    Elected(LeaseId),
    Redeem {
        lease: LeaseId,
        from: Version,
        token: String,
        send_within: Millis,
        deadline: Millis,
    },
}

impl World<'_> {
    pub(super) fn device_hears(&mut self, device: usize, session: u64, word: Word) {
        let held = &self.devices[device];
        if held.node.is_none() || held.session != session {
            return;
        }
        match word {
            Word::Shown { version, seq, token } => self.applies(device, version, seq, token),
            Word::Elected(lease) => match held.mood {
                Mood::Silent => {}
                Mood::Declines => {
                    let reply = ProviderReply::NotSent("declined".to_owned());
                    self.device_says(device, session::Word::Failed { lease, reply, id: None });
                }
                Mood::Willing | Mood::Vanishes | Mood::Slow => self.device_says(device, session::Word::Accept(lease)),
            },
            Word::Redeem {
                lease,
                from,
                token,
                send_within,
                deadline,
            } => {
                let attempt = Attempt::new(lease, token, from, By::Device(device), self.now + deadline);
                self.device_redeems(device, attempt, send_within);
            }
        }
    }

    /// A device takes a frame, if it is news.
    fn applies(&mut self, device: usize, version: Version, seq: Seq, token: Option<(String, Option<Unix>)>) {
        let held = &mut self.devices[device];
        if seq <= held.seq {
            return self.device_says(device, session::Word::Ack(seq));
        }
        let verdict = must(version >= held.version, "P3 monotonic", || {
            format!("device {device} goes from version {} to {}", held.version.0, version.0)
        });
        held.seq = seq;
        held.version = version;
        held.token = token;
        self.check(verdict);
        self.device_says(device, session::Word::Ack(seq));
    }

    fn device_redeems(&mut self, device: usize, attempt: Attempt, send_within: Millis) {
        let mood = self.devices[device].mood;
        let lease = attempt.lease;
        let delay = match mood {
            Mood::Slow => self.latency(0, 6_000),
            _ => self.latency(1, 30),
        };
        let late = if mood == Mood::Slow { self.latency(0, 30_000) } else { 0 };
        let id = self.launch(attempt, send_within, delay, late);
        self.devices[device].redeeming = Some(id);
        if self.by_chance(30) {
            self.device_says(device, session::Word::Renew(lease));
        }
        if mood == Mood::Vanishes {
            let span = self.latency(1_000, 60_000);
            let dies = self.by_chance(40);
            self.devices[device].mood = Mood::Willing;
            self.leave(device, span, dies);
        }
    }

    /// A device hears what came of its redeem.
    pub(super) fn device_is_told(&mut self, device: usize, id: usize, answer: Answer) {
        let attempt = self.law.attempts[id].clone();
        let (lease, from) = (attempt.lease, attempt.from);
        if self.devices[device].redeeming == Some(id) {
            self.devices[device].redeeming = None;
        }
        match answer.pair {
            Some(pair) if answer.row == Row::Committed => {
                let at = self.now;
                self.devices[device].results.push(Result {
                    id,
                    lease,
                    from,
                    pair,
                    at,
                });
                self.republish(device);
            }
            _ => {
                let (reply, id) = (answer.reply, Some(id));
                self.device_says(device, session::Word::Failed { lease, reply, id });
            }
        }
    }

    /// Publishes what is not answered yet.
    pub(super) fn republish(&mut self, device: usize) {
        let held = &self.devices[device];
        if held.node.is_none() {
            return;
        }
        for result in held.results.clone() {
            self.device_says(device, session::Word::Publish(result));
        }
    }

    pub(super) fn publisher_is_answered(&mut self, device: usize, session: u64, access: &str, reply: &Reply) {
        let held = &mut self.devices[device];
        if held.session != session {
            return;
        }
        let for_good = match reply {
            Reply::Failed { code, .. } => *code != Code::Unavailable,
            _ => true,
        };
        if for_good {
            held.results.retain(|result| result.pair.access != access);
        }
    }

    pub(super) fn device_is_answered(&mut self, device: usize, session: u64) {
        let held = &mut self.devices[device];
        if held.session == session {
            held.asking = false;
        }
    }

    /// A device reports a version.
    pub(super) fn report(&mut self, device: usize, of: Reported) {
        let Some(held) = self.devices.get_mut(device) else {
            return;
        };
        if held.node.is_none() || held.version == Version(0) {
            return;
        }
        held.asking = true;
        let rejected = match of {
            Reported::Held => held.version,
            Reported::Older => Version(held.version.0 - 1),
            Reported::Newer => held.version.next(),
        };
        self.device_says(device, session::Word::Refresh { rejected });
    }

    /// A device looks at what it holds, and asks if that has expired; what it redeemed and heard nothing of is told again.
    pub(super) fn wake(&mut self, device: usize) {
        let pause = self.latency(WAKE_EVERY - 1_000, WAKE_EVERY + 1_000);
        let now = self.store_time();
        let held = &mut self.devices[device];
        let useless = held.token.as_ref().is_none_or(|(_, at)| at.is_some_and(|at| at <= now));
        let published_long_ago = held.results.iter().any(|result| self.now > result.at + PUBLISH_AGAIN);
        let asks = useless && !held.asking;
        if published_long_ago {
            self.republish(device);
        }
        if asks {
            self.report(device, Reported::Held);
        }
        self.after(pause, Happening::Wake(device));
    }

    pub(super) fn set_mood(&mut self, device: usize, mood: Mood) {
        if let Some(held) = self.devices.get_mut(device) {
            held.mood = mood;
        }
    }

    /// What a device holds at the end.
    pub(super) fn holds_up_to(&self, device: usize) -> Seq {
        self.devices[device].seq
    }

    pub(super) fn has_result(&self, device: usize) -> bool {
        let long_ago = |result: &Result| self.now > result.at + 2 * PUBLISH_AGAIN;
        self.devices[device].results.iter().any(long_ago)
    }
}
