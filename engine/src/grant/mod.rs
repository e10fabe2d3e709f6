//! One grant's machine.
//!
//! The shell's loop, for each grant that is in use:
//!
//! 1. tell it what happened: [`Grant::handle`];
//! 2. execute what it orders: [`Grant::next_command`] until there is none, in order;
//! 3. wake up at [`Grant::next_timeout`] and tell it [`Input::Tick`].
//!
//! Read on in this order: `ask` (somebody wants a newer version), `plan` (what there is to do, a pure function), `flight`
//! (a redeem from permit to outcome), `outcome` (the table of outcomes, a pure function), `landing` (a result is committed,
//! or kept until it can be), `settle` (a claim ends without a result).

mod ask;
pub(crate) mod broken;
mod command;
mod device;
mod due;
mod election;
mod ending;
mod evidence;
mod flight;
mod input;
mod judge;
mod landing;
mod late;
mod login;
mod note;
mod outcome;
mod plan;
mod read;
mod redeem;
mod schedule;
mod settle;
pub mod view;
mod waiters;

use std::{collections::VecDeque, sync::Arc};

use lockstep_protocol::{LeaseId, Seq, Version};
use schedule::Timer;

#[cfg(test)]
pub(crate) use outcome::row_of;

pub use command::{Command, CommitRequest, Passing, Reply, Verdict};
pub use due::due_at;
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
#[cfg_attr(test, derive(Clone))]
pub struct Grant {
    me: Holder,
    policy: Arc<Policy>,
    commands: VecDeque<Command>,
    timers: schedule::Timers,
    known: Known,
    reads: read::Reads,
    waiters: waiters::Waiters,
    /// A version above this one is wanted even if nobody waits for it.
    wanted: Option<Version>,
    /// It is another node that wants it, and only if there is a candidate here.
    for_other_node: bool,
    evidence: evidence::Evidence,
    brakes: flight::Brakes,
    flight: Option<flight::Flight>,
    /// A permit of the provider's limiter is in hand.
    permit: bool,
    /// The node goes away: no further try of a round is waited for.
    leaving: bool,
    /// What became of claims of this machine that may still stand, or turn up.
    ended: Vec<plan::Ended>,
    orphans: Vec<flight::Orphan>,
    landings: Vec<landing::Landing>,
    /// Results that are of no use in the spool any more, and still on their way into it.
    unspool: Vec<LeaseId>,
    logins: login::Logins,
    deletes: Vec<WaiterId>,
    #[cfg(test)]
    pub(crate) broken: Option<broken::Broken>,
}

/// What the store was last heard to hold.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
struct Known {
    /// Whether it was heard at all.
    read: bool,
    record: Option<Box<GrantRecord>>,
    /// Up to where devices were told.
    pushed: Option<Seq>,
}

/// The moment of an input.
struct Cx<'a> {
    now: Now,
    entropy: &'a mut dyn Entropy,
}

impl Grant {
    /// A machine that knows nothing yet. It loads the record by itself when it is asked something.
    pub fn new(me: Holder, policy: Arc<Policy>) -> Self {
        Self {
            me,
            policy,
            commands: VecDeque::new(),
            timers: schedule::Timers::default(),
            known: Known::default(),
            reads: read::Reads::default(),
            waiters: waiters::Waiters::default(),
            wanted: None,
            for_other_node: false,
            evidence: evidence::Evidence::default(),
            brakes: flight::Brakes::default(),
            flight: None,
            permit: false,
            leaving: false,
            ended: Vec::new(),
            orphans: Vec::new(),
            landings: Vec::new(),
            unspool: Vec::new(),
            logins: login::Logins::default(),
            deletes: Vec::new(),
            #[cfg(test)]
            broken: None,
        }
    }

    /// Tells the machine what happened. Afterwards take its commands until there is none.
    pub fn handle(&mut self, input: Input, now: Now, entropy: &mut dyn Entropy) {
        let cx = &mut Cx { now, entropy };
        self.take(input, cx);
        self.pursue(cx);
        if self.waiters.is_empty() {
            self.timers.stop(Timer::Waiters);
        }
        if self.permit && self.flight.is_none() {
            self.permit = false;
            self.order(Command::ReturnPermit);
        }
    }

    /// The next order, if any. Orders are to be executed in this order; their answers may come in any.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When to tell it [`Input::Tick`]; none: no timer is set. May change with every [`Grant::handle`].
    pub fn next_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// The newest record known. None: not read yet, or there is no such grant.
    pub fn record(&self) -> Option<&GrantRecord> {
        self.known.record.as_deref()
    }

