//! Device-side redeem: sealed before it is published, published until it is answered.

use lockstep_protocol::{
    Code, HubFrame, LeaseId, RequestId, Secret, Version,
    frame::{Done, Elected, ElectedLease, Error, PublishedToken, Redeem, RequestFormat, Resume},
};
use uuid::Uuid;

use super::{
    secs,
    world::{EPOCH, World, grant},
};
use crate::{
    clock::Mono,
    machine::{
        Input,
        redeem::{self, Issued, Kept, Reply},
    },
};

const LEASE: LeaseId = LeaseId(Uuid::from_u128(42));

fn redeemer() -> World {
    let world = World::with(|setup, _, _| setup.redeemer = true).start().opened();
    world.welcomed(Resume::Reset).token(5).synced(5).pass(secs(6)).read()
}

fn elected(world: &mut World) {
    world.frame(HubFrame::Elected(Elected {
        grant: grant(),
        lease: ElectedLease {
            id: LEASE,
            expires_in: 45,
            renew_every: 15,
        },
        from_version: Version(5),
    }));
}

fn handed(world: &mut World) {
    world.frame(HubFrame::Redeem(Redeem {
        grant: grant(),
        lease: LEASE,
        from_version: Version(5),
        refresh_token: Secret::new("rt-5"),
        token_endpoint: "http://127.0.0.1:9/token".into(),
        client_id: "app".into(),
        request_format: RequestFormat::Form,
        scope: None,
        send_within: 5,
        deadline: 30,
    }));
}

fn issued() -> PublishedToken {
    PublishedToken {
        access_token: Secret::new("at-6"),
        refresh_token: Some(Secret::new("rt-6")),
        expires_in: Some(3600),
        scope: None,
        token_type: "Bearer".into(),
    }
}

fn came(world: &mut World, reply: Reply) {
    world.tell(Input::Redeem(redeem::Input::Came(LEASE, reply)));
}

fn kept(world: &mut World) {
    world.tell(Input::Redeem(redeem::Input::Kept(LEASE)));
}

fn answer(world: &mut World, id: &str, answer: Result<(), Code>) {
    let id = RequestId::new(id).unwrap();
    world.frame(match answer {
        Ok(()) => HubFrame::Done(Done {
            id,
            grant: grant(),
            version: Version(6),
        }),
        Err(code) => HubFrame::Error(Error {
            id: Some(id),
            grant: Some(grant()),
            code,
            message: "no".into(),
            retry_at: None,
        }),
    });
}

/// A redeemer that has published and waits for the answer.
fn published() -> World {
    let mut world = redeemer();
    elected(&mut world);
    handed(&mut world);
    came(&mut world, Reply::Issued(Box::new(issued())));
    kept(&mut world);
    world
}

/// Everything from the cut on, up to a new connection that is synced.
fn reconnected(world: World) -> World {
    world
        .ended(None)
        .until_open()
        .opened()
        .welcomed(Resume::Uptodate)
        .synced(5)
}

#[test]
fn a_redeem_from_end_to_end() {
    let mut world = redeemer();
    elected(&mut world);
    assert_eq!(world.acts(), ["accept"]);
    handed(&mut world);
    assert_eq!(
        world.acts(),
        ["note, then redeem"],
        "a note is on disk before the token leaves"
    );
    came(&mut world, Reply::Issued(Box::new(issued())));
    assert_eq!(world.acts(), ["seal"], "and nothing is published before it is sealed");
    world.run(secs(10));
    assert_eq!(world.acts(), [""; 0]);
    kept(&mut world);
    assert_eq!(world.acts(), ["publish p1 for 3590"], "its life has run meanwhile");
    answer(&mut world, "p1", Ok(()));
    assert_eq!(world.acts(), ["forget"]);
    assert_eq!(
        world.words(),
        [
            "redeem: Elected",
            "redeem: Redeeming",
            "redeem: Sealed",
            "redeem: Publishing",
            "redeem: Published { version: Version(6) }"
        ]
    );
}

#[test]
fn a_lease_is_renewed_while_the_provider_is_asked() {
    let mut world = redeemer();
    elected(&mut world);
    handed(&mut world);
    world = world.read().pass(secs(31));
    assert_eq!(world.acts(), ["renew", "renew"]);
    came(&mut world, Reply::NotSent("down".into()));
    answer(&mut world, "p1", Ok(()));
    world = world.read().pass(secs(60));
    assert_eq!(world.acts(), [""; 0], "and no longer");
}

#[test]
fn what_is_not_answered_is_published_again() {
    let mut world = published().read().pass(secs(11));
    assert_eq!(world.acts(), ["publish p2 for 3590"], "after a while");
    world = reconnected(world);
    let last = world.acts().pop().unwrap();
    assert!(
        last.starts_with("publish p3 for "),
        "and on the next connection: {last}"
    );
    answer(&mut world, "p2", Ok(()));
    assert_eq!(world.acts(), [""; 0], "an answer of the old connection is none");
    answer(&mut world, "p3", Ok(()));
    assert_eq!(world.acts(), ["forget"]);
}

#[test]
fn any_answer_on_the_same_connection_is_the_answer() {
    let mut world = published().pass(secs(31)).read();
    answer(&mut world, "p1", Ok(()));
    assert_eq!(world.acts(), ["forget"]);
}

