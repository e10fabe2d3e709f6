//! A device redeems: elected, accepted, handed the refresh token, in this order.

use std::{sync::Arc, time::Duration};

use lockstep_protocol::{Code, DeviceId, LeaseId, SessionId, Version};
use uuid::Uuid;

use super::{code, failure, health, late::publish, policy};
use crate::{
    grant::{Candidate, Command, Input, Note, ProviderReply, Reply, WaiterId},
    policy::{Policy, Refresher},
    record::Health,
    sim::bench::{Bench, answered, device, issued, secs},
};

fn bench() -> Bench {
    Bench::with_grant(Policy {
        refresher: Refresher::Device,
        ..policy()
    })
}

fn session(n: u64) -> SessionId {
    SessionId(Uuid::from_u64_pair(2, n))
}

fn candidate(b: &Bench, n: u64) -> Candidate {
    Candidate {
        device: device(n),
        session: session(n),
        last_active: Some(b.now.mono),
        priority: 10,
    }
}

/// Answers the question for candidates.
fn connected(b: &mut Bench, here: Vec<Candidate>, others: bool) {
    let before = b.orders.len();
    b.orders.retain(|order| !matches!(order, Command::AskCandidates));
    assert_eq!(b.orders.len() + 1, before, "candidates are asked for once");
    b.handle(Input::Candidates { here, others });
}

fn both(b: &mut Bench) {
    let here = vec![candidate(b, 1), candidate(b, 2)];
    connected(b, here, false);
}

/// Who is elected, and under which lease.
fn elected(b: &mut Bench) -> (u64, LeaseId) {
    let at = b.orders.iter().position(|order| matches!(order, Command::Elect { .. }));
    match b.orders.remove(at.expect("somebody is elected")) {
        Command::Elect { session: s, lease, .. } => ((1..9).find(|n| session(*n) == s).unwrap(), lease),
        other => panic!("{other:?}"),
    }
}

fn accept(b: &mut Bench, n: u64, lease: LeaseId) {
    b.handle(Input::Accept {
        device: device(n),
        session: session(n),
        lease,
    });
}

fn handed(b: &Bench) -> usize {
    b.orders
        .iter()
        .filter(|order| matches!(order, Command::Hand { .. }))
        .count()
}

fn elections(b: &Bench) -> usize {
    let elect = |order: &&Command| matches!(order, Command::Elect { .. });
    b.orders.iter().filter(elect).count()
}

fn failed(b: &mut Bench, n: u64, lease: LeaseId, reply: ProviderReply) {
    b.handle(Input::Failed {
        waiter: WaiterId(90),
        device: device(n),
        lease,
        reply,
    });
    assert_eq!(b.take_replies().first(), Some(&(90, Reply::Done(Version(1)))));
}

/// An operator waits (as 10), and device `n` redeems under the lease.
fn redeeming() -> (Bench, u64, LeaseId) {
    let mut b = bench();
    let (n, lease) = let_one_redeem(&mut b);
    (b, n, lease)
}

pub(super) fn let_one_redeem(b: &mut Bench) -> (u64, LeaseId) {
    b.operator(10);
    both(b);
    let (n, lease) = elected(b);
    accept(b, n, lease);
    assert_eq!(handed(b), 1);
    b.orders.clear();
    (n, lease)
}

#[test]
fn the_refresh_token_leaves_only_for_a_winner_that_answered() {
    let mut b = bench();
    b.operator(10);
    both(&mut b);
    let (n, lease) = elected(&mut b);
    let claim = b.record().claim.clone().unwrap();
    assert_eq!((claim.lease, claim.for_device, claim.handed_to), (lease, true, None));
    assert_eq!(handed(&b), 0);
    accept(&mut b, n, lease);
    assert_eq!(
        b.record().claim.as_ref().unwrap().handed_to,
        Some(device(n)),
        "durable first"
    );
    assert_eq!(handed(&b), 1);
    publish_of(&mut b, n, lease);
    assert_eq!(
        b.take_replies(),
        [(20, Reply::Done(Version(2))), (10, Reply::Done(Version(2)))]
    );
}

fn publish_of(b: &mut Bench, _n: u64, lease: LeaseId) {
    publish(b, 20, lease, 1, "2");
    b.replies.sort_by_key(|(waiter, _)| std::cmp::Reverse(*waiter));
}

#[test]
fn the_most_recently_active_first_then_the_weightiest() {
    let mut b = bench();
    let ago = |b: &Bench, n, seconds: u64, priority| Candidate {
        last_active: Some(crate::time::Mono(b.now.mono.0 - seconds * 1000)),
        priority,
        ..candidate(b, n)
    };
    b.now.mono.0 += 100_000_000;
    b.operator(10);
    let here = vec![
        ago(&b, 1, 7200, 99),
        ago(&b, 2, 50, 5),
        ago(&b, 3, 1, 4),
        ago(&b, 4, 600, 98),
    ];
    connected(&mut b, here, false);
    assert_eq!(
        elected(&mut b).0,
        2,
        "within a class recency does not count, weight does"
    );
}

