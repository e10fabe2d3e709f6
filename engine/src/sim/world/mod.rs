//! The world of one run: nodes with the real engine, devices, a store, a provider, and everything between them, in one
//! queue of virtual time.

mod asking;
mod device;
mod end;
mod node;
mod redeem;
mod session;
mod shop;
mod trouble;

use std::collections::BTreeMap;

use lockstep_protocol::{DeviceId, LeaseId, SessionId, Version};
use uuid::Uuid;

use self::{device::Device, node::Node, redeem::Answer};
pub(crate) use self::{device::Word as DeviceWord, session::Word as SessionWord};
use super::{
    bench::Seeded,
    law::{Law, Verdict, Violation, clock_of},
    provider::Provider,
    script::{Dice, Millis, Script, Storm, Weather, What, clock},
    store::Store,
};
use crate::{
    grant::{Command, Input, broken::Broken},
    record::TokenSet,
};

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) violation: Option<Violation>,
    /// Inputs that machines were told.
    pub(crate) steps: u64,
    /// What happened, if it was written down.
    pub(crate) trace: Vec<String>,
    /// How many token sets were committed.
    pub(crate) versions: u64,
}

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Happening {
    /// A line of the script.
    Line(usize),
    /// A machine is told something, if its node still lives that life.
    Tell {
        node: usize,
        life: u64,
        input: Input,
    },
    Tick {
        node: usize,
        life: u64,
    },
    /// An order reaches the store; `life` and `asked` are of the node that sent it.
    Shop {
        node: usize,
        life: u64,
        asked: Millis,
        command: Command,
    },
    /// It takes effect although its answer was given up.
    Belated {
        node: usize,
        life: u64,
        asked: Millis,
        command: Command,
    },
    /// Written into the spool.
    Spool {
        node: usize,
        life: u64,
        lease: LeaseId,
        from: Version,
        tokens: Box<TokenSet>,
    },
    Send(usize),
    Arrive {
        id: usize,
        weather: Option<Weather>,
    },
    Told {
        id: usize,
        answer: Answer,
    },
    GiveUp(usize),
    Restart(usize),
    /// A node that was asked to go is gone.
    Go {
        node: usize,
        life: u64,
        down: Millis,
    },
    /// A node looks around: what changed, what is due, who waits too long.
    Look {
        node: usize,
        life: u64,
    },
    /// Another node's word.
    Fact {
        node: usize,
        wanted: bool,
    },
    /// A node reads the record because of a fact or a sweep.
    Reread {
        node: usize,
        life: u64,
    },
    ToDevice {
        device: usize,
        session: u64,
        word: device::Word,
    },
    FromDevice {
        device: usize,
        session: u64,
        word: session::Word,
    },
    Connect(usize),
    Wake(usize),
    Heal,
    /// Somebody asks for a refresh once all is well.
    LastQuestion,
    End,
}

/// The world.
pub(crate) struct World<'a> {
    script: &'a Script,
    pub(super) now: Millis,
    queue: BTreeMap<(Millis, u64), Happening>,
    order: u64,
    pub(super) dice: Dice,
    pub(super) store: Store,
    /// When the user's seq last rose.
    pub(super) changed_at: Millis,
    pub(super) provider: Provider,
    pub(super) nodes: Vec<Node>,
    pub(super) devices: Vec<Device>,
    pub(super) law: Law,
    pub(super) flying: Vec<redeem::Flying>,
    pub(super) weather: Vec<(Millis, Weather)>,
    pub(super) storms: Vec<(Millis, Storm)>,
    pub(super) deaf_until: Millis,
    /// Refresh tokens that logins brought.
    pub(super) brought: Vec<super::provider::Pair>,
    pub(super) next_id: u64,
    broken: Option<Broken>,
    trace: Option<Vec<String>>,
    violation: Option<Violation>,
    steps: u64,
    over: bool,
}

/// More than this happens in no run that is sound.
const MOST_HAPPENINGS: u64 = 100_000;

/// Runs a script to its end, or to the first promise that is broken.
pub(crate) fn run(script: &Script, broken: Option<Broken>, traced: bool) -> Ran {
    let mut world = World::new(script, broken, traced);
    world.begin();
    while let Some(((at, _), happening)) = world.queue.pop_first() {
        world.now = at;
        world.happen(happening);
        let quiet = world.order < MOST_HAPPENINGS;
        world.check(super::law::must(quiet, "P6 no spinning", || {
            "too much happens".to_owned()
        }));
        if world.over || world.violation.is_some() {
            break;
        }
    }
    Ran {
        violation: world.violation,
        steps: world.steps,
        trace: world.trace.unwrap_or_default(),
        versions: world.store.record.map_or(0, |record| record.version.0),
    }
}

