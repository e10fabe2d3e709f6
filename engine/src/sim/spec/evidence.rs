//! Rejections are evidence, not orders.

use lockstep_protocol::{Code, Version};

use super::{failure, strict};
use crate::{
    grant::{Asker, Note, Reply},
    policy::Policy,
    sim::bench::{Bench, issued, secs},
};

/// Logged in just now, and rejections limited as by default: 30 s.
fn limited() -> Bench {
    Bench::with_grant(Policy::default())
}

fn limit(b: &mut Bench) -> u64 {
    let (_, code, _, retry_at) = failure(b);
    assert_eq!((code, b.redeems()), (Code::RateLimited, 0));
    retry_at.unwrap().0 - b.now.unix.0
}

#[test]
fn only_the_newest_version_can_be_rejected() {
    let mut b = strict();
    b.operator(10);
    b.provider(issued("2"));
    b.take_replies();
    b.reject(11, 1, 1);
    assert_eq!(
        (b.take_replies(), b.redeems()),
        (vec![(11, Reply::Done(Version(2)))], 0)
    );
    b.reject(12, 1, 7);
    assert_eq!(
        (b.take_replies(), b.redeems()),
        (vec![(12, Reply::Done(Version(2)))], 0),
        "a version above the newest is never evidence"
    );
}

#[test]
fn redeems_that_devices_cause_keep_a_distance_from_the_last_commit() {
    let mut b = limited();
    b.pass(secs(10));
    b.reject(10, 1, 1);
    assert_eq!(limit(&mut b), 20_000);
    assert!(b.notes.iter().any(|note| matches!(note, Note::Limited { .. })));
    b.pass(secs(20));
    b.reject(11, 1, 1);
    assert_eq!(b.redeems(), 1);
}

#[test]
fn the_distance_doubles_while_successive_versions_are_rejected() {
    let mut b = limited();
    for (version, interval) in [(1, 30), (2, 60), (3, 120), (4, 240)] {
        b.pass(secs(interval - 1));
        b.reject(10, 1, version);
        assert_eq!(limit(&mut b), 1_000, "version {version}");
        b.pass(secs(1));
        b.reject(11, 1, version);
        b.provider(issued(&(version + 1).to_string()));
        b.take_replies();
    }
    b.operator(12);
    b.provider(issued("6"));
    assert_eq!(b.record().rejected_in_a_row, 0, "one that nobody rejected ends the row");
}

#[test]
fn zero_turns_the_distance_off() {
    let mut b = strict();
    b.reject(10, 1, 1);
    assert_eq!(b.redeems(), 1);
}

#[test]
fn an_expired_token_needs_no_evidence() {
    let mut b = Bench::new(Policy::default());
    let expires = Some(b.now.unix.0 + 5_000);
    b.login(1, crate::sim::bench::tokens("1", expires));
    b.take_replies();
    b.pass(secs(6));
    b.reject(10, 1, 1);
    assert_eq!(b.redeems(), 1);
}

#[test]
fn readers_operators_and_the_scheduler_are_not_limited() {
    for by in [Asker::Reader, Asker::Operator] {
        let mut b = limited();
        b.ask(10, by, Some(1));
        assert_eq!(b.redeems(), 1, "{by:?}");
    }
    let mut b = limited();
    b.pass(secs(3331));
    b.ask(10, Asker::Scheduler, None);
    assert_eq!(b.redeems(), 1, "it is due");
}

#[test]
fn what_is_not_due_yet_is_left_alone() {
    let mut b = limited();
    b.ask(10, Asker::Scheduler, None);
    assert_eq!(
        (b.redeems(), b.take_replies()),
        (0, vec![(10, Reply::Done(Version(1)))])
    );
}

#[test]
fn a_clock_that_went_back_does_not_lock_devices_out() {
    let mut b = limited();
    b.now.unix.0 -= 3_600_000;
    b.pass(secs(31));
    b.reject(10, 1, 1);
    assert_eq!(b.redeems(), 1);
}
