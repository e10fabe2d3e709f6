//! An existing identity provider's tokens stand for users and devices.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_tests::{Answer, BOUND, Enrolled, GRANT, Scene, Session, admin::http};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// An identity provider: a key, and a place where its public half can be read.
struct Idp {
    key: Ed25519KeyPair,
    url: String,
}

impl Idp {
    async fn start() -> Self {
        let key = Ed25519KeyPair::generate().expect("a key");
        let x = URL_SAFE_NO_PAD.encode(key.public_key());
        let set =
            json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "idp-1", "x": x}]}).to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/jwks", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.read(&mut [0; 4096]).await;
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    set.len()
                );
                let _ = socket.write_all(format!("{head}{set}").as_bytes()).await;
            }
        });
        Self { key, url }
    }

    fn token(&self, user: &str, more: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let mut claims =
            json!({"iss": "https://idp.example", "aud": "lockstep-hub", "sub": user, "iat": now, "exp": now + 600});
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(json!({"alg": "EdDSA", "kid": "idp-1"})), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn device(&self, user: &str) -> Enrolled {
        Enrolled {
            user: user.to_owned(),
            id: uuid::Uuid::new_v4().to_string(),
            refresh_token: String::new(),
            access_token: self.token(user, &json!({})),
        }
    }

    async fn scene(&self) -> Scene {
        Scene::set(|settings| {
            settings
                .set("identity.jwks_url", self.url.as_str())
                .set("identity.issuer", "https://idp.example")
                .set("identity.audience", "lockstep-hub")
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_identity_provider_needs_no_enrolment() {
    let idp = Idp::start().await;
    let scene = idp.scene().await;
    let own = scene.user("alice").await;
    let device = idp.device("alice");
    let mut session = Session::fresh(&scene.hub, &device).await;
    assert!(session.token(GRANT).is_some());
    assert_eq!(session.refresh(GRANT, 1).await["version"], 2);
    Session::fresh(&scene.hub, &own).await;

    let view = scene.admin.device(&device).await;
    assert_eq!(
        (&view["connected"], &view["redeemer"]),
        (&true.into(), &false.into()),
        "{view}"
    );
    let over_http = http()
        .get(scene.hub.url("/v1/tokens"))
        .header("lockstep-device", &device.id)
        .bearer_auth(&device.access_token);
    assert_eq!(Answer::to(over_http).await.status, 200);
    let users = scene.admin.user("alice").await.body;
    assert_eq!(
        users["devices"].as_array().map(Vec::len),
        Some(2),
        "one device, however it comes: {users}"
    );

    assert_eq!(scene.admin.revoke(&device).await.status, 204);
    assert_eq!(session.closed_within(BOUND).await, Some(4403));
    let mut again = Session::open(scene.hub.listen).await.expect("a connection");
    again.send(&device.hello(None)).await;
    assert_eq!(again.closed().await, Some(4403));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_good_tokens_of_that_provider_count_and_only_for_their_user() {
    let (idp, impostor) = (Idp::start().await, Idp::start().await);
    let scene = idp.scene().await;
    let alice = scene.user("alice").await;
    for (what, token) in [
        ("another key", impostor.token("alice", &json!({}))),
        ("another audience", idp.token("alice", &json!({"aud": "x"}))),
        ("another issuer", idp.token("alice", &json!({"iss": "x"}))),
        ("expired", idp.token("alice", &json!({"exp": 1_000_000_000}))),
        ("no user", idp.token("", &json!({}))),
    ] {
        let request = http().get(scene.hub.url("/v1/tokens")).bearer_auth(&token);
        assert_eq!(Answer::to(request).await.status, 401, "{what}");
    }
    let bob = idp.device("bob");
    let session = Session::fresh(&scene.hub, &bob).await;
    assert!(session.token(GRANT).is_none(), "bob has nothing, and sees nothing");
    // Bob's good token in the name of alice's device.
    let mut thief = bob.clone();
    thief.id = alice.id;
    let mut session = Session::open(scene.hub.listen).await.expect("a connection");
    session.send(&thief.hello(None)).await;
    assert_eq!(session.closed().await, Some(4401));
}
