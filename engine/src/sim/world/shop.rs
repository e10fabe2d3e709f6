//! The store, as nodes reach it: sometimes slow, sometimes away, and sometimes doing what it never confirmed.

use lockstep_protocol::LeaseId;

use super::{Happening, World, name};
use crate::{
    entropy::lease_id,
    grant::{self, Ask, Asker, ClaimAnswer, Command, CommitAnswer, CommitRequest, Input, Trouble},
    record::{GrantRecord, Health},
    sim::{
        carry_out::{claim_row, refused},
        law::Verdict,
        script::{Millis, Moment, Step, Storm},
        store::Due,
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
        let before = self.store.record.clone();
        let done = self
            .store
            .carry_out(&Self::holder(node, life), command, self.store_time());
        let Some(input) = done else {
            panic!("{command:?} is no business of the store");
        };
        let verdict = self.take_down(node, life, asked, command, &input, before.as_ref());
        (input, verdict)
    }

    /// Enters in the law's books what was carried out.
    fn take_down(
        &mut self,
        node: usize,
        life: u64,
        asked: Millis,
        command: &Command,
        input: &Input,
        before: Option<&GrantRecord>,
    ) -> Verdict {
        let changed = before.map(|record| record.revision) != self.store.record.as_ref().map(|record| record.revision);
        match (command, input) {
            (Command::Claim { .. }, Input::Claimed { answer, .. }) => {
                self.take_down_claim(node, life, asked, command, answer);
            }
            (Command::Renew { lease, .. } | Command::HandOut { lease, .. }, _) if changed => {
                self.law.renewed(*lease, asked, self.now);
            }
            (Command::Commit(request), Input::Committed { answer, .. }) => {
                return self.take_down_commit(node, request, answer, before);
            }
            (
                Command::KeepAlternate {
                    tokens, from_version, ..
                },
                _,
            ) if changed => self.law.kept(from_version.next(), tokens),
            (Command::Settle { lease, verdict, .. }, _) => {
                return self.take_down_settle(node, life, *lease, verdict, before.filter(|_| changed));
            }
            (Command::Delete, _) => {
                if let Some(before) = before {
                    self.law.deleted(before, self.now);
                }
                self.say(|| "store: the grant is deleted".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn take_down_claim(&mut self, node: usize, life: u64, asked: Millis, command: &Command, answer: &ClaimAnswer) {
        let Some(row) = claim_row(&Self::holder(node, life), command) else {
            return;
        };
        if matches!(answer, ClaimAnswer::Won(_)) {
            self.law
                .claimed(row.lease, row.from_version, (node, life), asked, self.now);
            if let Some(over) = row.over {
                self.law.judged(over, (node, life));
            }
        }
        self.say(|| {
            let what = match answer {
                ClaimAnswer::Won(_) => "wins",
                ClaimAnswer::Lost(_) => "loses",
                _ => "finds nothing for",
            };
            let (node, short) = (name(node), crate::sim::trace::lease(row.lease));
            let (version, purpose) = (row.from_version.0, row.purpose);
            format!("store: {node} {what} claim {short} of version {version} for {purpose:?}")
        });
    }

    /// `before`: what the verdict was about, if it counted.
    fn take_down_settle(
        &mut self,
        node: usize,
        life: u64,
        lease: LeaseId,
        verdict: &grant::Verdict,
        before: Option<&GrantRecord>,
    ) -> Verdict {
        self.say(|| {
            let (node, short) = (name(node), crate::sim::trace::lease(lease));
            let counts = if before.is_some() { "" } else { " (does not count)" };
            format!(
                "store: {node} settles {short}: {}{counts}",
                crate::sim::trace::verdict(verdict)
            )
        });
        let Some(before) = before else {
            return Ok(());
        };
        self.law.judged(lease, (node, life));
        if verdict.health == Health::ReauthRequired {
            return self.law.gave_up(before);
        }
        Ok(())
    }

    fn take_down_commit(
        &mut self,
        node: usize,
        request: &CommitRequest,
        answer: &CommitAnswer,
        before: Option<&GrantRecord>,
    ) -> Verdict {
        self.say(|| {
            let came = match answer {
                CommitAnswer::Done(_) => "Done",
                CommitAnswer::Superseded(_) => "Superseded",
                _ => "Retired",
            };
            format!(
                "store: {} commits on version {}: {came}",
                name(node),
                request.from_version.0
            )
        });
        match answer {
            CommitAnswer::Done(_) => self.law.committed(request, before, self.now),
            _ => Ok(()),
        }
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
