//! Sleep, frozen processes and clocks that jump.

use std::time::Duration;

use lockstep_protocol::frame::Resume;

use super::{blocked, secs, stable, world::World};
use crate::{clock::Unix, machine::Input};

fn slept(world: &mut World) {
    world.sleep(secs(600));
}

fn slept_a_little(world: &mut World) {
    world.sleep(secs(1));
}

fn frozen(world: &mut World) {
    world.advance(secs(30));
}

fn busy(world: &mut World) {
    world.advance(secs(12));
}

fn set_forward(world: &mut World) {
    world.now.unix = world.now.unix.plus(secs(3600));
}

fn set_back(world: &mut World) {
    world.now.unix = Unix(world.now.unix.0 - 3_600_000);
}

fn slewed(world: &mut World) {
    world.now.unix = world.now.unix.plus(secs(1));
}

#[test]
fn what_wakes_a_client() {
    type Happens = fn(&mut World);
    let table: [(&str, Happens, Option<&str>); 7] = [
        ("slept ten minutes", slept, Some("woke after 600 s")),
        ("slept a second", slept_a_little, None),
        ("the process was stopped", frozen, Some("woke after 25 s")),
        ("a busy machine", busy, None),
        ("the clock was set forward", set_forward, Some("woke after 3600 s")),
        ("the clock was set back", set_back, Some("woke after 3600 s")),
        ("the clock was slewed", slewed, None),
    ];
    for (what, happen, expected) in table {
        let mut world = stable(2);
        happen(&mut world);
        world.tell(Input::Tick);
        let words = world.words();
        assert_eq!(words.first().map(String::as_str), expected, "{what}: {words:?}");
        let acts = world.acts();
        match expected {
            None => assert_eq!(acts, [""; 0], "{what}"),
            Some(_) => assert_eq!(acts.last().unwrap(), "open", "{what}: {acts:?}"),
        }
    }
}

#[test]
fn it_looks_at_its_clocks_every_few_seconds() {
    let world = stable(2);
    let next = world.machine.next_timeout().unwrap().since(world.now.mono);
    assert!(
        next <= secs(5),
        "a timer that stops in suspend must not be waited out: {next:?}"
    );
}

#[test]
fn a_client_that_wakes_connects_anew_at_once_from_its_cursor() {
    let mut world = stable(2);
    world.sleep(secs(20));
    world.tell(Input::Tick);
    assert_eq!(world.acts(), ["shut 1000", "open"]);
    world = world.opened().welcomed(Resume::Delta).token(3).synced(3);
    assert_eq!(world.acts(), ["hello after 2", "ack 3"]);
}

#[test]
fn so_does_one_that_waits_for_a_hub() {
    let mut world = World::new().start();
    for _ in 0..20 {
        world = world.not_opened(crate::machine::NotOpened::Unreachable("down".into()));
        world = world.until_open().read();
    }
    world = world
        .not_opened(crate::machine::NotOpened::Unreachable("down".into()))
        .read();
    world.sleep(secs(20));
    world.tell(Input::Tick);
    assert_eq!(world.acts(), ["open"], "without waiting for the rest of the back-off");
    world = world.not_opened(crate::machine::NotOpened::Unreachable("down".into()));
    let word = world.words().pop().unwrap();
    let wait: u64 = word.split(' ').rev().nth(1).unwrap().parse().unwrap();
    assert!(wait <= 500, "and the back-off begins anew: {word}");
}

#[test]
fn a_poller_that_wakes_polls_at_once_and_tries_a_websocket() {
    let mut world = blocked(2);
    world.sleep(secs(3000));
    world.tell(Input::Tick);
    assert_eq!(world.acts(), ["stop poll", "buy", "poll after 2 for 0"]);
    world = world.polled(Ok(None));
    assert_eq!(
        world.acts(),
        ["poll after 2 for 25", "open"],
        "the network may be another one"
    );
}

#[test]
fn the_application_may_say_so_itself() {
    let mut world = stable(2);
    world.tell(Input::Resync);
    assert_eq!(world.acts(), ["shut 1000", "open"]);
    assert_eq!(world.words(), ["connecting over ws"]);
}

#[test]
fn a_token_is_not_fresher_because_the_clock_was_set_back() {
    let mut world = stable(2);
    let lease = |world: &World| world.machine.held.lease(&super::world::grant()).unwrap();
    let before = lease(&world).remaining_at(world.now).unwrap();
    set_back(&mut world);
    world.tell(Input::Tick);
    assert_eq!(lease(&world).remaining_at(world.now).unwrap(), before);
    assert!(before > Duration::from_secs(3500));
}
