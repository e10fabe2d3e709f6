//! What ends a client for good, with which word, and what does not.

use lockstep_protocol::{Code, frame::Resume};

use super::{
    blocked, secs, stable,
    world::{Shop, World, grant},
};
use crate::machine::{HttpTrouble, Input, Need, NoAccess, Refusal, WaiterId};

#[test]
fn close_codes() {
    let stops = [(4400, "stopped 4400"), (4403, "stopped 4403"), (4409, "stopped 4409")];
    for (code, word) in stops {
        let mut world = stable(1);
        world.tell(Input::Ask {
            waiter: WaiterId(1),
            grant: grant(),
            need: Need::Newer(lockstep_protocol::Version(1)),
            patience: secs(60),
        });
        world = world.read().ended(Some(code));
        assert_eq!(world.acts(), ["stop"], "{code}");
        assert_eq!(world.words(), [&format!("answer 1: {word}"), word], "{code}");
        world.run(secs(3600));
        assert_eq!(world.acts(), [""; 0], "{code}: nothing comes after it");
    }
    for code in [1000, 1001, 1006, 1009, 1011, 4408, 4429, 4999] {
        let mut world = stable(1).ended(Some(code)).until_open();
        assert_eq!(world.acts(), ["open"], "{code}");
    }
}

#[test]
fn an_access_token_that_is_refused_is_replaced_once() {
    let mut world = World::new().start().opened().read().ended(Some(4401)).until_open();
    assert_eq!(world.acts(), ["buy other than dat-1", "open"]);
    world = world.opened().ended(Some(4401));
    assert_eq!(world.acts(), ["hello", "stop"]);
    assert_eq!(world.words().last().unwrap(), "stopped 4401");
}

#[test]
fn one_that_was_taken_meanwhile_starts_the_count_anew() {
    let mut world = World::new().start();
    for _ in 0..5 {
        world = world.opened().welcomed(Resume::Reset).synced(0).pass(secs(6)).read();
        world = world.ended(Some(4401)).until_open();
        assert_eq!(world.acts().last().unwrap(), "open");
    }
}

#[test]
fn a_credential_that_is_refused_stops_the_client() {
    let table = [
        (NoAccess::Refused("invalid_grant".into()), "stopped 4401"),
        (NoAccess::Fixed, "stopped 4401"),
    ];
    for (why, word) in table {
        let mut world = World::new();
        world.shop = Shop::Refuses(why);
        world = world.start();
        assert_eq!(world.words().last().unwrap(), word);
        assert_eq!(world.acts(), ["buy", "stop"]);
    }
}

#[test]
fn over_long_poll() {
    let status = |status, problem| {
        Err(HttpTrouble::Status {
            status,
            retry_after: None,
            problem,
        })
    };
    let refusal = || {
        Some(Refusal {
            code: Code::Unauthorized,
            message: "no".into(),
            retry_at: None,
        })
    };
    let mut once = blocked(1).polled(status(401, None));
    assert_eq!(once.acts(), ["buy other than dat-1", "poll after 1 for 0"]);
    once = once.polled(status(401, None));
    assert_eq!(
        (once.acts().pop(), once.words().pop()),
        (Some("stop".into()), Some("stopped 4401".into()))
    );

    let mut revoked = blocked(1).polled(status(403, refusal()));
    assert_eq!(revoked.words(), ["stopped 4403"]);

    let mut proxy = blocked(1).polled(status(403, None));
    assert!(
        proxy.words()[0].starts_with("disconnected"),
        "a 403 that is not the hub's own word says nothing"
    );
}

#[test]
fn close_ends_it_at_once_and_twice_is_no_more() {
    let mut world = stable(1);
    world.tell(Input::Close);
    assert_eq!(world.acts(), ["shut 1000", "stop"]);
    assert_eq!(world.words(), ["stopped 1000"]);
    world.tell(Input::Close);
    world.tell(Input::Tick);
    assert_eq!(world.acts(), [""; 0]);
    assert_eq!(world.machine.next_timeout(), None);
}
