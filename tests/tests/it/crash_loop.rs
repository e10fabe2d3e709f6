//! `kill -9` at any moment, again and again, while tokens of a second rotate.

use std::time::Duration;

use lockstep_tests::{
    Fault, Follower, GRANT, Scene, Session, Settings,
    device::{all_reach, assert_lawful},
    eventually,
    provider::Rules,
};
use rand::Rng;

const KILLS: usize = 50;
const CONVERGE_WITHIN: Duration = Duration::from_secs(30);

/// Waits for a moment to kill: anywhere, on the heels of a token call, or of a push.
async fn moment(scene: &Scene, watched: &Follower, kill: usize) {
    let jitter = Duration::from_micros(rand::rng().random_range(0..20_000));
    let calls = scene.provider.calls().len();
    let seen = watched.seen().len();
    let bound = Duration::from_millis(1_500);
    let strike = async {
        loop {
            let struck = match kill % 3 {
                0 => false,
                1 => scene.provider.calls().len() > calls,
                _ => watched.seen().len() > seen,
            };
            if struck {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(jitter).await;
    };
    let anywhere = Duration::from_millis(rand::rng().random_range(0..700));
    let bound = if kill.is_multiple_of(3) { anywhere } else { bound };
    tokio::time::timeout(bound, strike).await.ok();
}

/// The newest version that any of them saw.
fn newest(followers: &[Follower]) -> u64 {
    followers
        .iter()
        .map(|follower| follower.version(GRANT))
        .max()
        .unwrap_or(0)
}

struct Toll {
    kills: usize,
    versions: u64,
    logins: usize,
}

async fn kill_in_a_loop(scene: &mut Scene, user: &str, heal: bool) -> Toll {
    assert_eq!(scene.log_in(user).await, 1);
    let followers = scene.followers(user, 3).await;
    let probe = scene.admin.enrol(user).await;
    all_reach(&followers, GRANT, 1, CONVERGE_WITHIN).await;
    let mut logins = 1;
    let (_, welcome) = Session::connect(&scene.hub, &probe, None).await;
    for kill in 0..KILLS {
        moment(scene, &followers[0], kill).await;
        scene.hub.kill9().await;
        let seen = newest(&followers);
        scene.hub.start_again().await;

        let (session, again) = Session::connect(&scene.hub, &probe, None).await;
        assert_eq!(again["epoch"], welcome["epoch"], "kill {kill}");
        let state = session
            .frames
            .iter()
            .rev()
            .find(|frame| frame["grant"] == GRANT)
            .cloned()
            .unwrap_or_default();
        let version = state["version"].as_u64().unwrap_or(0);
        assert!(
            version >= seen,
            "kill {kill}: a device saw version {seen}, the hub has {version}"
        );
        let health = scene.grant(user).await["health"].clone();
        if heal && health != "ok" {
            scene.log_in(user).await;
            logins += 1;
        }
    }
    let version = eventually("it still rotates", CONVERGE_WITHIN, async || {
        let grant = scene.grant(user).await;
        if heal && grant["health"] != "ok" {
            scene.log_in(user).await;
        }
        (grant["health"] == "ok").then_some(grant["version"].as_u64().unwrap_or(0) + 1)
    })
    .await;
    all_reach(&followers, GRANT, version, CONVERGE_WITHIN).await;
    assert_lawful(&followers, &scene.provider);
    for follower in &followers {
        assert!(
            follower.closes().iter().all(|code| !(4400..4408).contains(code)),
            "{:?}",
            follower.closes()
        );
    }
    Toll {
        kills: KILLS,
        versions: newest(&followers),
        logins,
    }
}

fn quick(ttl: u64) -> (Rules, impl FnOnce(Settings) -> Settings) {
    let rules = Rules {
        ttl: Some(Duration::from_secs(ttl)),
        ..Rules::default()
    };
    (rules, |settings: Settings| {
        settings.example("late_wait", "1s").example("lead", "30s")
    })
}

/// A strict provider: a grant may be lost only when the kill fell between the provider's commit and the hub's; a person
/// logs in again then. No used refresh token is ever sent after its successor was seen.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_a_loop_with_a_strict_provider_takes_nobody_back_and_replays_nothing() {
    let (rules, settings) = quick(2);
    let mut scene = Scene::with(rules, settings).await;
    let toll = kill_in_a_loop(&mut scene, "alice", true).await;
    eprintln!(
        "{} kills, {} versions, {} logins",
        toll.kills, toll.versions, toll.logins
    );
    assert!(
        toll.versions > 20,
        "tokens did rotate in between: {} versions",
        toll.versions
    );
}

/// A provider with a grace, slow enough that many kills fall into the middle of a redeem: nothing is ever lost.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_a_loop_with_a_grace_loses_no_grant() {
    let (mut rules, settings) = quick(2);
    rules.grace = Duration::from_secs(10);
    let mut scene = Scene::with(rules, |s| settings(s).example("grace", "10s")).await;
    scene
        .provider
        .always(Some(Fault::SlowAnswer(Duration::from_millis(60))));
    let toll = kill_in_a_loop(&mut scene, "alice", false).await;
    eprintln!(
        "{} kills, {} versions, {} logins",
        toll.kills, toll.versions, toll.logins
    );
    assert!(!scene.provider.is_revoked("alice"), "the family lives");
    assert_eq!(toll.logins, 1);
}
