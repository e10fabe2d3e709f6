//! Section 5, frame by frame: what is well said, and what is not.

use lockstep_tests::{BOUND, Enrolled, Event, GRANT, Scene, Session};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

/// Sends `text` and expects `error{bad_frame}`, with the id if the frame told one.
async fn is_bad(session: &mut Session, text: &str, id: Option<&str>) {
    session.send_text(text).await;
    let Event::Frame(answer) = session.next().await else {
        panic!("the session ended after {text}");
    };
    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&"error".into(), &"bad_frame".into()),
        "{text}: {answer}"
    );
    assert_eq!(answer["id"].as_str(), id, "{text}: {answer}");
    assert!(answer["message"].is_string(), "{text}: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_welcome_tells_session_user_epoch_time_heartbeat_and_resume() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let (session, welcome) = Session::connect(&scene.hub, &device, None).await;

    assert_eq!(
        (&welcome["type"], &welcome["user"]),
        (&"welcome".into(), &"alice".into())
    );
    assert!(welcome["session"].is_string() && welcome["epoch"].is_string());
    assert!(welcome["heartbeat"].as_u64() > Some(0) && welcome["time"].as_u64() > Some(1_700_000_000));
    let types: Vec<_> = session.frames.iter().map(|frame| frame["type"].clone()).collect();
    assert_eq!(types, ["welcome", "token", "synced"]);
    let token = session.token(GRANT).expect("the token");
    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
    assert_eq!(
        (&token["version"], &token["token_type"], &token["cause"]),
        (&1.into(), &"Bearer".into(), &"login".into())
    );
    assert!(token["expires_at"].as_u64() > token["refreshed_at"].as_u64());
    assert_eq!(token["cursor"], session.frames[2]["cursor"]);
    assert!(
        token.get("refresh_token").is_none(),
        "refresh tokens never leave the hub"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_frame_is_answered_and_the_session_goes_on() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let bad = [
        ("", None),
        ("hello", None),
        ("{", None),
        ("[]", None),
        ("null", None),
        ("17", None),
        ("{}", None),
        (r#"{"type":"sing","id":"7"}"#, Some("7")),
        (r#"{"type":7}"#, None),
        (r#"{"type":"ack"}"#, None),
        (r#"{"type":"ack","seq":"1"}"#, None),
        (r#"{"type":"ack","seq":-1}"#, None),
        (r#"{"type":"ack","seq":1.5}"#, None),
        (r#"{"type":"ack","seq":9007199254740992}"#, None),
        (r#"{"type":"presence","state":"asleep"}"#, None),
        (
            r#"{"type":"refresh","id":"8","grant":"example/main","rejected_version":-1,"reason":"expired"}"#,
            Some("8"),
        ),
        (
            r#"{"type":"refresh","id":"9","grant":"no-slash","rejected_version":1,"reason":"expired"}"#,
            Some("9"),
        ),
        (
            r#"{"type":"refresh","id":"9","grant":"example/..","rejected_version":1,"reason":"expired"}"#,
            Some("9"),
        ),
    ];
    for (text, id) in bad {
        is_bad(&mut session, text, id).await;
    }
    assert_eq!(session.refresh(GRANT, 1).await["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_bad_frames_end_the_session() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    for _ in 0..19 {
        is_bad(&mut session, "?", None).await;
    }
    session.settle().await;
    session.send_text("?").await;
    assert_eq!(session.closed().await, Some(4400));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_frame_ends_the_session() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    session.send_message(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(session.closed().await, Some(4400));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_64_kib_is_taken_and_a_larger_one_ends_the_session() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let frame = |size: usize| {
        let mut text = String::from(r#"{"type":"presence","state":"idle","unknown":""#);
        text.push_str(&"x".repeat(size - text.len() - 2));
        text.push_str("\"}");
        assert_eq!(text.len(), size);
        text
    };
    session.send_text(&frame(64 * 1024)).await;
    assert!(session.settle().await.is_empty(), "unknown fields are ignored");
    // A much larger one is sent to its end before anything is read: a reset would take the close frame along.
    for size in [64 * 1024 + 1, 4 << 20] {
        let device = scene.admin.enrol("alice").await;
        let mut session = Session::fresh(&scene.hub, &device).await;
        session.send_text(&frame(size)).await;
        assert_eq!(session.closed().await, Some(1009), "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fragmented_frame_is_one_frame() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let text =
        format!(r#"{{"type":"refresh","id":"pieces","grant":"{GRANT}","rejected_version":1,"reason":"expired"}}"#);
    let pieces: Vec<_> = text.as_bytes().chunks(7).collect();
    for (n, piece) in pieces.iter().enumerate() {
        let op = if n == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(piece.to_vec(), OpCode::Data(op), n == pieces.len() - 1);
        session.send_message(Message::Frame(frame)).await;
        if n == 3 {
            session.send_message(Message::Ping("between".into())).await;
        }
    }
    assert_eq!(session.answer("pieces").await["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_cannot_get_around_the_limit() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    for n in 0..20 {
        let op = if n == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(vec![b'x'; 8 * 1024], OpCode::Data(op), false);
        session.send_message(Message::Frame(frame)).await;
    }
    assert_eq!(session.closed().await, Some(1009));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_websocket_frame_end_the_connection() {
    use tokio::io::AsyncWriteExt;
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    session
        .socket()
        .get_mut()
        .write_all(&[0xff; 64])
        .await
        .expect("bytes can be written");
    session.closed().await;
    let mut other = scene.session("bob").await;
    other.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf_8_ends_the_session() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let frame = Frame::message(vec![0xc3, 0x28], OpCode::Data(Data::Text), true);
    session.send_message(Message::Frame(frame)).await;
    session.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_need_a_lease_are_refused_without_one() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let welcome = session.frames[0].clone();
    let lease = uuid::Uuid::new_v4().to_string();
    let publish = json!({
        "type": "publish", "id": "p", "grant": GRANT, "lease": lease, "epoch": welcome["epoch"], "from_version": 1,
        "token": {"access_token": "forged", "token_type": "Bearer"},
    });
    let failed = json!({"type": "failed", "id": "f", "grant": GRANT, "lease": lease, "sent": true});
    for (frame, id) in [(&publish, "p"), (&failed, "f")] {
        session.send(frame).await;
        let answer = session.answer(id).await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&"error".into(), &"not_elected".into()),
            "{answer}"
        );
    }
    for kind in ["accept", "renew"] {
        session
            .send(&json!({"type": kind, "grant": GRANT, "lease": lease}))
            .await;
        let answer = session.until("an answer", |frame| frame["type"] == "error").await;
        assert_eq!(
            (&answer["code"], &answer["grant"]),
            (&"not_elected".into(), &GRANT.into()),
            "{kind}: {answer}"
        );
    }
    assert_eq!(
        session.token(GRANT).expect("a token")["version"],
        1,
        "nothing was published"
    );
    assert_eq!(scene.grant("alice").await["version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_grant_is_an_unknown_grant_in_every_request() {
    let scene = Scene::new().await;
    scene.user("bob").await;
    let theirs = scene.provider.login("bob-2");
    scene
        .admin
        .login("bob", "example/his", &theirs.login())
        .await
        .expect(200);
    let mut session = scene.session("alice").await;
    let epoch = session.frames[0]["epoch"].clone();
    let lease = uuid::Uuid::new_v4().to_string();
    let token = json!({"access_token": "forged", "token_type": "Bearer"});
    for frame in [
        json!({"type": "refresh", "id": "1", "grant": "example/his", "rejected_version": 1, "reason": "rejected"}),
        json!({"type": "accept", "grant": "example/his", "lease": lease}),
        json!({"type": "renew", "grant": "example/his", "lease": lease}),
        json!({"type": "publish", "id": "2", "grant": "example/his", "lease": lease, "epoch": epoch, "from_version": 1, "token": token}),
        json!({"type": "failed", "id": "3", "grant": "example/his", "lease": lease, "sent": false}),
    ] {
        session.send(&frame).await;
        let answer = session.until("an answer", |answer| answer["type"] == "error").await;
        assert_eq!(answer["code"], "unknown_grant", "{frame}: {answer}");
    }
    assert!(scene.provider.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hello_is_a_bad_frame() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let hello: Value = device.hello(None);
    is_bad(&mut session, &hello.to_string(), None).await;
    session.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_frame_is_hello_and_nothing_else() {
    let scene = Scene::new().await;
    let device: Enrolled = scene.user("alice").await;
    let mut session = Session::open(scene.hub.listen).await.expect("a connection");
    session.send(&json!({"type": "ack", "seq": 0})).await;
    // Told off or closed, but never served.
    match session.next_within(BOUND).await {
        Some(Event::Frame(frame)) => assert_eq!(frame["code"], "bad_frame", "{frame}"),
        other => assert!(matches!(other, Some(Event::Closed(4400 | 4401))), "{other:?}"),
    }
    let (mut good, _) = Session::connect(&scene.hub, &device, None).await;
    good.settle().await;
}
