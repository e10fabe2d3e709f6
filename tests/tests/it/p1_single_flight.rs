//! P1: at most one redeem of a version is in flight, over all devices.

use std::time::Duration;

use lockstep_tests::{
    BOUND, Fault, GRANT, Scene, Session,
    device::{all_reach, assert_lawful},
    eventually,
    provider::Gate,
};

#[tokio::test(flavor = "multi_thread")]
async fn p1_many_devices_ask_at_once_and_one_redeem_answers_them_all() {
    let scene = Scene::new().await;
    let mut sessions = vec![scene.session("alice").await];
    for _ in 0..7 {
        let device = scene.admin.enrol("alice").await;
        sessions.push(Session::fresh(&scene.hub, &device).await);
    }
    scene.provider.fault(Fault::Slow(Duration::from_millis(300)));

    let answers = futures::future::join_all(sessions.iter_mut().map(|session| session.refresh(GRANT, 1))).await;

    for answer in answers {
        assert_eq!(
            (&answer["type"], &answer["version"]),
            (&"done".into(), &2.into()),
            "{answer}"
        );
    }
    let access_token = scene.provider.newest("alice").access_token;
    for session in &mut sessions {
        session.settle().await;
        let token = session.token(GRANT).expect("the new token was pushed");
        assert_eq!(
            (&token["version"], &token["access_token"]),
            (&2.into(), &access_token.as_str().into())
        );
    }
    assert_eq!(scene.provider.calls().len(), 1);
}

/// Asks in every way while a redeem is held for so long. False: the operator, who rejects no version and is owed a redeem
/// whenever there is none, came after it.
async fn all_join(scene: &Scene, user: &str, hold: Duration) -> bool {
    let mut session = scene.session(user).await;
    let poller = scene.admin.enrol(user).await;
    let gate = Gate::closed();
    scene.provider.fault_for(user, Fault::HoldBefore(gate.clone()));

    let (over_ws, over_http, by_operator, ()) = tokio::join!(
        session.refresh(GRANT, 1),
        scene.post_refresh(&poller, GRANT, 1),
        scene.admin.refresh(user, GRANT),
        async {
            scene.provider.called(user, 1, BOUND).await;
            tokio::time::sleep(hold).await;
            gate.open();
        },
    );

    assert_eq!(over_ws["version"], 2);
    assert_eq!(over_http.expect(200)["version"], 2);
    let sent = scene.provider.calls_of(user).len();
    let version = by_operator.expect(200)["version"].as_u64();
    assert_eq!(version, Some(sent as u64 + 1), "one redeem each");
    sent == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_every_way_of_asking_joins_the_redeem_that_is_under_way() {
    let scene = Scene::new().await;
    let mut joined = false;
    for (user, hold) in [("alice", 500), ("bob", 3_000), ("carol", 12_000)] {
        joined = joined || all_join(&scene, user, Duration::from_millis(hold)).await;
    }
    assert!(joined, "the operator's word never joins a redeem");
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_the_loser_adopts_the_winners_token() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let loser = scene.admin.enrol("alice").await;
    assert_eq!(session.refresh(GRANT, 1).await["version"], 2);
    let mut late = Session::fresh(&scene.hub, &loser).await;

    let answer = late.refresh(GRANT, 1).await;

    assert_eq!((&answer["type"], &answer["version"]), (&"done".into(), &2.into()));
    assert_eq!(scene.post_refresh(&loser, GRANT, 1).await.expect(200)["version"], 2);
    assert_eq!(
        scene.provider.calls().len(),
        1,
        "version 2 is newer than what was rejected: no redeem"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_redeem_goes_on_when_the_device_that_asked_is_gone() {
    let scene = Scene::new().await;
    let mut asker = scene.session("alice").await;
    let mut witness = Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await;
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldAfter(gate.clone()));

    asker.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;
    drop(asker);
    gate.open();

    let token = witness
        .until("version 2", |frame| frame["type"] == "token" && frame["version"] == 2)
        .await;
    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_two_grants_of_a_user_are_redeemed_at_once() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let other = scene.provider.login("alice-other");
    scene
        .admin
        .login("alice", "example/other", &other.login())
        .await
        .expect(200);
    let gate = Gate::closed();
    scene.provider.always(Some(Fault::HoldBefore(gate.clone())));

    let main = session.ask_refresh(GRANT, 1).await;
    let other = session.ask_refresh("example/other", 1).await;

    scene.provider.called("alice", 1, BOUND).await;
    scene.provider.called("alice-other", 1, BOUND).await;
    gate.open();
    assert_eq!(session.answer(&main).await["version"], 2);
    assert_eq!(session.answer(&other).await["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_devices_that_keep_asking_cause_one_redeem_per_version() {
    let scene = Scene::new().await;
    assert_eq!(scene.log_in("alice").await, 1);
    let followers = scene.followers("alice", 4).await;
    all_reach(&followers, GRANT, 1, BOUND).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await);
    }

    for version in 1..=10 {
        let answers = futures::future::join_all(sessions.iter_mut().map(|s| s.refresh(GRANT, version))).await;
        assert!(
            answers.iter().all(|answer| answer["version"] == version + 1),
            "{answers:?}"
        );
    }

    all_reach(&followers, GRANT, 11, BOUND).await;
    let sent: Vec<_> = scene.provider.calls().iter().map(|call| call.generation).collect();
    assert_eq!(sent, (1..=10).collect::<Vec<_>>());
    assert_lawful(&followers, &scene.provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_claim_without_an_outcome_is_unknown_after_a_restart_and_nothing_is_sent_again() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldAfter(gate.clone()));
    session.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;

    scene.hub.crash().await;

    let health = eventually("the claim is judged", BOUND, async || {
        Some(scene.grant("alice").await).filter(|grant| grant["health"] != "ok")
    })
    .await;
    assert_eq!(health["health"], "suspect", "{health}");
    assert!(health["reason"].is_string(), "and says why: {health}");
    let token = scene.get_token(&device, GRANT, "").await.expect(200);
    assert_eq!(token["version"], 1, "the access token is good: it is served");
    let mut session = Session::fresh(&scene.hub, &device).await;
    session.settle().await;
    assert_eq!(scene.provider.calls().len(), 1);
}
