//! One grant's machine.
//!
//! The shell's loop, for each grant that is in use:
//!
//! 1. tell it what happened: [`Grant::handle`];
//! 2. execute what it orders: [`Grant::next_command`] until there is none, in order;
//! 3. wake up at [`Grant::next_timeout`] and tell it [`Input::Tick`].

mod command;
mod input;
mod note;
pub mod view;

use std::{collections::VecDeque, sync::Arc};

pub use command::{Command, CommitRequest, Passing, Reply, Verdict};
pub use input::{
    Ask, Asker, Candidate, ClaimAnswer, CommitAnswer, Input, Login, PermitAnswer, ProviderReply, Trouble, WaiterId,
};
pub use note::Note;

use crate::{
    entropy::Entropy,
    policy::Policy,
    record::{GrantRecord, Holder},
    time::{Mono, Now},
};

/// One grant's machine on one node.
#[derive(Debug)]
pub struct Grant {
    me: Holder,
    policy: Arc<Policy>,
    record: Option<Box<GrantRecord>>,
    commands: VecDeque<Command>,
}

impl Grant {
    /// A machine that knows nothing yet. It loads the record by itself when it is asked something.
    pub fn new(me: Holder, policy: Arc<Policy>) -> Self {
        Self {
            me,
            policy,
            record: None,
            commands: VecDeque::new(),
        }
    }

    /// Tells the machine what happened. Afterwards take its commands until there is none.
    pub fn handle(&mut self, input: Input, now: Now, entropy: &mut dyn Entropy) {
        let _ = (input, now, entropy, &self.me, &self.policy);
    }

    /// The next order, if any. Orders are to be executed in this order; their answers may come in any.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When to tell it [`Input::Tick`]; none: no timer is set. May change with every [`Grant::handle`].
    pub fn next_timeout(&self) -> Option<Mono> {
        None
    }

    /// The newest record known. None: not read yet, or there is no such grant.
    pub fn record(&self) -> Option<&GrantRecord> {
        self.record.as_deref()
    }

    /// Whether nothing is pending, so that the machine may be dropped and made anew later.
    pub fn is_idle(&self) -> bool {
        self.commands.is_empty()
    }

    /// Takes new settings, from the next decision on.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }
}
