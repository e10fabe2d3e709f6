//! Which transport: when a WebSocket is believed in, when it counts as blocked, and the way back.

use lockstep_protocol::frame::Resume;

use super::{blocked, millis, secs, stable, world::World, young};
use crate::{
    clock::Mono,
    event::TransportChoice,
    machine::{HttpTrouble, Input, NotOpened},
};

const UNREACHABLE: fn() -> NotOpened = || NotOpened::Unreachable("refused".into());

/// Whether long-poll is tried at once after this.
fn falls_back(mut world: World) -> bool {
    let acts = world.acts();
    acts.iter().any(|act| act.starts_with("poll"))
}

fn opening() -> World {
    World::new().start().read()
}

#[test]
fn only_what_dislikes_websockets_leads_to_long_poll() {
    let table: [(&str, World, bool); 22] = [
        ("hub not reached", opening().not_opened(UNREACHABLE()), false),
        ("upgrade answered 400", opening().refused(400, None), true),
        ("upgrade answered 403", opening().refused(403, None), true),
        ("upgrade answered 404", opening().refused(404, None), true),
        ("upgrade answered 426", opening().refused(426, None), true),
        ("upgrade answered 500", opening().refused(500, None), true),
        ("upgrade answered 200", opening().refused(200, None), true),
        ("a busy hub: 429", opening().refused(429, None), false),
        ("the proxy of a dead hub: 502", opening().refused(502, None), false),
        ("a full hub: 503", opening().refused(503, None), false),
        ("the proxy of a slow hub: 504", opening().refused(504, None), false),
        (
            "upgrade cut",
            opening().not_opened(NotOpened::Broken("cut".into())),
            true,
        ),
        ("no answer to the upgrade", opening().pass(secs(21)), true),
        ("opened, then cut", opening().opened().ended(None), true),
        ("opened, then silent", opening().opened().pass(secs(11)), true),
        (
            "greeted, then cut",
            opening().opened().welcomed(Resume::Reset).ended(None),
            true,
        ),
        ("synced, then cut", young(1).ended(None), true),
        ("synced, then closed with 1000", young(1).ended(Some(1000)), true),
        ("synced, then the hub went away", young(1).ended(Some(1001)), false),
        ("the hub did not like our acks", young(1).ended(Some(4408)), false),
        ("a working session cut", stable(1).ended(None), false),
        ("a working session closed", stable(1).ended(Some(1006)), false),
    ];
    for (what, world, expected) in table {
        assert_eq!(falls_back(world), expected, "{what}");
    }
}

#[test]
fn refusals_of_a_busy_hub_mean_something_only_three_times_in_a_row() {
    let mut world = opening();
    for round in 1..=2 {
        world = world.refused(503, None);
        assert_eq!(world.acts(), [""; 0], "round {round}: a back-off first");
        world = world.until_open().read();
    }
    assert!(falls_back(world.refused(503, None)));
}

#[test]
fn so_does_a_websocket_that_is_closed_politely_each_time() {
    let mut world = opening();
    for round in 1..=3 {
        world = world
            .opened()
            .welcomed(Resume::Reset)
            .synced(0)
            .read()
            .ended(Some(1001));
        let polls = world.acts() == ["poll after 0 for 0"];
        assert_eq!(polls, round == 3, "round {round}");
        if round < 3 {
            world = world.until_open();
        }
    }
}

#[test]
fn a_working_session_wipes_the_refusals_before_it() {
    let mut world = opening()
        .refused(503, None)
        .until_open()
        .refused(503, None)
        .until_open();
    world = world
        .opened()
        .welcomed(Resume::Reset)
        .synced(0)
        .pass(secs(6))
        .ended(None);
    world = world.until_open().read().refused(503, None);
    assert!(!falls_back(world), "the third, but not in a row");
}

#[test]
fn opened_then_killed_is_blocked_only_if_long_poll_works_there() {
    let mut works = opening().opened().ended(None);
    assert_eq!(
        works.words(),
        ["disconnected, ws in 0 ms", "connecting over poll"],
        "no verdict yet"
    );
    works = works.polled_token(1);
    assert_eq!(
        works.words(),
        ["connected over poll", "show token 1", "synced over poll", "ws to poll"]
    );

    let mut fails = opening().opened().ended(None).read().poll_failed(500);
    let words = fails.words();
    assert!(
        words.iter().all(|word| !word.contains(" to ")),
        "the hub is down, nothing is blamed on WebSocket: {words:?}"
    );
    assert_eq!(fails.until_open().acts(), ["open"], "a WebSocket is tried again");
}

