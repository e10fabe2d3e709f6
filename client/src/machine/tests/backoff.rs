//! When to try again.

use std::time::Duration;

use lockstep_protocol::{
    Code, Epoch, HubFrame, UnixSeconds,
    frame::{Goaway, ReconnectAfter, Resume},
};

use super::{
    blocked, millis, secs, stable,
    world::{Dice, Shop, World, grant},
    young,
};
use crate::{
    event::TransportChoice,
    machine::{HttpTrouble, Input, Need, NoAccess, NotOpened, Refusal, WaiterId, access::Access, backoff::Backoff},
    timing,
};

#[test]
fn full_jitter_between_zero_and_a_bound_that_doubles() {
    let mut dice = Dice(1);
    let bounds = [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
    let draws: Vec<Vec<u64>> = (0..400)
        .map(|_| {
            let mut backoff = Backoff::new(millis(500), secs(30));
            let next = bounds
                .iter()
                .map(|_| u64::try_from(backoff.next(&mut dice).as_millis()).unwrap());
            next.collect()
        })
        .collect();
    for (step, bound) in bounds.into_iter().enumerate() {
        let drawn: Vec<_> = draws.iter().map(|draw| draw[step]).collect();
        assert!(drawn.iter().all(|wait| *wait <= bound), "step {step}");
        let low = drawn.iter().filter(|wait| **wait < bound / 10).count();
        let high = drawn.iter().filter(|wait| **wait > bound - bound / 10).count();
        assert!(
            low > 10 && high > 10,
            "step {step}: all of 0..={bound} is drawn ({low}, {high})"
        );
    }
}

/// The waits of attempts that all end like `attempt`, in milliseconds.
fn waits(mut world: World, rounds: usize, attempt: impl Fn(World) -> World) -> Vec<u64> {
    let mut waits = Vec::new();
    for _ in 0..rounds {
        world = attempt(world);
        let word = world
            .words()
            .into_iter()
            .rfind(|word| word.starts_with("disconnected"))
            .unwrap();
        let wait = word.split(' ').rev().nth(1).unwrap().parse().unwrap();
        waits.push(wait);
        world = world.pass(millis(wait)).read();
    }
    waits
}

fn ws_only() -> World {
    World::with(|setup, _, _| setup.transport = TransportChoice::Ws).start()
}

#[test]
fn a_connection_that_does_not_last_does_not_reset_it() {
    let short = |world: World| {
        world
            .opened()
            .welcomed(Resume::Reset)
            .synced(0)
            .pass(secs(4))
            .ended(None)
    };
    let long = |world: World| {
        world
            .opened()
            .welcomed(Resume::Reset)
            .synced(0)
            .pass(secs(6))
            .ended(None)
    };
    let shorts = waits(ws_only(), 40, short);
    assert!(shorts[10..].iter().any(|wait| *wait > 10_000), "it grows: {shorts:?}");
    let longs = waits(ws_only(), 40, long);
    assert!(longs.iter().all(|wait| *wait <= 500), "each starts anew: {longs:?}");
}

#[test]
fn what_the_hub_asks_for_is_obeyed() {
    let status = |status, retry_after, problem| HttpTrouble::Status {
        status,
        retry_after,
        problem,
    };
    let upgrade = waits(ws_only(), 1, |world| world.refused(503, Some(secs(77))));
    assert!(upgrade[0] >= 77_000, "{upgrade:?}");

    let poll = waits(blocked(1), 1, |world| {
        world.polled(Err(status(429, Some(secs(88)), None)))
    });
    assert!(poll[0] >= 88_000, "{poll:?}");

    let told = waits(blocked(1), 1, |world| {
        let refusal = Refusal {
            code: Code::Unavailable,
            message: "full".into(),
            retry_at: Some(UnixSeconds(world.now.unix.0 / 1000 + 99)),
        };
        world.polled(Err(status(503, None, Some(refusal))))
    });
    assert!(told[0] >= 98_000, "{told:?}");

    let mut shop = World::new();
    shop.shop = Shop::Refuses(NoAccess::Later {
        reason: "busy".into(),
        retry_after: Some(secs(66)),
    });
    let access = waits(shop, 1, World::start);
    assert!(access[0] >= 66_000, "{access:?}");
}

#[test]
fn a_hub_that_speaks_of_two_epochs_is_not_asked_without_a_pause() {
    let world = World::with(|setup, _, _| setup.transport = TransportChoice::Ws).start();
    let waits = waits(world, 200, |world| {
        let mut world = world.opened().welcomed(Resume::Reset);
        let mut token = world.minted(1);
        token.cursor.epoch = Epoch(0xbad);
        world.frame(HubFrame::Token(token));
        world
    });
    let late: u64 = waits[20..].iter().sum::<u64>() / 180;
    assert!((10_000..20_000).contains(&late), "15 s on average: {late} ms");
}

fn no_shop(world: &mut World) {
    world.shop = Shop::Refuses(NoAccess::Later {
        reason: "busy".into(),
        retry_after: None,
    });
}

fn bought(world: &mut World) -> usize {
    world.acts().iter().filter(|act| *act == "buy").count()
}

#[test]
fn a_caller_that_waits_does_not_make_the_client_buy_without_a_pause_where_nothing_is_sold() {
    // The WebSocket outlives the device access token; more validity is asked for over HTTP.
    let mut world = stable(5).pass(secs(2000)).read();
    no_shop(&mut world);
    world.tell(Input::Ask {
        waiter: WaiterId(1),
        grant: grant(),
        need: Need::Validity(secs(3600)),
        patience: secs(100),
    });
    world.run(secs(50));
    let times = bought(&mut world);
    assert!((3..20).contains(&times), "{times}");
    assert!(
        world.words().iter().all(|word| !word.starts_with("disconnected")),
        "what is connected stays so"
    );
    world.shop = Shop::Open;
    world.run(secs(31));
    let acts = world.acts();
    assert_eq!(acts[..2], ["buy", "GET token for 3600"], "{acts:?}");
}

#[test]
fn nor_does_a_probe_of_the_websocket() {
    let mut world = blocked(5).pass(secs(1)).read();
    no_shop(&mut world);
    world.machine.access = Access::new(&timing::DEFAULT);
    world.run(secs(120));
    let times = bought(&mut world);
    assert!((3..30).contains(&times), "{times}");
}

#[test]
fn a_hub_that_is_down_is_asked_ever_more_rarely_for_as_long_as_it_takes() {
    let down = |world: World| world.not_opened(NotOpened::Unreachable("refused".into()));
    let waits = waits(World::new().start(), 300, down);
    assert!(waits.iter().all(|wait| *wait <= 30_000));
    let late: u64 = waits[20..].iter().sum::<u64>() / 280;
    assert!((10_000..20_000).contains(&late), "15 s on average: {late} ms");
}

fn away(min_ms: u64, max_ms: u64) -> HubFrame {
    HubFrame::Goaway(Goaway {
        reason: "restart".into(),
        reconnect_after: ReconnectAfter { min_ms, max_ms },
    })
}

#[test]
fn goaway_says_when_to_leave_and_the_client_comes_back_at_once() {
    let mut world = stable(3);
    world.frame(away(4000, 6000));
    world.run(millis(3900));
    assert_eq!(world.acts(), [""; 0], "pushes still come until then");
    world = world.token(4);
    assert_eq!(world.acts(), ["ack 4"]);
    world.run(millis(2200));
    assert_eq!(world.acts(), ["shut 1001", "open"]);
    assert_eq!(
        world.words(),
        ["show token 4", "disconnected, ws in 0 ms", "connecting over ws"]
    );
}

#[test]
fn a_hub_that_closes_before_that_is_not_asked_sooner() {
    for (end, what) in [(Some(1001), "closed"), (None, "cut")] {
        let mut world = stable(3);
        world.frame(away(4000, 6000));
        world = world.pass(secs(1)).ended(end);
        world.run(millis(2900));
        assert_eq!(world.acts(), [""; 0], "{what}");
        world.run(millis(2200));
        assert_eq!(world.acts(), ["open"], "{what}");
    }
}

#[test]
fn goaway_spreads_the_clients_and_is_bounded() {
    let leaves = |seed: u64, min_ms, max_ms| {
        let mut world = stable(1);
        world.dice.0 = seed;
        world.frame(away(min_ms, max_ms));
        let mut waited = Duration::ZERO;
        while !world.acts().contains(&"open".to_owned()) {
            world.run(millis(500));
            waited += millis(500);
        }
        waited
    };
    let drawn: Vec<_> = (0..50).map(|seed| leaves(seed, 1000, 9000)).collect();
    assert!(
        drawn.iter().all(|wait| (secs(1)..=millis(9500)).contains(wait)),
        "{drawn:?}"
    );
    assert!(
        drawn.iter().any(|w| *w < secs(3)) && drawn.iter().any(|w| *w > secs(7)),
        "{drawn:?}"
    );
    assert!(
        leaves(1, u64::MAX, u64::MAX) <= millis(600_500),
        "nobody is sent away for ever"
    );
    assert!(
        leaves(1, 9000, 1000) <= millis(9500),
        "a span the wrong way round is no span"
    );
}

#[test]
fn a_young_session_with_a_goaway_is_no_blocked_websocket() {
    let mut world = young(1);
    world.frame(away(0, 0));
    world.run(millis(1));
    assert_eq!(world.acts(), ["shut 1001", "open"]);
}
