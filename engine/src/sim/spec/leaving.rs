//! A node that goes away gives back a claim between two tries: that nothing was processed is known. What is unknown stays.

use std::sync::Arc;

use lockstep_protocol::{Code, Version};

use super::{failure, health, policy, strict};
use crate::{
    grant::{Grant, Input, ProviderReply, Reply},
    policy::Policy,
    record::Health,
    sim::bench::{Bench, answered, holder, issued, secs},
};

fn lost() -> ProviderReply {
    ProviderReply::Lost("connection reset".into())
}

/// What leaves no doubt, and is tried again after a pause.
fn tried_again() -> [ProviderReply; 5] {
    [
        ProviderReply::NotSent("connection refused".into()),
        answered(500, "<html>"),
        answered(503, ""),
        ProviderReply::Answered {
            status: 503,
            retry_after: Some(secs(4)),
            body: "".into(),
        },
        answered(418, "short and stout"),
    ]
}

/// A new run of the same node takes over.
pub(super) fn restart(b: &mut Bench, policy: Policy) {
    let me = holder("a", 2);
    b.grant = Grant::new(me.clone(), Arc::new(policy));
    b.me = me;
    b.orders.clear();
}

/// That a new run finds nothing in doubt, and redeems as if nothing had been.
fn redeems_anew(b: &mut Bench) {
    restart(b, policy());
    b.operator(20);
    assert_eq!(b.provider(issued("2")), "rt-1");
    assert_eq!(b.take_replies(), [(20, Reply::Done(Version(2)))]);
    assert_eq!(health(b), Health::Ok);
}

#[test]
fn a_claim_between_two_tries_is_given_back() {
    for reply in tried_again() {
        let mut b = strict();
        b.operator(10);
        b.provider(reply.clone());
        assert!(b.record().claim.is_some(), "{reply:?}: the round goes on");

        b.handle(Input::Leave);

        assert!(b.record().claim.is_none(), "{reply:?}");
        assert!(b.record().doubt.is_none(), "{reply:?}");
        assert_eq!(health(&b), Health::Ok, "{reply:?}");
        let (waiter, code, reason, retry_at) = failure(&mut b);
        assert_eq!((waiter, code), (10, Code::Unavailable), "{reply:?}");
        assert!(reason.starts_with("the provider "), "{reply:?}: {reason}");
        let at = retry_at.unwrap();
        assert!(at >= b.now.unix && at <= b.now.unix + secs(10), "{reply:?}");
        assert_eq!(
            b.record().due_at,
            Some(at),
            "{reply:?}: whoever is there then tries again"
        );
        b.pass(secs(60));
        assert_eq!(b.redeems(), 0, "{reply:?}");
        redeems_anew(&mut b);
    }
}

#[test]
fn a_retry_after_is_obeyed_by_whoever_comes_next() {
    let mut b = strict();
    b.operator(10);
    let begun = b.now.unix;
    b.provider(ProviderReply::Answered {
        status: 503,
        retry_after: Some(secs(4)),
        body: "".into(),
    });
    b.pass(secs(1));
    b.handle(Input::Leave);
    assert_eq!(failure(&mut b).3, Some(begun + secs(4)));
}

#[test]
fn a_redeem_under_way_has_no_other_after_it() {
    for reply in tried_again() {
        let mut b = strict();
        b.operator(10);
        b.handle(Input::Leave);
        assert!(b.record().claim.is_some(), "it is under way");
        b.provider(reply.clone());
        assert!(b.record().claim.is_none(), "{reply:?}");
        assert_eq!(failure(&mut b).1, Code::Unavailable, "{reply:?}");
        b.pass(secs(60));
        assert_eq!(b.redeems(), 0, "{reply:?}");
        redeems_anew(&mut b);
    }
}

#[test]
fn a_redeem_under_way_is_still_committed() {
    let mut b = strict();
    b.operator(10);
    b.handle(Input::Leave);
    b.provider(issued("2"));
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
}

#[test]
fn what_is_unknown_stays_unknown() {
    for reply in [Some(lost()), Some(answered(502, "")), Some(answered(200, "{}")), None] {
        let mut b = strict();
        b.operator(10);
        b.handle(Input::Leave);
        if let Some(reply) = reply.clone() {
            b.provider(reply);
            assert_eq!(health(&b), Health::Suspect);
        } else {
            assert!(b.record().claim.is_some(), "it was sent, and nothing was heard");
        }
        b.take_replies();
        restart(&mut b, policy());
        b.operator(20);
        assert_eq!(failure(&mut b).1, Code::Suspect, "{reply:?}");
        assert_eq!(
            b.redeems(),
            0,
            "{reply:?}: the access token is good, nothing is replayed"
        );
    }
}

#[test]
fn a_doubt_that_was_there_is_there_afterwards() {
    let graceful = Policy {
        grace: secs(60),
        ..policy()
    };
    let mut b = Bench::with_grant(graceful.clone());
    b.operator(10);
    b.provider(lost());
    b.provider(answered(503, ""));
    let doubt = b.record().doubt.clone();
    assert!(doubt.is_some());

    b.handle(Input::Leave);

    assert!(b.record().claim.is_none());
    assert_eq!(b.record().doubt, doubt);
    restart(&mut b, graceful);
    b.operator(20);
    assert_eq!(b.provider(issued("2")), "rt-1", "still inside the grace window");
}
