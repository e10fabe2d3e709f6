//! P8: a client is told what is the matter, why, and when to expect better; it is never sent a dead token.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lockstep_tests::{
    BOUND, Fault, GRANT, Scene, Session, eventually,
    provider::{Gate, Reply, Rules},
};
use serde_json::Value;

/// A redeem that is not over by then is announced.
const ANNOUNCED_AFTER: Duration = Duration::from_millis(250);

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_dead_grant_is_a_status_in_place_of_its_token() {
    let scene = Scene::with(
        Rules {
            ttl: Some(Duration::from_secs(2)),
            ..Rules::default()
        },
        |settings| settings.example("late_wait", "1s").example("lead", "0s"),
    )
    .await;
    let device = scene.user("alice").await;
    scene.provider.revoke("alice");
    let mut session = Session::fresh(&scene.hub, &device).await;

    session.ask_refresh(GRANT, 1).await;

    // On a slow machine the token expired, and the scheduler had the bad news, before the device came.
    let is_bad_news = |frame: &Value| frame["health"] == "reauth_required";
    let known = session.frames.iter().find(|&frame| is_bad_news(frame)).cloned();
    let status = match known {
        Some(status) => status,
        None => session.until("the bad news", is_bad_news).await,
    };
    assert_eq!((&status["type"], &status["version"]), (&"status".into(), &1.into()));
    assert!(
        status["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("invalid_grant")),
        "{status}"
    );
    let (again, _) = Session::connect(&scene.hub, &scene.admin.enrol("alice").await, None).await;
    assert!(
        again.token(GRANT).is_none(),
        "a token that the hub knows to be dead is not sent"
    );
    assert!(again.frames.iter().any(|frame| frame["health"] == "reauth_required"));
    let refused = scene.get_token(&device, GRANT, "").await;
    assert_eq!(
        (refused.status, refused.text("code")),
        (409, "reauth_required"),
        "{}",
        refused.body
    );
    let answer = session.refresh(GRANT, 1).await;
    assert_eq!(answer["code"], "reauth_required");
    assert_eq!(scene.admin.refresh("alice", GRANT).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_slow_redeem_is_announced_and_a_quick_one_is_not() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let seq = session.token(GRANT).expect("a token")["seq"].clone();
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldBefore(gate.clone()));

    session.ask_refresh(GRANT, 1).await;
    let word = session
        .until("refreshing", |frame| frame["health"] == "refreshing")
        .await;
    gate.open();
    session
        .until("the token", |frame| frame["type"] == "token" && frame["version"] == 2)
        .await;

    assert_eq!((&word["version"], &word["seq"]), (&1.into(), &seq));
    assert!(
        word["lease_expires_in"]
            .as_u64()
            .is_some_and(|span| (1..=60).contains(&span)),
        "{word}"
    );
    // As often as it takes for one to be quick on this machine.
    let mut version = 2;
    eventually("a quick redeem", BOUND, async || {
        let (before, asked) = (session.frames.len(), Instant::now());
        let answer = session.refresh(GRANT, version).await;
        let took = asked.elapsed();
        version += 1;
        assert_eq!(answer["version"], version, "{answer}");
        let mut news = session.frames[before..].iter();
        let is_announced = news.any(|frame| frame["health"] == "refreshing");
        assert!(took >= ANNOUNCED_AFTER || !is_announced, "it took only {took:?}");
        (took < ANNOUNCED_AFTER).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_trouble_at_the_provider_comes_with_a_time_to_expect_better() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let refusal = Reply::empty(429).header("retry-after", "120");
    scene.provider.always(Some(Fault::Refuse(refusal)));

    let answer = session.refresh(GRANT, 1).await;

    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&"error".into(), &"unavailable".into()),
        "{answer}"
    );
    let retry_at = answer["retry_at"].as_u64().expect("a time");
    assert!(
        (now() + 100..=now() + 140).contains(&retry_at),
        "Retry-After was 120 s: {retry_at}, now {}",
        now()
    );
    assert_eq!(scene.provider.calls().len(), 1, "429 is obeyed");
    let over_http = scene.post_refresh(&device, GRANT, 1).await;
    assert!(matches!(over_http.status, 429 | 503), "{}", over_http.body);
    assert!(over_http.body["retry_at"].is_u64(), "{}", over_http.body);
    assert_eq!(over_http.header("content-type"), Some("application/problem+json"));
    assert_eq!(
        scene.get_token(&device, GRANT, "").await.expect(200)["version"],
        1,
        "the token is good"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_requests_too_soon_after_a_commit_are_told_when() {
    let scene = Scene::set(|settings| settings.example("reject_interval", "30s")).await;
    let mut session = scene.session("alice").await;

    // A login is a commit: what devices ask within the interval after it waits.
    let answer = session.refresh(GRANT, 1).await;

    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&"error".into(), &"rate_limited".into()),
        "{answer}"
    );
    let retry_at = answer["retry_at"].as_u64().expect("a time");
    assert!((now()..=now() + 31).contains(&retry_at), "{retry_at}, now {}", now());
    assert!(scene.provider.calls().is_empty());
    scene.admin.refresh("alice", GRANT).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_grant_that_cannot_be_refreshed_says_so_when_it_expires() {
    let scene = Scene::new().await;
    // The device is there before the token is, however slow the machine.
    let mut session = Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await;
    let login = serde_json::json!({"access_token": "only-this", "expires_in": 4});
    scene.admin.login("alice", GRANT, &login).await.expect(200);
    assert_eq!(session.frame("token").await["access_token"], "only-this");

    let status = session.until("the end", |frame| frame["type"] == "status").await;

    assert_eq!(status["health"], "reauth_required");
    assert!(scene.provider.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_token_without_expiry_has_a_null_and_is_never_scheduled() {
    let rules = Rules {
        ttl: None,
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings).await;
    let session = scene.session("alice").await;
    let token = session.token(GRANT).expect("a token");
    assert_eq!(token.get("expires_at"), Some(&Value::Null));
    assert_eq!(scene.grant("alice").await.get("expires_at"), Some(&Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_our_own_misconfiguration_is_never_blamed_on_the_grant() {
    let scene = Scene::new().await;
    let refusals = [
        Reply::oauth(401, "invalid_client"),
        Reply::oauth(400, "unauthorized_client"),
        Reply::oauth(400, "unsupported_grant_type"),
        Reply::empty(302).header("location", "https://elsewhere.invalid/"),
        Reply::empty(404),
    ];
    for (n, refusal) in refusals.into_iter().enumerate() {
        let user = format!("user-{n}");
        let mut session = scene.session(&user).await;
        scene.provider.fault_for(&user, Fault::Refuse(refusal.clone()));

        let answer = session.refresh(GRANT, 1).await;

        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&"error".into(), &"unavailable".into()),
            "{refusal:?}: {answer}"
        );
        let grant = scene.grant(&user).await;
        assert_eq!(
            (&grant["health"], &grant["version"]),
            (&"ok".into(), &1.into()),
            "{refusal:?}: {grant}"
        );
        assert_eq!(scene.provider.calls_of(&user).len(), 1, "{refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_refused_grant_names_status_and_error() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    scene.provider.always(Some(Fault::Refuse(Reply::oauth(418, "teapot"))));
    session.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;
    eventually("repeated refusal ends it", Duration::from_secs(90), async || {
        scene.admin.refresh("alice", GRANT).await;
        (scene.grant("alice").await["health"] == "reauth_required").then_some(())
    })
    .await;
    let reason = scene.grant("alice").await["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(reason.contains("418") && reason.contains("teapot"), "{reason}");
}
