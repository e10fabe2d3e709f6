//! A node: the real machine, told things and obeyed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lockstep_protocol::{LeaseId, Version};

use super::{Happening, World, asking::Wait, name};
use crate::{
    grant::{Ask, Asker, Command, Grant, Input, Note, PermitAnswer},
    record::{GrantRecord, Holder, TokenSet},
    sim::{
        bench::Seeded,
        law::{Said, must},
        script::{Millis, Moment, Step},
    },
    time::{Mono, Now},
};

/// How often a node looks around.
const LOOK_EVERY: Millis = 2_000;

/// One node.
pub(crate) struct Node {
    pub(super) machine: Option<Grant>,
    /// Its incarnation.
    pub(super) life: u64,
    pub(super) skew: i64,
    entropy: Seeded,
    /// When the next tick is queued for.
    armed: Option<Millis>,
    /// What survives a crash: the spool.
    pub(super) spool: BTreeMap<LeaseId, (Version, TokenSet)>,
    pub(super) permits: i64,
    /// The newest record it showed to its devices.
    pub(super) board: Option<Box<GrantRecord>>,
    pub(super) said: Said,
    pub(super) waiters: BTreeMap<u64, Wait>,
    /// Crashes to come, and for how long it is down then.
    pub(super) crashes: Vec<(Moment, Millis)>,
    pub(super) stalled_until: Millis,
    pub(super) disk_full_until: Millis,
    pub(super) no_permits_until: Millis,
}

impl Node {
    pub(super) fn new(node: usize, seed: u64) -> Self {
        Self {
            machine: None,
            life: 0,
            skew: 0,
            entropy: Seeded(seed ^ (node as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1)),
            armed: None,
            spool: BTreeMap::new(),
            permits: 0,
            board: None,
            said: Said::default(),
            waiters: BTreeMap::new(),
            crashes: Vec::new(),
            stalled_until: 0,
            disk_full_until: 0,
            no_permits_until: 0,
        }
    }
}

