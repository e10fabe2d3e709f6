//! The store, as nodes reach it: sometimes slow, sometimes away, and sometimes doing what it never confirmed.

use super::{Happening, World, name};
use crate::{
    entropy::lease_id,
    grant::{Ask, Asker, ClaimAnswer, Command, CommitAnswer, Input, Trouble},
    record::Health,
    sim::{
        bench::refused,
        law::Verdict,
        script::{Millis, Moment, Step, Storm},
        store::{ClaimRow, Commit, Due},
    },
    time::{Mono, Unix},
};

impl World<'_> {
    fn storm(&self) -> Option<Storm> {
        self.storms
            .iter()
            .rfind(|(until, _)| *until > self.now)
            .map(|(_, storm)| *storm)
    }

    pub(super) fn store_time(&self) -> Unix {
        Unix(crate::sim::bench::START + self.now)
    }

    /// An order for the store leaves a node.
    pub(super) fn send_to_store(&mut self, node: usize, command: Command) {
        let life = self.nodes[node].life;
        let asked = self.now;
        let pause = match self.storm() {
            Some(Storm::Slow(most)) => self.latency(1, most),
            _ => self.latency(1, 6),
        };
        self.after(
            pause,
            Happening::Shop {
                node,
                life,
                asked,
                command,
            },
        );
    }

    pub(super) fn arrive_at_store(&mut self, node: usize, life: u64, asked: Millis, command: &Command) {
        // Whoever sent it is dead: it may have got through.
        if !self.lives(node, life) && self.by_chance(50) {
            return;
        }
        let is_read = matches!(command, Command::Load);
        let lost = || Trouble::Unknown("the answer is lost".to_owned());
        let input = match self.storm() {
            Some(Storm::Away) if is_read || self.by_chance(50) => refused(command, Trouble::Refused("away".to_owned())),
            Some(Storm::RefusesWrites) if !is_read => refused(command, Trouble::Refused("read-only".to_owned())),
            Some(Storm::Away) => refused(command, lost()),
            Some(Storm::LosesAnswers) if !is_read => {
                match self.dice.below(3) {
                    0 => {
                        let _ = self.carry_out(node, life, asked, command);
                    }
                    1 => {
                        let command = command.clone();
                        let pause = self.latency(200, 3_000);
                        self.after(
                            pause,
                            Happening::Belated {
                                node,
                                life,
                                asked,
                                command,
                            },
                        );
                    }
                    _ => {}
                }
                refused(command, lost())
            }
            _ => match self.carry_out(node, life, asked, command) {
                Some(input) => input,
                None => return,
            },
        };
        let pause = match self.storm() {
            Some(Storm::Slow(most)) => self.latency(1, most),
            _ => self.latency(1, 6),
        };
        self.after(pause, Happening::Tell { node, life, input });
    }

    pub(super) fn belated(&mut self, node: usize, life: u64, asked: Millis, command: &Command) {
        self.say(|| format!("what {} ordered takes effect after all", name(node)));
        let _ = self.carry_out(node, life, asked, command);
    }

    /// Carries an order out. None: the node died right after.
    fn carry_out(&mut self, node: usize, life: u64, asked: Millis, command: &Command) -> Option<Input> {
        let before = self.store.record.as_ref().map(|record| record.seq);
        let (input, verdict) = self.apply(node, life, asked, command);
        self.check(verdict);
        if self.store.record.as_ref().map(|record| record.seq) != before {
            self.changed_at = self.now;
        }
        let step = match command {
            Command::Claim { .. } => Step::Claim,
            Command::HandOut { .. } => Step::HandOut,
            Command::Commit(_) => Step::Commit,
            Command::Settle { .. } => Step::Settle,
            Command::KeepAlternate { .. } => Step::Alternate,
            _ => return Some(input),
        };
        let dies = self.lives(node, life) && self.dies_at(node, Moment::After(step));
        (!dies).then_some(input)
    }

    fn apply(&mut self, node: usize, life: u64, asked: Millis, command: &Command) -> (Input, Verdict) {
        let now = self.store_time();
        let input = match command {
            Command::Load => Input::Read(Ok(self.store.read())),
            Command::Claim { .. } => self.apply_claim(node, life, asked, command),
            Command::Renew { lease, ttl } => {
                let held = self.store.renew(*lease, *ttl, now);
                if held {
                    self.law.renewed(*lease, asked, self.now);
                }
                Input::Renewed {
                    lease: *lease,
                    held: Ok(held),
                }
            }
            Command::HandOut { lease, device } => {
                let held = self.store.hand_out(*lease, *device, now);
                if held {
                    self.law.renewed(*lease, asked, self.now);
                }
                Input::HandedOut {
                    lease: *lease,
                    held: Ok(held),
                }
            }
            Command::Commit(_) => return self.apply_commit(node, command),
            Command::KeepAlternate {
                lease,
                tokens,
                from_version,
            } => {
                if self.store.keep_alternate((**tokens).clone(), *from_version) {
                    self.law.kept(from_version.next(), tokens);
                }
                Input::AlternateKept {
                    lease: *lease,
                    answer: Ok(()),
                }
            }
            Command::Settle { .. } => return self.apply_settle(node, life, command),
            Command::Delete => {
                if let Some(before) = self.store.record.clone() {
                    self.law.deleted(&before, self.now);
                }
                self.store.delete();
                self.say(|| "store: the grant is deleted".to_owned());
                Input::Deleted(Ok(self.store.read()))
            }
            other => panic!("{other:?} is no business of the store"),
        };
        (input, Ok(()))
    }

    fn apply_settle(&mut self, node: usize, life: u64, command: &Command) -> (Input, Verdict) {
        let Command::Settle {
            lease,
            version,
            fence,
            verdict,
        } = command
        else {
            panic!("{command:?} is no verdict");
        };
        let (me, now) = (Self::holder(node, life), self.store_time());
        let before = self.store.record.clone();
        let took = self
            .store
            .settle(&me, *lease, (*version, *fence), (**verdict).clone(), now);
        self.say(|| {
            let short = crate::sim::trace::verdict(verdict);
            let (node, lease) = (name(node), crate::sim::trace::lease(*lease));
            format!(
                "store: {node} settles {lease}: {short}{}",
                if took { "" } else { " (does not count)" }
            )
        });
        if took {
            self.law.judged(*lease, (node, life));
        }
        let gives_up = took && verdict.health == Health::ReauthRequired;
        let judged = before
            .filter(|_| gives_up)
            .map_or(Ok(()), |record| self.law.gave_up(&record));
        let answer = Ok(self.store.read());
        (Input::Settled { lease: *lease, answer }, judged)
    }

    fn apply_claim(&mut self, node: usize, life: u64, asked: Millis, command: &Command) -> Input {
        let Command::Claim {
            lease,
            from_version,
            over,
            fence,
            ttl,
            purpose,
            for_device,
            doubt,
        } = command.clone()
        else {
            panic!("{command:?} is no claim");
        };
        let holder = Self::holder(node, life);
        let row = ClaimRow {
            lease,
            holder,
            from_version,
            over,
            fence,
            ttl,
            purpose,
            for_device,
            doubt,
        };
        let claimed = self.store.claim(row, self.store_time());
        if claimed == Some(true) {
            self.law.claimed(lease, from_version, (node, life), asked, self.now);
            if let Some(over) = over {
                self.law.judged(over, (node, life));
            }
        }
        self.say(|| {
            let what = match claimed {
                Some(true) => "wins",
                Some(false) => "loses",
                None => "finds nothing for",
            };
            let short = crate::sim::trace::lease(lease);
            format!(
                "store: {} {what} claim {short} of version {} for {purpose:?}",
                name(node),
                from_version.0
            )
        });
        let answer = match (claimed, self.store.read()) {
            (Some(true), Some(record)) => ClaimAnswer::Won(record),
            (Some(false), Some(record)) => ClaimAnswer::Lost(record),
            _ => ClaimAnswer::Gone,
        };
        Input::Claimed { lease, answer }
    }

    fn apply_commit(&mut self, node: usize, command: &Command) -> (Input, Verdict) {
        let Command::Commit(request) = command else {
            panic!("{command:?} is no commit");
        };
        let before = self.store.record.clone();
        let came = self.store.commit(request);
        self.say(|| {
            format!(
                "store: {} commits on version {}: {came:?}",
                name(node),
                request.from_version.0
            )
        });
        let mut verdict = Ok(());
        let answer = match came {
            Commit::Done => {
                verdict = self.law.committed(request, before.as_ref(), self.now);
                self.store
                    .read()
                    .map_or(CommitAnswer::Superseded(None), CommitAnswer::Done)
            }
            Commit::Superseded => CommitAnswer::Superseded(self.store.read()),
            Commit::Retired => CommitAnswer::Retired,
        };
        let lease = request.lease;
        (Input::Committed { lease, answer }, verdict)
    }

    /// A node reads the record, as it does after a fact or a sweep.
    pub(super) fn reread(&mut self, node: usize) {
        if matches!(self.storm(), Some(Storm::Away)) {
            return;
        }
        let life = self.nodes[node].life;
        let input = Input::Read(Ok(self.store.read()));
        let pause = match self.storm() {
            Some(Storm::Slow(most)) => self.latency(1, most),
            _ => self.latency(1, 6),
        };
        self.after(pause, Happening::Tell { node, life, input });
    }

    /// The scheduler looks for what is due.
    pub(super) fn look_for_due(&mut self, node: usize) {
        let blocked = self.storm().is_some_and(|storm| !matches!(storm, Storm::Slow(_)));
        if blocked || self.nodes[node].no_permits_until > self.now {
            return;
        }
        let n = &self.nodes[node];
        let (life, asked) = (n.life, self.now);
        let lease = lease_id(&mut self.dice.0);
        let ttl = self.script.setup.policy.lease;
        let due = self
            .store
            .claim_due(Self::holder(node, life), lease, ttl, self.store_time());
        let pause = match self.storm() {
            Some(Storm::Slow(most)) => self.latency(1, most),
            _ => self.latency(1, 6),
        };
        match due {
            Due::Nothing => {}
            Due::Claimed(record) => {
                self.law.claimed(lease, record.version, (node, life), asked, self.now);
                self.say(|| {
                    let short = crate::sim::trace::lease(lease);
                    format!(
                        "store: {} claims {short} of version {} ahead",
                        name(node),
                        record.version.0
                    )
                });
                if self.dies_at(node, Moment::After(Step::Claim)) {
                    return;
                }
                let base = 1_000_000 * (node as u64 + 1) + 10_000_000 * life;
                let asked = Mono(base + asked);
                let input = Input::ClaimedAhead { record, asked };
                self.after(pause, Happening::Tell { node, life, input });
            }
            Due::Abandoned(record) => {
                let input = Input::Read(Ok(Some(record)));
                self.after(pause, Happening::Tell { node, life, input });
                let ask = Ask {
                    waiter: None,
                    by: Asker::Scheduler,
                    rejected: None,
                };
                let input = Input::Ask(ask);
                self.after(pause, Happening::Tell { node, life, input });
            }
        }
    }
}