#[test]
fn a_redeem_goes_on_without_a_connection() {
    let mut world = redeemer();
    elected(&mut world);
    handed(&mut world);
    world = world.read().ended(None);
    came(&mut world, Reply::Issued(Box::new(issued())));
    kept(&mut world);
    assert_eq!(world.acts(), ["seal"]);
    world = world.until_open().opened().welcomed(Resume::Uptodate).synced(5);
    let last = world.acts().pop().unwrap();
    assert!(last.starts_with("publish p1 for "), "{last}");
}

#[test]
fn what_the_hub_says_to_a_result() {
    // The answer; how many times it must be said until the result is given up.
    let table = [
        (Code::Superseded, Some(1)),
        (Code::UnknownGrant, Some(1)),
        (Code::BadFrame, Some(1)),
        (Code::TooLarge, Some(1)),
        (Code::NotElected, Some(3)),
        (Code::Unauthorized, Some(3)),
        (Code::ReauthRequired, Some(3)),
        (Code::Unavailable, None),
        (Code::RateLimited, None),
        (Code::Suspect, None),
    ];
    for (code, given_up) in table {
        let mut world = published().read();
        let said = (1..=20).find(|said| {
            answer(&mut world, &format!("p{said}"), Err(code));
            let forgotten = world.acts().contains(&"forget".to_owned());
            world.run(secs(11));
            forgotten
        });
        assert_eq!(said, given_up, "{code:?}");
    }
}

#[test]
fn failures_are_told_as_they_were_seen() {
    let lost = Reply::Sent {
        status: None,
        error: None,
        detail: "cut".into(),
    };
    for (reply, sent) in [(Reply::NotSent("refused".into()), false), (lost, true)] {
        let mut world = redeemer();
        elected(&mut world);
        handed(&mut world);
        world = world.read();
        came(&mut world, reply);
        assert_eq!(world.acts(), [format!("failed p1 sent {sent}")]);
        answer(&mut world, "p1", Ok(()));
        assert_eq!(world.acts(), ["forget"]);
    }
}

#[test]
fn elections_are_declined_by_who_does_not_redeem_or_has_enough() {
    let mut world = super::stable(5);
    elected(&mut world);
    assert_eq!(world.acts(), ["failed p1 sent false"]);

    let mut busy = redeemer();
    for lease in 0..17 {
        busy.frame(HubFrame::Elected(Elected {
            grant: grant(),
            lease: ElectedLease {
                id: LeaseId(Uuid::from_u128(lease)),
                expires_in: 45,
                renew_every: 15,
            },
            from_version: Version(5),
        }));
    }
    assert_eq!(busy.acts().last().unwrap(), "failed p1 sent false");
}

#[test]
fn an_election_that_comes_to_nothing_is_forgotten() {
    let mut world = redeemer();
    elected(&mut world);
    world = world.pass(secs(46)).read();
    world.tell(Input::Close);
    assert_eq!(world.acts(), ["shut 1000", "stop"], "nothing is waited for");
}

#[test]
fn a_token_that_is_handed_out_twice_is_redeemed_once() {
    let mut world = redeemer();
    elected(&mut world);
    handed(&mut world);
    handed(&mut world);
    assert_eq!(world.acts(), ["accept", "note, then redeem"]);
}

#[test]
fn the_clock_runs_since_accept_and_not_since_redeem() {
    let mut world = redeemer();
    elected(&mut world);
    let accepted = world.now.mono;
    world.run(secs(3));
    let commands = world.machine.handle(
        Input::Frame(
            world.link,
            Box::new(HubFrame::Redeem(Redeem {
                grant: grant(),
                lease: LEASE,
                from_version: Version(5),
                refresh_token: Secret::new("rt-5"),
                token_endpoint: "http://127.0.0.1:9/token".into(),
                client_id: "app".into(),
                request_format: RequestFormat::Form,
                scope: None,
                send_within: 5,
                deadline: 30,
            })),
        ),
        world.now,
        &mut world.dice,
    );
    let bounds = commands.iter().find_map(|command| match command {
        crate::machine::Command::Redeem(redeem::Command::Send {
            leave_by, answer_by, ..
        }) => Some((*leave_by, *answer_by)),
        _ => None,
    });
    assert_eq!(bounds, Some((accepted + secs(5), accepted + secs(30))));
}

#[test]
fn what_an_earlier_run_left_is_brought_to_an_end() {
    let left = |result| Kept {
        lease: LEASE,
        grant: grant(),
        epoch: EPOCH,
        from_version: Version(5),
        result,
    };
    let start = |kept: Kept| {
        let world = World::with(|setup, remembered, _| {
            setup.redeemer = true;
            remembered.redeems = vec![kept];
        });
        world.start().opened().welcomed(Resume::Reset).read().synced(5)
    };
    let result = Issued {
        token: issued(),
        at: Mono(5_000_000),
    };
    let mut with_result = start(left(Some(result)));
    assert_eq!(with_result.acts(), ["publish p1 for 3600", "ack 5"]);

    let mut without = start(left(None));
    assert_eq!(
        without.acts(),
        ["failed p1 sent true", "ack 5"],
        "nobody can know that it was not sent"
    );
}

#[test]
fn a_farewell_waits_for_the_answer_but_not_for_ever() {
    let mut world = published().read();
    world.tell(Input::Close);
    assert_eq!(world.acts(), [""; 0]);
    answer(&mut world, "p1", Ok(()));
    assert_eq!(world.acts(), ["forget", "shut 1000", "stop"]);

    let mut never = published();
    never.tell(Input::Close);
    never = never.read().pass(secs(61));
    assert_eq!(never.acts().last().unwrap(), "stop");
}
