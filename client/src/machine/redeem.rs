//! Device-side redeem: the rules of a redeemer.

use lockstep_protocol::{
    ClientFrame, Epoch, GrantName, LeaseId, RequestId,
    frame::{Elected, Failed, Lease, Redeem},
};

use super::{Entropy, LinkId, Refusal, io};
use crate::clock::{Mono, Now};

/// What happens to a redeem.
#[derive(Debug)]
pub(crate) enum Input {}

/// What a redeem wants done.
#[derive(Debug)]
pub(crate) enum Command {}

#[derive(Debug)]
pub(crate) struct Redeemer {
    declined: u64,
}

impl Redeemer {
    pub(crate) const fn new(_on: bool) -> Self {
        Self { declined: 0 }
    }

    pub(crate) fn elected(&mut self, link: LinkId, elected: Elected, _now: Now, out: &mut Vec<io::Command>) {
        self.declined += 1;
        out.extend(decline(link, self.declined, elected.grant, elected.lease.id));
    }

    pub(crate) fn redeem(&mut self, _: Redeem, _: Option<Epoch>, _: Now, _: &mut Vec<io::Command>) {}

    pub(crate) fn lease(&mut self, _: &Lease, _: Now) {}

    pub(crate) fn done(&mut self, _: &RequestId, _: &mut Vec<io::Command>) {}

    pub(crate) fn refused(&mut self, _: &RequestId, _: &Refusal, _: Now, _: &mut Vec<io::Command>) -> bool {
        false
    }

    pub(crate) fn handle(&mut self, input: Input, _: Now, _: &mut Vec<io::Command>) {
        match input {}
    }

    pub(crate) fn settle(&mut self, _: Option<LinkId>, _: Now, _: &mut dyn Entropy, _: &mut Vec<io::Command>) {}

    pub(crate) const fn next_timeout(&self) -> Option<Mono> {
        None
    }
}

fn decline(link: LinkId, count: u64, grant: GrantName, lease: LeaseId) -> Option<io::Command> {
    let frame = ClientFrame::Failed(Failed {
        id: RequestId::new(format!("f{count}"))?,
        grant,
        lease,
        sent: false,
        status: None,
        error: None,
        detail: Some("this device does not redeem".into()),
    });
    Some(io::Command::Send(link, Box::new(frame)))
}
