use jsonwebtoken::EncodingKey;
use lockstep_protocol::Seq;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{identity::Issuer, store::Hash};

const NOW: Unix = Unix(1_800_000_000_000);

fn keys() -> Keys {
    Keys::fresh().unwrap()
}

fn settings() -> IdentitySettings {
    IdentitySettings {
        issuer: Issuer::Public("https://hub.example/".into()),
        ..IdentitySettings::default()
    }
}

fn device() -> Device {
    Device {
        id: DeviceId(Uuid::from_u128(7)),
        user: "alice".parse().unwrap(),
        kind: DeviceKind::Cli,
        name: "laptop".into(),
        redeemer: true,
        may_offer: false,
        priority: None,
        enrolled_at: NOW,
        generation: 1,
        newest: Hash([0; 32]),
        parent: None,
        revoked_at: None,
        last_seen: None,
        acked: Seq(0),
    }
}

fn minted(keys: &Keys) -> Secret {
    mint(keys, &settings(), &device(), NOW).unwrap()
}

/// The three parts of a token, the first two as JSON.
fn parts(token: &Secret) -> (Value, Value, String) {
    let mut parts = token.expose().split('.');
    let mut json = || serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap()).unwrap();
    let (header, claims) = (json(), json());
    (header, claims, parts.next().unwrap().into())
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token that `keys` signed over whatever header and claims.
fn signed(keys: &Keys, header: &Value, claims: &Value) -> Secret {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = keys.current().sign_raw(message.as_bytes());
    Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn denied(keys: &Keys, token: &Secret) -> Denied {
    check(keys, &settings(), token, NOW).expect_err("must be denied")
}

#[test]
fn a_minted_token_says_who_its_holder_is() {
    let keys = keys();
    let principal = check(&keys, &settings(), &minted(&keys), NOW).unwrap();
    assert_eq!(
        principal,
        Principal {
            user: "alice".parse().unwrap(),
            device: device().id,
            kind: DeviceKind::Cli,
            priority: DeviceKind::Cli.priority(),
            redeemer: true,
            may_offer: false,
            expires_at: NOW + Duration::from_secs(900),
            is_external: false,
        }
    );
}

#[test]
fn a_minted_token_follows_the_profile() {
    let (header, claims, _) = parts(&minted(&keys()));
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("EdDSA")));
    assert_eq!(claims["iss"], "https://hub.example");
    assert_eq!(claims["aud"], "lockstep");
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["client_id"], device().id.to_string());
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 900);
    assert_eq!(claims["scope"], "sync redeem");
    assert!(claims["jti"].is_string());
}

#[test]
fn any_verifier_with_the_public_key_accepts_a_minted_token() {
    let keys = keys();
    let public = jsonwebtoken::DecodingKey::from_ed_components(&keys.current().x).unwrap();
    let mut validation = jsonwebtoken::Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["lockstep"]);
    validation.set_issuer(&["https://hub.example"]);
    validation.validate_exp = false;
    jsonwebtoken::decode::<Claims>(minted(&keys).expose(), &public, &validation).unwrap();
}

#[test]
fn a_token_of_another_hub_is_refused() {
    let (ours, theirs) = (keys(), keys());
    assert_eq!(denied(&ours, &minted(&theirs)), Denied::UnknownKey);
    // The foreign key under our key's name.
    let (mut header, claims, _) = parts(&minted(&theirs));
    header["kid"] = json!(ours.current().kid);
    assert_eq!(denied(&ours, &signed(&theirs, &header, &claims)), Denied::BadSignature);
}

#[test]
fn a_changed_token_is_refused() {
    let keys = keys();
    let token = minted(&keys);
    let (header, mut claims, signature) = parts(&token);
    claims["sub"] = json!("mallory");
    let changed = format!("{}.{}.{signature}", encoded(&header), encoded(&claims));
    assert_eq!(denied(&keys, &changed.into()), Denied::BadSignature);
    let message = token.expose().rsplit_once('.').unwrap().0;
    for signature in ["", "AAAA", &URL_SAFE_NO_PAD.encode([0; 64])] {
        assert_eq!(
            denied(&keys, &format!("{message}.{signature}").into()),
            Denied::BadSignature
        );
    }
}

#[test]
fn alg_none_is_refused() {
    let keys = keys();
    let (mut header, claims, signature) = parts(&minted(&keys));
    for alg in ["none", "None", "NONE", ""] {
        header["alg"] = json!(alg);
        for signature in ["", &signature] {
            let token = format!("{}.{}.{signature}", encoded(&header), encoded(&claims));
            assert_eq!(denied(&keys, &token.into()), Denied::Malformed, "{alg}");
        }
    }
}

