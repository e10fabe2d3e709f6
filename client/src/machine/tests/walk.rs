//! Whatever happens, in whatever order: the promises of a client hold, and it never spins.

use lockstep_protocol::{
    HubFrame, Seq, Version,
    frame::{Goaway, Health, ReconnectAfter, Resume},
};

use super::{
    secs,
    world::{Dice, Shop, World, grant},
};
use crate::machine::{Entropy as _, HttpTrouble, Input, Need, NoAccess, NotOpened, WaiterId, ws::Phase};

/// One thing that may happen.
#[expect(clippy::too_many_lines, reason = "a list of everything that may happen")]
fn happen(mut world: World, roll: u64, newest: &mut u64) -> World {
    let seq = *newest;
    match roll % 24 {
        0 => world.refused(403, None),
        1 => world.refused(503, Some(secs(2))),
        2 => world.not_opened(NotOpened::Unreachable("down".into())),
        3 | 4 => world.opened(),
        5 | 6 => world.welcomed(if roll.is_multiple_of(5) {
            Resume::Reset
        } else {
            Resume::Delta
        }),
        7 => {
            *newest += 1;
            world.token(seq + 1)
        }
        8 => {
            *newest += 1;
            world.status(seq + 1, Health::Suspect)
        }
        9 => world.status(seq, Health::Refreshing),
        10 => world.token(seq.saturating_sub(1).max(1)),
        11 | 12 => world.synced(seq),
        13 => world.ended(None),
        14 => world.ended(Some(1001)),
        15 => world.polled_token(seq.max(1)),
        16 => world.polled(Ok(None)),
        17 => world.poll_failed(502),
        18 => world.polled(Err(HttpTrouble::Broken("cut".into()))),
        19 => {
            world.sleep(secs(roll % 4000));
            world
        }
        20 => {
            world.shop = if roll.is_multiple_of(3) {
                Shop::Refuses(NoAccess::Later {
                    reason: "busy".into(),
                    retry_after: None,
                })
            } else {
                Shop::Open
            };
            world
        }
        21 => {
            world.frame(HubFrame::Goaway(Goaway {
                reason: "restart".into(),
                reconnect_after: ReconnectAfter {
                    min_ms: 0,
                    max_ms: 9000,
                },
            }));
            world
        }
        22 => {
            world.tell(Input::Rejected(grant(), Version(seq)));
            world.tell(Input::Ask {
                waiter: WaiterId(roll),
                grant: grant(),
                need: Need::Newer(Version(seq)),
                patience: secs(60),
            });
            world
        }
        _ => world.pass(secs(roll % 40)),
    }
}

/// What must hold of every line that the machine wrote since the last look.
fn check(world: &mut World, shown: &mut u64, reset: bool, seed: u64) {
    if reset {
        *shown = 0;
    }
    for word in world.words() {
        if word == "show nothing" {
            *shown = 0;
        } else if let Some(version) = word.strip_prefix("show token ").and_then(|v| v.parse::<u64>().ok()) {
            assert!(version >= *shown, "seed {seed}: went back from {shown} to {version}");
            *shown = version;
        }
    }
    let held = world.machine.held.newest();
    for act in world.acts() {
        if let Some(acked) = act.strip_prefix("ack ").and_then(|seq| seq.parse().ok()) {
            assert!(Seq(acked) <= held, "seed {seed}: acked {acked}, holds {held}");
        }
    }
    if let (Some(next), true) = (world.machine.next_timeout(), matches!(world.shop, Shop::Open)) {
        world.tell(Input::Tick);
        let next_now = world.machine.next_timeout().unwrap_or(next);
        assert!(
            next_now > world.now.mono,
            "seed {seed}: nothing is left to do, and yet it is due: {:#?}",
            world.machine
        );
    }
}

#[test]
fn a_random_walk() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let (mut world, mut newest, mut shown) = (World::new(), 0, 0);
        world.dice.0 = seed;
        world = world.start();
        for _ in 0..150 {
            let roll = dice.bits() >> 8;
            let reset = roll % 24 == 5 || roll % 24 == 6;
            world = happen(world, roll, &mut newest);
            check(&mut world, &mut shown, reset, seed);
        }
        // Afterwards the world is kind, and the client comes to it by itself.
        world.shop = Shop::Open;
        let converged = (0..2000).any(|_| {
            world.run(secs(1));
            world = be_kind(std::mem::replace(&mut world, World::new()), newest.max(1));
            world.machine.is_synced() && world.machine.held.newest() >= Seq(newest.max(1))
        });
        assert!(converged, "seed {seed}: {:#?}", world.machine);
    }
}

/// A hub that is there, and a network that lets everything through.
fn be_kind(world: World, newest: u64) -> World {
    match world.machine.ws.phase {
        Phase::Opening { .. } => world.opened(),
        Phase::Greeting { .. } => world.welcomed(Resume::Delta),
        Phase::Syncing { .. } => world.token(newest).synced(newest),
        Phase::Live { .. } => world.token(newest),
        Phase::Down => world.polled_token(newest),
    }
}
