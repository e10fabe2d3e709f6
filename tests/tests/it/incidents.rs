//! Incidents that users of today's programs reported: what happens to them without a hub, and that it does not with one.

use std::{fs, path::Path, process::Stdio, time::Duration};

use futures::future::join_all;
use lockstep_tests::{
    BOUND, Fault, GRANT, Provider, Scene, Session,
    cluster::holds,
    device::{all_reach, assert_lawful},
    eventually,
    naive::{Came, Program},
    provider::{Outcome, Reply, Rules},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::sleep};

fn programs(provider: &Provider, count: usize) -> Vec<Program> {
    let pair = provider.login("alice");
    (0..count).map(|_| Program::new(provider, &pair)).collect()
}

async fn all_refresh(programs: &mut [Program]) -> Vec<Came> {
    join_all(programs.iter_mut().map(Program::refresh)).await
}

async fn how_many_work(programs: &[Program]) -> usize {
    let work = join_all(programs.iter().map(Program::works)).await;
    work.into_iter().filter(|works| *works).count()
}

/// That many devices of one user that hold version 1 of its grant.
async fn devices(scene: &Scene, count: usize) -> Vec<Session> {
    let mut sessions = vec![scene.session("alice").await];
    while sessions.len() < count {
        let device = scene.admin.enrol("alice").await;
        sessions.push(Session::fresh(&scene.hub, &device).await);
    }
    sessions
}

/// All of them report `version` at once; all get the next, of one redeem, and it works.
async fn share_one_redeem(scene: &Scene, sessions: &mut [Session], version: u64) {
    let calls = scene.provider.calls().len();
    let answers = join_all(sessions.iter_mut().map(|session| session.refresh(GRANT, version))).await;
    assert!(
        answers.iter().all(|answer| answer["version"] == version + 1),
        "{answers:?}"
    );
    for session in sessions {
        let token = holds(session, version + 1).await;
        assert!(
            scene
                .provider
                .is_live(token["access_token"].as_str().unwrap_or_default())
        );
    }
    assert_eq!(scene.provider.calls().len(), calls + 1);
}

/// Ten terminals of one command-line tool share a credentials file. One wins; each loser wipes the file, the winner's
/// tokens in it included.
#[tokio::test(flavor = "multi_thread")]
async fn claude_code_losers_wipe() {
    let provider = Provider::start().await;
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("credentials.json");
    let mut terminals: Vec<_> = programs(&provider, 10).into_iter().map(|p| p.keeping(&file)).collect();

    let came = all_refresh(&mut terminals).await;

    let calls = provider.calls();
    assert_eq!(calls.iter().filter(|call| call.outcome == Outcome::Issued).count(), 1);
    assert_eq!(came.iter().filter(|came| **came == Came::LoggedOut).count(), 9);
    assert_eq!(how_many_work(&terminals).await, 0, "the winner is logged out as well");
    // Whichever wrote last: what the file holds, if anything, is dead.
    let kept: Value = serde_json::from_slice(&fs::read(&file).expect("the file")).expect("JSON");
    assert!(!provider.is_live(kept["access_token"].as_str().unwrap_or_default()));

    let scene = Scene::new().await;
    let mut terminals = devices(&scene, 10).await;
    share_one_redeem(&scene, &mut terminals, 1).await;
}

/// Seven processes, each with a copy in memory, and tokens of seconds (five minutes, in life): the first expiry ends it for
/// all of them, and every later one finds them as they are.
#[tokio::test(flavor = "multi_thread")]
async fn opencode_seven_processes_short_token() {
    // These last longer: what happens at the first expiry does not wait for it.
    let provider = Provider::start().await;
    let mut processes = programs(&provider, 7);
    assert_eq!(how_many_work(&processes).await, 7);
    all_refresh(&mut processes).await;
    assert_eq!(how_many_work(&processes).await, 0);
    assert!(provider.is_revoked("alice"));

    let rules = Rules {
        ttl: Some(Duration::from_secs(2)),
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings).await;
    scene.log_in("alice").await;
    let processes = scene.followers("alice", 7).await;
    all_reach(&processes, GRANT, 6, Duration::from_secs(60)).await;
    assert_lawful(&processes, &scene.provider);
    let calls = scene.provider.calls();
    let generations: Vec<_> = calls.iter().map(|call| call.generation).collect();
    assert!(
        generations.windows(2).all(|pair| pair[0] < pair[1]),
        "one call each: {generations:?}"
    );
    assert!(calls.iter().all(|call| call.outcome != Outcome::Reused));
}