    /// Whether a redeem is under way: what devices were told of it in passing holds.
    pub fn is_refreshing(&self) -> bool {
        let stage = self.flight.as_ref().map(|flight| &flight.stage);
        stage.is_some_and(|stage| !matches!(stage, flight::Stage::Settling(_)))
    }

    /// Whether nothing is pending, so that the machine may be dropped and made anew later.
    pub fn is_idle(&self) -> bool {
        self.commands.is_empty()
            && self.timers.next().is_none()
            && self.reads.is_idle()
            && self.waiters.is_empty()
            && self.flight.is_none()
            && self.orphans.is_empty()
            && self.landings.is_empty()
            && self.unspool.is_empty()
            && self.logins.is_idle()
            && self.deletes.is_empty()
    }

    /// Takes new settings, from the next decision on.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    fn take(&mut self, input: Input, cx: &mut Cx<'_>) {
        let Some(input) = self.after_read(input) else {
            return;
        };
        match input {
            Input::Read(answer) => self.on_read(answer, cx),
            Input::Seen(record) => self.on_seen(record, cx),
            Input::Ask(ask) => self.on_ask(ask, cx),
            Input::Left(waiter) => self.on_left(waiter),
            Input::Permit(answer) => self.on_permit(answer, cx),
            Input::ClaimedAhead { record, asked } => self.on_claimed_ahead(record, asked, cx),
            Input::Claimed { lease, answer } => self.on_claimed(lease, answer, cx),
            Input::Renewed { lease, held } => self.on_renewed(lease, held, cx),
            Input::Redeemed { lease, reply } => self.on_redeemed(lease, &reply, cx),
            Input::Committed { lease, answer } => self.on_committed(lease, answer, cx),
            Input::AlternateKept { lease, answer } => self.on_alternate_kept(lease, &answer, cx),
            Input::Spooled { lease, durable } => self.on_spooled(lease, durable, cx),
            Input::FromSpool {
                lease,
                from_version,
                tokens,
            } => self.on_from_spool(lease, from_version, *tokens, cx),
            Input::Settled { lease, answer } => self.on_settled(lease, answer, cx),
            Input::Login { waiter, login } => self.on_login(waiter, login, cx),
            Input::Delete { waiter } => self.on_delete(waiter),
            Input::Deleted(answer) => self.on_deleted(answer, cx),
            Input::Leave => self.on_leave(cx),
            Input::Tick => self.on_tick(cx),
            of_a_device => self.take_from_device(of_a_device, cx),
        }
    }

    fn take_from_device(&mut self, input: Input, cx: &mut Cx<'_>) {
        match input {
            Input::Publish {
                waiter,
                device,
                lease,
                from_version,
                token,
            } => {
                let publish = late::Publish {
                    waiter,
                    device,
                    lease,
                    from: from_version,
                    token,
                };
                self.on_publish(publish, cx);
            }
            Input::Failed {
                waiter,
                device,
                lease,
                reply,
            } => {
                let failure = device::Failure {
                    waiter,
                    device,
                    lease,
                    reply,
                };
                self.on_failed(failure, cx);
            }
            Input::Candidates { here, others } => self.on_candidates(&here, others, cx),
            Input::Accept { device, session, lease } => self.on_accept(device, session, lease, cx),
            Input::HandedOut { lease, held } => self.on_handed_out(lease, held, cx),
            Input::Renew { device, session, lease } => self.on_renew(device, session, lease, cx),
            Input::SessionLeft(session) => self.on_session_left(session),
            _ => {}
        }
    }

    fn on_tick(&mut self, cx: &mut Cx<'_>) {
        while let Some(timer) = self.timers.take_due(cx.now.mono) {
            match timer {
                Timer::Load | Timer::Lapse => self.load(),
                Timer::Permit => self.order(Command::AskPermit),
                Timer::Rest => self.after_rest(cx),
                Timer::Renew => self.renew(cx),
                Timer::Deadline => self.on_deadline(cx),
                Timer::Announce => self.announce(cx),
                Timer::Accept => self.pass_over(),
                Timer::Wanted => self.on_unwanted(),
                Timer::Settle => self.settle_again(),
                Timer::Land => self.land_again(cx),
                Timer::Waiters => self.expire_waiters(cx),
                // What there is to do is looked at after every input.
                Timer::Doubt | Timer::Again => {}
            }
        }
    }

    fn order(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    fn note(&mut self, note: Note) {
        self.order(Command::Note(note));
    }

    fn answer(&mut self, waiter: WaiterId, reply: Reply) {
        self.order(Command::Answer { waiter, reply });
    }
}
