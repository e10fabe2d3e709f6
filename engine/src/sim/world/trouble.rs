//! The lines of a script: what befalls the world.

use super::{Happening, World, asking::Who, name};
use crate::{
    grant::{Asker, Input},
    sim::script::{Millis, What},
};

/// Whoever stays down so long was asked to go, and only then killed.
const GRACEFUL: Millis = 5_000;

impl World<'_> {
    pub(super) fn befall(&mut self, index: usize) {
        let what = self.script.events[index].what.clone();
        self.say(|| format!("— {what:?}"));
        // A shrunk script may name who is not there any more.
        match what {
            What::Ask { device, of } => self.report(device, of),
            What::Away { device, span, dies } if device < self.devices.len() => self.leave(device, span, dies),
            What::Away { .. } => {}
            What::Mood { device, mood } => self.set_mood(device, mood),
            What::Provider { weather, span } => self.weather.push((self.now + span, weather)),
            What::Store { weather, span } => self.storms.push((self.now + span, weather)),
            What::Deaf { span } => self.deaf_until = self.now + span,
            What::Read { node }
            | What::Operate { node }
            | What::Crash { node, .. }
            | What::Stall { node, .. }
            | What::Clock { node, .. }
            | What::DiskFull { node, .. }
            | What::NoPermits { node, .. }
            | What::LogIn { node, .. }
            | What::Delete { node }
                if node < self.nodes.len() =>
            {
                self.befall_node(node, &what);
            }
            _ => {}
        }
    }

    fn befall_node(&mut self, node: usize, what: &What) {
        let now = self.now;
        let n = &mut self.nodes[node];
        match *what {
            What::Crash { at: Some(at), down, .. } => n.crashes.push((at, down)),
            What::Crash { at: None, down, .. } if down >= GRACEFUL => self.ask_to_go(node, down),
            What::Crash { at: None, down, .. } => self.crash(node, down),
            What::Stall { span, .. } if n.machine.is_some() => n.stalled_until = now + span,
            What::Clock { by, .. } => n.skew += by,
            What::DiskFull { span, .. } => n.disk_full_until = now + span,
            What::NoPermits { span, .. } => n.no_permits_until = now + span,
            What::LogIn { with, .. } => self.log_in(node, with),
            What::Delete { .. } if n.machine.is_some() => {
                let waiter = self.waits(node, Who::Nobody, None);
                self.tell(node, Input::Delete { waiter });
            }
            What::Operate { .. } => self.ask(node, Asker::Operator, None, Who::Nobody),
            What::Read { .. } => {
                let rejected = n.board.as_ref().map(|record| record.version);
                self.ask(node, Asker::Reader, rejected, Who::Nobody);
            }
            _ => {}
        }
    }

    /// A node is told that it goes away, and goes before long, whether it is done or not.
    fn ask_to_go(&mut self, node: usize, down: Millis) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        self.tell(node, Input::Leave);
        let life = self.nodes[node].life;
        let pause = self.latency(0, 3_000);
        self.after(pause, Happening::Go { node, life, down });
    }

    /// Every trouble ends.
    pub(super) fn heal(&mut self) {
        self.say(|| "— all heals".to_owned());
        self.weather.clear();
        self.storms.clear();
        self.deaf_until = 0;
        for node in 0..self.nodes.len() {
            let n = &mut self.nodes[node];
            n.crashes.clear();
            n.stalled_until = 0;
            n.disk_full_until = 0;
            n.no_permits_until = 0;
            n.skew = 0;
            if n.machine.is_none() {
                self.say(|| format!("{} is brought back", name(node)));
                self.start(node);
            }
        }
        for device in 0..self.devices.len() {
            self.set_mood(device, crate::sim::script::Mood::Willing);
        }
    }
}