#[test]
fn a_decline_elects_the_next_at_once() {
    let mut b = bench();
    b.operator(10);
    both(&mut b);
    let (first, lease) = elected(&mut b);
    failed(&mut b, first, lease, ProviderReply::NotSent("declined".into()));
    both(&mut b);
    let (second, other) = elected(&mut b);
    assert!(second != first && other != lease);
    assert!(b.notes.contains(&Note::Declined { device: device(first) }));
}

#[test]
fn a_disconnect_before_accept_elects_the_next_at_once() {
    let mut b = bench();
    b.operator(10);
    both(&mut b);
    let (first, _) = elected(&mut b);
    b.handle(Input::SessionLeft(session(first)));
    both(&mut b);
    assert_ne!(elected(&mut b).0, first);
}

#[test]
fn five_seconds_of_silence_before_accept_elect_the_next() {
    let mut b = bench();
    b.operator(10);
    both(&mut b);
    let (first, lease) = elected(&mut b);
    b.pass(secs(4));
    assert!(!b.orders.iter().any(|order| matches!(order, Command::AskCandidates)));
    b.pass(secs(1));
    both(&mut b);
    assert_ne!(elected(&mut b).0, first);
    accept(&mut b, first, lease);
    let refused = b.orders.iter().any(|o| {
        matches!(
            o,
            Command::Refuse {
                code: Code::NotElected,
                ..
            }
        )
    });
    assert!(refused, "it comes too late");
    assert_eq!(handed(&b), 0);
}

#[test]
fn with_nobody_left_the_hub_itself() {
    let mut b = bench();
    b.operator(10);
    for _ in 0..2 {
        both(&mut b);
        let (n, lease) = elected(&mut b);
        failed(&mut b, n, lease, ProviderReply::NotSent("declined".into()));
    }
    both(&mut b);
    assert_eq!(b.provider(issued("2")), "rt-1");
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
}

#[test]
fn with_nobody_left_and_a_hub_that_may_not_it_waits() {
    let mut b = Bench::with_grant(Policy {
        refresher: Refresher::Device,
        hub_may_redeem: false,
        ..policy()
    });
    b.operator(10);
    connected(&mut b, vec![], false);
    let (_, code, _, retry_at) = failure(&mut b);
    assert_eq!((code, b.redeems(), retry_at.is_some()), (Code::Unavailable, 0, true));
    assert_eq!((health(&b), b.record().claim.clone()), (Health::Ok, None));
}

#[test]
fn other_nodes_are_asked_before_the_hub_redeems() {
    let mut b = bench();
    b.operator(10);
    connected(&mut b, vec![], true);
    assert!(b.orders.iter().any(|order| matches!(order, Command::Wanted)));
    b.pass(secs(1));
    assert_eq!(b.redeems(), 0);
    b.pass(secs(2));
    assert_eq!(b.redeems(), 1, "none took it up");
}

#[test]
fn another_nodes_wish_is_granted_only_with_a_candidate() {
    let mut b = bench();
    b.handle(Input::Ask(crate::grant::Ask {
        waiter: None,
        by: crate::grant::Asker::Node,
        rejected: None,
    }));
    connected(&mut b, vec![], true);
    assert_eq!((b.redeems(), b.record().claim.clone()), (0, None));
    assert!(b.grant.is_idle());
}

#[test]
fn silence_after_the_hand_over_is_unknown() {
    let (mut b, n, _) = redeeming();
    b.handle(Input::SessionLeft(session(n)));
    b.pass(secs(24));
    assert_eq!(
        (b.take_replies(), b.redeems()),
        (vec![], 0),
        "a disconnect is no outcome"
    );
    b.pass(secs(2));
    assert_eq!((code(&mut b), health(&b)), (Code::Suspect, Health::Suspect));
    let doubt = b.record().doubt.clone().unwrap();
    assert!(doubt.late_until.is_some(), "it may still report");
}

#[test]
fn a_result_after_the_silence_heals() {
    let (mut b, _, lease) = redeeming();
    b.pass(secs(300));
    b.take_replies();
    publish(&mut b, 20, lease, 1, "2");
    assert_eq!(b.take_replies(), [(20, Reply::Done(Version(2)))]);
    assert_eq!(health(&b), Health::Ok);
}

#[test]
fn not_sent_elects_the_next_and_leaves_no_doubt() {
    let (mut b, n, lease) = redeeming();
    failed(&mut b, n, lease, ProviderReply::NotSent("no network".into()));
    both(&mut b);
    assert_ne!(elected(&mut b).0, n);
    assert_eq!(b.record().doubt, None);
}

#[test]
fn a_device_that_sent_nothing_leaves_no_doubt_though_the_hub_was_restarted() {
    let (mut b, n, lease) = redeeming();
    let policy = Policy {
        refresher: Refresher::Device,
        ..policy()
    };
    super::leaving::restart(&mut b, policy);
    b.operator(20);
    assert_eq!(elections(&b), 0, "it may have been sent");
    failed(&mut b, n, lease, ProviderReply::NotSent("no network".into()));
    both(&mut b);
    elected(&mut b);
    assert_eq!((b.record().doubt.clone(), health(&b)), (None, Health::Ok));
}

