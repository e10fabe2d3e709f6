//! How a run ends: all has healed, and within a bound everybody knows the same and every question has its answer.

use lockstep_protocol::{Code, Version};

use super::{Happening, World, asking::Who, name};
use crate::{
    grant::{Asker, Reply},
    policy::Refresher,
    record::Health,
    sim::{
        law::must,
        script::{HEALED_AT, Millis},
    },
};

/// Leases have lapsed by now, late results have come, and pauses are over.
pub(super) const LAST_QUESTION_AT: Millis = HEALED_AT + 190_000;
/// The last question has its answer by now.
pub(super) const END_AT: Millis = LAST_QUESTION_AT + 130_000;
/// What changed this recently may still be on its way to devices.
const ON_ITS_WAY: Millis = 6_000;

impl World<'_> {
    pub(super) fn last_question(&mut self) {
        for node in 0..self.nodes.len() {
            self.ask(node, Asker::Operator, None, Who::Last);
        }
    }

    /// With all healed an operator gets a new token, or hears that somebody must log in, or that the token in use is all
    /// there is.
    pub(super) fn check_last(&mut self, node: usize, reply: &Reply) {
        let policy = &self.script.setup.policy;
        let here = self.devices.iter().any(|device| device.node == Some(node));
        let nobody = policy.refresher == Refresher::Device && !policy.hub_may_redeem && !here;
        let fair = match reply {
            Reply::Done(_) => true,
            Reply::Failed { code, .. } => {
                let known = matches!(code, Code::ReauthRequired | Code::UnknownGrant | Code::Suspect);
                known || nobody && *code == Code::Unavailable
            }
            Reply::Deleted | Reply::Retired => false,
        };
        self.check(must(fair, "P4 converges", || {
            format!("{} answers long after all has healed: {reply:?}", name(node))
        }));
    }

    pub(super) fn end(&mut self) {
        if self.now < self.changed_at + ON_ITS_WAY {
            return self.after(ON_ITS_WAY, Happening::End);
        }
        self.over = true;
        let Some(record) = self.store.record.clone() else {
            return;
        };
        for device in 0..self.devices.len() {
            let seq = self.holds_up_to(device);
            self.check(must(seq == record.seq, "P4 converges", || {
                format!("device {device} holds seq {} of {}", seq.0, record.seq.0)
            }));
            let pending = self.has_result(device);
            self.check(must(!pending, "P5 nothing wasted", || {
                format!("device {device} still publishes a result")
            }));
        }
        for node in 0..self.nodes.len() {
            let asked = self.nodes[node].waiters.values().any(|wait| wait.who == Who::Last);
            self.check(must(!asked, "P8 an answer in time", || {
                format!("{} has not answered the last question", name(node))
            }));
            let spooled = self.nodes[node].spool.len();
            self.check(must(spooled == 0, "P5 nothing wasted", || {
                format!("{} keeps {spooled} results in its spool", name(node))
            }));
        }
        let lapsed = record
            .claim
            .as_ref()
            .is_some_and(|claim| claim.expires_at <= self.store_time());
        self.check(must(!lapsed, "P4 no stuck lock", || {
            format!("a claim stands after it lapsed, on version {}", record.version.0)
        }));
        let committed = record.version > Version(0) || record.health == Health::Deleted;
        self.check(must(committed, "P2 persist before push", || {
            "nothing was ever committed".to_owned()
        }));
        let verdict = self.law.nothing_wasted(self.now - ON_ITS_WAY);
        self.check(verdict);
    }
}
