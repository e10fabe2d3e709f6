//! nginx between the hub and devices on the SDK: whatever it does to WebSockets, every device holds the newest token.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lockstep_tests::{
    BOUND, Fleet, GRANT, Nginx, Scene, eventually,
    nginx::{Manner, Passed},
};

const DEVICES: usize = 4;
const ROTATIONS: u64 = 30;
/// A device does this much besides one answered poll for each rotation: it buys a token, tries the WebSocket, falls back.
const BESIDES: u64 = 12;
/// Where WebSockets do not pass, a device looks no sooner than after this whether they do by now.
const LOOKS_AGAIN_AFTER: Duration = Duration::from_secs(15);

/// What a run came to.
struct Run {
    transports: BTreeMap<&'static str, usize>,
    passed: Vec<Passed>,
    /// Since the first device was started.
    lasted: Duration,
}

impl Run {
    fn upgrades(&self, status: u16) -> usize {
        let upgrade = |passed: &&Passed| passed.is_upgrade && passed.status == status;
        self.passed.iter().filter(upgrade).count()
    }

    fn count(&self, status: u16) -> usize {
        self.passed.iter().filter(|passed| passed.status == status).count()
    }

    /// The most WebSockets that devices may have tried which try so many each, and look again now and then.
    fn most_tries(&self, each: usize) -> usize {
        let looks = self.lasted.as_secs() / LOOKS_AGAIN_AFTER.as_secs();
        DEVICES * (each + usize::try_from(looks).expect("a few"))
    }
}

/// Waits until every device has met what is odd about an nginx of this manner, if that takes a while.
async fn has_shown(manner: Manner, nginx: &Nginx, fleet: &Fleet) {
    if manner == Manner::TimesOutAfter10S {
        // Each device's first long poll is cut before it is over.
        let bound = Duration::from_secs(40);
        eventually("every device has met the time-out", bound, async || {
            let cut = nginx.passed().iter().filter(|passed| passed.status == 504).count();
            (cut >= DEVICES).then_some(())
        })
        .await;
    }
    if manner == Manner::KillsAfter300Ms {
        // On a quick machine all the rotations take less than that.
        eventually("every device has given WebSockets up", BOUND, async || {
            (fleet.transports() == all("poll")).then_some(())
        })
        .await;
    }
}

/// Thirty rotations, each of which reaches every device behind an nginx of this manner, and the hub knows that it has.
async fn rotate(manner: Manner) -> Run {
    let scene = Scene::new().await;
    let nginx = Nginx::start(scene.hub.listen, manner).await;
    scene.log_in("alice").await;
    let at = format!("http://{}", nginx.listen);
    let started = Instant::now();
    let fleet = Fleet::start(&scene.admin, &at, "alice", DEVICES, |builder| builder).await;
    fleet.reach(1, BOUND).await;
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    for version in 2..=ROTATIONS + 1 {
        if version == ROTATIONS / 2 {
            has_shown(manner, &nginx, &fleet).await;
        }
        let answer = scene.admin.refresh("alice", GRANT).await.expect(200);
        assert_eq!(answer["version"], version);
        slowest = slowest.max(fleet.reach(version, BOUND).await);
    }
    eventually("the hub knows that nobody is behind", BOUND, async || {
        let view = scene.admin.user("alice").await.body;
        let devices = view["devices"].as_array()?.clone();
        devices
            .iter()
            .all(|device| device["acked"] == view["seq"])
            .then_some(())
    })
    .await;
    let took = began.elapsed();
    let transports = eventually("every device has settled", BOUND, async || {
        // A device that looks again is on a WebSocket for as long as this nginx lets it be.
        let now = fleet.transports();
        (manner != Manner::KillsAfter300Ms || now == all("poll")).then_some(now)
    })
    .await;
    let run = Run {
        transports,
        passed: nginx.passed(),
        lasted: started.elapsed(),
    };
    eprintln!(
        "{manner:?}: {DEVICES} devices, {ROTATIONS} rotations in {took:?}, the slowest device of all {slowest:?} after; \
         transports {:?}; {} requests, {} of them upgrades",
        run.transports,
        run.passed.len(),
        run.passed.iter().filter(|passed| passed.is_upgrade).count(),
    );
    assert_eq!(
        scene.provider.calls_of("alice").len() as u64,
        ROTATIONS,
        "one redeem each"
    );
    let most = DEVICES as u64 * (2 * ROTATIONS + BESIDES);
    assert!(
        run.passed.len() as u64 <= most,
        "somebody spins: {} requests",
        run.passed.len()
    );
    fleet.close().await;
    run
}

fn all(transport: &'static str) -> BTreeMap<&'static str, usize> {
    BTreeMap::from([(transport, DEVICES)])
}

#[tokio::test(flavor = "multi_thread")]
async fn where_websockets_pass_they_are_used() {
    let run = rotate(Manner::Passes).await;
    assert_eq!(run.transports, all("ws"));
    let polls = run.passed.iter().filter(|passed| passed.path == "/v1/tokens").count();
    assert_eq!(polls, 0, "nobody polls beside a WebSocket that works");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_upgrades_are_dropped_devices_poll() {
    let run = rotate(Manner::DropsUpgrades).await;
    assert_eq!(run.transports, all("poll"));
    let tried = run.upgrades(426);
    assert!((DEVICES..=run.most_tries(1)).contains(&tried), "{tried} tries");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_upgrades_are_forbidden_devices_poll() {
    let run = rotate(Manner::ForbidsUpgrades).await;
    assert_eq!(run.transports, all("poll"));
    let tried = run.upgrades(403);
    assert!((DEVICES..=run.most_tries(1)).contains(&tried), "{tried} tries");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_websockets_open_and_are_killed_devices_poll() {
    let run = rotate(Manner::KillsAfter300Ms).await;
    assert_eq!(run.transports, all("poll"));
    let opened = run.upgrades(101);
    assert!(
        (DEVICES..=run.most_tries(2)).contains(&opened),
        "{opened} WebSockets were opened"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_pass_through_buffers_whole() {
    let run = rotate(Manner::Buffers).await;
    assert_eq!(run.transports, all("poll"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_less_patience_than_a_poll_gets_shorter_polls() {
    let run = rotate(Manner::TimesOutAfter10S).await;
    assert_eq!(run.transports, all("poll"));
    let cut = run.count(504);
    assert!(cut <= 2 * DEVICES, "{cut} polls were cut: nobody learns from it");
}
