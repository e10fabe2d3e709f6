//! Section 6: device tokens at `/oauth/token`, and the JWTs that they buy.

use std::{collections::HashSet, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_tests::{Answer, BOUND, Event, GRANT, Scene, Session, admin::http, eventually};
use serde_json::{Value, json};

fn claims(token: &str) -> (Value, Value) {
    let part = |n: usize| {
        let part = token.split('.').nth(n).unwrap_or_default();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap_or_default()).unwrap_or_default()
    };
    (part(0), part(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_gives_a_jwt_that_any_node_can_check() {
    let scene = Scene::new().await;
    let body = json!({"kind": "desktop", "name": "Alice's desk", "redeemer": true, "priority": 9});
    let device = scene.admin.enrol_as("alice", &body).await;

    assert!(device.refresh_token.starts_with("lsd_"), "a device refresh token");
    uuid::Uuid::parse_str(&device.id).expect("a UUID");
    let (head, claims) = claims(&device.access_token);
    assert_eq!((&head["alg"], &head["typ"]), (&"EdDSA".into(), &"at+jwt".into()));
    assert_eq!(
        (&claims["sub"], &claims["client_id"]),
        (&"alice".into(), &device.id.as_str().into())
    );
    let life = claims["exp"].as_u64().unwrap_or(0) - claims["iat"].as_u64().unwrap_or(0);
    assert_eq!(life, 15 * 60);
    for claim in ["iss", "aud", "jti", "scope"] {
        assert!(!claims[claim].is_null(), "{claim} in {claims}");
    }
    let keys = Answer::to(http().get(scene.hub.url("/.well-known/jwks.json")))
        .await
        .expect(200);
    let kids: Vec<_> = keys["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| key["kid"].clone())
        .collect();
    assert!(kids.contains(&head["kid"]), "{head} signed by one of {kids:?}");
    assert!(!keys.to_string().contains("\"d\""), "public keys only");
    let view = scene.admin.device(&device).await;
    let shown = (&view["kind"], &view["name"], &view["redeemer"], &view["connected"]);
    assert_eq!(
        shown,
        (&"desktop".into(), &"Alice's desk".into(), &true.into(), &false.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_refresh_token_rotates_and_forgives_a_lost_answer() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let first = device.refresh_token.clone();

    let answer = scene.oauth_token(&first).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = answer.expect(200);
    let second = answer["refresh_token"]
        .as_str()
        .expect("always a refresh token")
        .to_owned();
    assert_ne!(second, first);
    assert_eq!(answer["token_type"], "Bearer");
    assert!(answer["expires_in"].is_u64());

    let again = scene.oauth_token(&first).await.expect(200);
    assert_eq!(
        again["refresh_token"],
        second.as_str(),
        "its parent gives the same newest again"
    );
    let third = scene.oauth_token(&second).await.expect(200)["refresh_token"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(third != second && third != first);
    assert_eq!(
        scene.oauth_token(&second).await.expect(200)["refresh_token"],
        third.as_str()
    );

    let access = again["access_token"].as_str().expect("a token").to_owned();
    let mut renewed = device.clone();
    renewed.access_token = access;
    let mut session = Session::fresh(&scene.hub, &renewed).await;

    assert_eq!(scene.oauth_token(&first).await.expect(400)["error"], "invalid_grant");
    assert_eq!(session.closed().await, Some(4403), "anything older revokes the device");
    assert_eq!(scene.oauth_token(&third).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_with_one_device_refresh_token_all_succeed() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut token = device.refresh_token.clone();
    for _ in 0..5 {
        let asks = (0..10).map(|_| scene.oauth_token(&token));
        let answers = futures::future::join_all(asks).await;
        let newest: HashSet<_> = answers
            .into_iter()
            .map(|answer| {
                answer.expect(200)["refresh_token"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        assert_eq!(newest.len(), 1, "all get the same newest: {newest:?}");
        token = newest.into_iter().next().unwrap_or_default();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_outlives_a_crash() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    let second = scene.oauth_token(&device.refresh_token).await.expect(200)["refresh_token"].clone();
    let second = second.as_str().expect("a token").to_owned();
    scene.hub.crash().await;
    let again = scene.oauth_token(&device.refresh_token).await.expect(200);
    assert_eq!(again["refresh_token"], second.as_str());
    let mut renewed = device.clone();
    renewed.access_token = again["access_token"].as_str().unwrap_or_default().to_owned();
    Session::fresh(&scene.hub, &renewed).await;
    // Signed before the crash, by keys that are still the same.
    Session::fresh(&scene.hub, &device).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_may_be_forms_or_json_and_errors_are_those_of_the_rfc() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let url = scene.hub.url("/oauth/token");
    let body = json!({"grant_type": "refresh_token", "refresh_token": device.refresh_token});
    Answer::to(http().post(&url).json(&body)).await.expect(200);

    let error = async |form: &[(&str, &str)]| {
        let answer = Answer::to(http().post(&url).form(form)).await;
        (answer.status, answer.text("error").to_owned())
    };
    let refresh = ("grant_type", "refresh_token");
    for unknown in ["lsd_unknown", "lsg_unknown", "garbage", ""] {
        let expected = if unknown.is_empty() {
            "invalid_request"
        } else {
            "invalid_grant"
        };
        let (status, code) = error(&[refresh, ("refresh_token", unknown)]).await;
        assert!(
            (status, code.as_str()) == (400, expected) || code == "invalid_grant",
            "{unknown}: {status} {code}"
        );
    }
    assert_eq!(error(&[refresh]).await, (400, "invalid_request".into()));
    assert_eq!(
        error(&[("grant_type", "password")]).await,
        (400, "unsupported_grant_type".into())
    );
    assert_eq!(error(&[]).await, (400, "invalid_request".into()));
    assert!(scene.provider.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_access_tokens_open_no_session_but_open_ones_go_on() {
    let scene = Scene::set(|settings| settings.set("identity.access_token_lifetime", "2s")).await;
    scene.log_in("alice").await;
    let (device, mut session) = eventually("a device comes while its token is good", BOUND, async || {
        let device = scene.admin.enrol("alice").await;
        let mut session = Session::open(scene.hub.listen).await.ok()?;
        session.acks = true;
        session.send(&device.hello(None)).await;
        let is_welcome = matches!(session.next().await, Event::Frame(frame) if frame["type"] == "welcome");
        is_welcome.then_some((device, session))
    })
    .await;
    session.frame("synced").await;

    // Asked with the younger token of another device: so many polls use up how often one device may ask.
    let younger = scene.admin.enrol("alice").await;
    eventually("the token expires", Duration::from_secs(90), async || {
        (scene.poll(&younger, "").await.status == 401).then_some(())
    })
    .await;

    let mut late = Session::open(scene.hub.listen).await.expect("a connection");
    late.send(&device.hello(None)).await;
    assert_eq!(late.closed().await, Some(4401));
    let answer = session.refresh(GRANT, 1).await;
    assert_eq!(answer["version"], 2, "a session outlives its token's exp: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hubs_tokens_are_worth_nothing() {
    let (ours, theirs) = tokio::join!(Scene::new(), Scene::new());
    let device = theirs.user("alice").await;
    ours.user("alice").await;
    assert_eq!(ours.poll(&device, "").await.status, 401);
    assert_eq!(
        ours.oauth_token(&device.refresh_token).await.expect(400)["error"],
        "invalid_grant"
    );
}
