//! Whoever waits is answered once, in order, within a bound.

use lockstep_protocol::{Code, Version};

use super::{claim_of, code, strict, unanswered};
use crate::{
    grant::{Input, Note, Reply, WaiterId},
    record::Purpose,
    sim::bench::{issued, secs},
};

#[test]
fn in_the_order_in_which_they_came() {
    let mut b = strict();
    for waiter in [12, 10, 11] {
        b.operator(waiter);
    }
    b.provider(issued("2"));
    let order: Vec<_> = b.take_replies().into_iter().map(|(waiter, _)| waiter).collect();
    assert_eq!(order, [12, 10, 11]);
}

#[test]
fn another_nodes_claim_makes_them_wait_no_longer_than_the_bound() {
    let mut b = strict();
    b.handle(Input::Read(Ok(b.store.read())));
    let lease = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    b.handle(Input::Read(Ok(b.store.read())));
    b.operator(10);
    for _ in 0..11 {
        b.pass(secs(10));
        let now = b.now.unix;
        assert!(b.store.renew(lease, secs(45), now), "its holder works on");
        b.handle(Input::Read(Ok(b.store.read())));
    }
    assert_eq!(b.take_replies(), []);
    b.pass(secs(10));
    assert_eq!(code(&mut b), Code::Unavailable);
    assert!(b.notes.contains(&Note::LeaseWaitTimeout), "counted");
}

#[test]
fn a_claim_that_is_not_renewed_ends_the_wait_whatever_the_clocks_say() {
    let mut b = strict();
    claim_of(&mut b, "b", 1, Purpose::Redeem);
    b.handle(Input::Read(Ok(b.store.read())));
    // This node's clock runs an hour behind the store's.
    b.now.unix.0 -= 3_600_000;
    b.operator(10);
    b.pass(secs(63));
    assert_eq!(
        b.redeems(),
        0,
        "the store does not agree that it has lapsed, and decides"
    );
    assert!(b.record().claim.is_some());
}

#[test]
fn more_than_are_bounded_for_are_turned_away() {
    let mut b = strict();
    for waiter in 0..16_384 {
        b.operator(waiter);
    }
    assert_eq!(b.take_replies(), []);
    b.operator(20_000);
    assert_eq!(code(&mut b), Code::Unavailable);
}

#[test]
fn one_who_left_is_not_answered() {
    let mut b = strict();
    b.operator(10);
    b.operator(11);
    b.handle(Input::Left(WaiterId(10)));
    b.provider(issued("2"));
    assert_eq!(b.take_replies(), [(11, Reply::Done(Version(2)))]);
}

#[test]
fn the_answer_to_a_claim_may_be_lost() {
    let mut b = strict();
    b.trouble = unanswered();
    b.operator(10);
    assert_eq!(
        b.provider(issued("2")),
        "rt-1",
        "the record was read again, and the claim is there"
    );
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
}
