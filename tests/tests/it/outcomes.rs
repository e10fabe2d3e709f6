//! The table of outcomes (section 4), row by row, for a hub that redeems by itself.

use std::time::Duration;

use lockstep_tests::{
    BOUND, Fault, GRANT, Scene, eventually,
    provider::{Gate, Reply, Rules},
};
use rustix::process::Signal;

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
    assert!(answer.body["retry_at"].is_u64(), "{}", answer.body);
    assert_eq!(scene.provider.calls().len(), 3);
    assert_eq!(scene.grant("alice").await["health"], "ok");
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
    assert_eq!(scene.grant("alice").await["health"], "ok");
    scene.provider.reopen().await;
    eventually("it heals", Duration::from_secs(60), async || {
        (scene.admin.refresh("alice", GRANT).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(scene.provider.calls().len(), 1);
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
    let scene = Scene::set(|settings| settings.example("timeout", "1s")).await;
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
    let rules = Rules {
        ttl: Some(Duration::from_secs(4)),
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings.example("late_wait", "1s")).await;
    let mut session = scene.session("alice").await;
    // The request never reached the provider's rules, but the hub cannot know.
    scene.provider.fault(Fault::CutBefore);
    session.ask_refresh(GRANT, 1).await;

    let token = session
        .until("version 2", |frame| frame["type"] == "token" && frame["version"] == 2)
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
    let rules = Rules {
        ttl: Some(Duration::from_secs(4)),
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings.example("late_wait", "1s")).await;
    let mut session = scene.session("alice").await;
    scene.provider.fault(Fault::CutAfter);
    session.ask_refresh(GRANT, 1).await;

    let status = session
        .until("the end", |frame| frame["health"] == "reauth_required")
        .await;

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
    for version in 2..=4 {
        let token = session
            .until("the next version", |frame| {
                frame["type"] == "token" && frame["version"] == version
            })
            .await;
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
    assert_eq!(
        grant["health"], "ok",
        "the provider said that nothing happened: {grant}"
    );
    assert_eq!(admin.refresh("alice", GRANT).await.expect(200)["version"], 2);
}
