//! P4: every connected device acks the newest seq or is closed within a bound; only the newest is ever sent.

use std::time::Duration;

use futures::{StreamExt, stream};
use lockstep_tests::{BOUND, Event, Follower, GRANT, Scene, Session, device::upgrade, eventually};
use serde_json::json;
use tokio::{net::TcpSocket, time::Instant};
use tokio_tungstenite::tungstenite::Message;

/// Together more than a kernel takes for a socket that nobody reads: on loopback some 2.6 MB.
const MANY: usize = 60;
const BIG: usize = 60_000;

/// Many logins with big access tokens; the refresh tokens are the provider's. Gives the newest version.
async fn log_in_big(scene: &Scene, user: &str) -> u64 {
    let login = async |_| {
        let mut login = scene.provider.login(user).login();
        let number = login["access_token"].as_str().unwrap_or_default().to_owned();
        login["access_token"] = format!("{number}{}", "x".repeat(BIG)).into();
        let answer = scene.admin.login(user, GRANT, &login).await.expect(200);
        answer["version"].as_u64().unwrap_or(0)
    };
    let versions = stream::iter(0..MANY).map(login).buffer_unordered(8);
    versions.fold(0, async |newest: u64, version| newest.max(version)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_push_is_acked_and_the_operator_sees_who_is_behind() {
    let scene = Scene::new().await;
    let good = scene.user("alice").await;
    let silent = scene.admin.enrol("alice").await;
    let mut acking = Session::fresh(&scene.hub, &good).await;
    let (mut not_acking, _) = Session::connect(&scene.hub, &silent, None).await;
    not_acking.acks = false;

    acking.refresh(GRANT, 1).await;
    acking.settle().await;

    let seq = acking.token(GRANT).map(|token| token["seq"].clone());
    let seen = eventually("the ack is seen", BOUND, async || {
        Some(scene.admin.device(&good).await).filter(|device| Some(&device["acked"]) == seq.as_ref())
    })
    .await;
    assert_eq!(seen["behind"], json!([]));
    assert_eq!((&seen["connected"], &seen["transport"]), (&true.into(), &"ws".into()));
    let lagging = scene.admin.device(&silent).await;
    assert_eq!(lagging["behind"], json!([GRANT]), "{lagging}");

    not_acking.send(&json!({"type": "ack", "seq": seq})).await;
    eventually("nobody is behind", BOUND, async || {
        (scene.admin.device(&silent).await["behind"] == json!([])).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_device_that_acks_nothing_is_closed_and_the_others_are_not() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut other = Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await;
    let (mut silent, _) = Session::connect(&scene.hub, &device, None).await;
    silent.acks = false;
    let asked = Instant::now();
    other.refresh(GRANT, 1).await;

    assert_eq!(silent.closed_within(Duration::from_secs(60)).await, Some(4408));

    let after = asked.elapsed();
    assert!(after >= Duration::from_secs(28), "after {after:?}: it had 30 s");
    assert!(other.settle().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_device_that_never_reads_harms_nobody_and_is_closed() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let other = Follower::start(scene.hub.listen, scene.admin.enrol("alice").await);
    // Small buffers on our side, so that the hub soon cannot write.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let stream = socket.connect(scene.hub.listen).await.expect("the hub listens");
    let mut deaf = Session::over(scene.hub.listen, stream)
        .await
        .expect("the hub takes the connection");
    deaf.send(&device.hello(None)).await;

    let newest = log_in_big(&scene, "alice").await;
    other.reaches(GRANT, newest, BOUND).await;

    eventually("the deaf session is closed", Duration::from_secs(60), async || {
        (scene.admin.device(&device).await["connected"] == false).then_some(())
    })
    .await;
    // What the kernel had taken before is all that ever comes: a slow device costs a flag, not a queue.
    let mut tokens = 0;
    while let Some(Event::Frame(frame)) = deaf.next_within(Duration::from_secs(2)).await {
        tokens += usize::from(frame["type"] == "token");
    }
    assert!(
        tokens < MANY,
        "all {tokens} versions were queued for a device that does not read"
    );
    assert_eq!((other.connects(), other.faults()), (1, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_device_that_reads_late_is_sent_the_newest_only() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let stream = socket.connect(scene.hub.listen).await.expect("the hub listens");
    let mut late = Session::over(scene.hub.listen, stream)
        .await
        .expect("the hub takes the connection");
    late.acks = true;
    late.send(&device.hello(None)).await;
    late.frame("synced").await;

    let newest = log_in_big(&scene, "alice").await;

    late.until("the newest", |frame| {
        frame["type"] == "token" && frame["version"] == newest
    })
    .await;
    let tokens = late.frames.iter().filter(|frame| frame["type"] == "token").count();
    assert!(tokens < MANY, "{tokens} of {MANY} versions were sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_returning_device_is_brought_to_the_newest_first_thing() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let other = scene.provider.login("alice-other");
    scene
        .admin
        .login("alice", "example/other", &other.login())
        .await
        .expect(200);
    let (session, welcome) = Session::connect(&scene.hub, &device, None).await;
    assert_ne!(welcome["resume"], "uptodate");
    let cursor = session.cursor().expect("a cursor");
    drop(session);
    for version in 1..=3 {
        scene.post_refresh(&device, GRANT, version).await.expect(200);
    }

    let (session, welcome) = Session::connect(&scene.hub, &device, Some(&cursor)).await;

    assert_eq!(welcome["resume"], "delta");
    let tokens: Vec<_> = session.frames.iter().filter(|frame| frame["type"] == "token").collect();
    assert_eq!(tokens.len(), 1, "one change, its newest state only: {tokens:?}");
    assert_eq!((&tokens[0]["grant"], &tokens[0]["version"]), (&GRANT.into(), &4.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_half_open_socket_is_noticed() {
    let scene = Scene::set(|settings| settings.set("server.heartbeat", "1s")).await;
    let device = scene.user("alice").await;
    let (mut session, welcome) = Session::connect(&scene.hub, &device, None).await;
    assert_eq!(welcome["heartbeat"], 1);
    // Not reading means not answering pings, which is all that a hub can see of a peer that is gone.
    eventually("two missed pongs end the session", BOUND, async || {
        (scene.admin.device(&device).await["connected"] == false).then_some(())
    })
    .await;
    session.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_client_that_pings_is_answered() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    session.send_message(Message::Ping("are you there".into())).await;
    assert!(session.settle().await.is_empty());
    assert!(
        upgrade(scene.hub.listen)
            .headers()
            .contains_key("sec-websocket-protocol")
    );
}
