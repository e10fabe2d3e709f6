//! Section 4, who redeems: a device that was elected and answered, and nobody else.

use std::time::Duration;

use lockstep_tests::{
    Answer, Authserver, BOUND, Enrolled, GRANT, Hub, Provider, Scene, Session, Settings, admin::http, eventually,
    provider::Outcome,
};
use serde_json::{Value, json};
use tokio::time::Instant;

fn by_devices(settings: Settings) -> Settings {
    settings.example("refresher", "device").example("late_wait", "2s")
}

async fn redeemer(scene: &Scene, kind: &str) -> Enrolled {
    scene
        .admin
        .enrol_as("alice", &json!({"kind": kind, "name": kind, "redeemer": true}))
        .await
}

/// A session that may redeem.
async fn connect(scene: &Scene, kind: &str) -> Session {
    let device = redeemer(scene, kind).await;
    Session::fresh(&scene.hub, &device).await
}

/// A session that may redeem and goes before those of less weight.
async fn weighing(scene: &Scene, priority: u8) -> Session {
    let able = json!({"kind": "cli", "name": "x", "redeemer": true, "priority": priority});
    let device = scene.admin.enrol_as("alice", &able).await;
    Session::fresh(&scene.hub, &device).await
}

/// Redeems at the provider, as an elected device does.
async fn redeem(provider: &Provider, order: &Value) -> Value {
    let refresh_token = order["refresh_token"].as_str().expect("a refresh token");
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
        ("client_id", "app"),
    ];
    let endpoint = order["token_endpoint"].as_str().expect("a token endpoint");
    assert_eq!(endpoint, provider.token_endpoint());
    Answer::to(http().post(endpoint).form(&form)).await.expect(200)
}

fn publish(id: &str, order: &Value, epoch: &Value, token: &Value) -> Value {
    json!({
        "type": "publish", "id": id, "grant": GRANT, "lease": order["lease"], "epoch": epoch,
        "from_version": order["from_version"], "token": token,
    })
}

