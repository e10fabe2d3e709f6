//! Whom the hub lets in, how many, and for how long: it turns away before it falls over, and says when to come back.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use lockstep_protocol::limits::HELLO_WITHIN;
use lockstep_tests::{
    Answer, BOUND, Enrolled, Event, GRANT, Hub, Scene, Session, admin::http, device, eventually, fleet::Member, within,
};
use reqwest::{RequestBuilder, header::HeaderValue};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// An upgrade, as one who came through a proxy for `client` sends it.
fn upgrade(hub: &Hub, client: Option<&str>) -> RequestBuilder {
    let request = http()
        .get(hub.url("/v1/ws"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "lockstep.v1");
    match client {
        Some(client) => request.header("x-forwarded-for", client),
        None => request,
    }
}

/// A session that came through a proxy for `client`: it says who it is, and so has its place for as long as it is held.
async fn inside(scene: &Scene, device: &Enrolled, client: &'static str) -> WebSocketStream<TcpStream> {
    let mut request = device::upgrade(scene.hub.listen);
    let client = HeaderValue::from_static(client);
    request.headers_mut().insert("x-forwarded-for", client);
    let stream = TcpStream::connect(scene.hub.listen).await.expect("the hub listens");
    let (mut socket, _) = client_async(request, stream).await.expect("an upgrade");
    let hello = Message::text(device.hello(None).to_string());
    socket.send(hello).await.expect("hello is sent");
    let welcome = within("the welcome", BOUND, socket.next()).await;
    let welcome = welcome.expect("a frame").expect("a frame").into_text();
    assert!(welcome.expect("text").contains("welcome"), "it is let in");
    socket
}

/// Refused with this status and code, in a problem document that says when to come back.
#[track_caller]
fn is_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.text("code")), (status, code), "{}", answer.body);
    let wait: u64 = answer
        .header("retry-after")
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no Retry-After: {:?}", answer.headers));
    assert!((1..=11).contains(&wait), "{wait}");
    assert!(answer.body["retry_at"].is_u64(), "{}", answer.body);
}

