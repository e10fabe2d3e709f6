//! If two redeems of a version both succeeded, the second result is kept, and tried before the grant is given up.

use lockstep_protocol::{Code, Version};

use super::{claim_of, code, health, late::publish, strict};
use crate::{
    grant::{Asker, Input, ProviderReply, Reply},
    record::{Health, Purpose},
    sim::bench::{Bench, answered, issued, secs, tokens},
};

fn invalid() -> ProviderReply {
    answered(400, r#"{"error":"invalid_grant"}"#)
}

/// Version 2 came from one redeem; the result of another waits beside it.
fn with_alternate() -> Bench {
    let mut b = strict();
    let first = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    b.pass(secs(46));
    let second = claim_of(&mut b, "c", 1, Purpose::LastTry).lease;
    publish(&mut b, 20, second, 1, "2");
    publish(&mut b, 21, first, 1, "other");
    assert_eq!(b.take_replies()[0], (20, Reply::Done(Version(2))));
    assert_eq!(
        b.record().alternate.as_ref().unwrap().refresh_token,
        Some("rt-other".into())
    );
    b.orders.clear();
    b
}

#[test]
fn the_second_publisher_is_told_that_a_newer_version_is_committed() {
    let mut b = strict();
    let first = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    b.pass(secs(46));
    let second = claim_of(&mut b, "c", 1, Purpose::LastTry).lease;
    publish(&mut b, 20, second, 1, "2");
    b.take_replies();
    publish(&mut b, 21, first, 1, "other");
    assert_eq!(code(&mut b), Code::Superseded);
}

#[test]
fn a_holder_that_redeemed_twice_has_both_results_kept() {
    let mut b = strict();
    let lease = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    publish(&mut b, 20, lease, 1, "2");
    publish(&mut b, 21, lease, 1, "2");
    assert_eq!(
        b.take_replies(),
        [(20, Reply::Done(Version(2))), (21, Reply::Done(Version(2)))],
        "the same again changes nothing"
    );
    publish(&mut b, 22, lease, 1, "other");
    assert_eq!(code(&mut b), Code::Superseded);
    assert_eq!(
        b.record().alternate.as_ref().unwrap().refresh_token,
        Some("rt-other".into())
    );
}

#[test]
fn a_conflict_tries_it_before_the_grant_is_given_up() {
    let mut b = with_alternate();
    b.operator(30);
    assert_eq!(b.provider(invalid()), "rt-2");
    assert_eq!(b.record().claim.as_ref().unwrap().purpose, Purpose::Alternate);
    assert_eq!(b.provider(issued("3")), "rt-other");
    assert_eq!(b.take_replies(), [(30, Reply::Done(Version(3)))]);
    assert_eq!((health(&b), b.record().alternate.clone()), (Health::Ok, None));
}

#[test]
fn its_refresh_token_is_kept_if_the_answer_has_none() {
    let mut b = with_alternate();
    b.operator(30);
    b.provider(invalid());
    let bare = answered(
        200,
        r#"{"access_token":"at-3","token_type":"Bearer","expires_in":3600}"#,
    );
    assert_eq!(b.provider(bare), "rt-other");
    assert_eq!(b.take_replies(), [(30, Reply::Done(Version(3)))]);
    b.operator(31);
    assert_eq!(b.provider(issued("4")), "rt-other", "the other was refused");
    assert_eq!(b.take_replies(), [(31, Reply::Done(Version(4)))]);
}

#[test]
fn it_is_used_up_by_one_try() {
    let mut b = with_alternate();
    b.operator(30);
    b.provider(invalid());
    b.provider(invalid());
    b.pass(secs(5));
    assert_eq!((code(&mut b), b.redeems()), (Code::ReauthRequired, 0));
    assert_eq!(b.record().alternate, None);
}

#[test]
fn after_the_last_try_it_is_tried_too() {
    let mut b = with_alternate();
    b.operator(30);
    b.provider(ProviderReply::Lost("cut".into()));
    b.take_replies();
    b.pass(secs(3700));
    b.ask(31, Asker::Reader, Some(2));
    b.provider(ProviderReply::Lost("cut".into()));
    assert_eq!(b.provider(issued("3")), "rt-other");
    assert_eq!(b.take_replies(), [(31, Reply::Done(Version(3)))]);
}

#[test]
fn the_first_alternate_stays() {
    let mut b = with_alternate();
    let lease = b.record().former_leases[0];
    publish(&mut b, 22, lease, 1, "third");
    assert_eq!(
        b.record().alternate.as_ref().unwrap().refresh_token,
        Some("rt-other".into())
    );
}

#[test]
fn the_identical_pair_again_is_no_alternate() {
    let mut b = strict();
    let first = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    b.pass(secs(46));
    let second = claim_of(&mut b, "c", 1, Purpose::LastTry).lease;
    publish(&mut b, 20, second, 1, "2");
    publish(&mut b, 21, first, 1, "2");
    assert_eq!(b.record().alternate, None);
}

#[test]
fn a_late_result_beside_a_login_is_none_either() {
    let mut b = strict();
    let lease = claim_of(&mut b, "b", 1, Purpose::Redeem).lease;
    b.handle(Input::Read(Ok(b.store.read())));
    b.login(1, tokens("new", None));
    b.take_replies();
    publish(&mut b, 20, lease, 1, "late");
    assert_eq!((code(&mut b), b.record().alternate.clone()), (Code::Superseded, None));
}
