//! Callers that wait for a token.

use std::time::Duration;

use lockstep_protocol::{
    Code, HubFrame, RequestId, UnixSeconds, Version,
    frame::{Done, Error, Health},
};

use super::{
    blocked, secs, stable,
    world::{World, grant},
};
use crate::machine::{HttpTrouble, Input, Need, Refusal, WaiterId};

fn ask(world: &mut World, waiter: u64, need: Need) {
    world.tell(Input::Ask {
        waiter: WaiterId(waiter),
        grant: grant(),
        need,
        patience: secs(60),
    });
}

fn newer(world: &mut World, waiter: u64, than: u64) {
    world.tell(Input::Rejected(grant(), Version(than)));
    ask(world, waiter, Need::Newer(Version(than)));
}

fn id(number: u64) -> RequestId {
    RequestId::new(format!("r{number}")).unwrap()
}

fn done(world: &mut World, number: u64, version: u64) {
    world.frame(HubFrame::Done(Done {
        id: id(number),
        grant: grant(),
        version: Version(version),
    }));
}

fn no(world: &mut World, number: u64, code: Code, after: Option<u64>) {
    let retry_at = after.map(|after| UnixSeconds(world.now.unix.0 / 1000 + after));
    world.frame(HubFrame::Error(Error {
        id: Some(id(number)),
        grant: Some(grant()),
        code,
        message: "no".into(),
        retry_at,
    }));
}

fn answers(world: &mut World) -> Vec<String> {
    let words = world.words();
    words.into_iter().filter(|word| word.starts_with("answer")).collect()
}

#[test]
fn a_good_token_is_given_without_a_word_to_the_hub() {
    let mut world = stable(5);
    ask(&mut world, 1, Need::Validity(secs(60)));
    ask(&mut world, 2, Need::Newer(Version(4)));
    assert_eq!(answers(&mut world), ["answer 1: token 5", "answer 2: token 5"]);
    assert_eq!(world.acts(), [""; 0]);
}

#[test]
fn all_who_wait_are_one_refresh_and_a_push_serves_them_as_well_as_an_answer() {
    let mut world = stable(5);
    for waiter in 1..=3 {
        newer(&mut world, waiter, 5);
    }
    assert_eq!(world.acts(), ["refresh 5 Rejected"]);
    world = world.token(6);
    assert_eq!(
        answers(&mut world),
        ["answer 1: token 6", "answer 2: token 6", "answer 3: token 6"]
    );
    done(&mut world, 1, 6);
    assert_eq!(answers(&mut world), [""; 0]);
}

#[test]
fn a_rejected_version_is_not_given_out_again() {
    let mut world = stable(5);
    newer(&mut world, 1, 5);
    world = world.read();
    ask(&mut world, 2, Need::Validity(Duration::ZERO));
    assert_eq!(
        (answers(&mut world), world.acts()),
        (vec![], vec![]),
        "the second waits with the first"
    );
}

#[test]
fn what_the_connection_lost_is_asked_again_by_whichever_transport() {
    let mut world = stable(5);
    newer(&mut world, 1, 5);
    world = world.ended(None).pass(secs(20)).read();
    world = world.refused(403, None).polled(Ok(None));
    let acts = world.acts();
    assert!(acts.contains(&"POST refresh 5".to_owned()), "{acts:?}");
    world.tell(Input::Refreshed(id(2), Ok(Version(6))));
    assert_eq!(answers(&mut world), [""; 0], "the token itself is on its way");
    world = world.polled_token(6);
    assert_eq!(answers(&mut world), ["answer 1: token 6"]);
}

#[test]
fn done_without_the_token_is_asked_again_after_a_while() {
    let mut world = stable(5);
    newer(&mut world, 1, 5);
    done(&mut world, 1, 6);
    world = world.read().pass(secs(11));
    assert_eq!(world.acts(), ["refresh 5 Rejected"]);
}

#[test]
fn refusals_come_in_tiers_and_are_remembered() {
    let table = [
        (Code::RateLimited, Some(30), "retry"),
        (Code::Suspect, Some(30), "retry"),
        (Code::Unavailable, None, "retry"),
        (Code::ReauthRequired, None, "reauth"),
        (Code::UnknownGrant, None, "unknown grant"),
    ];
    for (code, after, expected) in table {
        let mut world = stable(5);
        newer(&mut world, 1, 5);
        no(&mut world, 1, code, after);
        assert_eq!(answers(&mut world), [format!("answer 1: {expected}")], "{code:?}");
    }
    let mut world = stable(5);
    newer(&mut world, 1, 5);
    no(&mut world, 1, Code::RateLimited, Some(30));
    world = world.read();
    newer(&mut world, 2, 5);
    assert_eq!(answers(&mut world), ["answer 2: retry"]);
    assert_eq!(
        world.acts(),
        [""; 0],
        "nothing is asked before the time that the hub gave"
    );
    world = world.pass(secs(31));
    newer(&mut world, 3, 5);
    assert_eq!(world.acts(), ["refresh 5 Rejected"]);
}

#[test]
fn health_that_needs_a_person_is_told_without_asking() {
    for (health, expected) in [
        (Health::ReauthRequired, "answer 1: reauth"),
        (Health::Deleted, "answer 1: unknown grant"),
    ] {
        let mut world = stable(5).status(6, health).read();
        ask(&mut world, 1, Need::Validity(secs(60)));
        assert_eq!(answers(&mut world), [expected]);
        assert_eq!(world.acts(), [""; 0]);
    }
}

#[test]
fn old_news_that_are_bad_are_not_passed_on() {
    let mut world = stable(5).status(6, Health::ReauthRequired).ended(None).read();
    ask(&mut world, 1, Need::Validity(secs(60)));
    assert_eq!(answers(&mut world), [""; 0], "a new login may have come meanwhile");
    world.run(secs(61));
    assert_eq!(answers(&mut world), ["answer 1: retry"], "patience ends");
}

#[test]
fn more_validity_is_asked_for_without_blaming_the_token() {
    for (mut world, live) in [(stable(5), true), (blocked(5), false)] {
        world = world.pass(secs(3000)).read();
        if !live {
            world = world.polled(Ok(None)).read();
        }
        ask(&mut world, 1, Need::Validity(secs(1200)));
        let acts = world.acts();
        assert!(acts.contains(&"GET token for 1200".to_owned()), "{acts:?}");
        let token = world.minted(6);
        world.tell(Input::Fetched(id(1), Ok(Box::new(token))));
        assert_eq!(answers(&mut world), ["answer 1: token 6"]);
    }
}

#[test]
fn a_token_that_still_works_goes_with_the_bad_news() {
    let mut world = stable(5).pass(secs(3000)).read();
    ask(&mut world, 1, Need::Validity(secs(1200)));
    let refusal = Refusal {
        code: Code::Unavailable,
        message: "the provider is down".into(),
        retry_at: None,
    };
    let trouble = HttpTrouble::Status {
        status: 503,
        retry_after: None,
        problem: Some(refusal),
    };
    world.tell(Input::Fetched(id(1), Err(trouble)));
    assert_eq!(answers(&mut world), ["answer 1: retry, token 5"]);
}
