//! The rules of the design's section 4, each a test that reads like it: what happens, and what the machine does.

mod alternate;
mod doubt;
mod elections;
mod evidence;
mod flow;
mod found;
mod grace;
mod late;
mod leases;
mod leaving;
mod logins;
mod table;
mod waiters;

use lockstep_protocol::Code;

use super::bench::{Bench, holder, secs};
use crate::{
    entropy::lease_id,
    grant::{Reply, Trouble},
    policy::Policy,
    record::{Claim, Health, Purpose},
    sim::{bench::Seeded, store::ClaimRow},
    time::Unix,
};

/// A grant at version 1, good for an hour, at a strict provider; rejections are not limited.
fn strict() -> Bench {
    Bench::with_grant(policy())
}

fn policy() -> Policy {
    Policy {
        reject_interval: secs(0),
        ..Policy::default()
    }
}

/// The one reply, which is a failure: its waiter, code, message and time.
fn failure(b: &mut Bench) -> (u64, Code, String, Option<Unix>) {
    let replies = b.take_replies();
    match &replies[..] {
        [
            (
                waiter,
                Reply::Failed {
                    code,
                    message,
                    retry_at,
                },
            ),
        ] => (*waiter, *code, message.clone(), *retry_at),
        other => panic!("one failure, not {other:?}"),
    }
}

/// The code of the one reply, a failure.
fn code(b: &mut Bench) -> Code {
    failure(b).1
}

fn health(b: &Bench) -> Health {
    b.record().health
}

fn refused() -> Option<Trouble> {
    Some(Trouble::Refused("read-only".to_owned()))
}

fn unanswered() -> Option<Trouble> {
    Some(Trouble::Unknown("connection reset".to_owned()))
}

/// Another node (or a former run of this one) holds a claim on the newest version.
fn claim_of(b: &mut Bench, node: &str, incarnation: u64, purpose: Purpose) -> Claim {
    let record = b.record();
    let row = ClaimRow {
        lease: lease_id(&mut Seeded(99 + record.fence)),
        holder: holder(node, incarnation),
        from_version: record.version,
        over: record.claim.as_ref().map(|claim| claim.lease),
        fence: record.fence,
        ttl: secs(45),
        purpose,
        for_device: false,
        doubt: record.doubt.clone(),
    };
    let now = b.now.unix;
    assert_eq!(b.store.claim(row, now), Some(true));
    b.record().claim.clone().unwrap()
}
