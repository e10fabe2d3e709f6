//! P7: no secret in a log, metric, error, admin answer or config dump.

use lockstep_tests::{Answer, BOUND, Enrolled, Fault, GRANT, Scene, Session, provider::Reply};
use reqwest::Method;
use serde_json::json;

/// A life with all that goes well and ill; returns every secret that it used.
async fn live(scene: &Scene) -> Vec<String> {
    let mut secrets = Vec::new();
    let alice = scene.user("alice").await;
    let bob = scene.user("bob").await;
    let mut session = Session::fresh(&scene.hub, &alice).await;
    for version in 1..=3 {
        session.refresh(GRANT, version).await;
    }
    let faults = [
        Fault::Garble(Reply::empty(200).body("{\"access_token\":\"at-garbled-secret\",\"refresh_token\":17}")),
        Fault::Refuse(Reply::oauth(500, "server_error")),
        Fault::CutAfter,
    ];
    secrets.push("at-garbled-secret".to_owned());
    for fault in faults {
        scene.provider.fault(fault);
        scene.admin.refresh("bob", GRANT).await;
    }
    // Errors tempt a server to quote what it was sent.
    session
        .send_text("{\"type\":\"hello\",\"token\":\"typed-secret-1\",\"device\":7}")
        .await;
    session
        .send_text("{\"type\":\"publish\",\"token\":{\"access_token\":\"typed-secret-2\"")
        .await;
    session.settle().await;
    let mut stranger = Session::open(scene.hub.listen).await.expect("a connection");
    stranger
        .send(&json!({"type": "hello", "token": "typed-secret-3", "device": {"id": alice.id}, "state": "active"}))
        .await;
    stranger.closed().await;
    scene.oauth_token("lsd_typed-secret-4").await;
    let login = json!({"access_token": "typed-secret-5", "refresh_token": 7});
    scene.admin.login("alice", GRANT, &login).await;
    let wrong = scene
        .admin
        .anonymous(Method::GET, "/admin/v1/users/alice")
        .bearer_auth("typed-secret-6");
    Answer::to(wrong).await;
    scene.provider.revoke("alice");
    scene.admin.refresh("alice", GRANT).await;
    let rotated = rotate(scene, &bob).await;
    secrets.extend((1..=6).map(|n| format!("typed-secret-{n}")));
    secrets.extend(
        [alice, bob]
            .into_iter()
            .flat_map(|device| [device.refresh_token, device.access_token]),
    );
    secrets.extend(rotated);
    secrets.extend(scene.provider.tokens());
    secrets.push(scene.hub.admin_token().to_owned());
    secrets.push("client-s3cret".to_owned());
    secrets
}

async fn rotate(scene: &Scene, device: &Enrolled) -> Vec<String> {
    let answer = scene.oauth_token(&device.refresh_token).await.expect(200);
    ["access_token", "refresh_token"]
        .map(|key| answer[key].as_str().unwrap_or_default().to_owned())
        .to_vec()
}

fn without(secrets: &[String], place: &str, text: &str) {
    for secret in secrets {
        // The secret itself, not a part: ids of tokens may be told.
        let line = text.lines().find(|line| line.contains(secret.as_str()));
        assert!(line.is_none(), "a secret in {place}: {}", line.unwrap_or_default());
    }
}

async fn p7_in(format: &str) {
    let settings = |settings: lockstep_tests::Settings| {
        settings
            .set("log.level", "trace")
            .set("log.format", format)
            .example("client_auth", "post")
            .example("client_secret", "client-s3cret")
            .example("late_wait", "1s")
    };
    let mut scene = Scene::set(settings).await;
    let secrets = live(&scene).await;

    let metrics = Answer::to(scene.admin.anonymous(Method::GET, "/metrics"))
        .await
        .body
        .to_string();
    without(&secrets, "the metrics", &metrics);
    for user in ["alice", "bob"] {
        without(
            &secrets,
            "an admin answer",
            &scene.admin.user(user).await.body.to_string(),
        );
    }
    scene.hub.crash().await;
    scene.hub.signal(rustix::process::Signal::TERM);
    scene.hub.ended(BOUND).await;
    let log = scene.hub.log();
    assert!(log.lines().count() > 20, "a log at trace level: {log}");
    without(&secrets, "the log", &log);
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_no_secret_in_a_text_log_at_trace_level() {
    p7_in("text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_no_secret_in_a_json_log_at_trace_level() {
    p7_in("json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_refresh_tokens_never_reach_a_device() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    for version in 1..=3 {
        session.refresh(GRANT, version).await;
    }
    session.settle().await;
    let polled = scene.poll(&device, "").await.expect(200).to_string();
    let direct = scene.get_token(&device, GRANT, "").await.expect(200).to_string();
    let seen: Vec<_> = session
        .frames
        .iter()
        .map(ToString::to_string)
        .chain([polled, direct])
        .collect();
    for token in scene.provider.tokens().iter().filter(|token| token.starts_with("rt-")) {
        assert!(seen.iter().all(|text| !text.contains(token.as_str())));
    }
}