#[test]
fn nothing_is_lost_on_the_way_to_long_poll() {
    // What came between `welcome` and `synced` is held, but the cursor does not vouch for it.
    let mut world = stable(5).ended(None).until_open().read();
    world = world.opened().welcomed(Resume::Delta).token(7);
    assert_eq!(world.acts(), ["hello after 5"], "no ack before all has come");
    world = world.ended(None);
    assert_eq!(world.acts(), ["poll after 5 for 0"]);
    world = world.read().polled_token(7);
    assert_eq!(world.acts(), ["poll after 7 for 25"], "which acks 7");
}

#[test]
fn the_first_poll_is_not_held_and_the_next_are() {
    let mut world = opening().refused(403, None);
    assert_eq!(world.acts(), ["poll after - for 0"]);
    world = world.polled(Ok(None));
    assert_eq!(world.acts(), ["poll after - for 25"]);
}

#[test]
fn the_verdict_is_remembered_across_restarts_for_an_hour() {
    let world = World::with(|setup, _, _| setup.cached = true)
        .start()
        .refused(403, None)
        .polled_token(3);
    let until = world.snapshot.as_ref().unwrap().blocked_until.unwrap();
    assert_eq!(until.since(world.now.unix), secs(3600));

    let table = [
        ("just found out", 3600, TransportChoice::Auto, true),
        ("a minute left", 60, TransportChoice::Auto, true),
        ("over", 0, TransportChoice::Auto, false),
        ("by a clock that was wrong", 3601, TransportChoice::Auto, false),
        ("but the application wants a WebSocket", 60, TransportChoice::Ws, false),
        ("and the application wants long-poll", 0, TransportChoice::Poll, true),
    ];
    for (what, left, choice, polls) in table {
        let mut world = World::with(|setup, remembered, now| {
            setup.transport = choice;
            remembered.blocked_until = Some(now.unix.plus(secs(left)));
        });
        world = world.start();
        let expected = if polls {
            ["buy", "poll after - for 0"]
        } else {
            ["buy", "open"]
        };
        assert_eq!(world.acts(), expected, "{what}");
    }
}

/// The waits between probes, in seconds.
fn probes(world: &mut World, count: usize) -> Vec<u64> {
    let mut waits = Vec::new();
    let mut last = world.now.mono;
    while waits.len() < count {
        world.run(secs(1));
        if world.acts().contains(&"open".to_owned()) {
            waits.push(world.now.mono.since(last).as_secs());
            last = world.now.mono;
            let link = world.link;
            world.tell(Input::NotOpened(link, NotOpened::Broken("cut".into())));
            let words = world.words();
            assert!(
                words.iter().all(|word| !word.starts_with("disconnected")),
                "long-poll goes on: {words:?}"
            );
        }
    }
    waits
}

#[test]
fn probes_come_in_the_background_and_grow_rarer() {
    let mut world = blocked(1);
    let bounds = [30, 60, 120, 240, 480, 900, 900, 900];
    for (wait, bound) in probes(&mut world, bounds.len()).into_iter().zip(bounds) {
        assert!((bound / 2..=bound + 1).contains(&wait), "{wait} s of {bound} s");
    }
    let waits: Vec<_> = (0..20)
        .map(|seed| {
            let mut world = World::new();
            world.dice.0 = seed;
            probes(&mut world.start().refused(403, None).polled_token(1).read(), 1)[0]
        })
        .collect();
    assert!(waits.iter().min() != waits.iter().max(), "they are spread: {waits:?}");
}

#[test]
fn a_websocket_takes_over_only_after_stable_seconds_and_with_the_same_state() {
    let mut world = blocked(4).until_open().opened();
    assert_eq!(world.acts(), ["open", "hello after 4"], "the poll goes on meanwhile");
    world = world.welcomed(Resume::Uptodate).synced(4);
    assert_eq!(
        world.acts(),
        ["stop poll"],
        "while the WebSocket is on probation, the poller rests"
    );
    world = world.read().pass(secs(4));
    assert_eq!(world.words(), [""; 0]);
    world.run(secs(2));
    assert_eq!(world.words(), ["poll to ws"]);
    assert_eq!(world.acts(), [""; 0]);
}

