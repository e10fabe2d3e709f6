//! Who asks a node, waits, is answered, logs in.

use lockstep_protocol::Version;

use super::{World, name};
use crate::{
    grant::{Ask, Asker, Grant, Input, Login, Reply, WaiterId},
    record::TokenSet,
    sim::{
        bench::Seeded,
        law::must,
        script::{Brought, Millis},
    },
};

/// Somebody who waits for an answer of a node.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(super) since: Millis,
    pub(super) who: Who,
    /// The answer must be a version above this.
    beyond: Option<Version>,
    /// Gone meanwhile: an answer is allowed, and none is owed.
    pub(super) left: bool,
}

/// Who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    Nobody,
    Device(usize, u64),
    /// A device that published this access token.
    Publisher(usize, u64, String, Version),
    /// A login with a refresh token that was used up before.
    Returner,
    /// The question once all is well.
    Last,
}

impl World<'_> {
    /// Somebody asks.
    pub(super) fn ask(&mut self, node: usize, by: Asker, rejected: Option<Version>, who: Who) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        // One above what the node knows is no evidence: it is answered with the newest.
        let known = self.nodes[node].machine.as_ref().and_then(Grant::record);
        let newest = known.map_or(Version(0), |record| record.version);
        let beyond = rejected.filter(|rejected| *rejected <= newest);
        let waiter = self.waits(node, who, beyond);
        self.say(|| format!("{} is asked by {by:?}: {rejected:?} will not do", name(node)));
        let waiter = Some(waiter);
        self.tell(node, Input::Ask(Ask { waiter, by, rejected }));
    }

    pub(super) fn waits(&mut self, node: usize, who: Who, beyond: Option<Version>) -> WaiterId {
        let id = self.fresh_id();
        let wait = Wait {
            since: self.now,
            who,
            beyond,
            left: false,
        };
        self.nodes[node].waiters.insert(id, wait);
        WaiterId(id)
    }

    pub(super) fn answer(&mut self, node: usize, waiter: WaiterId, reply: &Reply) {
        self.say(|| format!("{} answers {}: {reply:?}", name(node), waiter.0));
        let Some(wait) = self.nodes[node].waiters.remove(&waiter.0) else {
            return self.check(must(false, "P8 one answer", || {
                format!("waiter {} is answered twice", waiter.0)
            }));
        };
        if let Reply::Done(version) = reply {
            let verdict = self.law.done(*version, wait.beyond);
            self.check(verdict);
        }
        match wait.who {
            Who::Nobody => {}
            Who::Device(device, session) => self.device_is_answered(device, session),
            Who::Publisher(device, session, access, from) => {
                let verdict = self.law.published(&access, from, reply, self.store.record.as_ref());
                self.check(verdict);
                self.publisher_is_answered(device, session, &access, reply);
            }
            Who::Returner => self.check(must(!matches!(reply, Reply::Done(_)), "an older login", || {
                "a refresh token that was used up is taken for a new login".to_owned()
            })),
            Who::Last => self.check_last(node, reply),
        }
    }

    /// Somebody logs in.
    pub(super) fn log_in(&mut self, node: usize, with: Brought) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        let pair = match with {
            Brought::Again if !self.brought.is_empty() => self.dice.0.pick_of(&self.brought),
            _ => self.provider.log_in(),
        };
        self.brought.push(pair.clone());
        let who = if self.law.is_used_up(pair.refresh.as_deref()) {
            Who::Returner
        } else {
            Who::Nobody
        };
        let waiter = self.waits(node, who, None);
        self.say(|| format!("somebody logs in at {} with {pair:?} ({with:?})", name(node)));
        let half = with == Brought::Half;
        let expires_at = self.clock(node) + std::time::Duration::from_secs(self.script.setup.life);
        let tokens = TokenSet {
            access_token: (!half).then(|| pair.access.as_str().into()),
            refresh_token: pair.refresh.as_deref().map(Into::into),
            token_type: "Bearer".to_owned(),
            scope: None,
            expires_at: (!half).then_some(expires_at),
            refresh_expires_at: None,
        };
        let login = Box::new(Login { tokens });
        self.tell(node, Input::Login { waiter, login });
    }
}

impl Seeded {
    fn pick_of<T: Clone>(&mut self, from: &[T]) -> T {
        use crate::entropy::Entropy;
        let index = usize::try_from(self.bits() % from.len() as u64).unwrap_or(0);
        from[index].clone()
    }
}
