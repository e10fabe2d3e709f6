//! Section 5: how sessions begin, resume and end.

use std::time::Duration;

use lockstep_tests::{Answer, BOUND, Event, Fault, GRANT, Scene, Session, admin::http, eventually, provider::Gate};
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::time::Instant;

fn upgrade(scene: &Scene) -> RequestBuilder {
    http()
        .get(scene.hub.url("/v1/ws"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_subprotocol_there_is_a_400_with_the_list() {
    let scene = Scene::new().await;
    for request in [
        upgrade(&scene),
        upgrade(&scene).header("sec-websocket-protocol", "lockstep.v0, chat"),
    ] {
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.to_string().contains("lockstep.v1"), "{}", answer.body);
    }
    let answer = Answer::to(upgrade(&scene).header("sec-websocket-protocol", "chat, lockstep.v1")).await;
    assert_eq!(
        (answer.status, answer.header("sec-websocket-protocol")),
        (101, Some("lockstep.v1"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_from_anywhere_not_listed_are_refused() {
    let scene = Scene::set(|settings| settings.set("server.allowed_origins", vec!["https://app.example.com"])).await;
    let from = |origin: &str| {
        upgrade(&scene)
            .header("sec-websocket-protocol", "lockstep.v1")
            .header("origin", origin)
    };
    for origin in [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "null",
    ] {
        assert_eq!(Answer::to(from(origin)).await.status, 403, "{origin}");
    }
    assert_eq!(Answer::to(from("https://app.example.com")).await.status, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_get_of_the_socket_is_no_crash() {
    let scene = Scene::new().await;
    let answer = Answer::to(http().get(scene.hub.url("/v1/ws"))).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hello_in_five_seconds_ends_the_session() {
    let scene = Scene::new().await;
    let opened = Instant::now();
    let mut session = Session::open(scene.hub.listen).await.expect("a connection");
    assert_eq!(session.closed().await, Some(4408));
    assert!(
        opened.elapsed() >= Duration::from_millis(4_500),
        "{:?}",
        opened.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_and_foreign_ids_are_not_authenticated() {
    let scene = Scene::new().await;
    let alice = scene.user("alice").await;
    let bob = scene.user("bob").await;
    let mut hellos = vec![
        (
            "another's id",
            json!({"type": "hello", "token": alice.access_token, "device": {"id": bob.id}, "state": "active"}),
        ),
        (
            "a refresh token",
            json!({"type": "hello", "token": alice.refresh_token, "device": {"id": alice.id}, "state": "active"}),
        ),
        (
            "no token",
            json!({"type": "hello", "token": "", "device": {"id": alice.id}, "state": "active"}),
        ),
    ];
    for forged in forgeries(&alice.access_token) {
        hellos.push((
            "a forgery",
            json!({"type": "hello", "token": forged, "device": {"id": alice.id}, "state": "active"}),
        ));
    }
    for (what, hello) in hellos {
        let mut session = Session::open(scene.hub.listen).await.expect("a connection");
        session.send(&hello).await;
        assert_eq!(session.closed().await, Some(4401), "{what}: {hello}");
        assert!(
            session.frames.iter().all(|frame| frame["type"] == "error"),
            "{what}: {:?}",
            session.frames
        );
    }
}

/// What an attacker makes of a good token.
fn forgeries(token: &str) -> Vec<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "a JWT");
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let mut other: serde_json::Value = serde_json::from_slice(&decode(parts[1])).unwrap_or_default();
    other["sub"] = "bob".into();
    let other = URL_SAFE_NO_PAD.encode(other.to_string());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    let hmac = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"at+jwt"}"#);
    let mut signature = decode(parts[2]);
    if let Some(byte) = signature.first_mut() {
        *byte ^= 1;
    }
    vec![
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{hmac}.{}.{}", parts[1], parts[2]),
        format!("{}.{other}.{}", parts[0], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(signature)),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        "..".to_owned(),
        "x".repeat(10_000),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_session_of_a_device_replaces_the_first() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut first = Session::fresh(&scene.hub, &device).await;
    let mut second = Session::fresh(&scene.hub, &device).await;

    assert_eq!(first.closed().await, Some(4409));

    second.settle().await;
    // The late end of the first must not evict the second.
    assert_eq!(scene.admin.device(&device).await["connected"], true);
    assert_eq!(second.refresh(GRANT, 1).await["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_that_cannot_be_read_or_are_of_another_epoch_are_answered_with_everything() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let (session, _) = Session::connect(&scene.hub, &device, None).await;
    let cursor = session.cursor().expect("a cursor");
    let (_, same) = Session::connect(&scene.hub, &device, Some(&cursor)).await;
    assert_eq!(same["resume"], "uptodate");

    let (_, seq) = cursor.split_once('.').expect("epoch and seq");
    let foreign = format!("0123456789abcdef.{seq}");
    let ahead = format!("{}.999999", cursor.split_once('.').map_or("", |parts| parts.0));
    for odd in ["", "garbage", "💥", &foreign, &ahead, &"9".repeat(5_000)] {
        let (session, welcome) = Session::connect(&scene.hub, &device, Some(odd)).await;
        assert_eq!(welcome["resume"], "reset", "{odd}");
        assert_eq!(session.token(GRANT).expect("everything")["version"], 1, "{odd}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_grant_is_told_on_resume_and_not_to_those_who_never_had_it() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let (session, _) = Session::connect(&scene.hub, &device, None).await;
    let cursor = session.cursor().expect("a cursor");
    drop(session);
    scene.admin.delete_grant("alice", GRANT).await.expect(204);

    let (session, welcome) = Session::connect(&scene.hub, &device, Some(&cursor)).await;

    assert_eq!(welcome["resume"], "delta");
    let status = session
        .frames
        .iter()
        .find(|frame| frame["type"] == "status")
        .expect("a status");
    assert_eq!(
        (&status["grant"], &status["health"]),
        (&GRANT.into(), &"deleted".into())
    );
    let mut session = Session::fresh(&scene.hub, &device).await;
    assert_eq!(session.refresh(GRANT, 1).await["code"], "unknown_grant");
    assert_eq!(scene.get_token(&device, GRANT, "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_gone_within_a_second() {
    let scene = Scene::new().await;
    scene.log_in("alice").await;
    let mut other = Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await;
    // A machine may stand still for a second, but does not each time.
    let mut took = Vec::new();
    let device = loop {
        let device = scene.admin.enrol("alice").await;
        let mut session = Session::fresh(&scene.hub, &device).await;
        let asked = Instant::now();
        scene.admin.revoke(&device).await.expect(204);
        assert_eq!(session.closed().await, Some(4403));
        took.push(asked.elapsed());
        if took.iter().any(|took| *took < Duration::from_secs(1)) {
            break device;
        }
        assert!(took.len() < 5, "{took:?}");
    };
    let mut again = Session::open(scene.hub.listen).await.expect("a connection");
    again.send(&device.hello(None)).await;
    assert!(matches!(again.closed().await, Some(4401 | 4403)));
    for answer in [scene.poll(&device, "").await, scene.get_token(&device, GRANT, "").await] {
        assert_eq!(answer.status, 401, "{}", answer.body);
    }
    assert_eq!(
        scene.oauth_token(&device.refresh_token).await.expect(400)["error"],
        "invalid_grant"
    );
    assert!(other.settle().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_outlives_a_crash() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    scene.admin.revoke(&device).await.expect(204);
    scene.hub.crash().await;
    let mut session = Session::open(scene.hub.listen).await.expect("a connection");
    session.send(&device.hello(None)).await;
    assert!(matches!(session.closed().await, Some(4401 | 4403)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_gone_with_devices_and_grants() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let mut bob = scene.session("bob").await;

    scene.admin.delete_user("alice").await.expect(204);

    assert_eq!(session.closed().await, Some(4403));
    assert_eq!(scene.poll(&device, "").await.status, 401);
    assert_eq!(scene.oauth_token(&device.refresh_token).await.status, 400);
    assert!(bob.settle().await.is_empty());
    // A user of the same name starts anew: nothing of the old one shines through.
    let again = scene.user_again("alice").await;
    let (session, _) = Session::connect(&scene.hub, &again, None).await;
    let token = session.token(GRANT).expect("the new login");
    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
    let view = scene.admin.user("alice").await.expect(200);
    assert_eq!(view["devices"].as_array().map(Vec::len), Some(1), "{view}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_says_goaway_to_everyone_and_spreads_them() {
    let mut scene = Scene::set(|settings| settings.set("server.drain", "3s")).await;
    scene.user("alice").await;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        sessions.push(Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await);
    }

    scene.hub.signal(rustix::process::Signal::TERM);

    let mut spans = Vec::new();
    for session in &mut sessions {
        let goaway = session.frame("goaway").await;
        let (min, max) = (
            &goaway["reconnect_after"]["min_ms"],
            &goaway["reconnect_after"]["max_ms"],
        );
        assert!(goaway["reason"].is_string() && min.as_u64() <= max.as_u64(), "{goaway}");
        spans.push((min.as_u64(), max.as_u64()));
    }
    spans.sort_unstable();
    spans.dedup();
    assert!(spans.len() > 1, "each client gets its own: {spans:?}");
    for session in &mut sessions {
        assert_eq!(session.closed().await, Some(1001));
    }
    assert!(scene.hub.ended(BOUND).await.success());
}

/// Longer than any test has patience: whoever waits for its end fails.
const LONG_DRAIN: &str = "10m";

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_by_itself_does_not_wait_for_devices_that_wait_for_nothing() {
    let mut scene = Scene::set(|settings| settings.set("server.drain", LONG_DRAIN)).await;
    let mut session = scene.session("alice").await;
    scene.hub.signal(rustix::process::Signal::TERM);
    let goaway = session.frame("goaway").await;
    assert_eq!(
        goaway["reconnect_after"]["max_ms"], 600_000,
        "still spread over the drain: {goaway}"
    );
    assert_eq!(session.closed().await, Some(1001));
    assert!(scene.hub.ended(BOUND).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_by_itself_stays_until_a_device_has_its_answer() {
    let mut scene = Scene::set(|settings| settings.set("server.drain", LONG_DRAIN)).await;
    let mut session = scene.session("alice").await;
    let mut bob = scene.session("bob").await;
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldAfter(gate.clone()));
    session.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;

    scene.hub.signal(rustix::process::Signal::TERM);

    session.frame("goaway").await;
    assert_eq!(bob.closed().await, Some(1001), "he waits for nothing");
    gate.open();
    let token = session.frame("token").await;
    assert_eq!(token["version"], 2);
    assert_eq!(session.frame("done").await["version"], 2);
    assert_eq!(session.closed().await, Some(1001));
    assert!(scene.hub.ended(BOUND).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_taken_and_shows_nowhere_it_should_not() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    for state in ["idle", "active", "idle"] {
        session.send(&json!({"type": "presence", "state": state})).await;
    }
    assert!(session.settle().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_a_quiet_time_by_heartbeats() {
    let scene = Scene::set(|settings| settings.set("server.heartbeat", "5s")).await;
    let mut session = scene.session("alice").await;
    // Reading answers the pings. Whoever misses two in a row is gone after 15 s at the latest.
    assert_eq!(session.next_within(Duration::from_secs(18)).await, None::<Event>);
    session.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_leaves_is_seen_to_have_left() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let session = Session::fresh(&scene.hub, &device).await;
    assert_eq!(scene.admin.device(&device).await["connected"], true);
    drop(session);
    let view = eventually("it left", BOUND, async || {
        Some(scene.admin.device(&device).await).filter(|view| view["connected"] == false)
    })
    .await;
    assert!(view["transport"].is_null() && view["last_seen"].is_u64(), "{view}");
}
