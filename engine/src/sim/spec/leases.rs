//! The lease: renewed while in use, proven before each send, and the redeem's deadline inside it.

use std::time::Duration;

use lockstep_protocol::Code;

use super::{claim_of, code, strict};
use crate::{
    grant::{Command, Input, ProviderReply},
    policy::Policy,
    record::Purpose,
    sim::bench::{Bench, answered, issued, secs},
};

fn redeem_order(b: &Bench) -> (Duration, Duration) {
    let found = b.orders.iter().find_map(|order| match order {
        Command::Redeem {
            send_within, deadline, ..
        } => Some((*send_within, *deadline)),
        _ => None,
    });
    found.expect("a redeem is ordered")
}

#[test]
fn the_claim_is_written_before_anything_is_sent() {
    let mut b = strict();
    b.operator(10);
    let claim = b.record().claim.clone().unwrap();
    assert_eq!((claim.purpose, claim.fence), (Purpose::Redeem, 1));
    assert_eq!(claim.expires_at, claim.taken_at + secs(45));
    assert_eq!(b.redeems(), 1);
}

#[test]
fn a_lease_is_renewed_every_third_while_the_redeem_takes() {
    let mut b = Bench::with_grant(Policy {
        timeout: secs(40),
        ..super::policy()
    });
    b.operator(10);
    let first = b.record().claim.as_ref().unwrap().expires_at;
    b.pass(secs(14));
    assert_eq!(b.record().claim.as_ref().unwrap().expires_at, first);
    b.pass(secs(1));
    assert_eq!(b.record().claim.as_ref().unwrap().expires_at, first + secs(15));
    b.pass(secs(15));
    assert_eq!(b.record().claim.as_ref().unwrap().expires_at, first + secs(30));
}

#[test]
fn the_hard_deadline_lies_inside_the_lease() {
    for (timeout, lease) in [(20, 45), (60, 30), (30, 30)] {
        let mut b = Bench::with_grant(Policy {
            timeout: secs(timeout),
            lease: secs(lease),
            ..super::policy()
        });
        b.operator(10);
        let (send_within, deadline) = redeem_order(&b);
        assert!(deadline < secs(lease) && deadline <= secs(timeout), "{deadline:?}");
        assert!(send_within <= secs(5), "{send_within:?}");
    }
}

#[test]
fn each_try_of_a_round_is_under_a_lease_shown_anew() {
    let mut b = strict();
    b.operator(10);
    b.provider(answered(503, ""));
    let before = b.record().claim.as_ref().unwrap().expires_at;
    b.pass(secs(3));
    assert_eq!(b.redeems(), 1);
    assert!(b.record().claim.as_ref().unwrap().expires_at > before);
}

#[test]
fn a_lease_that_was_lost_sends_nothing_more() {
    let mut b = strict();
    b.operator(10);
    b.provider(answered(503, ""));
    // Another node judged the claim, because this one stood still for too long.
    b.now.unix = b.now.unix + secs(50);
    claim_of(&mut b, "b", 1, Purpose::Redeem);
    b.pass(secs(3));
    assert_eq!(b.redeems(), 0);
}

#[test]
fn a_lease_that_turns_out_lost_between_two_tries_ends_the_round() {
    let mut b = strict();
    b.operator(10);
    b.store_answers = false;
    b.pass(secs(15));
    let lease = b.renewals()[0];
    b.provider(answered(503, ""));
    b.store_answers = true;
    // The renewal comes too late: this node stood still, and another judged the claim.
    b.now.unix = b.now.unix + secs(50);
    claim_of(&mut b, "b", 1, Purpose::Redeem);
    b.handle(Input::Renewed { lease, held: Ok(false) });
    b.pass(secs(10));
    assert_eq!(b.redeems(), 0, "the other's claim stands");
    assert!(!b.grant.is_refreshing());
    b.pass(secs(40));
    assert_eq!(code(&mut b), Code::Suspect, "that one has lapsed without an outcome");
}

#[test]
fn a_renewal_that_is_refused_is_tried_again_and_loses_nothing() {
    let mut b = Bench::with_grant(Policy {
        timeout: secs(40),
        ..super::policy()
    });
    b.operator(10);
    b.trouble = super::refused();
    b.pass(secs(17));
    let claim = b.record().claim.clone().unwrap();
    assert!(claim.expires_at > claim.taken_at + secs(45), "renewed a little later");
    b.provider(issued("2"));
    assert_eq!(b.record().version.0, 2);
}

#[test]
fn a_store_that_takes_no_writes_sends_nothing() {
    let mut b = strict();
    b.trouble = super::refused();
    b.operator(10);
    assert_eq!((b.redeems(), code(&mut b)), (0, Code::Unavailable));
}

#[test]
fn whoever_comes_while_it_is_in_flight_joins() {
    let mut b = strict();
    b.operator(10);
    b.reject(11, 1, 1);
    b.reject(12, 2, 1);
    assert_eq!(b.redeems(), 1);
    b.provider(ProviderReply::NotSent("refused".into()));
    assert_eq!(b.take_replies(), []);
}
