//! Tokens of an identity provider, good ones and the ways in which they can be bad.

use std::sync::{Mutex, atomic::AtomicUsize, atomic::Ordering};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    audit::RevokedWhy,
    identity::IdentitySettings,
    store::{self, Store},
    vault::Vault,
};

/// A key of the identity provider.
struct Signing {
    id: String,
    key: EncodingKey,
    x: String,
}

impl Signing {
    fn new(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let pkcs8: Pkcs8V1Der<'static> = pair.as_der().unwrap();
        Self {
            id: id.into(),
            key: EncodingKey::from_ed_der(pkcs8.as_ref()),
            x: URL_SAFE_NO_PAD.encode(pair.public_key()),
        }
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.id, "x": self.x})
    }

    fn sign(&self, claims: &Value) -> Secret {
        let header = Header {
            kid: Some(self.id.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        Secret::new(jsonwebtoken::encode(&header, claims, &self.key).unwrap())
    }
}

/// Serves a key set, and counts who asks.
struct Jwks {
    url: Url,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Jwks {
    async fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let (keys, asked) = (Arc::new(Mutex::new(keys)), Arc::new(AtomicUsize::new(0)));
        let (shown, count) = (Arc::clone(&keys), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.read(&mut [0; 4096]).await;
                count.fetch_add(1, Ordering::Relaxed);
                let body = json!({ "keys": *shown.lock().unwrap() }).to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        Self {
            url: url.parse().unwrap(),
            keys,
            asked,
        }
    }
}

async fn hub(jwks: &Jwks, store: Arc<dyn Store>) -> Arc<Identity> {
    let external = ExternalSettings {
        jwks_url: jwks.url.clone(),
        issuer: "https://idp.example".into(),
        audience: "lockstep-hub".into(),
        algorithms: [SignedWith::EdDSA, SignedWith::RS256].into(),
        user_claim: "sub".into(),
        device_claim: "device_id".into(),
        fetch_gap: Duration::ZERO,
    };
    let settings = IdentitySettings {
        external: Some(external),
        ..IdentitySettings::default()
    };
    let vault = Arc::new(Vault::ephemeral());
    Identity::start(store, vault, settings).await.unwrap()
}

fn claims() -> Value {
    let now = clock::unix().seconds().0;
    json!({"iss": "https://idp.example", "aud": "lockstep-hub", "sub": "alice", "iat": now, "exp": now + 300})
}

fn but(change: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn some_id() -> DeviceId {
    DeviceId(Uuid::new_v4())
}

#[tokio::test]
async fn a_token_of_the_identity_provider_stands_for_user_and_device() {
    let key = Signing::new("k1");
    let jwks = Jwks::start(vec![json!({"kty": "new", "kid": "?"}), key.jwk()]).await;
    let store = store::memory();
    let hub = hub(&jwks, store.clone()).await;
    let mine = some_id();
    for _ in 0..20 {
        let who = hub
            .recognise(&key.sign(&claims()), Some(mine), clock::unix())
            .await
            .unwrap();
        assert_eq!((who.user.as_str(), who.device), ("alice", mine));
        assert!(!who.redeemer && !who.may_offer && who.is_external);
    }
    let listed = store.devices(&"alice".parse().unwrap()).await.unwrap();
    assert_eq!(
        listed.iter().map(|row| row.id).collect::<Vec<_>>(),
        [mine],
        "enrolled at first sight, once"
    );
    assert!(jwks.asked.load(Ordering::Relaxed) <= 2, "no look-up per request");

    assert!(hub.revoke(mine, RevokedWhy::Admin).await.unwrap());
    let after = hub.recognise(&key.sign(&claims()), Some(mine), clock::unix()).await;
    assert_eq!(after, Err(Denied::Revoked));
}

#[tokio::test]
async fn a_revocation_outlives_the_list_in_memory() {
    let key = Signing::new("k1");
    let jwks = Jwks::start(vec![key.jwk()]).await;
    let hub = hub(&jwks, store::memory()).await;
    let mine = some_id();
    let token = key.sign(&claims());
    let ask = || hub.recognise(&token, Some(mine), clock::unix());
    assert!(ask().await.is_ok());
    hub.revoke(mine, RevokedWhy::Admin).await.unwrap();
    hub.revocations.forget_all();
    assert_eq!(ask().await, Err(Denied::Revoked));
}

#[tokio::test]
async fn what_the_token_says_of_the_device_goes_before_what_the_device_says() {
    let key = Signing::new("k1");
    let jwks = Jwks::start(vec![key.jwk()]).await;
    let hub = hub(&jwks, store::memory()).await;
    let now = clock::unix();
    let id = some_id();
    let who = |token: Secret, named| {
        let hub = Arc::clone(&hub);
        async move { hub.recognise(&token, named, now).await.map(|who| who.device) }
    };
    let said = key.sign(&but(&json!({"device_id": id.to_string()})));
    assert_eq!(who(said.clone(), Some(some_id())).await, Ok(id));
    let named = who(key.sign(&but(&json!({"device_id": "laptop"}))), Some(some_id())).await;
    assert_eq!(
        named,
        who(key.sign(&but(&json!({"device_id": "laptop"}))), None).await,
        "always the same"
    );
    let app = key.sign(&but(&json!({"azp": "spa"})));
    assert_ne!(who(app.clone(), None).await, who(app, Some(some_id())).await);

    let bobs = key.sign(&but(&json!({"sub": "bob", "device_id": id.to_string()})));
    assert_eq!(who(bobs, None).await, Err(Denied::AnothersDevice));
}

#[tokio::test]
async fn bad_tokens_are_refused_each_for_its_reason() {
    let key = Signing::new("k1");
    let jwks = Jwks::start(vec![key.jwk()]).await;
    let hub = hub(&jwks, store::memory()).await;
    let now = clock::unix();
    let seconds = now.seconds().0;
    let skew = IdentitySettings::default().clock_skew.as_secs();
    let impostor = Signing::new("k1");
    let signed = |change: Value| key.sign(&but(&change));
    let cases = [
        ("foreign key", impostor.sign(&claims()), Denied::BadSignature),
        ("unknown key", Signing::new("k9").sign(&claims()), Denied::UnknownKey),
        (
            "issuer",
            signed(json!({"iss": "https://evil.example"})),
            Denied::WrongIssuer,
        ),
        ("audience", signed(json!({"aud": "another"})), Denied::WrongAudience),
        ("audiences", signed(json!({"aud": ["x", "y"]})), Denied::WrongAudience),
        ("no audience", signed(json!({"aud": null})), Denied::WrongAudience),
        ("expired", signed(json!({"exp": seconds - skew - 1})), Denied::Expired),
        ("early", signed(json!({"nbf": seconds + skew + 5})), Denied::NotYet),
        ("future", signed(json!({"iat": seconds + skew + 5})), Denied::NotYet),
        ("no user", signed(json!({"sub": null})), Denied::NoUser),
        ("bad user", signed(json!({"sub": "a b/c"})), Denied::NoUser),
        ("exp as text", signed(json!({"exp": "never"})), Denied::Malformed),
        ("nonsense", Secret::new("a.b.c"), Denied::Malformed),
        ("long", Secret::new("a".repeat(20_000)), Denied::Malformed),
    ];
    for (what, token, why) in cases {
        let answer = hub.recognise(&token, Some(some_id()), now).await;
        // jsonwebtoken tells some of these as a claim that is missing.
        let refused = answer.expect_err(what);
        assert!(refused == why || refused == Denied::Malformed, "{what}: {refused:?}");
        assert!(
            what != "foreign key" || refused == Denied::BadSignature,
            "{what}: {refused:?}"
        );
    }
    let within_skew = signed(json!({"exp": seconds - 1}));
    assert!(hub.recognise(&within_skew, Some(some_id()), now).await.is_ok());
}

/// What every forger tries first: no signature, and a public key taken for a shared secret.
#[tokio::test]
async fn the_algorithm_is_not_the_tokens_to_choose() {
    let key = Signing::new("k1");
    let shared = json!({"kty": "oct", "kid": "k2", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode("secret")});
    let jwks = Jwks::start(vec![key.jwk(), shared]).await;
    let hub = hub(&jwks, store::memory()).await;
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let forged = |alg: &str, kid: &str, secret: &[u8]| {
        let message = format!(
            "{}.{}",
            part(json!({"alg": alg, "kid": kid, "typ": "JWT"})),
            part(claims())
        );
        let tag = aws_lc_rs::hmac::sign(
            &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret),
            message.as_bytes(),
        );
        let signature = if alg == "none" {
            String::new()
        } else {
            URL_SAFE_NO_PAD.encode(tag)
        };
        Secret::new(format!("{message}.{signature}"))
    };
    let public = URL_SAFE_NO_PAD.decode(&key.x).unwrap();
    for token in [
        forged("none", "k1", b""),
        forged("None", "k1", b""),
        forged("HS256", "k1", &public),
        forged("HS256", "k1", key.x.as_bytes()),
        forged("HS256", "k2", b"secret"),
        forged("RS256", "k1", &public),
        forged("EdDSA", "k1", &public),
    ] {
        let answer = hub.recognise(&token, Some(some_id()), clock::unix()).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    let crit = Header {
        kid: Some("k1".into()),
        crit: Some(vec!["exp".into()]),
        ..Header::new(Algorithm::EdDSA)
    };
    let token = Secret::new(jsonwebtoken::encode(&crit, &claims(), &key.key).unwrap());
    let answer = hub.recognise(&token, Some(some_id()), clock::unix()).await;
    assert_eq!(answer, Err(Denied::WrongKind), "critical extensions are not understood");
}

#[tokio::test]
async fn keys_may_be_rotated_under_way() {
    let (old, new) = (Signing::new("old"), Signing::new("new"));
    let jwks = Jwks::start(vec![old.jwk()]).await;
    let hub = hub(&jwks, store::memory()).await;
    let mine = some_id();
    assert!(
        hub.recognise(&old.sign(&claims()), Some(mine), clock::unix())
            .await
            .is_ok()
    );
    *jwks.keys.lock().unwrap() = vec![new.jwk()];
    assert!(
        hub.recognise(&new.sign(&claims()), Some(mine), clock::unix())
            .await
            .is_ok()
    );
    let withdrawn = hub.recognise(&old.sign(&claims()), Some(mine), clock::unix()).await;
    assert_eq!(withdrawn, Err(Denied::UnknownKey));
}

#[tokio::test]
async fn the_hubs_own_tokens_are_as_good_as_ever() {
    let jwks = Jwks::start(vec![Signing::new("k1").jwk()]).await;
    let hub = hub(&jwks, store::memory()).await;
    let new = NewDevice {
        kind: DeviceKind::Cli,
        name: "laptop".into(),
        redeemer: false,
        may_offer: false,
        priority: None,
    };
    let device = hub.enrol(&"alice".parse().unwrap(), new, By::Admin).await.unwrap();
    let who = hub.recognise(&device.access_token, None, clock::unix()).await.unwrap();
    assert_eq!(who.device, device.device_id);
    assert!(!who.is_external);
}
