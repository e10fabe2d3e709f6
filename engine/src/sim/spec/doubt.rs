//! Outside the grace window: suspect, and how that ends.

use std::sync::Arc;

use lockstep_protocol::{Code, Version};

use super::{claim_of, code, failure, health, policy, strict};
use crate::{
    grant::{Asker, Grant, Input, ProviderReply, Reply},
    record::{Health, Purpose},
    sim::bench::{Bench, answered, device, issued, secs, tokens},
    time::Unix,
};

fn lost() -> ProviderReply {
    ProviderReply::Lost("connection reset".into())
}

/// A grant in doubt whose access token lives.
fn suspect() -> Bench {
    let mut b = strict();
    b.operator(10);
    b.provider(lost());
    assert_eq!((code(&mut b), health(&b)), (Code::Suspect, Health::Suspect));
    b
}

fn report(b: &mut Bench, waiter: u64, n: u64, connected: usize, acked: bool) {
    let by = Asker::Device {
        device: device(n),
        acked,
        connected,
    };
    b.ask(waiter, by, Some(1));
}

#[test]
fn while_the_access_token_is_good_nothing_is_replayed() {
    let mut b = suspect();
    for waiter in 20..24 {
        b.operator(waiter);
        assert_eq!(code(&mut b), Code::Suspect);
        b.pass(secs(600));
    }
    assert_eq!(b.redeems(), 0);
}

#[test]
fn a_late_result_heals_it() {
    let mut b = suspect();
    let lease = b.record().leases[0];
    super::late::publish(&mut b, 20, lease, 1, "late");
    assert_eq!(b.take_replies(), [(20, Reply::Done(Version(2)))]);
    assert_eq!(health(&b), Health::Ok);
}

#[test]
fn a_new_login_heals_it() {
    let mut b = suspect();
    b.login(20, tokens("new", None));
    assert_eq!(b.take_replies(), [(20, Reply::Done(Version(2)))]);
    assert_eq!((health(&b), b.record().doubt.clone()), (Health::Ok, None));
}

#[test]
fn two_devices_that_acked_the_version_are_enough_to_call_it_dead() {
    let mut b = suspect();
    report(&mut b, 20, 1, 3, true);
    assert_eq!((code(&mut b), b.redeems()), (Code::Suspect, 0), "one witness of three");
    report(&mut b, 21, 1, 3, true);
    assert_eq!((code(&mut b), b.redeems()), (Code::Suspect, 0), "the same one again");
    report(&mut b, 22, 2, 3, false);
    assert_eq!(
        (code(&mut b), b.redeems()),
        (Code::Suspect, 0),
        "one that never held it"
    );
    report(&mut b, 23, 3, 3, true);
    assert_eq!(b.provider(issued("2")), "rt-1", "the last try");
    assert_eq!(b.take_replies(), [(23, Reply::Done(Version(2)))]);
}

#[test]
fn one_witness_is_enough_if_only_one_is_connected() {
    let mut b = suspect();
    report(&mut b, 20, 1, 1, true);
    assert_eq!(b.redeems(), 1);
}

#[test]
fn the_last_try_is_recorded_and_there_is_only_one() {
    let mut b = suspect();
    b.pass(secs(3600));
    b.ask(20, Asker::Reader, Some(1));
    assert_eq!(b.record().claim.as_ref().unwrap().purpose, Purpose::LastTry);
    b.provider(lost());
    let (_, code, message, _) = failure(&mut b);
    assert_eq!((code, health(&b)), (Code::ReauthRequired, Health::ReauthRequired));
    assert!(message.contains("connection reset"), "the true reason: {message}");
}

#[test]
fn a_crash_in_the_last_try_uses_it_up() {
    let mut b = suspect();
    b.pass(secs(3600));
    b.ask(20, Asker::Reader, Some(1));
    assert_eq!(b.redeems(), 1);
    b.me.incarnation += 1;
    b.grant = Grant::new(b.me.clone(), Arc::new(policy()));
    b.orders.clear();
    b.ask(21, Asker::Reader, Some(1));
    assert_eq!((b.redeems(), code(&mut b)), (0, Code::ReauthRequired));
}

#[test]
fn a_former_runs_claim_is_judged_at_once() {
    let mut b = strict();
    claim_of(&mut b, "a", 0, Purpose::Redeem);
    b.handle(Input::Read(Ok(b.store.read())));
    assert_eq!(health(&b), Health::Suspect);
    assert_eq!(b.record().claim, None, "no lock needs a restart to clear");
}

#[test]
fn another_nodes_claim_blocks_until_it_lapses_and_then_means_unknown() {
    let mut b = strict();
    claim_of(&mut b, "b", 1, Purpose::Redeem);
    b.handle(Input::Read(Ok(b.store.read())));
    b.operator(10);
    b.pass(secs(44));
    assert_eq!((b.redeems(), b.take_replies()), (0, vec![]));
    b.pass(secs(2));
    assert_eq!((b.redeems(), code(&mut b)), (0, Code::Suspect));
    assert!(b.record().reason.as_ref().unwrap().contains("node b"));
}

#[test]
fn when_another_held_it_a_late_result_is_waited_for() {
    let mut b = strict();
    claim_of(&mut b, "b", 1, Purpose::Redeem);
    b.store.record.as_mut().unwrap().expires_at = Some(Unix(0));
    b.handle(Input::Read(Ok(b.store.read())));
    b.operator(10);
    b.pass(secs(46));
    assert_eq!((code(&mut b), health(&b)), (Code::Suspect, Health::Suspect));
    b.pass(secs(55));
    assert_eq!(b.redeems(), 0, "late_wait is 60 s");
    b.pass(secs(10));
    b.ask(12, Asker::Scheduler, None);
    assert_eq!(b.record().claim.as_ref().unwrap().purpose, Purpose::LastTry);
}

#[test]
fn when_this_hub_held_it_and_heard_nothing_nothing_can_come() {
    let mut b = suspect();
    b.pass(secs(3600));
    b.ask(20, Asker::Reader, Some(1));
    assert_eq!(b.redeems(), 1, "the last try at once");
}

#[test]
fn a_conflict_in_doubt_is_the_end_with_both_reasons() {
    let mut b = suspect();
    b.pass(secs(3600));
    b.ask(20, Asker::Reader, Some(1));
    b.provider(answered(400, r#"{"error":"invalid_grant"}"#));
    b.pass(secs(5));
    let (_, code, message, _) = failure(&mut b);
    assert_eq!(code, Code::ReauthRequired);
    assert!(
        message.contains("connection reset") && message.contains("invalid_grant"),
        "{message}"
    );
}

#[test]
fn a_grant_that_is_suspect_without_more_is_not_replayed() {
    // So is every grant of a store that went back in time.
    let mut b = strict();
    b.store.record.as_mut().unwrap().health = Health::Suspect;
    b.store.record.as_mut().unwrap().revision += 1;
    b.handle(Input::Read(Ok(b.store.read())));
    b.operator(10);
    assert_eq!((b.redeems(), code(&mut b)), (0, Code::Suspect));
}