async fn poll(hub: &Hub, device: &Enrolled) -> Answer {
    Answer::to(
        http()
            .get(hub.url("/v1/tokens?wait=0"))
            .bearer_auth(&device.access_token),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_full_says_so_and_takes_whoever_comes_when_there_is_room() {
    let scene = Scene::set(|settings| settings.set("server.limits.max_connections", 3)).await;
    scene.user("alice").await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await);
    }
    let late = scene.admin.enrol("alice").await;

    is_refused(&Answer::to(upgrade(&scene.hub, None)).await, 503, "unavailable");
    is_refused(&poll(&scene.hub, &late).await, 503, "unavailable");
    let member = Member::start(&scene.hub.url(""), late, |builder| builder).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!member.client.connection().borrow().synced);

    // The operator is let in whatever happens, and those inside are served.
    scene.admin.refresh("alice", GRANT).await.expect(200);
    sessions[0].until("version 2", |frame| frame["version"] == 2).await;
    drop(sessions.pop());
    member.reaches(2, Duration::from_secs(60)).await;
    assert!(scene.hub.log().matches("panic").count() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_only_so_many_connections() {
    let scene = Scene::set(|settings| settings.set("server.limits.max_connections_per_address", 2)).await;
    let device = scene.user("alice").await;
    let first = Session::fresh(&scene.hub, &device).await;
    let other = scene.admin.enrol("alice").await;
    let _second = Session::fresh(&scene.hub, &other).await;

    is_refused(&Answer::to(upgrade(&scene.hub, None)).await, 429, "rate_limited");
    is_refused(&poll(&scene.hub, &device).await, 429, "rate_limited");

    drop(first);
    eventually("there is room again", BOUND, async || {
        (poll(&scene.hub, &device).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_trusted_proxy_speaks_for_is_counted_and_not_the_proxy() {
    let scene = Scene::set(|settings| {
        settings
            .set("server.limits.max_connections_per_address", 2)
            .set("server.trusted_proxies", vec!["127.0.0.0/8"])
    })
    .await;
    let one = Some("203.0.113.7");
    let mut guests = Vec::new();
    for _ in 0..2 {
        let device = scene.admin.enrol("alice").await;
        guests.push(inside(&scene, &device, "203.0.113.7").await);
    }

    is_refused(&Answer::to(upgrade(&scene.hub, one)).await, 429, "rate_limited");
    // What the client itself wrote in front does not count.
    let forged = Some("198.51.100.1, 203.0.113.7");
    is_refused(&Answer::to(upgrade(&scene.hub, forged)).await, 429, "rate_limited");
    let other = Answer::to(upgrade(&scene.hub, Some("203.0.113.7, 198.51.100.1"))).await;
    assert_eq!(other.status, 101);
    drop(guests);
    eventually("its place is free again", BOUND, async || {
        (Answer::to(upgrade(&scene.hub, one)).await.status == 101).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_believed_whom_it_speaks_for() {
    let scene = Scene::set(|settings| settings.set("server.limits.max_connections_per_address", 1)).await;
    let device = scene.admin.enrol("alice").await;
    let _one = inside(&scene, &device, "203.0.113.7").await;
    let other = Answer::to(upgrade(&scene.hub, Some("203.0.113.8"))).await;
    is_refused(&other, 429, "rate_limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_few_and_do_not_stay() {
    let scene = Scene::set(|settings| settings.set("server.limits.max_unauthenticated", 3)).await;
    let device = scene.user("alice").await;
    let fourth = loop {
        let began = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(Session::open(scene.hub.listen).await.expect("a connection"));
        }
        let fourth = Answer::to(upgrade(&scene.hub, None)).await;
        let is_in_time = began.elapsed() < HELLO_WITHIN;
        // Whoever says who it is by other means is served meanwhile.
        poll(&scene.hub, &device).await.expect(200);
        for session in &mut silent {
            assert_eq!(session.closed().await, Some(4408));
        }
        // Held up for so long, it found the strangers gone: nothing is shown.
        if fourth.status == 503 || is_in_time {
            break fourth;
        }
    };
    is_refused(&fourth, 503, "unavailable");
    Session::fresh(&scene.hub, &device).await;
}

/// Sends `head`, then one byte now and then; gives what was answered and after how long the hub hung up.
async fn drip(hub: &Hub, head: &str, drop: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut tcp = TcpStream::connect(hub.listen).await.expect("the hub listens");
    // The hub may have had enough before all is sent.
    let _ = tcp.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    within("the hub hangs up on a slow sender", Duration::from_secs(40), async {
        loop {
            tokio::select! {
                // A reset says the same as an end.
                read = tcp.read_buf(&mut answer) => if read.unwrap_or(0) == 0 { break },
                () = sleep(Duration::from_millis(700)), if !drop.is_empty() => {
                    let _ = tcp.write_all(drop).await;
                }
            }
        }
    })
    .await;
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slow_and_the_silent_are_hung_up_on() {
    let scene = Scene::new().await;
    let hub = &scene.hub;
    let post =
        "POST /oauth/token HTTP/1.1\r\nhost: hub\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n";
    let get = "GET /.well-known/jwks.json HTTP/1.1\r\nhost: hub\r\n\r\n";
    let huge = format!("GET / HTTP/1.1\r\nhost: hub\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    let (silent, head, body, idle, huge) = tokio::join!(
        drip(hub, "", b""),
        drip(hub, "GET /v1/tokens HTTP/1.1\r\nhost: hub\r\nx: ", b"x"),
        drip(hub, post, b"x"),
        drip(hub, get, b""),
        drip(hub, &huge, b""),
    );
    let slow = Duration::from_secs(5)..Duration::from_secs(40);
    for (what, (_, after)) in [
        ("silent", &silent),
        ("slow head", &head),
        ("slow body", &body),
        ("idle", &idle),
    ] {
        assert!(slow.contains(after), "{what}: after {after:?}");
    }
    assert!(body.0.starts_with("HTTP/1.1 408"), "{}", body.0);
    assert!(idle.0.starts_with("HTTP/1.1 200"), "{}", idle.0);
    assert!(huge.0.starts_with("HTTP/1.1 431"), "{}", huge.0);
    Session::fresh(hub, &scene.user("alice").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_asks_too_often_is_told_and_one_that_does_not_listen_is_closed() {
    let scene = Scene::set(|settings| settings.set("server.limits.requests_per_second_per_device", 5)).await;
    let device = scene.user("alice").await;
    let mut refused = None;
    for _ in 0..50 {
        let answer = poll(&scene.hub, &device).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    is_refused(&refused.expect("a limit"), 429, "rate_limited");

    // Another device of the user has a measure of its own.
    let other = scene.admin.enrol("alice").await;
    poll(&scene.hub, &other).await.expect(200);
    let mut session = Session::fresh(&scene.hub, &other).await;
    let welcomed = session.frames.len();
    let mut end = None;
    for _ in 0..3000 {
        session.send(&json!({"type": "presence", "state": "idle"})).await;
        match session.next_within(Duration::from_millis(1)).await {
            Some(Event::Frame(_)) | None => {}
            ended => {
                end = ended;
                break;
            }
        }
    }
    let closed = match end {
        // The hub may come to what was sent, and the test to what was answered, only now.
        None => session.closed().await,
        Some(Event::Closed(code)) => Some(code),
        Some(_) => None,
    };
    let told = session.frames.get(welcomed).expect("an error");
    assert_eq!(
        (&told["code"], told["retry_at"].is_u64()),
        (&"rate_limited".into(), true),
        "{told}"
    );
    assert_eq!(closed, Some(4429));
}
