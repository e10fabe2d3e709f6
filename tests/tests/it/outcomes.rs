//! The table of outcomes (section 4), row by row, for a hub that redeems by itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockstep_tests::{
    BOUND, Fault, GRANT, Scene, Session, eventually,
    provider::{Call, Gate, Reply, Rules},
};
use rustix::process::Signal;
use serde_json::Value;

/// When a call arrived, in seconds.
fn arrived_at(call: &Call) -> u64 {
    let at = SystemTime::now() - call.arrived.elapsed();
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A token that lives for four seconds, and for an hour once it is renewed. Whoever redeems it first, the device that asks
/// or, on a slow machine, the scheduler, meets `fault`.
async fn short_lived(fault: Fault) -> (Scene, Session) {
    let rules = Rules {
        ttl: Some(Duration::from_secs(4)),
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings.example("late_wait", "1s")).await;
    scene.provider.fault(fault);
    let login = scene.provider.login("alice").login();
    scene
        .provider
        .rules(|rules| rules.ttl = Some(Duration::from_secs(3600)));
    scene.admin.login("alice", GRANT, &login).await.expect(200);
    let session = Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await;
    (scene, session)
}

/// Reads on to a frame that `wanted` accepts, unless there was one already.
async fn sees(session: &mut Session, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let seen = session.frames.iter().find(|&frame| wanted(frame)).cloned();
    match seen {
        Some(frame) => frame,
        None => session.until(what, wanted).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_error_is_tried_three_times() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    scene.provider.fault(Fault::Refuse(
        Reply::empty(500).body("<html>Internal Server Error</html>"),
    ));
    scene.provider.fault(Fault::status(503));

    assert_eq!(session.refresh(GRANT, 1).await["version"], 2);

    assert_eq!(scene.provider.calls().len(), 3);
    assert!(scene.provider.overlapping().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_three_server_errors_it_is_scheduled_and_the_token_stays_good() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    scene.provider.always(Some(Fault::status(500)));

    let answer = scene.post_refresh(&device, GRANT, 1).await;

    assert_eq!(
        (answer.status, answer.text("code")),
        (503, "unavailable"),
        "{}",
        answer.body
    );
    let retry_at = answer.body["retry_at"].as_u64().expect("a time");
    let calls = scene.provider.calls();
    assert!(calls.len() >= 3, "{calls:?}");
    // What is announced is rounded up to whole seconds.
    let early: Vec<_> = calls[3..]
        .iter()
        .filter(|call| arrived_at(call) + 1 < retry_at)
        .collect();
    assert!(early.is_empty(), "sooner than at {retry_at}: {early:?}");
    let health = scene.grant("alice").await["health"].take();
    assert!(health == "ok" || health == "refreshing", "{health}");
    assert_eq!(scene.get_token(&device, GRANT, "").await.expect(200)["version"], 1);
    scene.provider.always(None);
    eventually("it heals", Duration::from_secs(60), async || {
        (scene.admin.refresh("alice", GRANT).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_there_is_no_outcome_at_all() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    scene.provider.close();

    let answer = scene.post_refresh(&device, GRANT, 1).await;

    assert_eq!(
        (answer.status, answer.text("code")),
        (503, "unavailable"),
        "{}",
        answer.body
    );
    assert!(answer.body["retry_at"].is_u64(), "{}", answer.body);
    let health = scene.grant("alice").await["health"].take();
    assert!(health == "ok" || health == "refreshing", "{health}");
    scene.provider.reopen().await;
    let version = eventually("it heals", Duration::from_secs(60), async || {
        let answer = scene.admin.refresh("alice", GRANT).await;
        (answer.status == 200).then(|| answer.body["version"].as_u64())
    })
    .await;
    // The scheduler may have been quicker than the operator, who then had the next version redeemed.
    let sent = scene.provider.calls().into_iter().map(|call| call.generation);
    assert_eq!(
        sent.collect::<Vec<_>>(),
        (1..version.expect("a version")).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_of_a_503_is_obeyed() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    scene
        .provider
        .fault(Fault::Refuse(Reply::empty(503).header("retry-after", "3")));

    session.ask_refresh(GRANT, 1).await;

    let calls = scene.provider.called("alice", 2, Duration::from_secs(60)).await;
    let pause = calls[1].arrived - calls[0].arrived;
    assert!(pause >= Duration::from_millis(2_900), "it came back after {pause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_after_sending_is_unknown_and_nothing_is_replayed() {
    let scene = Scene::set(|settings| settings.example("timeout", "6s")).await;
    let device = scene.user("alice").await;
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldAfter(gate.clone()));

    let answer = scene.post_refresh(&device, GRANT, 1).await;

    assert_eq!(
        (answer.status, answer.text("code")),
        (409, "suspect"),
        "{}",
        answer.body
    );
    assert_eq!(scene.grant("alice").await["health"], "suspect");
    assert_eq!(
        scene.get_token(&device, GRANT, "").await.expect(200)["version"],
        1,
        "it is good while it lives"
    );
    gate.open();
    for _ in 0..3 {
        scene.admin.refresh("alice", GRANT).await;
    }
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn doubtful_statuses_are_unknown_too() {
    let scene = Scene::new().await;
    for status in [408, 502, 504] {
        let user = format!("user-{status}");
        let device = scene.user(&user).await;
        scene.provider.fault_for(&user, Fault::status(status));
        let answer = scene.post_refresh(&device, GRANT, 1).await;
        assert_eq!(
            (answer.status, answer.text("code")),
            (409, "suspect"),
            "{status}: {}",
            answer.body
        );
        assert_eq!(scene.provider.calls_of(&user).len(), 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nothing_is_left_to_lose_there_is_one_last_try() {
    // The request never reached the provider's rules, but the hub cannot know.
    let (scene, mut session) = short_lived(Fault::CutBefore).await;
    session.ask_refresh(GRANT, 1).await;

    let token = sees(&mut session, "version 2", |frame| {
        frame["type"] == "token" && frame["version"] == 2
    })
    .await;

    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
    assert_eq!(
        scene
            .provider
            .calls()
            .iter()
            .filter(|call| call.generation == 1)
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_try_that_is_refused_ends_in_the_true_reason() {
    let (scene, mut session) = short_lived(Fault::CutAfter).await;
    session.ask_refresh(GRANT, 1).await;

    let status = sees(&mut session, "the end", |frame| frame["health"] == "reauth_required").await;

    let reason = status["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("invalid_grant") || reason.contains("lost") || reason.contains("unknown"),
        "{reason}"
    );
    assert_eq!(scene.provider.calls().len(), 2, "the first, and one last try");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_ends_in_reauth_required() {
    for refusal in [
        Reply::oauth(400, "invalid_grant"),
        Reply::oauth(403, "invalid_grant"),
        Reply::oauth(401, "refresh_token_reused"),
        Reply::oauth(400, "refresh_token_already_used"),
    ] {
        let scene = Scene::set(|settings| settings.example("late_wait", "1s")).await;
        let mut session = scene.session("alice").await;
        scene.provider.always(Some(Fault::Refuse(refusal.clone())));

        session.ask_refresh(GRANT, 1).await;

        let status = session
            .until("the end", |frame| frame["health"] == "reauth_required")
            .await;
        assert!(status["reason"].is_string(), "{refusal:?}: {status}");
        assert_eq!(
            scene.provider.calls().len(),
            1,
            "{refusal:?}: a conflict is not retried"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_made_ahead_of_expiry_without_anyone_asking() {
    let rules = Rules {
        ttl: Some(Duration::from_secs(6)),
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings.example("lead", "3s")).await;
    let mut session = scene.session("alice").await;
    // On a slow machine the first of them came before the device did.
    sees(&mut session, "version 4", |frame| {
        frame["type"] == "token" && frame["version"].as_u64() >= Some(4)
    })
    .await;
    let tokens = session.frames.iter().filter(|frame| frame["type"] == "token");
    for token in tokens.filter(|token| token["version"] != 1) {
        assert_eq!(token["cause"], "refresh");
    }
    let calls = scene.provider.calls();
    assert!(
        calls
            .windows(2)
            .all(|pair| pair[1].arrived - pair[0].arrived > Duration::from_millis(1_500)),
        "{calls:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_written_as_the_provider_wants_them() {
    let scene = Scene::set(|settings| {
        let endpoint = "http://127.0.0.1:1/replaced".to_owned();
        settings
            .provider("json", &endpoint)
            .set("providers.json.request_format", "json")
            .provider("basic", &endpoint)
            .set("providers.basic.client_auth", "basic")
            .set("providers.basic.client_secret", "s3cret&more")
            .provider("post", &endpoint)
            .set("providers.post.client_auth", "post")
            .set("providers.post.client_secret", "s3cret&more")
    });
    let mut scene = scene.await;
    let endpoint = scene.provider.token_endpoint();
    for name in ["json", "basic", "post"] {
        scene
            .hub
            .change(|settings| settings.set(&format!("providers.{name}.token_endpoint"), endpoint.as_str()));
    }
    scene.hub.crash().await;
    for name in ["example", "json", "basic", "post"] {
        let login = scene.provider.login(name).login();
        scene
            .admin
            .login("alice", &format!("{name}/main"), &login)
            .await
            .expect(200);
        scene.admin.refresh("alice", &format!("{name}/main")).await.expect(200);
    }

    let call = |name: &str| scene.provider.calls_of(name).pop().expect("a call");
    for name in ["example", "json", "post"] {
        assert_eq!(call(name).parameters["grant_type"], "refresh_token", "{name}");
        assert_eq!(call(name).parameters["client_id"], "app", "{name}");
        assert_eq!(call(name).authorization, None, "{name}");
    }
    assert!(
        call("example")
            .content_type
            .starts_with("application/x-www-form-urlencoded")
    );
    assert!(call("json").content_type.starts_with("application/json"));
    assert_eq!(call("post").parameters["client_secret"], "s3cret&more");
    // RFC 6749 section 2.3.1: both are form-encoded before Basic joins them. base64("app:s3cret%26more").
    assert_eq!(
        call("basic").authorization.as_deref(),
        Some("Basic YXBwOnMzY3JldCUyNm1vcmU=")
    );
    assert!(!call("basic").parameters.contains_key("client_secret"));
    assert_eq!(scene.provider.calls().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_only_a_refresh_token_is_redeemed_before_it_is_answered() {
    let scene = Scene::new().await;
    let pair = scene.provider.login("alice");
    let login = serde_json::json!({"refresh_token": pair.refresh_token});

    let answer = scene.admin.login("alice", GRANT, &login).await.expect(200);

    let device = scene.admin.enrol("alice").await;
    let token = scene.get_token(&device, GRANT, "").await.expect(200);
    assert_eq!(token["version"], answer["version"]);
    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
    assert_eq!(scene.provider.called("alice", 1, BOUND).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_stopped_between_two_tries_leaves_no_doubt() {
    let mut scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    // Long enough that the hub is stopped before the next try, however slow the machine is; and if it is not, it is told
    // the same again.
    let busy = Reply::empty(503).header("retry-after", "5");
    scene.provider.always(Some(Fault::Refuse(busy)));
    session.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;
    drop(session);

    scene.hub.signal(Signal::TERM);
    assert!(scene.hub.ended(BOUND).await.success());
    scene.provider.always(None);
    scene.hub.start_again().await;

    let admin = scene.hub.admin();
    let grant = admin.grant("alice", GRANT).await;
    assert!(
        grant["health"] == "ok" || grant["health"] == "refreshing",
        "the provider said that nothing happened: {grant}"
    );
    // A hub that was away for longer than the provider asked for redeems by itself, and then for the operator.
    let version = admin.refresh("alice", GRANT).await.expect(200)["version"].take();
    assert!(version == 2 || version == 3, "{version}");
}