#[test]
fn a_probe_that_is_killed_before_that_changes_nothing() {
    let probed = blocked(4).until_open().opened().welcomed(Resume::Uptodate).synced(4);
    let mut world = probed.token(5).pass(secs(2)).read().ended(None);
    assert_eq!(
        world.acts(),
        ["poll after 5 for 0"],
        "which acks what the WebSocket brought"
    );
    assert_eq!(world.words(), [""; 0]);
    world = world.polled_token(6);
    assert_eq!(world.words()[1], "show token 6");
    assert_eq!(world.acts(), ["poll after 6 for 25"]);
}

#[test]
fn a_late_answer_to_a_poll_that_was_stopped_counts_for_nothing() {
    let mut world = blocked(4)
        .until_open()
        .opened()
        .welcomed(Resume::Uptodate)
        .synced(4)
        .read();
    world = world.polled_token(5);
    assert_eq!((world.acts(), world.words()), (vec![], vec![]));
}

#[test]
fn the_choice_of_the_application_stands() {
    let mut ws = World::with(|setup, _, _| setup.transport = TransportChoice::Ws).start();
    for _ in 0..5 {
        ws = ws.refused(403, None).pass(secs(31));
        assert!(ws.acts().iter().all(|act| !act.starts_with("poll")));
    }
    let mut poll = World::with(|setup, _, _| setup.transport = TransportChoice::Poll)
        .start()
        .polled_token(1);
    for _ in 0..100 {
        poll = poll.pass(secs(25)).polled(Ok(None));
    }
    assert!(poll.acts().iter().all(|act| act != "open"));
}

#[test]
fn a_verdict_that_is_over_is_put_to_the_test_when_long_poll_fails_too() {
    let mut world = World::with(|_, remembered, now| remembered.blocked_until = Some(now.unix.plus(secs(10))));
    world = world.start().polled(Ok(None)).pass(secs(11)).read().poll_failed(500);
    world.run(secs(31));
    assert!(world.acts().contains(&"open".to_owned()));
}

#[test]
fn a_probe_that_lives_while_the_verdict_ends_does_not_make_the_client_spin() {
    let mut world = World::with(|_, remembered, now| remembered.blocked_until = Some(now.unix.plus(secs(33))));
    world = world.start().polled(Ok(None)).until_open();
    while world.now.mono.since(Mono(5_000_000)) < secs(34) {
        world.run(millis(200));
    }
    // The poll fails while the probe is on its way: back to WebSocket, of which there is one already.
    world = world
        .poll_failed(500)
        .read()
        .pass(secs(3))
        .opened()
        .welcomed(Resume::Reset)
        .synced(0);
    assert_eq!(world.acts(), ["hello"], "and no second one");
    world = world.pass(secs(60)).read().token(1);
    assert_eq!(world.acts(), ["ack 1"]);
}

#[test]
fn the_time_of_a_probe_does_not_make_a_client_spin_that_waits_for_long_poll() {
    // After waking, a probe is due at once; but first the poll must be answered, and the hub takes its time.
    let mut world = blocked(1);
    world.tell(Input::Resync);
    world = world.read().pass(secs(20));
    assert_eq!(world.acts(), [""; 0]);
    world = world.polled(Ok(None));
    assert_eq!(world.acts(), ["poll after 1 for 25", "open"]);
}

#[test]
fn a_poll_that_is_cut_for_its_length_is_followed_by_shorter_ones() {
    let broken = || Err(HttpTrouble::Broken("cut".into()));
    let mut world = blocked(1).pass(secs(10)).polled(broken());
    assert_eq!(
        world.acts(),
        ["poll after 1 for 7"],
        "seven tenths of what was too long"
    );
    assert_eq!(world.words(), [""; 0], "nothing is the matter");
    for _ in 0..32 {
        world = world.pass(secs(7)).polled(Ok(None));
    }
    assert_eq!(
        world.acts().last().unwrap(),
        "poll after 1 for 14",
        "after many good ones a longer one"
    );
}

#[test]
fn polls_that_come_back_at_once_with_nothing_do_not_spin() {
    let mut world = blocked(1);
    for _ in 0..50 {
        world = world.polled(Ok(None)).pass(secs(1));
    }
    let polls = world.acts().len();
    assert!(polls < 30, "{polls} polls in 50 s");
}