#[test]
fn hs256_with_the_public_key_as_secret_is_refused() {
    let keys = keys();
    let (_, claims, _) = parts(&minted(&keys));
    let public = URL_SAFE_NO_PAD.decode(&keys.current().x).unwrap();
    for secret in [public.as_slice(), keys.current().x.as_bytes()] {
        let header = Header {
            typ: Some(TYP.into()),
            kid: Some(keys.current().kid.clone()),
            ..Header::new(Algorithm::HS256)
        };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(denied(&keys, &token.into()), Denied::WrongKind);
    }
}

#[test]
fn another_kind_of_token_of_ours_is_refused() {
    let keys = keys();
    let (good, claims, _) = parts(&minted(&keys));
    for typ in [json!("JWT"), json!("at"), Value::Null] {
        let mut header = good.clone();
        header["typ"] = typ;
        assert_eq!(denied(&keys, &signed(&keys, &header, &claims)), Denied::WrongKind);
    }
    let mut header = good.clone();
    header["typ"] = json!("application/AT+JWT");
    assert!(check(&keys, &settings(), &signed(&keys, &header, &claims), NOW).is_ok());
    header = good;
    header["kid"] = Value::Null;
    assert_eq!(denied(&keys, &signed(&keys, &header, &claims)), Denied::UnknownKey);
}

#[test]
fn wrong_issuer_audience_scope_or_shape_is_refused() {
    let keys = keys();
    let (header, good, _) = parts(&minted(&keys));
    for (field, value, why) in [
        ("iss", json!("https://evil.example"), Denied::WrongIssuer),
        ("aud", json!("another"), Denied::WrongAudience),
        ("aud", json!(["lockstep"]), Denied::Malformed),
        ("scope", json!("redeem"), Denied::WrongKind),
        ("scope", json!("syncredeem"), Denied::WrongKind),
        ("sub", json!("../etc"), Denied::Malformed),
        ("client_id", json!("7"), Denied::Malformed),
        ("exp", json!(-1), Denied::Malformed),
        ("exp", json!("2099"), Denied::Malformed),
        ("kind", json!("toaster"), Denied::Malformed),
    ] {
        let mut claims = good.clone();
        claims[field] = value;
        assert_eq!(denied(&keys, &signed(&keys, &header, &claims)), why, "{field}");
    }
}

#[test]
fn a_token_lives_from_iat_to_exp_give_or_take_the_skew() {
    let keys = keys();
    let token = minted(&keys);
    let at = |now| check(&keys, &settings(), &token, now);
    let skew = settings().clock_skew;
    let end = NOW + Duration::from_secs(900);
    assert!(at((end + skew).minus(Duration::from_millis(1))).is_ok());
    assert_eq!(at(end + skew), Err(Denied::Expired));
    assert!(at(NOW.minus(skew)).is_ok());
    assert_eq!(at(NOW.minus(skew + Duration::from_secs(1))), Err(Denied::NotYet));
    assert_eq!(at(Unix(u64::MAX)), Err(Denied::Expired));
}

#[test]
fn nodes_without_a_public_url_take_each_others_tokens() {
    let keys = keys();
    let node = |port: u16| IdentitySettings {
        issuer: Issuer::Listening(format!("http://127.0.0.1:{port}")),
        ..IdentitySettings::default()
    };
    let token = mint(&keys, &node(1), &device(), NOW).unwrap();
    assert!(check(&keys, &node(2), &token, NOW).is_ok());
}

#[test]
fn an_oversized_text_is_refused_unread() {
    assert_eq!(denied(&keys(), &"a".repeat(LONGEST + 1).into()), Denied::Malformed);
}

proptest! {
    #[test]
    fn checking_never_panics_and_never_accepts(text in "\\PC*|[A-Za-z0-9_-]*\\.[A-Za-z0-9_-]*\\.[A-Za-z0-9_-]*") {
        prop_assert!(check(&keys(), &settings(), &text.into(), NOW).is_err());
    }

    #[test]
    fn a_token_with_any_byte_changed_is_refused(at: prop::sample::Index, byte in 1_u8..128) {
        let keys = keys();
        let mut bytes = minted(&keys).expose().as_bytes().to_vec();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(check(&keys, &settings(), &changed.into(), NOW).is_err());
    }
}
