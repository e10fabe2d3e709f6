//! `kill -9` at any moment, again and again, while tokens of two seconds rotate.
//!
//! `LOCKSTEP_KILLS=500` makes it longer than the usual 50 a test.

use std::{collections::HashMap, time::Duration};

use lockstep_tests::{
    Enrolled, Fault, Follower, GRANT, Scene, Session, Settings,
    device::{all_reach, assert_lawful},
    eventually,
    provider::{Outcome, Rules},
};
use rand::Rng;
use serde_json::Value;

const CONVERGE_WITHIN: Duration = Duration::from_secs(60);

fn kills() -> usize {
    let asked = std::env::var("LOCKSTEP_KILLS").ok();
    asked.map_or(50, |kills| kills.parse().expect("LOCKSTEP_KILLS is a number"))
}

/// Waits for a moment to kill: anywhere, on the heels of a token call, or of a push.
async fn moment(scene: &Scene, watched: &Follower, kill: usize) {
    let jitter = Duration::from_micros(rand::rng().random_range(0..60_000));
    let calls = scene.provider.calls().len();
    let seen = watched.seen().len();
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
    let bound = if kill.is_multiple_of(3) {
        anywhere
    } else {
        Duration::from_millis(1_500)
    };
    tokio::time::timeout(bound, strike).await.ok();
}

/// The newest version that any of them saw.
fn newest(followers: &[Follower]) -> u64 {
    let versions = followers.iter().map(|follower| follower.version(GRANT));
    versions.max().unwrap_or(0)
}

/// What a loop of kills cost.
#[derive(Debug, Default)]
struct Toll {
    kills: usize,
    versions: u64,
    /// Kills that fell while a redeem was with the provider.
    in_flight: usize,
    /// Token sets that the provider issued and no hub committed.
    lost: u64,
    /// Grants given up, each mended by a login.
    logins: usize,
}

struct Loop {
    scene: Scene,
    followers: Vec<Follower>,
    probe: Enrolled,
    epoch: Value,
    /// Kills so far that fell between the provider's commit and the hub's.
    lost: u64,
    toll: Toll,
}

impl Loop {
    async fn new(scene: Scene) -> Self {
        assert_eq!(scene.log_in("alice").await, 1);
        let followers = scene.followers("alice", 3).await;
        let probe = scene.admin.enrol("alice").await;
        all_reach(&followers, GRANT, 1, CONVERGE_WITHIN).await;
        let (_, welcome) = Session::connect(&scene.hub, &probe, None).await;
        Self {
            scene,
            followers,
            probe,
            epoch: welcome["epoch"].clone(),
            lost: 0,
            toll: Toll::default(),
        }
    }

    async fn view(&self) -> Value {
        self.scene.grant("alice").await
    }

    /// Kills the hub at some moment. What any device saw is there afterwards.
    async fn kill(&mut self, kill: usize) -> u64 {
        moment(&self.scene, &self.followers[0], kill).await;
        let calls = self.scene.provider.calls();
        self.toll.in_flight += usize::from(calls.iter().any(|call| call.over.is_none()));
        self.scene.hub.kill9().await;
        let seen = newest(&self.followers);
        self.scene.hub.start_again().await;
        self.toll.kills += 1;

        let (session, welcome) = Session::connect(&self.scene.hub, &self.probe, None).await;
        assert_eq!(welcome["epoch"], self.epoch, "kill {kill}");
        let state = session.frames.iter().rev().find(|frame| frame["grant"] == GRANT);
        let version = state.map_or(0, |state| state["version"].as_u64().unwrap_or(0));
        assert!(
            version >= seen,
            "kill {kill}: a device saw version {seen}, the hub has {version}"
        );
        version
    }

    /// How many token sets the provider issued that no hub committed: each rotation and each login is one generation there
    /// and one version here.
    fn lost_by(&self, version: u64) -> u64 {
        self.scene.provider.newest("alice").generation.saturating_sub(version)
    }