/// Takes a lock as many programs do: a file that must not be there yet.
fn take_lock(file: &Path) -> bool {
    fs::File::options().write(true).create_new(true).open(file).is_ok()
}

/// A lock that knows neither its holder nor an end: whoever is killed while it refreshes locks everybody out until a
/// person removes the file.
#[tokio::test(flavor = "multi_thread")]
async fn nango_stuck_lock_after_kill() {
    let dir = TempDir::new().expect("a directory");
    let lock = dir.path().join("refresh.lock");
    let mut holder = Command::new("sh")
        .args([
            "-c",
            "set -C; : > \"$0\" && exec sleep 1000",
            &lock.display().to_string(),
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("a shell");
    eventually("the lock is taken", BOUND, async || lock.exists().then_some(())).await;
    holder.kill().await.expect("it can be killed");
    for _ in 0..50 {
        assert!(!take_lock(&lock), "a killed holder's lock was given up by itself");
        sleep(Duration::from_millis(10)).await;
    }

    let rules = Rules {
        ttl: Some(Duration::from_secs(6)),
        ..Rules::default()
    };
    let mut scene = Scene::with(rules, |settings| settings.example("lead", "1s")).await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    // The provider never sees it through: the hub dies while it holds the claim.
    scene
        .provider
        .fault(Fault::HoldBefore(lockstep_tests::provider::Gate::closed()));
    session.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;
    scene.hub.crash().await;
    // Nobody lifts a finger: the claim is judged, and when nothing is left to lose the token is tried once more.
    let healed = eventually("the grant is refreshed", Duration::from_secs(60), async || {
        Some(scene.grant("alice").await).filter(|grant| grant["version"].as_u64() >= Some(2))
    })
    .await;
    assert_eq!(healed["health"], "ok");
}

/// A lock of two seconds, and a provider that takes longer: the second replica takes the lock that the first has lost
/// in the middle of its refresh, and sends the same token.
#[tokio::test(flavor = "multi_thread")]
async fn oauth2_proxy_lock_lost_mid_refresh() {
    let provider = Provider::start().await;
    let mut replicas = programs(&provider, 2);
    let (one, other) = replicas.split_at_mut(1);
    provider.fault(Fault::SlowAnswer(Duration::from_millis(600)));
    let (won, lost) = tokio::join!(one[0].refresh(), async {
        provider.called("alice", 1, BOUND).await;
        // 200 ms for the two seconds of the incident: the lock is free again.
        sleep(Duration::from_millis(200)).await;
        other[0].refresh().await
    });
    assert_eq!((won, lost), (Came::Fresh, Came::LoggedOut));
    assert_eq!(
        how_many_work(&replicas).await,
        0,
        "the winner's tokens died with the family"
    );

    let scene = Scene::new().await;
    let mut replicas = devices(&scene, 2).await;
    scene.provider.fault(Fault::SlowAnswer(Duration::from_secs(4)));
    let (one, other) = replicas.split_at_mut(1);
    let (first, ()) = tokio::join!(one[0].refresh(GRANT, 1), async {
        scene.provider.called("alice", 1, BOUND).await;
        for _ in 0..5 {
            other[0].ask_refresh(GRANT, 1).await;
            sleep(Duration::from_millis(500)).await;
        }
    });
    assert_eq!(first["version"], 2);
    other[0].settle().await;
    assert_eq!(other[0].token(GRANT).expect("the push")["version"], 2);
    assert_eq!(scene.provider.calls().len(), 1);
}

/// A provider that takes JSON and says no with 401: the loser takes it for good and is logged out.
#[tokio::test(flavor = "multi_thread")]
async fn codex_refresh_token_reused_json() {
    let rules = Rules {
        refusal: Reply::empty(401)
            .header("content-type", "application/json")
            .body(r#"{"error":{"message":"Your refresh token was used already.","code":"refresh_token_reused"}}"#),
        ..Rules::default()
    };
    let provider = Provider::with(rules.clone()).await;
    let mut copies: Vec<_> = programs(&provider, 2).into_iter().map(Program::in_json).collect();
    let came = all_refresh(&mut copies).await;
    assert!(came.contains(&Came::LoggedOut), "{came:?}");
    assert!(!copies.iter().all(Program::is_logged_in));

    let scene = Scene::with(rules, |settings| settings.example("request_format", "json")).await;
    let mut copies = devices(&scene, 2).await;
    share_one_redeem(&scene, &mut copies, 1).await;
    assert!(scene.provider.calls()[0].content_type.starts_with("application/json"));

    // A full copy of the credentials that nobody told of the hub: no hub can mend that, but it says what happened, and a
    // login mends it.
    let stolen = scene.provider.newest("alice");
    scene
        .provider
        .redeem(&stolen.refresh_token)
        .expect("a pair for the copy");
    copies[0].ask_refresh(GRANT, 2).await;
    let status = copies[1]
        .until("the end", |frame| frame["health"] == "reauth_required")
        .await;
    let reason = status["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("refresh_token_reused"), "{reason}");
    assert_eq!(scene.log_in("alice").await, 3);
    share_one_redeem(&scene, &mut copies, 3).await;
}

/// Reuse kills the newest refresh token and every access token since the login: the loser logs the winner out.
#[tokio::test(flavor = "multi_thread")]
async fn okta_family_revoked_on_reuse() {
    let provider = Provider::start().await;
    let mut pair = programs(&provider, 2);
    assert_eq!(pair[0].refresh().await, Came::Fresh);
    assert!(pair[0].works().await);
    assert_eq!(pair[1].refresh().await, Came::LoggedOut);
    assert!(
        pair[0].is_logged_in() && !pair[0].works().await,
        "the winner holds dead tokens"
    );
    assert_eq!(pair[0].refresh().await, Came::LoggedOut);

    let scene = Scene::new().await;
    let mut pair = devices(&scene, 2).await;
    assert_eq!(pair[0].refresh(GRANT, 1).await["version"], 2);
    // The other comes late, with the old version: it is given the newest, and the provider is not asked.
    assert_eq!(pair[1].refresh(GRANT, 1).await["version"], 2);
    assert_eq!(scene.provider.calls().len(), 1);
    share_one_redeem(&scene, &mut pair, 2).await;
    assert!(!scene.provider.is_revoked("alice"));
}

/// The provider rotated and the answer never came. The program tries again with what it has, and that is reuse.
#[tokio::test(flavor = "multi_thread")]
async fn lost_answer_then_invalid_grant() {
    let provider = Provider::start().await;
    let mut program = programs(&provider, 1);
    provider.fault(Fault::CutAfter);
    assert_eq!(program[0].refresh().await, Came::Nothing);
    assert!(program[0].works().await, "its access token is good");
    assert_eq!(program[0].refresh().await, Came::LoggedOut);
    assert!(provider.is_revoked("alice"));

    // A strict provider: nothing is sent again while there is something to lose.
    let scene = Scene::new().await;
    let mut session = devices(&scene, 1).await;
    scene.provider.fault(Fault::CutAfter);
    let answer = session[0].refresh(GRANT, 1).await;
    assert_eq!(answer["code"], "suspect", "{answer}");
    let token = session[0].token(GRANT).expect("a token");
    assert!(
        scene
            .provider
            .is_live(token["access_token"].as_str().unwrap_or_default())
    );
    assert_eq!(scene.provider.calls().len(), 1);
    assert_eq!(scene.log_in("alice").await, 2);
    share_one_redeem(&scene, &mut session, 2).await;

    // One with a grace, as most have: the answer is fetched again before anybody notices.
    let rules = Rules {
        grace: Duration::from_secs(30),
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings.example("grace", "30s")).await;
    let mut session = devices(&scene, 1).await;
    scene.provider.fault(Fault::CutAfter);
    assert_eq!(session[0].refresh(GRANT, 1).await["version"], 2);
    assert!(!scene.provider.is_revoked("alice"));
}
