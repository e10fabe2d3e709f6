//! P5: a token set that a provider issued is not thrown away.

use std::time::Duration;

use lockstep_tests::{
    BOUND, Fault, GRANT, Scene, Session, eventually,
    provider::{Gate, Reply, Rules},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_redeem_under_way_at_sigterm_is_finished_and_kept() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldAfter(gate.clone()));
    session.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;

    scene.hub.signal(rustix::process::Signal::TERM);
    session.frame("goaway").await;
    gate.open();
    assert!(scene.hub.ended(BOUND).await.success());

    scene.hub.start_again().await;
    let (session, _) = Session::connect(&scene.hub, &device, None).await;
    let token = session.token(GRANT).expect("a token");
    assert_eq!(token["version"], 2);
    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_an_answer_without_a_refresh_token_keeps_the_old_one() {
    let rules = Rules {
        rotate: false,
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings).await;
    let mut session = scene.session("alice").await;
    for version in 1..=3 {
        assert_eq!(session.refresh(GRANT, version).await["version"], version + 1);
    }
    let sent: Vec<_> = scene
        .provider
        .calls()
        .iter()
        .map(|call| call.refresh_token.clone())
        .collect();
    assert!(
        sent.windows(2).all(|pair| pair[0] == pair[1]),
        "always the same refresh token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_inside_the_grace_a_lost_answer_is_fetched_again() {
    let rules = Rules {
        grace: Duration::from_secs(30),
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings.example("grace", "30s")).await;
    let mut session = scene.session("alice").await;
    scene.provider.fault(Fault::CutAfter);

    assert_eq!(session.refresh(GRANT, 1).await["version"], 2);

    session.settle().await;
    let token = session.token(GRANT).expect("version 2");
    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
    assert_eq!(scene.provider.calls().len(), 2);
    assert!(!scene.provider.is_revoked("alice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_inside_the_grace_a_crash_in_the_middle_costs_nothing() {
    let rules = Rules {
        grace: Duration::from_secs(60),
        ..Rules::default()
    };
    let mut scene = Scene::with(rules, |settings| settings.example("grace", "60s")).await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    scene.provider.fault(Fault::HoldAfter(Gate::closed()));
    session.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;

    scene.hub.crash().await;

    eventually("the same pair was fetched again", BOUND, async || {
        Some(scene.grant("alice").await).filter(|grant| grant["version"] == 2 && grant["health"] == "ok")
    })
    .await;
    let token = scene.get_token(&device, GRANT, "").await.expect(200);
    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_an_unusable_answer_is_no_reason_to_send_the_token_again() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let bodies = [
        "",
        "<html>oops</html>",
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":17}"#,
    ];
    for (n, body) in bodies.into_iter().enumerate() {
        let user = format!("user-{n}");
        let mut session = scene.session(&user).await;
        scene
            .provider
            .fault_for(&user, Fault::Garble(Reply::empty(200).body(body)));

        let answer = session.refresh(GRANT, 1).await;

        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&"error".into(), &"suspect".into()),
            "{body}: {answer}"
        );
        assert_eq!(scene.grant(&user).await["health"], "suspect", "{body}");
        assert_eq!(scene.provider.calls_of(&user).len(), 1, "{body}");
    }
    assert!(session.settle().await.is_empty(), "and nobody else hears of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_login_heals_a_suspect_grant() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    scene.provider.fault(Fault::CutAfter);
    assert_eq!(session.refresh(GRANT, 1).await["code"], "suspect");

    assert_eq!(scene.log_in("alice").await, 2);

    let token = session
        .until("the login", |frame| frame["type"] == "token" && frame["version"] == 2)
        .await;
    assert_eq!(token["cause"], "login");
    assert_eq!(scene.grant("alice").await["health"], "ok");
    assert_eq!(session.refresh(GRANT, 2).await["version"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_used_refresh_token_never_comes_back_as_a_login() {
    let scene = Scene::new().await;
    let first = scene.provider.login("alice");
    scene.admin.login("alice", GRANT, &first.login()).await.expect(200);
    scene.admin.refresh("alice", GRANT).await.expect(200);

    let again = scene.admin.login("alice", GRANT, &first.login()).await;
    assert_eq!(again.status, 409, "{}", again.body);
    let only = json!({"refresh_token": first.refresh_token});
    assert_eq!(scene.admin.login("alice", GRANT, &only).await.status, 409);

    let current = scene.provider.newest("alice");
    let answer = scene.admin.login("alice", GRANT, &current.login()).await.expect(200);
    assert_eq!(answer["version"], 2, "the current token again changes nothing");
    assert_eq!(scene.provider.calls().len(), 1);
}
