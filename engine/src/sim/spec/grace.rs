//! Inside the provider's grace window the same refresh token is sent again.

use lockstep_protocol::{Code, Version};

use super::{code, health, policy};
use crate::{
    grant::{ProviderReply, Reply},
    policy::Policy,
    record::{Health, Purpose},
    sim::bench::{Bench, issued, secs},
};

fn graceful() -> Bench {
    Bench::with_grant(Policy {
        grace: secs(30),
        ..policy()
    })
}

fn lost() -> ProviderReply {
    ProviderReply::Lost("connection reset".into())
}

#[test]
fn the_same_refresh_token_again_at_once() {
    let mut b = graceful();
    b.operator(10);
    b.provider(lost());
    assert_eq!(b.take_replies(), [], "whoever waits goes on waiting");
    b.pass(secs(1));
    assert_eq!(b.record().claim.as_ref().unwrap().purpose, Purpose::Grace);
    assert_eq!(b.provider(issued("2")), "rt-1");
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
    assert_eq!((health(&b), b.record().doubt.clone()), (Health::Ok, None));
}

#[test]
fn the_window_counts_from_the_first_claim_in_doubt() {
    let mut b = graceful();
    let first = b.now.unix;
    b.operator(10);
    let mut replays = 0;
    while b.now.unix < first + secs(40) {
        if b.redeems() > 0 {
            assert!(b.now.unix < first + secs(30), "a replay after the provider's window");
            b.provider(lost());
            replays += 1;
        }
        b.pass(secs(1));
    }
    assert!(replays > 3, "replayed while it made sense: {replays}");
    assert_eq!(b.record().doubt.as_ref().unwrap().since, first);
    assert_eq!((code(&mut b), health(&b)), (Code::Suspect, Health::Suspect));
}

#[test]
fn a_claim_without_outcome_of_a_former_run_is_replayed_inside_the_window() {
    let mut b = graceful();
    super::claim_of(&mut b, "a", 0, Purpose::Redeem);
    b.grant = crate::grant::Grant::new(
        b.me.clone(),
        std::sync::Arc::new(Policy {
            grace: secs(30),
            ..policy()
        }),
    );
    b.operator(10);
    assert_eq!(b.record().claim.as_ref().unwrap().purpose, Purpose::Grace);
    assert_eq!(b.provider(issued("2")), "rt-1");
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
}
