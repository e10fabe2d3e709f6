//! Sessions: what passes between a node and a device.

use lockstep_protocol::{Epoch, GrantName, LeaseId, Version, frame::HubFrame, frame::PublishedToken};

use super::{Happening, World, asking::Who, device, device::Result as DeviceResult, device_id, name, session_id};
use crate::{
    grant::{Asker, Candidate, Command, Input, ProviderReply, view},
    record::GrantRecord,
    sim::{law::Law, script::Millis},
    time::{Mono, Now},
};

/// What a device says to its node.
#[derive(Debug, Clone)]
pub(crate) enum Word {
    Accept(LeaseId),
    Renew(LeaseId),
    Refresh {
        rejected: Version,
    },
    /// An election, or a redeem (then: which), came to nothing.
    Failed {
        lease: LeaseId,
        reply: ProviderReply,
        id: Option<usize>,
    },
    Publish(DeviceResult),
    Ack(lockstep_protocol::Seq),
}

impl World<'_> {
    pub(super) fn candidates(&self, node: usize) -> Vec<Candidate> {
        let here = self
            .devices
            .iter()
            .enumerate()
            .filter(|(_, device)| device.node == Some(node));
        here.map(|(device, held)| Candidate {
            device: device_id(device),
            session: session_id(held.session),
            last_active: Some(Mono(
                1_000_000 * (node as u64 + 1) + 10_000_000 * self.nodes[node].life + self.now,
            )),
            priority: u8::try_from(device).unwrap_or(0),
        })
        .collect()
    }

    /// The newest that a node shows goes to a device of its, if the device was not sent that.
    pub(super) fn show(&mut self, node: usize, device: usize) {
        let Some(record) = self.nodes[node].board.clone() else {
            return;
        };
        let unix = self.clock(node);
        let now = Now {
            mono: Mono(self.now),
            unix,
        };
        let Ok(grant) = GrantName::new("example", "main") else {
            return;
        };
        let frame = view::frame_of(&record, &grant, Epoch(1), now);
        let GrantRecord { version, seq, .. } = *record;
        let token = match frame {
            HubFrame::Token(_) => {
                let verdict = Law::serves(&record, unix);
                self.check(verdict);
                let tokens = record.tokens.as_ref();
                tokens.and_then(|t| Some((t.access_token.as_ref()?.expose().to_owned(), t.expires_at)))
            }
            _ => None,
        };
        let word = device::Word::Shown { version, seq, token };
        self.tell_device(device, word);
    }

    pub(super) fn tell_device(&mut self, device: usize, word: device::Word) {
        let pause = self.latency(3, 40);
        // One connection delivers in order.
        let at = (self.now + pause).max(self.devices[device].delivered);
        self.devices[device].delivered = at;
        let session = self.devices[device].session;
        self.after(at - self.now, Happening::ToDevice { device, session, word });
    }

    pub(super) fn device_says(&mut self, device: usize, word: Word) {
        let session = self.devices[device].session;
        let pause = self.latency(3, 40);
        self.after(pause, Happening::FromDevice { device, session, word });
    }

    /// What a machine says to one session.
    pub(super) fn tell_session(&mut self, node: usize, command: Command) {
        let (session, word) = match command {
            Command::Elect { session, lease, .. } => (session, device::Word::Elected(lease)),
            Command::Hand {
                session,
                lease,
                from_version,
                refresh_token,
                send_within,
                deadline,
                ..
            } => {
                let word = device::Word::Redeem {
                    lease,
                    from: from_version,
                    token: refresh_token.expose().to_owned(),
                    send_within: crate::sim::law::millis(send_within),
                    deadline: crate::sim::law::millis(deadline),
                };
                (session, word)
            }
            // A renewal granted or refused changes nothing for these devices: their deadline is what it is.
            _ => return,
        };
        let Some(device) = self
            .devices
            .iter()
            .position(|d| session_id(d.session) == session && d.node == Some(node))
        else {
            return;
        };
        self.say(|| {
            format!(
                "{} tells device {device}: {}",
                name(node),
                crate::sim::trace::word(&word)
            )
        });
        if let device::Word::Redeem { lease, .. } = &word {
            let lease = *lease;
            self.check_hand(lease, device);
        }
        let handed = matches!(word, device::Word::Redeem { .. });
        self.tell_device(device, word);
        if handed {
            self.dies_at(node, crate::sim::script::Moment::After(crate::sim::script::Step::Hand));
        }
    }

    /// A node hears a device.
    pub(super) fn node_hears(&mut self, device: usize, session: u64, word: Word) {
        let held = &self.devices[device];
        let Some(node) = held.node.filter(|_| held.session == session) else {
            return;
        };
        let from = device_id(device);
        self.say(|| {
            format!(
                "{} hears device {device}: {}",
                name(node),
                crate::sim::trace::said(&word)
            )
        });
        match word {
            Word::Accept(lease) => {
                let input = Input::Accept {
                    device: from,
                    session: session_id(session),
                    lease,
                };
                self.tell(node, input);
            }
            Word::Renew(lease) => {
                let input = Input::Renew {
                    device: from,
                    session: session_id(session),
                    lease,
                };
                self.tell(node, input);
            }
            Word::Ack(seq) => {
                let held = &mut self.devices[device];
                held.acked = held.acked.max(seq);
            }
            Word::Refresh { rejected } => self.refresh(node, device, rejected),
            Word::Failed { lease, reply, id } => {
                if let Some(id) = id {
                    self.law.attempts[id].over = true;
                }
                let waiter = self.waits(node, Who::Nobody, None);
                let device = from;
                self.tell(
                    node,
                    Input::Failed {
                        waiter,
                        device,
                        lease,
                        reply,
                    },
                );
            }
            Word::Publish(result) => self.publish(node, device, &result),
        }
    }

    fn refresh(&mut self, node: usize, device: usize, rejected: Version) {
        let connected = self.devices.iter().filter(|other| other.node == Some(node)).count();
        let acked = self.nodes[node]
            .board
            .as_ref()
            .is_some_and(|board| self.devices[device].acked >= board.seq);
        if acked {
            self.law.witness(rejected, device, connected <= 1);
        }
        let by = Asker::Device {
            device: device_id(device),
            acked,
            connected,
        };
        let who = Who::Device(device, self.devices[device].session);
        self.ask(node, by, Some(rejected), who);
    }

    fn publish(&mut self, node: usize, device: usize, result: &DeviceResult) {
        self.law.attempts[result.id].over = true;
        let session = self.devices[device].session;
        let who = Who::Publisher(device, session, result.pair.access.clone(), result.from);
        let waiter = self.waits(node, who, None);
        let age = (self.now - result.at) / 1000;
        let token = Box::new(PublishedToken {
            access_token: result.pair.access.as_str().into(),
            refresh_token: result.pair.refresh.as_deref().map(Into::into),
            expires_in: Some(self.script.setup.life.saturating_sub(age)),
            scope: None,
            token_type: "Bearer".to_owned(),
        });
        let (device, lease, from_version) = (device_id(device), result.lease, result.from);
        self.tell(
            node,
            Input::Publish {
                waiter,
                device,
                lease,
                from_version,
                token,
            },
        );
    }

    /// A device's session ends, by its wish or its node's.
    pub(super) fn lose_session(&mut self, device: usize) {
        let held = &mut self.devices[device];
        let Some(node) = held.node.take() else {
            return;
        };
        let session = held.session;
        held.asking = false;
        self.say(|| format!("device {device} is no longer connected to {}", name(node)));
        if self.nodes[node].machine.is_none() {
            return;
        }
        let ids: Vec<u64> = self.nodes[node]
            .waiters
            .iter_mut()
            .filter(|(_, wait)| wait.who == Who::Device(device, session))
            .map(|(id, wait)| {
                wait.left = true;
                *id
            })
            .collect();
        for id in ids {
            self.tell(node, Input::Left(crate::grant::WaiterId(id)));
        }
        self.tell(node, Input::SessionLeft(session_id(session)));
    }

    pub(super) fn connect(&mut self, device: usize) {
        if self.devices[device].node.is_some() || self.devices[device].away_until > self.now {
            return;
        }
        let up: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].machine.is_some())
            .collect();
        if up.is_empty() {
            return self.after(1_000, Happening::Connect(device));
        }
        let node = up[usize::try_from(self.dice.below(up.len() as u64)).unwrap_or(0)];
        let session = self.fresh_id();
        let held = &mut self.devices[device];
        held.node = Some(node);
        held.session = session;
        held.delivered = self.now;
        held.asking = false;
        held.acked = lockstep_protocol::Seq(0);
        self.say(|| format!("device {device} connects to {}", name(node)));
        // Registered first, read after.
        let life = self.nodes[node].life;
        self.after(1, Happening::Reread { node, life });
        self.show(node, device);
        self.republish(device);
    }

    /// How long a device stays away at most.
    pub(super) fn leave(&mut self, device: usize, span: Millis, dies: bool) {
        if dies && let Some(id) = self.devices[device].redeeming.take() {
            self.flying[id].deaf = true;
        }
        self.lose_session(device);
        let healed = super::super::script::HEALED_AT.saturating_sub(self.now);
        let span = span.min(healed.max(50));
        self.devices[device].away_until = self.now + span;
        self.after(span, Happening::Connect(device));
    }
}