    /// Waits until the grant goes on from `version` or is given up: which it may only be if its newest token set was lost.
    async fn goes_on(&mut self, kill: usize, version: u64) {
        let view = eventually("the grant goes on or is given up", CONVERGE_WITHIN, async || {
            let view = self.view().await;
            let goes_on = view["version"].as_u64() > Some(version);
            (goes_on || view["health"] == "reauth_required").then_some(view)
        })
        .await;
        if view["health"] != "reauth_required" {
            return;
        }
        let lost = self.lost_by(view["version"].as_u64().unwrap_or(0));
        assert_eq!(
            lost,
            self.lost + 1,
            "kill {kill}: given up, and nothing was lost: {view}"
        );
        let reason = view["reason"].as_str().unwrap_or_default();
        assert!(
            reason.contains("unknown") && reason.contains("invalid_grant"),
            "kill {kill}: {view}"
        );
        self.lost = lost;
        self.scene.log_in("alice").await;
        self.toll.logins += 1;
    }

    /// At the end all hold the newest, and nothing unlawful was ever sent or seen.
    async fn end(mut self) -> (Scene, Toll) {
        let version = eventually("it still rotates", CONVERGE_WITHIN, async || {
            let view = self.view().await;
            (view["health"] == "ok").then_some(view["version"].as_u64().unwrap_or(0) + 1)
        })
        .await;
        all_reach(&self.followers, GRANT, version, CONVERGE_WITHIN).await;
        assert_lawful(&self.followers, &self.scene.provider);
        for follower in &self.followers {
            let closes = follower.closes();
            assert!(closes.iter().all(|code| !(4400..4408).contains(code)), "{closes:?}");
        }
        self.toll.versions = version;
        self.toll.lost = self.lost;
        eprintln!("{:?}", self.toll);
        (self.scene, self.toll)
    }
}

fn quick(settings: Settings) -> Settings {
    // The followers here never renew their own tokens, and a long loop outlasts a quarter of an hour.
    let settings = settings.set("identity.access_token_lifetime", "24h");
    settings.example("late_wait", "1s").example("lead", "30s")
}

fn rules() -> Rules {
    Rules {
        ttl: Some(Duration::from_secs(2)),
        ..Rules::default()
    }
}

/// A strict provider: a grant is lost only when the kill fell between the provider's commit and the hub's, and is reported
/// so; a person logs in again then. Of one refresh token there is the redeem and, at most, the one last try.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_a_loop_with_a_strict_provider_loses_what_fell_between_two_commits_and_nothing_else() {
    let scene = Scene::with(rules(), quick).await;
    scene
        .provider
        .always(Some(Fault::SlowAnswer(Duration::from_millis(20))));
    let mut run = Loop::new(scene).await;
    for kill in 0..kills() {
        let version = run.kill(kill).await;
        run.goes_on(kill, version).await;
    }
    let (scene, toll) = run.end().await;
    let mut sent: HashMap<String, usize> = HashMap::new();
    for call in scene.provider.calls() {
        *sent.entry(call.refresh_token).or_default() += 1;
    }
    assert!(sent.values().all(|times| *times <= 2), "{sent:?}");
    assert!(
        toll.versions as usize > toll.kills,
        "tokens did rotate in between: {toll:?}"
    );
}

/// A provider with a grace, slow enough that many kills fall into the middle of a redeem: nothing is ever lost.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_a_loop_with_a_grace_loses_no_grant() {
    let grace = Rules {
        // Longer than a start takes on a busy machine.
        grace: Duration::from_secs(60),
        ..rules()
    };
    let scene = Scene::with(grace, |settings| quick(settings).example("grace", "60s")).await;
    scene
        .provider
        .always(Some(Fault::SlowAnswer(Duration::from_millis(60))));
    let mut run = Loop::new(scene).await;
    for kill in 0..kills() {
        run.kill(kill).await;
        let view = run.view().await;
        assert_ne!(view["health"], "reauth_required", "kill {kill}: {view}");
    }
    let (scene, toll) = run.end().await;
    assert!(!scene.provider.is_revoked("alice"), "the family lives");
    let again = scene
        .provider
        .calls()
        .iter()
        .filter(|call| call.outcome == Outcome::Again)
        .count();
    eprintln!("{again} answers were fetched again");
    assert_eq!((toll.lost, toll.logins), (0, 0));
    assert!(toll.versions > 5, "tokens did rotate in between: {toll:?}");
}