#[test]
fn a_result_from_a_device_that_did_not_answer_its_election_is_refused() {
    let mut b = bench();
    b.operator(10);
    both(&mut b);
    let (n, lease) = elected(&mut b);
    publish(&mut b, 20, lease, 1, "2");
    assert_eq!(code(&mut b), Code::NotElected);
    accept(&mut b, n, lease);
    assert_eq!(handed(&b), 1, "it may still answer");
    publish(&mut b, 21, lease, 1, "2");
    assert_eq!(b.record().version, Version(2));
}

#[test]
fn what_a_device_heard_is_judged_by_the_same_table() {
    let (mut b, n, lease) = redeeming();
    failed(&mut b, n, lease, answered(400, r#"{"error":"invalid_grant"}"#));
    b.pass(secs(5));
    assert_eq!(
        (code(&mut b), health(&b)),
        (Code::ReauthRequired, Health::ReauthRequired)
    );
}

#[test]
fn a_device_renews_its_lease_but_not_its_deadline() {
    let (mut b, n, lease) = redeeming();
    let renew = |b: &mut Bench, n| {
        b.handle(Input::Renew {
            device: device(n),
            session: session(n),
            lease,
        });
    };
    b.pass(secs(15));
    let before = b.record().claim.as_ref().unwrap().expires_at;
    renew(&mut b, n);
    assert!(b.record().claim.as_ref().unwrap().expires_at > before);
    assert!(b.orders.iter().any(|order| matches!(order, Command::Extended { .. })));
    renew(&mut b, 7);
    assert!(b.orders.iter().any(|o| matches!(
        o,
        Command::Refuse {
            code: Code::NotElected,
            ..
        }
    )));
    b.pass(secs(11));
    assert_eq!(code(&mut b), Code::Suspect, "the deadline is not moved");
}

#[test]
fn a_lease_that_lapsed_before_the_hand_over_gives_nothing_away() {
    let mut b = bench();
    b.operator(10);
    both(&mut b);
    let (n, lease) = elected(&mut b);
    b.now.unix = b.now.unix + secs(60);
    accept(&mut b, n, lease);
    assert_eq!(
        (handed(&b), b.record().claim.as_ref().map(|c| c.handed_to)),
        (0, Some(None::<DeviceId>))
    );
}

#[test]
fn every_lease_handed_out_for_the_version_may_publish() {
    let (mut b, n, first) = redeeming();
    failed(&mut b, n, first, ProviderReply::NotSent("no network".into()));
    both(&mut b);
    let (_, second) = elected(&mut b);
    assert_ne!(first, second);
    publish(&mut b, 20, first, 1, "2");
    b.take_replies();
    assert_eq!(b.record().version, Version(2));
}

#[test]
fn a_lease_that_was_handed_out_stays_good_however_many_elections_come_to_nothing() {
    let (mut b, n, lease) = redeeming();
    b.grant.set_policy(Arc::new(Policy {
        refresher: Refresher::Device,
        hub_may_redeem: false,
        ..policy()
    }));
    // It is silent; the token expires, and the other never answers when it is elected.
    b.pass(secs(3700));
    let mut elections = 0;
    for waiter in 100..1000 {
        if b.orders.iter().any(|order| matches!(order, Command::AskCandidates)) {
            let other = vec![candidate(&b, 3 - n)];
            connected(&mut b, other, false);
        } else {
            b.operator(waiter);
        }
        elections += b
            .orders
            .iter()
            .filter(|order| matches!(order, Command::Elect { .. }))
            .count();
        b.orders.retain(|order| matches!(order, Command::AskCandidates));
        b.pass(secs(6));
    }
    assert!(elections > 40, "{elections}");
    publish(&mut b, 20, lease, 1, "late");
    assert_eq!(b.take_replies().last(), Some(&(20, Reply::Done(Version(2)))));
}

#[test]
fn the_deadline_of_a_device_lies_inside_the_lease_however_late_it_accepts() {
    let mut b = bench();
    b.grant.set_policy(Arc::new(Policy {
        refresher: Refresher::Device,
        timeout: secs(60),
        lease: secs(30),
        ..policy()
    }));
    b.operator(10);
    both(&mut b);
    let (n, lease) = elected(&mut b);
    b.pass(Duration::from_millis(4900));
    accept(&mut b, n, lease);
    let claim = b.record().claim.clone().unwrap();
    let given = b.orders.iter().find_map(|order| match order {
        Command::Hand {
            send_within, deadline, ..
        } => Some((*send_within, *deadline)),
        _ => None,
    });
    let (send_within, deadline) = given.expect("the refresh token is given");
    // The frame may be on its way for as long as the request may wait to leave.
    assert!(b.now.unix + send_within + deadline < claim.expires_at, "{deadline:?}");
    assert!(deadline > secs(10), "{deadline:?}");
}
