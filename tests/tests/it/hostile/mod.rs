//! What people try who mean ill: another user's things, forged and stolen tokens, smuggled and oversized input.

mod tables;

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_tests::{Answer, BOUND, Enrolled, Event, GRANT, Scene, Session, admin::http};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use tables::{OPEN, attempts, frame_types, frames, intrusions, routes};

/// A grant that only alice has.
const HERS: &str = "example/hers";

/// Alice, who has something, and mallory, who wants it.
struct Plot {
    scene: Scene,
    alice: Enrolled,
    /// A slave of alice's device.
    slave: String,
    mallory: Enrolled,
}

impl Plot {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let alice = scene.user("alice").await;
        let pair = scene.provider.login("hers");
        scene.admin.login("alice", HERS, &pair.login()).await.expect(200);
        let path = format!("/admin/v1/devices/{}/grants/{HERS}", alice.id);
        let slave = Answer::to(scene.admin.request(Method::POST, &path)).await.expect(201);
        scene.user("mallory").await;
        // As many rights as a device can have.
        let rights = json!({"kind": "desktop", "name": "m", "redeemer": true, "may_offer": true});
        let mallory = scene.admin.enrol_as("mallory", &rights).await;
        Self {
            slave: slave["refresh_token"].as_str().unwrap_or_default().to_owned(),
            scene,
            alice,
            mallory,
        }
    }

    /// A request with mallory's access token.
    fn mallory(&self, method: Method, path: &str) -> RequestBuilder {
        let request = http().request(method, self.scene.hub.url(path));
        request.bearer_auth(&self.mallory.access_token)
    }

    /// The same on the admin listener.
    fn intrude(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.scene.admin.anonymous(method, path).json(&json!({}));
        request.bearer_auth(&self.mallory.access_token)
    }

    fn form(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        self.mallory(Method::POST, path).form(form)
    }

    /// What must never be shown to mallory.
    fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![
            self.alice.refresh_token.clone(),
            self.alice.access_token.clone(),
            self.slave.clone(),
        ];
        for family in ["alice", "hers"] {
            let newest = self.scene.provider.newest(family);
            secrets.push(newest.access_token.clone());
            secrets.extend(newest.login()["refresh_token"].as_str().map(str::to_owned));
        }
        secrets
    }

    #[track_caller]
    fn is_discreet(&self, what: &str, said: &str) {
        for secret in self.secrets() {
            assert!(!said.contains(&secret), "{what} told a secret of alice: {said}");
        }
        assert!(!said.contains("hers"), "{what} told of a grant of alice: {said}");
    }

    async fn nothing_happened(&self, what: &str) {
        let view = self.scene.admin.user("alice").await;
        let grants = view.body["grants"].as_array().cloned().unwrap_or_default();
        let versions: Vec<_> = grants
            .iter()
            .map(|grant| (&grant["version"], &grant["health"]))
            .collect();
        assert_eq!(versions, [(&json!(1), &json!("ok")); 2], "{what}: {}", view.body);
        assert_eq!(view.body["devices"].as_array().map(Vec::len), Some(1), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_endpoint_gives_a_device_anything_of_another_user() {
    let plot = Plot::new().await;
    let (attempts, intrusions) = (attempts(&plot), intrusions(&plot));
    let tried: BTreeSet<String> = [&attempts, &intrusions]
        .into_iter()
        .flatten()
        .map(|(path, _)| (*path).to_owned())
        .chain(OPEN.map(str::to_owned))
        .collect();
    assert_eq!(
        tried,
        routes(),
        "an endpoint that is not in this test's tables, or no more"
    );

    for (path, requests) in attempts {
        for request in requests {
            let answer = Answer::to(request).await;
            assert!(answer.status < 500, "{path}: {answer:?}");
            plot.is_discreet(path, &format!("{:?}{}", answer.headers, answer.body));
        }
        plot.nothing_happened(path).await;
    }
    for (path, requests) in intrusions {
        for request in requests {
            let answer = Answer::to(request).await;
            assert_eq!(answer.status, 401, "{path}: {answer:?}");
            plot.is_discreet(path, &answer.body.to_string());
        }
        plot.nothing_happened(path).await;
    }
    for path in OPEN {
        let answer = Answer::to(plot.scene.admin.anonymous(Method::GET, path)).await;
        plot.is_discreet(path, &answer.body.to_string());
        assert!(!answer.body.to_string().contains("alice"), "{path} names a user");
    }
    // What belongs to another is answered as what is not there.
    let token = |grant: &str| Answer::to(plot.mallory(Method::GET, &format!("/v1/grants/{grant}/token")));
    let (hers, nobodys) = (token(HERS).await, token("example/nobodys").await);
    assert_eq!(
        hers.body.to_string().replace("hers", "X"),
        nobodys.body.to_string().replace("nobodys", "X")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_frame_gives_a_device_anything_of_another_user() {
    let plot = Plot::new().await;
    let frames = frames(&plot);
    let tried: BTreeSet<String> = frames.iter().map(|(kind, _)| (*kind).to_owned()).collect();
    assert_eq!(
        tried,
        frame_types(),
        "a frame that is not in this test's table, or no more"
    );

    for (kind, mut frame) in frames {
        frame["type"] = kind.into();
        let mut session = Session::fresh(&plot.scene.hub, &plot.mallory).await;
        let before = session.frames.len();
        session.send(&frame).await;
        // A second hello is a breach of the protocol; after everything else the session goes on.
        if kind == "hello" {
            while let Some(Event::Frame(_)) = session.next_within(BOUND).await {}
        } else {
            session.settle().await;
        }
        let said: Vec<_> = session.frames[before..].iter().map(ToString::to_string).collect();
        // The answer may name what was asked for: the name is mallory's own word.
        plot.is_discreet(kind, &said.concat().replace(HERS, ""));
        if let Some(id) = frame["id"].as_str() {
            let answer = session.frames.iter().find(|frame| frame["id"] == id);
            let code = answer.map(|answer| answer["code"].clone());
            assert_eq!(code, Some("unknown_grant".into()), "{kind}: {answer:?}");
        }
        plot.nothing_happened(kind).await;
    }
    // With her own token for alice's device, and with alice's id in a hello of her own.
    let mut stranger = Session::open(plot.scene.hub.listen).await.expect("a connection");
    stranger
        .send(&json!({"type": "hello", "token": plot.mallory.access_token, "device": {"id": plot.alice.id, "app": "x"}, "state": "active"}))
        .await;
    assert_eq!(stranger.closed().await, Some(4401));
}

fn parts(token: &str) -> Vec<String> {
    token.split('.').map(str::to_owned).collect()
}

fn recoded(part: &str, change: impl FnOnce(&mut Value)) -> String {
    let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
    change(&mut value);
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Alice's token, turned into others without her key.
fn forgeries(genuine: &str) -> Vec<(&'static str, String)> {
    let [head, claims, signature] = &parts(genuine)[..] else {
        panic!("not a JWT: {genuine}");
    };
    let none = recoded(head, |head| head["alg"] = "none".into());
    let hs256 = recoded(head, |head| head["alg"] = "HS256".into());
    let other_key = recoded(head, |head| head["kid"] = "AAAAAAAAAAA".into());
    let plain = recoded(head, |head| head["typ"] = "JWT".into());
    let later = recoded(claims, |claims| claims["exp"] = 99_999_999_999_u64.into());
    let bobs = recoded(claims, |claims| claims["sub"] = "bob".into());
    let wider = recoded(claims, |claims| claims["scope"] = "sync redeem offer".into());
    vec![
        ("alg none", format!("{none}.{claims}.")),
        ("alg none, with a signature", format!("{none}.{claims}.{signature}")),
        ("alg HS256", format!("{hs256}.{claims}.{signature}")),
        ("another key's id", format!("{other_key}.{claims}.{signature}")),
        ("another kind of token", format!("{plain}.{claims}.{signature}")),
        ("a longer life", format!("{head}.{later}.{signature}")),
        ("another user", format!("{head}.{bobs}.{signature}")),
        ("more rights", format!("{head}.{wider}.{signature}")),
        ("no signature", format!("{head}.{claims}.")),
        ("half a signature", format!("{head}.{claims}.{}", &signature[..40])),
        ("a part too many", format!("{genuine}.{signature}")),
        ("blanks within", format!("{head}. {claims}.{signature}")),
        ("endless", format!("{head}.{}.{signature}", "A".repeat(9000))),
        ("empty", String::new()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_open_nothing_and_all_are_told_the_same() {
    let scene = Scene::new().await;
    let alice = scene.user("alice").await;
    let elsewhere = Scene::new().await;
    let mut forged = forgeries(&alice.access_token);
    forged.push(("another hub's", elsewhere.user("alice").await.access_token));
    forged.push(("a refresh token", alice.refresh_token.clone()));
    let mut said = BTreeSet::new();
    for (what, token) in &forged {
        let request = http().get(scene.hub.url("/v1/tokens")).bearer_auth(token);
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        if !token.is_empty() {
            said.insert(answer.body.to_string());
        }
        let mut session = Session::open(scene.hub.listen).await.expect("a connection");
        session
            .send(&json!({"type": "hello", "token": token, "device": {"id": alice.id, "app": "x"}, "state": "active"}))
            .await;
        assert_eq!(session.closed().await, Some(4401), "{what}");
        assert!(session.frames.is_empty(), "{what}: {:?}", session.frames);
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(scene.poll(&alice, "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_works_for_its_grant_alone_and_not_after_it_was_ended() {
    let plot = Plot::new().await;
    let first = plot.scene.oauth_token(&plot.slave).await.expect(200);
    assert_eq!(
        first["access_token"],
        plot.scene.provider.newest("hers").access_token.as_str()
    );
    // It is no device token, wherever else one is wanted.
    let as_bearer = http().get(plot.scene.hub.url("/v1/tokens")).bearer_auth(&plot.slave);
    assert_eq!(Answer::to(as_bearer).await.status, 401);

    let path = format!("/admin/v1/devices/{}", plot.alice.id);
    let listed = Answer::to(plot.scene.admin.request(Method::GET, &path))
        .await
        .expect(200);
    let slave = &listed["slaves"][0];
    assert_eq!(slave["grant"], HERS);
    assert!(!listed.to_string().contains("lsg_"), "{listed}");
    let one = format!("{path}/slaves/{}", slave["id"].as_str().unwrap_or_default());
    let ended = Answer::to(plot.scene.admin.request(Method::DELETE, &one)).await;
    assert_eq!(ended.status, 204, "{ended:?}");
    let again = Answer::to(plot.scene.admin.request(Method::DELETE, &one)).await;
    assert_eq!(again.status, 404);
    let replayed = plot.scene.oauth_token(&plot.slave).await.expect(400);
    assert_eq!(replayed["error"], "invalid_grant");
    assert_eq!(plot.scene.poll(&plot.alice, "").await.status, 200, "the device goes on");
}

/// Sends bytes as they are; what came back, up to the end or to a bound.
async fn raw(scene: &Scene, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(scene.hub.listen).await.expect("a connection");
    // The hub may have had enough before all is sent.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(BOUND, async {
        let mut some = [0; 4096];
        while let Ok(n) = socket.read(&mut some).await {
            if n == 0 {
                break;
            }
            answer.extend_from_slice(&some[..n]);
        }
    })
    .await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn smuggled_and_oversized_requests_are_refused_and_harm_nobody() {
    let scene = Scene::new().await;
    let alice = scene.user("alice").await;
    let bearer = &alice.access_token;
    let end = "Connection: close\r\n\r\n";
    let smuggled = "GET /admin/v1/users/alice HTTP/1.1\r\nHost: x\r\n\r\n";
    let both = format!(
        "POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n{end}0\r\n\r\n{smuggled}"
    );
    let twice = format!(
        "POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 60\r\n{end}abcd{smuggled}"
    );
    let folded = format!("GET /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n {bearer}\r\n{end}");
    let doubled = format!(
        "GET /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nAuthorization: Bearer {bearer}\r\n{end}"
    );
    let head = format!(
        "GET /v1/tokens HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n{end}",
        "a".repeat(100_000)
    );
    let many = format!(
        "GET /v1/tokens HTTP/1.1\r\nHost: x\r\n{}{end}",
        "X-A: b\r\n".repeat(2000)
    );
    let null = format!("GET /v1/tok\0ens HTTP/1.1\r\nHost: x\r\n{end}");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n{end}", "a".repeat(100_000));
    for (what, bytes) in [
        ("two lengths of a body", both),
        ("a length twice", twice),
        ("a folded header", folded),
        ("credentials twice", doubled),
        ("an endless header", head),
        ("endless headers", many),
        ("a zero byte", null),
        ("an endless path", long),
    ] {
        let answer = raw(&scene, bytes.as_bytes()).await;
        let answers = answer.matches("HTTP/1.1 ").count();
        assert!(answers <= 1, "{what} was taken for two requests: {answer}");
        let good = answer.starts_with("HTTP/1.1 2");
        assert!(!good, "{what} was taken: {answer}");
    }
    let token = "x".repeat(30_000);
    let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
    let large = Answer::to(http().post(scene.hub.url("/oauth/token")).form(&form)).await;
    assert_eq!(large.status, 413, "{large:?}");
    let deep = "[".repeat(60_000);
    let nested = http()
        .post(scene.hub.url("/oauth/token"))
        .header("content-type", "application/json")
        .body(deep);
    assert!((400..500).contains(&Answer::to(nested).await.status));
    assert_eq!(scene.poll(&alice, "").await.status, 200);
    assert_eq!(scene.get_token(&alice, GRANT, "").await.status, 200);
}
