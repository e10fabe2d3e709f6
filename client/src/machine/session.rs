//! What the hub says over a WebSocket.

use lockstep_protocol::{
    ClientFrame, Epoch, HubFrame, Seq,
    frame::{Ack, Error, Goaway, Refresh, Resume, Welcome},
};

use super::{
    Command, Entropy, LinkId, Machine, Refusal,
    asks::{Wanted, What},
    backoff::between,
    held::Applied,
    ws::Phase,
};
use crate::{
    clock::Now,
    event::{Event, Transport},
};

/// The longest that a `goaway` may keep a client away.
const LONGEST_AWAY: std::time::Duration = std::time::Duration::from_secs(600);

impl Machine {
    pub(super) fn frame(
        &mut self,
        link: LinkId,
        frame: HubFrame,
        now: Now,
        entropy: &mut dyn Entropy,
        out: &mut Vec<Command>,
    ) {
        if link != self.ws.link || self.ws.is_down() {
            return;
        }
        self.ws.heard(now);
        match frame {
            HubFrame::Welcome(welcome) => self.welcome(&welcome, now, out),
            HubFrame::Synced(synced) => {
                let applied = self.held.synced(synced.cursor);
                self.applied(applied, None, now, entropy, out);
                if applied == Applied::Changed {
                    self.ws_synced(now, out);
                }
            }
            HubFrame::Token(token) => {
                let grant = token.grant.clone();
                let applied = self.held.token(&token);
                self.applied(applied, Some(&grant), now, entropy, out);
            }
            HubFrame::Status(status) => {
                let grant = status.grant.clone();
                let applied = self.held.status(status, now);
                self.applied(applied, Some(&grant), now, entropy, out);
            }
            HubFrame::Done(done) => {
                if !self.redeemer.done(&done.id, done.version, out) {
                    self.asks.done(&done.id, done.version, now);
                }
            }
            HubFrame::Error(error) => self.error(error, now, out),
            HubFrame::Goaway(goaway) => self.goaway(&goaway, now, entropy),
            HubFrame::Elected(elected) => self.redeemer.elected(link, elected, now, out),
            HubFrame::Redeem(redeem) => self.redeemer.redeem(redeem, self.held.epoch(), now, out),
            HubFrame::Lease(lease) => self.redeemer.lease(&lease, now),
        }
    }

    fn welcome(&mut self, welcome: &Welcome, now: Now, out: &mut Vec<Command>) {
        if !matches!(self.ws.phase, Phase::Greeting { .. }) {
            return;
        }
        self.access.accepted();
        self.told_time(welcome.time, now, out);
        self.begin(welcome.epoch, welcome.resume);
        if welcome.resume == Resume::Reset {
            self.ws.acked = Seq(0);
        }
        self.ws
            .welcomed(welcome.session, welcome.heartbeat, &self.setup.timing, now);
        out.push(Command::Event(Event::Connected {
            transport: Transport::Ws,
            session: Some(welcome.session),
        }));
    }

    /// What is about to come is put over what is held, or in its place. Applications go on seeing what was dropped until
    /// it is certain that nothing takes its place: for so long its tokens may still be used.
    pub(super) fn begin(&mut self, epoch: Epoch, resume: Resume) {
        let dropped = self.held.begin(epoch, resume);
        if !dropped.is_empty() {
            self.persist.touch();
        }
        self.dropped.extend(dropped);
    }

    /// Everything has come.
    pub(super) fn show_dropped(&mut self, out: &mut Vec<Command>) {
        for grant in std::mem::take(&mut self.dropped) {
            self.show(&grant, out);
        }
    }

    fn ws_synced(&mut self, now: Now, out: &mut Vec<Command>) {
        self.ws.synced(now);
        self.show_dropped(out);
        // The poller rests while the WebSocket is on probation: two carriers at once could contradict each other in
        // what a `reset` drops.
        if self.poller.stop() {
            out.push(Command::StopPoll);
        }
        self.persist.touch();
        out.push(Command::Event(Event::Synced {
            transport: Transport::Ws,
        }));
    }

    /// What follows from a frame that was applied, or was not.
    pub(super) fn applied(
        &mut self,
        applied: Applied,
        grant: Option<&lockstep_protocol::GrantName>,
        now: Now,
        entropy: &mut dyn Entropy,
        out: &mut Vec<Command>,
    ) {
        match applied {
            Applied::Changed | Applied::Passing => {
                if applied == Applied::Changed {
                    self.persist.touch();
                }
                if let Some(grant) = grant {
                    self.show(grant, out);
                }
            }
            // The hub may not have seen the ack: say it once more.
            Applied::Stale => self.ws.acked = self.ws.acked.min(Seq(self.held.newest().0.saturating_sub(1))),
            Applied::Foreign => self.ask_anew(now, entropy, out),
        }
    }

    /// Acks what is applied and, with a disk cache, on disk.
    pub(super) fn ack(&mut self, out: &mut Vec<Command>) {
        let Some(link) = self.live_link() else {
            return;
        };
        let seq = self.persist.durable(self.held.newest());
        if seq > self.ws.acked {
            self.ws.acked = seq;
            out.push(Command::Send(link, Box::new(ClientFrame::Ack(Ack { seq }))));
        }
    }

    fn error(&mut self, error: Error, now: Now, out: &mut Vec<Command>) {
        let refusal = Refusal {
            code: error.code,
            message: error.message,
            retry_at: error.retry_at,
        };
        let Some(id) = error.id else {
            return;
        };
        if !self.redeemer.refused(&id, &refusal, now, out) {
            self.asks.refused(&id, &refusal, &mut self.held, now, out);
        }
    }

    fn goaway(&mut self, goaway: &Goaway, now: Now, entropy: &mut dyn Entropy) {
        let millis = std::time::Duration::from_millis;
        let least = millis(goaway.reconnect_after.min_ms).min(LONGEST_AWAY);
        let most = millis(goaway.reconnect_after.max_ms).clamp(least, LONGEST_AWAY);
        // Until then pushes still come; leaving earlier would only be a gap.
        self.ws.leave_at = Some(now.mono + between(least, most, entropy));
    }

    /// Asks the hub, once for each grant that callers wait for.
    pub(super) fn ask_hub(&mut self, now: Now, out: &mut Vec<Command>) {
        if !self.is_synced() {
            return;
        }
        let link = self.live_link();
        let token = if self.asks.wants_http(&self.held, link.is_some(), now) {
            self.access.get(now, out)
        } else {
            None
        };
        for wanted in self.asks.wanted(&self.held, link.is_some(), token.is_some(), now) {
            let Wanted { id, grant, what } = wanted;
            match (what, link, &token) {
                (What::Refresh { version, reason }, Some(link), _) => {
                    let frame = ClientFrame::Refresh(Refresh {
                        id,
                        grant,
                        rejected_version: version,
                        reason,
                    });
                    out.push(Command::Send(link, Box::new(frame)));
                }
                (What::Refresh { version, .. }, None, Some(token)) => out.push(Command::PostRefresh {
                    id,
                    token: token.clone(),
                    grant,
                    version,
                }),
                (What::Fetch { min_validity }, _, Some(token)) => out.push(Command::Fetch {
                    id,
                    token: token.clone(),
                    grant,
                    min_validity,
                }),
                (_, _, None) => {}
            }
        }
    }
}