impl<'a> World<'a> {
    fn new(script: &'a Script, broken: Option<Broken>, traced: bool) -> Self {
        let setup = &script.setup;
        let jumps = script.events.iter().filter_map(|event| match event.what {
            What::Clock { by, .. } => Some(by.unsigned_abs()),
            _ => None,
        });
        Self {
            script,
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            dice: Dice(Seeded(script.seed ^ 0x5eed)),
            store: Store::default(),
            changed_at: 0,
            provider: Provider::new(setup.rotation),
            nodes: (0..setup.nodes).map(|n| Node::new(n, script.seed)).collect(),
            devices: (0..setup.devices).map(|_| Device::default()).collect(),
            law: Law::new(setup.policy.clone(), jumps.sum()),
            flying: Vec::new(),
            weather: Vec::new(),
            storms: Vec::new(),
            deaf_until: 0,
            brought: Vec::new(),
            next_id: 0,
            broken,
            trace: traced.then(Vec::new),
            violation: None,
            steps: 0,
            over: false,
        }
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        self.log_in(0, super::script::Brought::Fresh);
        for device in 0..self.devices.len() {
            self.after(20, Happening::Connect(device));
            self.after(10_000 + 1_700 * device as u64, Happening::Wake(device));
        }
        for (index, event) in self.script.events.iter().enumerate() {
            let at = event.at;
            self.after(at, Happening::Line(index));
        }
        self.after(super::script::HEALED_AT, Happening::Heal);
        self.after(end::LAST_QUESTION_AT, Happening::LastQuestion);
        self.after(end::END_AT, Happening::End);
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(until) = self.stalled_until(&happening) {
            return self.after(until - self.now, happening);
        }
        match happening {
            Happening::Line(index) => self.befall(index),
            Happening::Tell { node, life, input } if self.lives(node, life) => self.tell(node, input),
            Happening::Tick { node, life } if self.lives(node, life) => self.tick(node),
            Happening::Shop {
                node,
                life,
                asked,
                command,
            } => self.arrive_at_store(node, life, asked, &command),
            Happening::Belated {
                node,
                life,
                asked,
                command,
            } => self.belated(node, life, asked, &command),
            Happening::Spool {
                node,
                life,
                lease,
                from,
                tokens,
            } if self.lives(node, life) => {
                self.spooled(node, lease, from, *tokens);
            }
            Happening::Send(id) => self.send(id),
            Happening::Arrive { id, weather } => self.arrive(id, weather),
            Happening::Told { id, answer } => self.told(id, answer),
            Happening::GiveUp(id) => self.give_up_waiting(id),
            Happening::Restart(node) => self.restart(node),
            Happening::Go { node, life, down } if self.lives(node, life) => self.crash(node, down),
            Happening::Look { node, life } if self.lives(node, life) => self.look(node),
            Happening::Fact { node, wanted } => self.hear(node, wanted),
            Happening::Reread { node, life } if self.lives(node, life) => self.reread(node),
            Happening::ToDevice { device, session, word } => self.device_hears(device, session, word),
            Happening::FromDevice { device, session, word } => self.node_hears(device, session, word),
            Happening::Connect(device) => self.connect(device),
            Happening::Wake(device) => self.wake(device),
            Happening::Heal => self.heal(),
            Happening::LastQuestion => self.last_question(),
            Happening::End => self.end(),
            // Of a life that is over.
            Happening::Tell { .. }
            | Happening::Tick { .. }
            | Happening::Go { .. }
            | Happening::Spool { .. }
            | Happening::Look { .. }
            | Happening::Reread { .. } => {}
        }
    }

    /// Until when what happens has to wait because its node stands still.
    fn stalled_until(&self, happening: &Happening) -> Option<Millis> {
        let node = match happening {
            Happening::Tell { node, .. }
            | Happening::Tick { node, .. }
            | Happening::Spool { node, .. }
            | Happening::Look { node, .. }
            | Happening::Fact { node, .. }
            | Happening::Reread { node, .. } => *node,
            Happening::Send(id) | Happening::Told { id, .. } | Happening::GiveUp(id) => self.node_of(*id)?,
            Happening::FromDevice { device, .. } => self.devices[*device].node?,
            _ => return None,
        };
        let until = self.nodes[node].stalled_until;
        (until > self.now).then_some(until)
    }

    pub(super) fn after(&mut self, span: Millis, happening: Happening) {
        self.order += 1;
        self.queue.insert((self.now + span, self.order), happening);
    }

    /// A latency between the two, in milliseconds.
    pub(super) fn latency(&mut self, from: Millis, to: Millis) -> Millis {
        if self.script.setup.jitter {
            self.dice.between(from, to)
        } else {
            from
        }
    }

    /// A chance that shrinking may take away.
    pub(super) fn by_chance(&mut self, percent: u64) -> bool {
        self.script.setup.jitter && self.dice.chance(percent)
    }

    pub(super) fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].machine.is_some() && self.nodes[node].life == life
    }

    /// Takes down a broken promise; the run ends with the first.
    pub(super) fn check(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict
            && self.violation.is_none()
        {
            self.say(|| format!("BROKEN {violation}"));
            self.violation = Some(violation);
        }
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{} {}", clock(self.now), line()));
        }
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn clock(&self, node: usize) -> crate::time::Unix {
        clock_of(self.now, self.nodes[node].skew)
    }
}

pub(super) fn device_id(device: usize) -> DeviceId {
    DeviceId(Uuid::from_u64_pair(0xd, device as u64))
}

pub(super) fn session_id(id: u64) -> SessionId {
    SessionId(Uuid::from_u64_pair(0x5, id))
}

/// A node's name: `a`, `b`, `c`.
pub(super) fn name(node: usize) -> String {
    ["a", "b", "c", "d"]
        .get(node)
        .map_or_else(|| node.to_string(), |name| (*name).to_owned())
}
