//! Results that come late, twice, or when the store takes none.

use std::sync::Arc;

use lockstep_protocol::{Code, LeaseId, Version, frame::PublishedToken};
use uuid::Uuid;

use super::{claim_of, code, health, policy, refused, strict, unanswered};
use crate::{
    grant::{Command, Grant, Input, Note, Reply, WaiterId},
    record::{Health, Purpose},
    sim::bench::{Bench, device, issued, secs, tokens},
};

pub(super) fn publish(b: &mut Bench, waiter: u64, lease: LeaseId, from: u64, name: &str) {
    b.handle(Input::Publish {
        waiter: WaiterId(waiter),
        device: device(1),
        lease,
        from_version: Version(from),
        token: Box::new(PublishedToken {
            access_token: format!("at-{name}").into(),
            refresh_token: Some(format!("rt-{name}").into()),
            expires_in: Some(3600),
            scope: None,
            token_type: "Bearer".to_owned(),
        }),
    });
}

#[test]
fn a_late_result_is_committed_while_its_version_is_current() {
    let mut b = strict();
    let lease = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    b.pass(secs(7200));
    publish(&mut b, 20, lease, 1, "late");
    assert_eq!(b.take_replies(), [(20, Reply::Done(Version(2)))]);
    assert!(b.notes.contains(&Note::LateResult { lease }));
}

#[test]
fn whoever_holds_the_lease_now() {
    let mut b = strict();
    let first = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    b.pass(secs(46));
    claim_of(&mut b, "c", 1, Purpose::LastTry);
    publish(&mut b, 20, first, 1, "late");
    assert_eq!(b.take_replies(), [(20, Reply::Done(Version(2)))]);
    assert_eq!(b.record().claim, None);
}

#[test]
fn a_duplicate_is_answered_like_the_first() {
    let mut b = strict();
    let lease = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    for waiter in 20..23 {
        publish(&mut b, waiter, lease, 1, "late");
        assert_eq!(b.take_replies(), [(waiter, Reply::Done(Version(2)))]);
    }
    assert_eq!(b.record().version, Version(2));
}

#[test]
fn a_result_for_a_version_that_is_past_is_told_so() {
    let mut b = strict();
    let lease = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    b.login(1, tokens("new", None));
    b.take_replies();
    b.login(2, tokens("newer", None));
    b.take_replies();
    publish(&mut b, 20, lease, 1, "late");
    assert_eq!(code(&mut b), Code::Superseded);
}

#[test]
fn a_lease_that_was_never_handed_out_publishes_nothing() {
    let mut b = strict();
    publish(&mut b, 20, LeaseId(Uuid::from_u128(7)), 1, "forged");
    assert_eq!((code(&mut b), b.record().version), (Code::NotElected, Version(1)));
}

#[test]
fn a_tombstone_takes_no_late_result() {
    let mut b = strict();
    let lease = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    b.handle(Input::Delete { waiter: WaiterId(5) });
    b.take_replies();
    publish(&mut b, 20, lease, 1, "late");
    assert_eq!((code(&mut b), health(&b)), (Code::Superseded, Health::Deleted));
}

#[test]
fn an_answer_after_the_deadline_is_a_late_result() {
    let mut b = strict();
    b.operator(10);
    let (lease, _) = b.redeem();
    b.pass(secs(22));
    assert_eq!((code(&mut b), health(&b)), (Code::Suspect, Health::Suspect));
    b.reply(lease, issued("2"));
    assert_eq!((b.record().version, health(&b)), (Version(2), Health::Ok));
    assert!(b.grant.is_idle());
}

#[test]
fn a_redeem_goes_on_when_whoever_asked_is_gone() {
    let mut b = strict();
    b.operator(10);
    b.handle(Input::Left(WaiterId(10)));
    b.provider(issued("2"));
    assert_eq!((b.take_replies(), b.record().version), (vec![], Version(2)));
}

#[test]
fn a_result_that_the_store_refuses_is_spooled_and_kept_trying() {
    let mut b = strict();
    b.operator(10);
    let lease = b.record().claim.as_ref().unwrap().lease;
    for round in 0..5 {
        b.trouble = refused();
        if round == 0 {
            b.provider(issued("2"));
            b.handle(Input::Spooled { lease, durable: true });
        }
        let spooled = b.orders.iter().rev().find_map(|order| match order {
            Command::Spool { lease, .. } => Some(*lease),
            _ => None,
        });
        if let Some(lease) = spooled {
            b.handle(Input::Spooled { lease, durable: true });
        }
        b.pass(secs(1));
    }
    b.pass(secs(10));
    let spools = b.orders.iter().filter(|o| matches!(o, Command::Spool { .. })).count();
    let unspools = b.orders.iter().filter(|o| matches!(o, Command::Unspool { .. })).count();
    assert_eq!((spools, unspools, b.record().version), (1, 1, Version(2)));
}

#[test]
fn a_spooled_result_lands_after_a_restart_before_anything_is_claimed() {
    let mut b = strict();
    let lease = claim_of(&mut b, "a", 1, Purpose::Redeem).lease;
    b.me.incarnation += 1;
    b.grant = Grant::new(b.me.clone(), Arc::new(policy()));
    b.handle(Input::FromSpool {
        lease,
        from_version: Version(1),
        tokens: Box::new(tokens("2", None)),
    });
    b.operator(10);
    assert_eq!((b.record().version, b.record().committed_by), (Version(2), Some(lease)));
    let at = |which: fn(&Command) -> bool| b.orders.iter().position(which).unwrap();
    let unspooled = at(|order| matches!(order, Command::Unspool { .. }));
    assert!(unspooled < at(|order| matches!(order, Command::Redeem { .. })));
    assert_eq!(b.redeem().1, "rt-2");
}

#[test]
fn a_commit_whose_answer_was_lost_is_found_by_its_lease() {
    let mut b = strict();
    b.operator(10);
    b.trouble = unanswered();
    b.provider(issued("2"));
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
    let spools = b.orders.iter().filter(|o| matches!(o, Command::Spool { .. })).count();
    assert_eq!(spools, 0);
}
