//! What is held (promise P3): nothing goes back within an epoch, and a reset drops everything.

use lockstep_protocol::{
    Cursor, Epoch, HubFrame, Seq, Version,
    frame::{Health, Resume, Status, Synced},
};

use super::{
    secs, stable,
    world::{World, cursor, grant, status},
};

#[test]
fn a_frame_not_above_the_held_seq_is_dropped() {
    type Happens = fn(World) -> World;
    let table: [(&str, Happens, &[&str]); 8] = [
        ("an older token", |w| w.token(4), &[]),
        ("the same token", |w| w.token(5), &[]),
        ("a newer token", |w| w.token(6), &["show token 6"]),
        ("an older status", |w| w.status(4, Health::Suspect), &[]),
        (
            "a status of equal seq",
            |w| w.status(5, Health::Suspect),
            &["show Suspect 5, token 5"],
        ),
        (
            "a newer status",
            |w| w.status(6, Health::ReauthRequired),
            &["show ReauthRequired 6"],
        ),
        (
            "a passing word",
            |w| w.status(5, Health::Refreshing),
            &["show Refreshing 5, token 5"],
        ),
        ("a passing word of old", |w| w.status(4, Health::Refreshing), &[]),
    ];
    for (what, happen, expected) in table {
        let mut world = happen(stable(5));
        assert_eq!(world.words(), expected, "{what}");
    }
}

#[test]
fn a_version_does_not_go_back_even_if_its_seq_does_not() {
    let mut world = stable(5);
    let mut token = world.minted(9);
    token.version = Version(3);
    world.frame(HubFrame::Token(token));
    assert_eq!(world.words(), [""; 0]);
}

#[test]
fn a_passing_word_ends_by_itself_and_is_not_acked() {
    let mut world = stable(5).status(5, Health::Refreshing).pass(secs(44));
    assert_eq!(world.words(), ["show Refreshing 5, token 5"]);
    world.run(secs(2));
    assert_eq!(world.words(), ["show token 5"]);
    assert_eq!(world.acts(), [""; 0]);
}

#[test]
fn a_token_ends_a_passing_word() {
    let mut world = stable(5).status(5, Health::Refreshing).token(6);
    assert_eq!(world.words(), ["show Refreshing 5, token 5", "show token 6"]);
    world.run(secs(60));
    assert_eq!(world.words(), [""; 0]);
}

#[test]
fn deleted_takes_the_token_away() {
    let mut world = stable(5).status(6, Health::Deleted);
    assert_eq!(world.words(), ["show Deleted 6"]);
    assert!(world.machine.held.lease(&grant()).is_none());
}

#[test]
fn a_reset_drops_what_was_held_once_it_is_certain() {
    let mut world = stable(5).ended(None).until_open().opened().read();
    world = world.welcomed(Resume::Reset);
    assert_eq!(
        world.words(),
        ["connected over ws"],
        "applications keep what they have until the rest has come"
    );
    world = world.synced(1);
    assert_eq!(world.words(), ["show nothing", "synced over ws"]);
    assert_eq!(world.acts(), ["ack 1"]);
}

#[test]
fn after_a_reset_versions_and_seqs_begin_anew() {
    let mut world = stable(5)
        .ended(None)
        .until_open()
        .opened()
        .welcomed(Resume::Reset)
        .read();
    world = world.token(2).synced(2);
    assert_eq!(world.words(), ["show token 2", "show token 2", "synced over ws"]);
    assert_eq!(world.acts(), ["ack 2"]);
}

#[test]
fn an_epoch_that_changed_without_a_reset_is_a_reset() {
    let mut world = stable(5).ended(None).until_open().opened().read();
    let epoch = Epoch(0xf);
    let welcome = lockstep_protocol::frame::Welcome {
        session: lockstep_protocol::SessionId(uuid::Uuid::nil()),
        user: "alice".parse().unwrap(),
        epoch,
        time: lockstep_protocol::UnixSeconds(world.now.unix.0 / 1000),
        heartbeat: 30,
        resume: Resume::Uptodate,
    };
    world.frame(HubFrame::Welcome(welcome));
    let cursor = Cursor { epoch, seq: Seq(1) };
    world.frame(HubFrame::Synced(Synced { cursor }));
    assert_eq!(world.words(), ["connected over ws", "show nothing", "synced over ws"]);
    assert_eq!(world.machine.held.cursor(), Some(cursor));
}

#[test]
fn a_frame_of_another_epoch_makes_the_client_say_hello_again() {
    let mut world = stable(5);
    let cursor = Cursor {
        epoch: Epoch(0xf),
        seq: Seq(9),
    };
    world.frame(HubFrame::Status(Status {
        cursor,
        seq: Seq(9),
        ..status(9, Health::Suspect)
    }));
    assert_eq!(world.acts(), ["shut 1000", "open"]);
    assert_eq!(world.words(), ["connecting over ws"], "and nothing of it is shown");
}

#[test]
fn a_late_word_of_an_old_connection_counts_for_nothing() {
    let mut world = stable(5);
    let old = world.link;
    world = world.ended(None).until_open().read();
    let token = world.minted(6);
    world.tell(crate::machine::Input::Frame(old, Box::new(HubFrame::Token(token))));
    world.tell(crate::machine::Input::Ended(old, Some(4403)));
    assert_eq!(world.words(), [""; 0]);
    assert_eq!(world.acts(), [""; 0]);
}

#[test]
fn the_cursor_vouches_only_for_what_is_complete() {
    let at = |world: &World| world.machine.held.cursor().map(|cursor| cursor.seq.0);
    let mut world = World::new().start().opened().welcomed(Resume::Reset).token(9);
    assert_eq!(at(&world), Some(0), "what came before 9 may still be on its way");
    world = world.synced(9);
    assert_eq!(at(&world), Some(9));
    world = world.token(12);
    assert_eq!(at(&world), Some(12), "from then on frames come in order of seq");
    assert_eq!(world.machine.held.cursor(), Some(cursor(12)));
}
