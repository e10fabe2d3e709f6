//! An ack is a promise: it says what is held and, with a disk cache, on disk.

use lockstep_protocol::frame::{Health, Resume};

use super::{
    secs, stable,
    world::{World, grant},
};
use crate::machine::Input;

/// With a cache whose writes are answered when the test says so; 1 is on disk.
fn cached() -> World {
    let world = World::with(|setup, _, _| setup.cached = true).start().opened();
    let mut world = world.welcomed(Resume::Reset).token(1).synced(1).read();
    world.disk = false;
    world
}

#[test]
fn the_last_frame_applied_is_acked_and_each_only_once() {
    let mut world = stable(5).token(6).token(8).status(9, Health::Suspect);
    assert_eq!(world.acts(), ["ack 6", "ack 8", "ack 9"]);
    world.run(secs(60));
    assert_eq!(world.acts(), [""; 0]);
}

#[test]
fn nothing_is_acked_before_everything_has_come() {
    let mut world = World::new()
        .start()
        .opened()
        .welcomed(Resume::Reset)
        .read()
        .token(3)
        .token(4);
    assert_eq!(world.acts(), [""; 0]);
    world = world.synced(4);
    assert_eq!(world.acts(), ["ack 4"]);
}

#[test]
fn what_comes_twice_is_acked_again() {
    // The hub would not have sent it if it had seen the ack.
    let mut world = stable(5).token(5);
    assert_eq!(world.acts(), ["ack 5"]);
}

#[test]
fn what_the_cursor_said_in_hello_is_not_acked_again() {
    let mut world = stable(5).ended(None).until_open().read();
    world = world.opened().welcomed(Resume::Uptodate).synced(5);
    assert_eq!(world.acts(), ["hello after 5"]);
}

#[test]
fn with_a_cache_an_ack_waits_for_the_disk() {
    let mut world = cached().token(2);
    assert_eq!(world.acts(), ["write 2"]);
    world = world.token(3);
    assert_eq!(world.acts(), [""; 0], "one write at a time, and the newest only");
    world.tell(Input::Persisted {
        mark: world.mark,
        kept: Ok(()),
    });
    assert_eq!(world.acts(), ["write 3", "ack 2"]);
    world.tell(Input::Persisted {
        mark: world.mark,
        kept: Ok(()),
    });
    assert_eq!(world.acts(), ["ack 3"]);
}

#[test]
fn a_disk_that_fails_is_told_and_does_not_end_the_session() {
    let mut world = cached().token(2).read();
    let kept = Err("no space".into());
    world.tell(Input::Persisted { mark: world.mark, kept });
    assert_eq!(world.words(), ["cache trouble"]);
    assert_eq!(world.acts(), ["ack 2"], "it is held all the same");
}

#[test]
fn the_next_poll_acks_and_waits_for_the_disk_too() {
    let mut world = World::with(|setup, _, _| setup.cached = true)
        .start()
        .refused(403, None)
        .read();
    world.disk = false;
    world = world.polled_token(4);
    assert_eq!(world.acts(), ["write 4"], "no poll before that");
    world.tell(Input::Persisted {
        mark: world.mark,
        kept: Ok(()),
    });
    assert_eq!(world.acts(), ["poll after 4 for 25"]);
}

#[test]
fn a_restart_begins_where_the_disk_is() {
    let mut first = cached().token(7);
    first.tell(Input::Persisted {
        mark: first.mark,
        kept: Ok(()),
    });
    let kept = first.snapshot.take().unwrap();
    let mut second = World::with(|setup, remembered, _| {
        setup.cached = true;
        remembered.cursor = kept.cursor;
        remembered.grants = kept.grants.into_iter().collect();
    });
    assert!(
        second.machine.held.lease(&grant()).is_some(),
        "a token is at hand before the hub is heard"
    );
    second = second.start().opened();
    assert_eq!(second.acts(), ["buy", "open", "hello after 7"]);
}
