//! P6: one bad grant harms nobody else.

use std::time::{Duration, Instant};

use lockstep_tests::{
    BOUND, Fault, GRANT, Provider, Scene, Session,
    provider::{Gate, Rules},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// Longer than a healthy refresh takes on a busy machine, shorter than any time-out that could hide behind it: a connection
/// that does not say who it is has 5 s, a provider 20 s.
const PROMPTLY: Duration = Duration::from_secs(4);
/// A machine may stand still for longer than that, but does not each time; a queue does.
const ROUNDS: usize = 3;

/// Asks for the version after this one; tells how long the answer took.
async fn refreshed(session: &mut Session, version: u64) -> Duration {
    let asked = Instant::now();
    assert_eq!(session.refresh(GRANT, version).await["version"], version + 1);
    asked.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_provider_that_hangs_does_not_delay_the_users_of_another() {
    let dead = Provider::start().await;
    let scene = Scene::set(|settings| settings.provider("dead", &dead.token_endpoint())).await;
    let gate = Gate::closed();
    dead.always(Some(Fault::HoldBefore(gate.clone())));
    let mut waiting = Vec::new();
    for n in 0..30 {
        let user = format!("stuck-{n}");
        let login = dead.login(&user).login();
        scene.admin.login(&user, "dead/main", &login).await.expect(200);
        let mut session = Session::fresh(&scene.hub, &scene.admin.enrol(&user).await).await;
        session.ask_refresh("dead/main", 1).await;
        waiting.push(session);
    }
    let mut session = scene.session("alice").await;

    let mut took = Vec::new();
    for version in 1..=3 {
        took.push(refreshed(&mut session, version).await);
    }

    assert!(took.iter().any(|took| *took < PROMPTLY), "{took:?}");
    gate.open();
}

/// The most calls that were with a provider at once.
fn at_once(provider: &Provider) -> usize {
    let calls = provider.calls();
    let during = |at: &Instant| {
        calls
            .iter()
            .filter(|call| call.arrived <= *at && call.over.is_none_or(|over| *at < over))
            .count()
    };
    calls.iter().map(|call| during(&call.arrived)).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_provider_is_never_asked_for_more_at_once_than_its_settings_allow() {
    let rules = Rules {
        ttl: Some(Duration::from_secs(2)),
        ..Rules::default()
    };
    let limited = |settings: lockstep_tests::Settings| settings.example("max_concurrent", 2).example("lead", "1s");
    let scene = Scene::with(rules, limited).await;
    scene
        .provider
        .always(Some(Fault::SlowAnswer(Duration::from_millis(50))));
    let mut sessions = Vec::new();
    for n in 0..12 {
        sessions.push(scene.session(&format!("user-{n}")).await);
    }
    // Devices ask for what the scheduler is about to redeem, so that both are in line for the same grant.
    for _ in 0..4 {
        let mut asked = Vec::new();
        for session in &mut sessions {
            let version = session
                .token(GRANT)
                .map_or(1, |token| token["version"].as_u64().unwrap_or(1));
            asked.push(session.ask_refresh(GRANT, version).await);
        }
        for (session, id) in sessions.iter_mut().zip(asked) {
            session.answer(&id).await;
            session.settle().await;
        }
    }
    assert!(scene.provider.calls().len() > 12, "users were redeemed for at once");
    assert!(at_once(&scene.provider) <= 2, "{} at once", at_once(&scene.provider));
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_device_that_floods_does_not_delay_another_user() {
    let scene = Scene::new().await;
    let flooder = scene.user("mallory").await;
    let mut session = scene.session("alice").await;
    let (mut flood, _) = Session::connect(&scene.hub, &flooder, None).await;
    let flooding = tokio::spawn(async move {
        for n in 0..20_000 {
            let ask = json!({"type": "refresh", "id": n.to_string(), "grant": GRANT, "rejected_version": 1, "reason": "expired"});
            flood.send(&ask).await;
        }
        flood
    });

    let mut took = Vec::new();
    for version in 1..=5 {
        took.push(refreshed(&mut session, version).await);
    }
    let slow = took.iter().filter(|took| **took >= PROMPTLY).count();
    assert!(slow <= 1, "{took:?}");

    flooding.abort();
    assert!(
        scene.provider.calls_of("mallory").len() <= 1,
        "a flood about version 1 is one redeem"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_flood_of_refreshes_is_one_redeem_and_every_request_has_its_answer() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    scene.provider.fault(Fault::Slow(Duration::from_millis(300)));
    let mut ids = Vec::new();
    for _ in 0..500 {
        ids.push(session.ask_refresh(GRANT, 1).await);
    }

    for id in ids {
        let answer = session.answer(&id).await;
        // Above a bound the hub may refuse to remember who waits; it says so.
        let fair = answer["version"] == 2 || answer["code"] == "rate_limited" || answer["code"] == "unavailable";
        assert!(fair, "{answer}");
    }
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_no_device_sees_anything_of_another_user() {
    let scene = Scene::new().await;
    let mut bob = scene.session("bob").await;
    let alice = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &alice).await;
    let other = scene.provider.login("alice-other");
    scene
        .admin
        .login("alice", "example/secret", &other.login())
        .await
        .expect(200);
    session.refresh(GRANT, 1).await;

    for (grant, code) in [
        ("example/secret", "unknown_grant"),
        ("example/nothing", "unknown_grant"),
    ] {
        let answer = bob.refresh(grant, 1).await;
        assert_eq!((&answer["type"], &answer["code"]), (&"error".into(), &code.into()));
    }
    assert_eq!(
        bob.refresh(GRANT, 1).await["version"],
        2,
        "a name like another's is one's own"
    );
    bob.settle().await;
    let hers = ["alice", "alice-other"].map(|family| scene.provider.newest(family).access_token);
    let seen = bob
        .frames
        .iter()
        .any(|frame| hers.iter().any(|token| frame["access_token"] == token.as_str()));
    assert!(!seen, "bob was sent a token of alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_hundred_bad_connections_do_not_delay_a_good_one() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut took = Vec::new();
    for version in (1..).take(ROUNDS) {
        let mut silent = Vec::new();
        for _ in 0..100 {
            if let Ok(session) = Session::open(scene.hub.listen).await {
                silent.push(session);
            }
        }
        let asked = Instant::now();
        let (mut session, _) = Session::connect(&scene.hub, &device, None).await;
        refreshed(&mut session, version).await;
        took.push(asked.elapsed());
        for mut session in silent.drain(..3) {
            assert_eq!(session.closed_within(BOUND).await, Some(4408));
        }
        if took.iter().any(|took| *took < PROMPTLY) {
            return;
        }
    }
    panic!("each time they had to be gone first: {took:?}");
}

/// Masked frames that are whole and say nothing: a message that never ends, or pongs that nobody asked for.
const ENDLESS: [&[u8]; 2] = [&[0x00, 0x80, 0, 0, 0, 0], &[0x8a, 0x80, 0, 0, 0, 0]];

/// Opens a WebSocket, says nothing of who it is, and sends `frame` for as long as it is listened to.
async fn send_without_end(hub: std::net::SocketAddr, frame: &[u8]) {
    let upgrade = "GET /v1/ws HTTP/1.1\r\nhost: hub\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                   sec-websocket-protocol: lockstep.v1\r\n\r\n";
    let mut socket = TcpStream::connect(hub).await.expect("a connection");
    socket.write_all(upgrade.as_bytes()).await.expect("a request");
    let mut answer = [0; 1024];
    let read = socket.read(&mut answer).await.expect("an answer");
    assert!(answer[..read].starts_with(b"HTTP/1.1 101"), "upgraded");
    // The beginning of a text message, of which the endless frames are the rest.
    let mut bytes = vec![0x01, 0x80, 0, 0, 0, 0];
    while socket.write_all(&bytes).await.is_ok() {
        bytes = frame.repeat(20_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_connections_that_send_without_end_do_not_hold_up_another_user() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut version = 1;
    let mut slowest = Vec::new();
    for _ in 0..ROUNDS {
        let mut floods = JoinSet::new();
        for frame in ENDLESS.repeat(threads) {
            floods.spawn(send_without_end(scene.hub.listen, frame));
        }
        // Said nothing of who they are: they have as long as anybody has for that.
        let began = Instant::now();
        let mut longest = Duration::ZERO;
        while !floods.is_empty() {
            longest = longest.max(refreshed(&mut session, version).await);
            version += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
            while let Some(over) = floods.try_join_next() {
                over.expect("a flood that was ended");
            }
            assert!(began.elapsed() < BOUND, "{} are still listened to", floods.len());
        }
        if longest < PROMPTLY {
            return;
        }
        slowest.push(longest);
    }
    panic!("held up each time: {slowest:?}");
}