/// Says yes to `elected` and waits for the order.
async fn accept(session: &mut Session) -> Value {
    let elected = session.frame("elected").await;
    session
        .send(&json!({"type": "accept", "grant": GRANT, "lease": elected["lease"]["id"]}))
        .await;
    session.frame("redeem").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_winner_is_asked_first_and_given_the_token_only_when_it_answers() {
    let scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let mut winner = connect(&scene, "desktop").await;
    let mut other = connect(&scene, "cli").await;
    let epoch = winner.frames[0]["epoch"].clone();

    let id = other.ask_refresh(GRANT, 1).await;
    let elected = winner.frame("elected").await;
    assert_eq!(
        (&elected["grant"], &elected["from_version"]),
        (&GRANT.into(), &1.into())
    );
    let lease = &elected["lease"];
    assert!(
        (30..=60).contains(&lease["expires_in"].as_u64().unwrap_or(0)),
        "{elected}"
    );
    assert!(
        (10..=20).contains(&lease["renew_every"].as_u64().unwrap_or(0)),
        "every third: {elected}"
    );
    let token = scene.provider.newest("alice").refresh_token;
    assert!(
        winner.frames.iter().all(|frame| !frame.to_string().contains(&token)),
        "not before it answers"
    );
    winner
        .send(&json!({"type": "accept", "grant": GRANT, "lease": lease["id"]}))
        .await;
    let order = winner.frame("redeem").await;
    assert_eq!(
        (&order["refresh_token"], &order["client_id"]),
        (&token.as_str().into(), &"app".into())
    );
    assert_eq!(
        (&order["lease"], &order["request_format"]),
        (&lease["id"], &"form".into())
    );
    let answer = redeem(&scene.provider, &order).await;
    winner.send(&publish("p", &order, &epoch, &answer)).await;

    assert_eq!(winner.answer("p").await["version"], 2);
    assert_eq!(other.answer(&id).await["version"], 2);
    other.settle().await;
    assert_eq!(other.token(GRANT).expect("the push")["version"], 2);
    assert!(other.frames.iter().all(|frame| !frame.to_string().contains(&token)));
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn desktop_goes_before_cli_and_only_redeemers_are_asked() {
    let scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let plain = scene
        .admin
        .enrol_as("alice", &json!({"kind": "desktop", "name": "x", "redeemer": false}))
        .await;
    let mut plain = Session::fresh(&scene.hub, &plain).await;
    let mut cli = connect(&scene, "cli").await;
    let mut desktop = connect(&scene, "desktop").await;

    for version in 1..=3 {
        let id = plain.ask_refresh(GRANT, version).await;
        let order = accept(&mut desktop).await;
        let answer = redeem(&scene.provider, &order).await;
        let epoch = desktop.frames[0]["epoch"].clone();
        desktop.send(&publish("p", &order, &epoch, &answer)).await;
        assert_eq!(plain.answer(&id).await["version"], version + 1);
    }

    for session in [&mut plain, &mut cli] {
        session.settle().await;
        assert!(
            session
                .frames
                .iter()
                .all(|frame| frame["type"] != "elected" && frame["type"] != "redeem")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_device_comes_after_an_active_one() {
    let scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let device = redeemer(&scene, "desktop").await;
    let mut hello = device.hello(None);
    hello["state"] = "idle".into();
    let mut desktop = Session::open(scene.hub.listen).await.expect("a connection");
    desktop.acks = true;
    desktop.send(&hello).await;
    desktop.frame("synced").await;
    let mut iot = connect(&scene, "iot").await;

    iot.ask_refresh(GRANT, 1).await;

    accept(&mut iot).await;
    desktop.settle().await;
    assert!(desktop.frames.iter().all(|frame| frame["type"] != "elected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_winner_that_declines_or_leaves_or_sleeps_costs_seconds_and_leaves_no_doubt() {
    let scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let (mut decline, mut leave) = (Vec::new(), Vec::new());
    for priority in [99, 98, 97] {
        decline.push(weighing(&scene, priority).await);
    }
    for priority in [96, 95, 94] {
        leave.push(weighing(&scene, priority).await);
    }
    let mut sleeps = weighing(&scene, 93).await;
    let mut works = weighing(&scene, 92).await;

    let mut times = vec![Instant::now()];
    let id = works.ask_refresh(GRANT, 1).await;
    for session in &mut decline {
        let elected = session.frame("elected").await;
        let lease = &elected["lease"]["id"];
        session
            .send(&json!({"type": "failed", "id": "no", "grant": GRANT, "lease": lease, "sent": false}))
            .await;
    }
    for mut session in leave {
        session.frame("elected").await;
        times.push(Instant::now());
    }
    sleeps.frame("elected").await;
    let (declining, leaving) = (times[1] - times[0], times[1].elapsed());
    // Three in a row: were each to cost the 5 s of a silence, it would take longer than on any busy machine.
    let at_once = Duration::from_secs(13);
    assert!(
        declining < at_once,
        "a decline elects the next at once: {declining:?} for three"
    );
    assert!(leaving < at_once, "so does a disconnect: {leaving:?} for three");
    let order = accept(&mut works).await;
    assert!(times[3].elapsed() > Duration::from_secs(4), "silence has 5 s");
    let answer = redeem(&scene.provider, &order).await;
    let epoch = works.frames[0]["epoch"].clone();
    works.send(&publish("p", &order, &epoch, &answer)).await;

    assert_eq!(works.answer(&id).await["version"], 2);
    assert_eq!(scene.grant("alice").await["health"], "ok");
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_after_the_token_was_handed_out_is_unknown_and_nobody_else_redeems() {
    let scene = Scene::set(|settings| by_devices(settings).example("lease", "30s").example("timeout", "5s")).await;
    scene.log_in("alice").await;
    let mut winner = connect(&scene, "desktop").await;
    let mut other = connect(&scene, "cli").await;
    other.ask_refresh(GRANT, 1).await;
    accept(&mut winner).await;
    drop(winner);

    eventually("it is unknown", Duration::from_secs(60), async || {
        (scene.grant("alice").await["health"] == "suspect").then_some(())
    })
    .await;

    other.settle().await;
    assert!(other.frames.iter().all(|frame| frame["type"] != "elected"));
    assert!(scene.provider.calls().is_empty(), "nor does the hub");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_result_is_taken_after_a_reconnect_and_a_crash_of_the_hub() {
    let mut scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let device = redeemer(&scene, "desktop").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let epoch = session.frames[0]["epoch"].clone();
    session.ask_refresh(GRANT, 1).await;
    let order = accept(&mut session).await;
    let answer = redeem(&scene.provider, &order).await;
    drop(session);
    scene.hub.crash().await;

    let mut session = Session::fresh(&scene.hub, &device).await;
    for id in ["once", "and again, because the answer was lost"] {
        session.send(&publish(id, &order, &epoch, &answer)).await;
        assert_eq!(session.answer(id).await["version"], 2, "idempotent");
    }

    session.settle().await;
    assert_eq!(
        session.token(GRANT).expect("a token")["access_token"],
        answer["access_token"]
    );
    assert_eq!(scene.grant("alice").await["health"], "ok");
    // For a version that is long gone it is told so.
    scene.log_in("alice").await;
    scene.log_in("alice").await;
    let other = json!({"access_token": "late", "refresh_token": "late-rt", "token_type": "Bearer"});
    session.send(&publish("too late", &order, &epoch, &other)).await;
    let refused = session.answer("too late").await;
    assert_eq!(
        (&refused["type"], &refused["code"]),
        (&"error".into(), &"superseded".into()),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_while_its_holder_works() {
    let scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let mut session = connect(&scene, "desktop").await;
    session.ask_refresh(GRANT, 1).await;
    let order = accept(&mut session).await;
    session
        .send(&json!({"type": "renew", "grant": GRANT, "lease": order["lease"]}))
        .await;
    let lease = session.frame("lease").await;
    assert_eq!((&lease["id"], &lease["grant"]), (&order["lease"], &GRANT.into()));
    assert!((1..=60).contains(&lease["expires_in"].as_u64().unwrap_or(0)), "{lease}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_reports_of_its_redeem_is_judged_like_the_hubs_own() {
    let scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let mut session = connect(&scene, "desktop").await;
    let id = session.ask_refresh(GRANT, 1).await;
    let order = accept(&mut session).await;
    let report = json!({
        "type": "failed", "id": "f", "grant": GRANT, "lease": order["lease"], "sent": true, "status": 400, "error": "invalid_grant",
    });
    session.send(&report).await;
    assert_eq!(session.answer("f").await["type"], "done");
    session
        .until("the end", |frame| frame["health"] == "reauth_required")
        .await;
    assert_eq!(session.answer(&id).await["code"], "reauth_required");
    assert!(scene.provider.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_left_the_hub_redeems_if_it_may() {
    let scene = Scene::set(by_devices).await;
    let device = scene.user("alice").await;
    assert_eq!(scene.post_refresh(&device, GRANT, 1).await.expect(200)["version"], 2);

    let scene = Scene::set(|settings| by_devices(settings).example("hub_may_redeem", false)).await;
    let device = scene.user("alice").await;
    let refused = scene.post_refresh(&device, GRANT, 1).await;
    assert_eq!(
        (refused.status, refused.text("code")),
        (503, "unavailable"),
        "{}",
        refused.body
    );
    assert!(scene.provider.calls().is_empty());
    let mut session = connect(&scene, "cli").await;
    session.ask_refresh(GRANT, 1).await;
    let order = accept(&mut session).await;
    assert_eq!(redeem(&scene.provider, &order).await["token_type"], "Bearer");
    assert_eq!(
        scene.provider.called("alice", 1, BOUND).await[0].outcome,
        Outcome::Issued
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_login_without_an_access_token_is_redeemed_by_a_device() {
    let scene = Scene::set(|settings| by_devices(settings).example("hub_may_redeem", false)).await;
    let mut session = connect(&scene, "desktop").await;
    let epoch = session.frames[0]["epoch"].clone();
    let mut login = scene.provider.login("alice").login();
    login.as_object_mut().expect("an object").remove("access_token");
    let (answer, token) = tokio::join!(scene.admin.login("alice", GRANT, &login), async {
        let order = accept(&mut session).await;
        let token = redeem(&scene.provider, &order).await;
        session.send(&publish("p", &order, &epoch, &token)).await;
        assert_eq!(session.answer("p").await["type"], "done");
        token
    });
    let version = answer.expect(200)["version"].clone();
    session.settle().await;
    let pushed = session.token(GRANT).expect("a token");
    assert_eq!(
        (&pushed["version"], &pushed["access_token"]),
        (&version, &token["access_token"])
    );
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_lower_its_own_weight() {
    let scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let device = redeemer(&scene, "desktop").await;
    let mut hello = device.hello(None);
    hello["priority"] = 0.into();
    let mut modest = Session::open(scene.hub.listen).await.expect("a connection");
    modest.acks = true;
    modest.send(&hello).await;
    modest.frame("synced").await;
    let mut cli = connect(&scene, "cli").await;

    cli.ask_refresh(GRANT, 1).await;

    accept(&mut cli).await;
    modest.settle().await;
    assert!(modest.frames.iter().all(|frame| frame["type"] != "elected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_device_declines_the_hub_redeems() {
    let scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let mut session = connect(&scene, "desktop").await;
    let id = session.ask_refresh(GRANT, 1).await;
    let elected = session.frame("elected").await;
    session
        .send(&json!({"type": "failed", "id": "no", "grant": GRANT, "lease": elected["lease"]["id"], "sent": false}))
        .await;

    assert_eq!(session.answer(&id).await["version"], 2);

    assert!(session.frames.iter().all(|frame| frame["type"] != "redeem"));
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_taken_on_another_connection_while_its_lease_runs() {
    let scene = Scene::set(by_devices).await;
    scene.log_in("alice").await;
    let device = redeemer(&scene, "desktop").await;
    let mut other = connect(&scene, "cli").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let epoch = session.frames[0]["epoch"].clone();
    let id = other.ask_refresh(GRANT, 1).await;
    let order = accept(&mut session).await;
    let answer = redeem(&scene.provider, &order).await;
    drop(session);

    let mut session = Session::fresh(&scene.hub, &device).await;
    session.send(&publish("p", &order, &epoch, &answer)).await;

    assert_eq!(session.answer("p").await["version"], 2);
    assert_eq!(other.answer(&id).await["version"], 2);
    assert!(other.frames.iter().all(|frame| frame["type"] != "elected"));
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_the_second_of_two_results_is_kept_and_tried_before_the_grant_is_given_up() {
    // Within its grace this server answers a used token with another new pair: two redeems of one version both succeed.
    let server = Authserver::start(&["--grace", "10m"]).await;
    let settings = by_devices(Settings::new(&server.token_endpoint()))
        .example("timeout", "3s")
        .example("grace", "10m");
    let hub = Hub::start(settings).await;
    let admin = hub.admin();
    let family = server.log_in().await;
    admin.login("alice", GRANT, &family.login).await.expect(200);
    let device = admin
        .enrol_as("alice", &json!({"kind": "desktop", "name": "x", "redeemer": true}))
        .await;
    let mut session = Session::fresh(&hub, &device).await;
    let epoch = session.frames[0]["epoch"].clone();
    session.ask_refresh(GRANT, 1).await;
    let order = accept(&mut session).await;
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", order["refresh_token"].as_str().unwrap_or_default()),
    ];
    let first = Answer::to(http().post(server.token_endpoint()).form(&form))
        .await
        .expect(200);
    drop(session);
    eventually("the hub has redeemed as well", Duration::from_secs(60), async || {
        (admin.grant("alice", GRANT).await["version"] == 2).then_some(())
    })
    .await;
    assert_eq!(server.calls(&family).await.len(), 2);

    let mut session = Session::fresh(&hub, &device).await;
    session.send(&publish("second", &order, &epoch, &first)).await;
    assert_eq!(session.answer("second").await["code"], "superseded");
    drop(session);
    // The winner's refresh token turns out to be dead.
    server.fault(&family, json!({"kind": "invalid_grant"})).await;
    let answer = admin.refresh("alice", GRANT).await.expect(200);

    assert_eq!(answer["version"], 3, "the alternate was tried");
    assert_eq!(admin.grant("alice", GRANT).await["health"], "ok");
}