impl World<'_> {
    pub(super) fn holder(node: usize, life: u64) -> Holder {
        Holder {
            node: name(node),
            incarnation: life,
        }
    }

    /// A node begins a life: it lands its spool before anything else.
    pub(super) fn start(&mut self, node: usize) {
        let policy = Arc::new(self.script.setup.policy.clone());
        let n = &mut self.nodes[node];
        n.life += 1;
        let mut machine = Grant::new(Self::holder(node, n.life), policy);
        machine.broken = self.broken;
        n.machine = Some(machine);
        n.armed = None;
        n.permits = 0;
        n.board = None;
        n.said = Said::default();
        n.waiters.clear();
        let life = n.life;
        self.say(|| format!("{} starts its life {life}", name(node)));
        let spooled: Vec<_> = self.nodes[node].spool.clone().into_iter().collect();
        for (lease, (from_version, tokens)) in spooled {
            let tokens = Box::new(tokens);
            let input = Input::FromSpool {
                lease,
                from_version,
                tokens,
            };
            self.tell(node, input);
        }
        let pause = self.latency(100, LOOK_EVERY);
        self.after(pause, Happening::Look { node, life });
    }

    pub(super) fn restart(&mut self, node: usize) {
        if self.nodes[node].machine.is_none() {
            self.start(node);
        }
    }

    /// A node dies. What it had not made durable is gone.
    pub(super) fn crash(&mut self, node: usize, down: Millis) {
        let n = &mut self.nodes[node];
        if n.machine.take().is_none() {
            return;
        }
        let life = n.life;
        let spooled = n.spool.values().filter_map(|(_, tokens)| tokens.access_token.as_ref());
        let spooled: BTreeSet<String> = spooled.map(|token| token.expose().to_owned()).collect();
        n.waiters.clear();
        n.stalled_until = 0;
        self.say(|| format!("{} dies", name(node)));
        self.law.dies(node, life, &spooled);
        for device in 0..self.devices.len() {
            if self.devices[device].node == Some(node) {
                self.lose_session(device);
                let pause = self.latency(50, 1_000);
                self.after(pause, Happening::Connect(device));
            }
        }
        let healed = super::super::script::HEALED_AT.saturating_sub(self.now);
        self.after(down.min(healed.max(50)), Happening::Restart(node));
    }

    /// Dies, if it was to die at this moment.
    pub(super) fn dies_at(&mut self, node: usize, moment: Moment) -> bool {
        let crashes = &mut self.nodes[node].crashes;
        let Some(index) = crashes.iter().position(|(at, _)| *at == moment) else {
            return false;
        };
        let (_, down) = crashes.remove(index);
        self.say(|| format!("{} is to die: {moment:?}", name(node)));
        self.crash(node, down);
        true
    }

    /// Tells a machine something, and does what it orders.
    pub(super) fn tell(&mut self, node: usize, input: Input) {
        let now = self.now_of(node);
        let n = &mut self.nodes[node];
        let Some(machine) = &mut n.machine else {
            return;
        };
        self.steps += 1;
        // A permit comes with these.
        n.permits += i64::from(matches!(
            input,
            Input::Permit(PermitAnswer::Granted) | Input::ClaimedAhead { .. }
        ));
        machine.handle(input, now, &mut n.entropy);
        while let Some(command) = self.nodes[node].machine.as_mut().and_then(Grant::next_command) {
            self.execute(node, command);
        }
        let n = &mut self.nodes[node];
        let Some(machine) = &n.machine else {
            return;
        };
        if let Some(record) = machine.record() {
            let verdict = n.said.knows(record);
            self.check(verdict);
        }
        self.arm(node);
    }

    fn now_of(&self, node: usize) -> Now {
        let n = &self.nodes[node];
        // Each life counts from elsewhere: a monotonic clock means nothing to anybody else.
        let base = 1_000_000 * (node as u64 + 1) + 10_000_000 * n.life;
        Now {
            mono: Mono(base + self.now),
            unix: self.clock(node),
        }
    }

    fn arm(&mut self, node: usize) {
        let now = self.now_of(node).mono;
        let n = &mut self.nodes[node];
        let Some(due) = n.machine.as_ref().and_then(Grant::next_timeout) else {
            return;
        };
        let wait = due.0.saturating_sub(now.0);
        let at = self.now + wait;
        if n.armed.is_none_or(|armed| at < armed) {
            n.armed = Some(at);
            let life = n.life;
            self.after(wait, Happening::Tick { node, life });
        }
    }

    pub(super) fn tick(&mut self, node: usize) {
        let now = self.now_of(node).mono;
        let n = &mut self.nodes[node];
        n.armed = None;
        let due = n.machine.as_ref().and_then(Grant::next_timeout);
        if due.is_some_and(|at| at <= now) {
            self.tell(node, Input::Tick);
        } else {
            self.arm(node);
        }
    }

    /// What the hub's shell does with an order.
    fn execute(&mut self, node: usize, command: Command) {
        let step = step_of(&command);
        if step.is_some_and(|step| self.dies_at(node, Moment::Before(step))) {
            return;
        }
        let life = self.nodes[node].life;
        match command {
            Command::AskPermit => self.permit(node),
            Command::ReturnPermit => {
                self.nodes[node].permits -= 1;
                let permits = self.nodes[node].permits;
                self.check(must(permits >= 0, "P6 permits", || {
                    "a permit is returned twice".to_owned()
                }));
            }
            Command::Redeem { .. } => self.redeem(node, command),
            Command::Spool {
                lease,
                from_version,
                tokens,
            } => {
                let pause = self.latency(1, 8);
                let from = from_version;
                self.after(
                    pause,
                    Happening::Spool {
                        node,
                        life,
                        lease,
                        from,
                        tokens,
                    },
                );
            }
            Command::Unspool { lease } => {
                self.nodes[node].spool.remove(&lease);
            }
            Command::AskCandidates => {
                let here = self.candidates(node);
                let others = self
                    .nodes
                    .iter()
                    .enumerate()
                    .any(|(n, other)| n != node && other.machine.is_some());
                let input = Input::Candidates { here, others };
                self.after(0, Happening::Tell { node, life, input });
            }
            Command::Wanted => self.spread(node, true),
            Command::Elect { .. } | Command::Hand { .. } | Command::Extended { .. } | Command::Refuse { .. } => {
                self.tell_session(node, command);
            }
            Command::Push(record) => self.push(node, record),
            Command::Announce(_) | Command::Unshown(_) => {}
            Command::Answer { waiter, reply } => self.answer(node, waiter, &reply),
            Command::Note(note) => self.note(node, &note),
            shop => self.send_to_store(node, shop),
        }
    }

    fn note(&mut self, node: usize, note: &Note) {
        self.say(|| format!("{} notes {note:?}", name(node)));
    }

    fn permit(&mut self, node: usize) {
        let until = self.nodes[node].no_permits_until;
        let life = self.nodes[node].life;
        let answer = if until > self.now {
            PermitAnswer::After(std::time::Duration::from_millis(until - self.now))
        } else {
            PermitAnswer::Granted
        };
        let pause = self.latency(0, 10);
        let input = Input::Permit(answer);
        self.after(pause, Happening::Tell { node, life, input });
    }

    pub(super) fn spooled(&mut self, node: usize, lease: LeaseId, from: Version, tokens: TokenSet) {
        let durable = self.nodes[node].disk_full_until <= self.now;
        if durable {
            self.nodes[node].spool.insert(lease, (from, tokens));
            if self.dies_at(node, Moment::After(Step::Spool)) {
                return;
            }
        }
        self.tell(node, Input::Spooled { lease, durable });
    }

    fn push(&mut self, node: usize, record: Box<GrantRecord>) {
        self.say(|| {
            let GrantRecord {
                version, seq, health, ..
            } = &*record;
            format!("{} pushes version {} seq {} {health:?}", name(node), version.0, seq.0)
        });
        let verdict = self.law.shows(&record, self.store.record.as_ref());
        self.check(verdict);
        let verdict = self.nodes[node].said.pushes(&record);
        self.check(verdict);
        self.nodes[node].board = Some(record);
        for device in 0..self.devices.len() {
            if self.devices[device].node == Some(node) {
                self.show(node, device);
            }
        }
        self.spread(node, false);
    }

    /// A fact for the other nodes.
    fn spread(&mut self, from: usize, wanted: bool) {
        for node in (0..self.nodes.len()).filter(|node| *node != from) {
            if self.deaf_until <= self.now {
                let pause = self.latency(1, 20);
                self.after(pause, Happening::Fact { node, wanted });
            }
        }
    }

    pub(super) fn hear(&mut self, node: usize, wanted: bool) {
        if !wanted {
            let life = self.nodes[node].life;
            let pause = self.latency(1, 20);
            return self.after(pause, Happening::Reread { node, life });
        }
        let ask = Ask {
            waiter: None,
            by: Asker::Node,
            rejected: None,
        };
        self.tell(node, Input::Ask(ask));
    }

    /// A node looks around: who waits too long, what changed, what is due.
    pub(super) fn look(&mut self, node: usize) {
        let life = self.nodes[node].life;
        self.after(LOOK_EVERY, Happening::Look { node, life });
        let policy = &self.script.setup.policy;
        // What the engine allows itself, a round of reading, and the longest that a node may stand still.
        let bound = super::super::law::millis(policy.lease + policy.timeout * 3) + 15_000 + 60_000;
        let n = &self.nodes[node];
        let overdue = n.waiters.iter().find(|(_, w)| !w.left && self.now > w.since + bound);
        if let Some((id, wait)) = overdue {
            let verdict = must(false, "P8 an answer in time", || {
                format!(
                    "{:?} (waiter {id}) waits at {} since {}",
                    wait.who,
                    name(node),
                    wait.since
                )
            });
            return self.check(verdict);
        }
        let stored = self.store.record.as_ref().map(|record| record.seq);
        let shown = n.board.as_ref().map(|record| record.seq);
        if stored.is_some() && stored != shown {
            self.after(1, Happening::Reread { node, life });
        }
        self.evict(node);
        if self.script.setup.schedules {
            self.look_for_due(node);
        }
    }

    /// A machine with nothing to do may be dropped and made anew.
    fn evict(&mut self, node: usize) {
        let idle = self.nodes[node].machine.as_ref().is_some_and(Grant::is_idle);
        if !idle || !self.by_chance(3) {
            return;
        }
        let verdict = must(self.nodes[node].permits == 0, "P6 permits", || {
            format!("{} is idle and keeps a permit", name(node))
        });
        self.check(verdict);
        let policy = Arc::new(self.script.setup.policy.clone());
        let n = &mut self.nodes[node];
        let mut machine = Grant::new(Self::holder(node, n.life), policy);
        machine.broken = self.broken;
        n.machine = Some(machine);
        n.said = Said::default();
        self.say(|| format!("{} evicts the grant", name(node)));
    }
}

fn step_of(command: &Command) -> Option<Step> {
    Some(match command {
        Command::Claim { .. } => Step::Claim,
        Command::HandOut { .. } => Step::HandOut,
        Command::Hand { .. } => Step::Hand,
        Command::Redeem { .. } => Step::Redeem,
        Command::Commit(_) => Step::Commit,
        Command::Spool { .. } => Step::Spool,
        Command::Settle { .. } => Step::Settle,
        Command::KeepAlternate { .. } => Step::Alternate,
        Command::Push(_) => Step::Push,
        _ => return None,
    })
}
