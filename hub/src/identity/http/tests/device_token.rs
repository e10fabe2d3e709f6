//! `lsd_…` at `/oauth/token`: the rules of section 6 of the design.

use std::collections::HashSet;

use futures::future::join_all;

use super::*;

#[tokio::test]
async fn a_device_refresh_token_buys_an_access_token_and_rotates() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    let answer = hub.refresh(&device.device_refresh_token).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["expires_in"], 900);
    assert_eq!(answer.body["scope"], "sync redeem");
    assert_eq!(answer.body["device_id"], device.device_id.to_string());
    assert_ne!(answer.secret("refresh_token"), device.device_refresh_token);
    let principal = hub
        .identity
        .authenticate(&answer.secret("access_token"), now())
        .unwrap();
    assert_eq!((principal.user.as_str(), principal.device), ("alice", device.device_id));
}

#[tokio::test]
async fn the_access_token_from_enrolment_is_good() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    let principal = hub.identity.authenticate(&device.access_token, now()).unwrap();
    assert_eq!(principal.device, device.device_id);
    assert!(principal.redeemer && !principal.may_offer);
}

#[tokio::test]
async fn the_parent_gives_the_same_newest_again_however_often() {
    let hub = Hub::start().await;
    let first = hub.enrol("alice").await.device_refresh_token;
    let second = hub.refresh(&first).await.secret("refresh_token");
    for _ in 0..3 {
        assert_eq!(hub.refresh(&first).await.secret("refresh_token"), second);
    }
    let third = hub.refresh(&second).await.secret("refresh_token");
    assert_ne!(third, second);
    assert_eq!(hub.refresh(&second).await.secret("refresh_token"), third);
}

#[tokio::test]
async fn anything_older_revokes_the_device() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    let second = hub.refresh(&device.device_refresh_token).await.secret("refresh_token");
    let third = hub.refresh(&second).await;
    hub.refresh(&device.device_refresh_token)
        .await
        .is_error(400, "invalid_grant");
    assert!(hub.identity.is_revoked(device.device_id));
    hub.refresh(&third.secret("refresh_token"))
        .await
        .is_error(400, "invalid_grant");
    let denied = hub.identity.authenticate(&third.secret("access_token"), now());
    assert_eq!(denied, Err(crate::identity::Denied::Revoked));
}

#[tokio::test]
async fn a_forged_token_is_refused_and_harms_nobody() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    let genuine = device.device_refresh_token.expose();
    let another_hub = Hub::start().await;
    let foreign = another_hub.enrol("alice").await.device_refresh_token;
    let flipped = format!("{}A", &genuine[..genuine.len() - 1]);
    let flipped = if flipped == genuine {
        format!("{}E", &genuine[..genuine.len() - 1])
    } else {
        flipped
    };
    let nonsense = [
        "lsd_",
        "lsd_AAAA",
        "lsx_AAAA",
        "x",
        &flipped,
        &genuine[..40],
        &format!("{genuine}AA"),
        foreign.expose(),
    ];
    let mut words = HashSet::new();
    for token in nonsense {
        let answer = hub.refresh(&token.into()).await;
        answer.is_error(400, "invalid_grant");
        words.insert(answer.body.to_string());
    }
    assert_eq!(words.len(), 1, "the answer tells nothing: {words:?}");
    assert_eq!(hub.refresh(&device.device_refresh_token).await.status, 200);
}

#[tokio::test]
async fn fifty_at_once_all_get_the_same_newest() {
    let hub = Hub::start().await;
    let first = hub.enrol("alice").await.device_refresh_token;
    let answers = join_all((0..50).map(|_| hub.refresh(&first))).await;
    let newest: HashSet<String> = answers
        .iter()
        .map(|answer| answer.secret("refresh_token").expose().into())
        .collect();
    assert_eq!(newest.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn nodes_share_keys_and_generations() {
    let store = store::memory();
    let vault = Arc::new(Vault::ephemeral());
    let (a, b) = tokio::join!(Hub::node(store.clone(), vault.clone()), Hub::node(store, vault));
    let device = a.enrol("alice").await;
    assert!(b.identity.authenticate(&device.access_token, now()).is_ok());
    let second = b.refresh(&device.device_refresh_token).await.secret("refresh_token");
    assert_eq!(
        a.refresh(&device.device_refresh_token).await.secret("refresh_token"),
        second
    );
}

#[tokio::test]
async fn a_restart_keeps_the_keys() {
    let store = store::memory();
    let vault = Arc::new(Vault::ephemeral());
    let before = Hub::node(store.clone(), vault.clone()).await;
    let device = before.enrol("alice").await;
    let after = Hub::node(store, vault).await;
    assert!(after.identity.authenticate(&device.access_token, now()).is_ok());
    assert_eq!(after.refresh(&device.device_refresh_token).await.status, 200);
}

#[tokio::test]
async fn the_wrong_sealing_key_is_told_at_the_start() {
    let store = store::memory();
    Hub::node(store.clone(), Arc::new(Vault::ephemeral())).await;
    let other = Identity::start(store, Arc::new(Vault::ephemeral()), IdentitySettings::default()).await;
    assert!(matches!(other, Err(crate::identity::IdentityError::Seal(_))));
}

#[tokio::test]
async fn any_client_credentials_or_none_and_stray_fields_are_ignored() {
    let hub = Hub::start().await;
    let mut token = hub.enrol("alice").await.device_refresh_token;
    for headers in [None, Some("Basic YTpi"), Some("Bearer x"), Some("\u{7f}")] {
        let body = format!(
            "grant_type=refresh_token&refresh_token={}&client_id=a&client_secret=b&resource=x&resource=y&scope=",
            token.expose()
        );
        let mut request = form_request("/oauth/token");
        if let Some(value) = headers {
            request = request.header(
                header::AUTHORIZATION,
                header::HeaderValue::from_bytes(value.as_bytes())
                    .unwrap_or_else(|_| header::HeaderValue::from_static("x")),
            );
        }
        let answer = hub.send(request.body(body.into()).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        token = answer.secret("refresh_token");
    }
}

#[tokio::test]
async fn a_json_body_does_as_well() {
    let hub = Hub::start().await;
    let token = hub.enrol("alice").await.device_refresh_token;
    let body = json!({"grant_type": "refresh_token", "refresh_token": token.expose(), "client_id": "x", "n": 1});
    let answer = hub
        .send(json_request(Method::POST, "/oauth/token", &body.to_string()))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn bad_requests_are_named_as_the_standard_names_them() {
    let hub = Hub::start().await;
    for (form, error) in [
        (vec![], "invalid_request"),
        (vec![("grant_type", "refresh_token")], "invalid_request"),
        (
            vec![("grant_type", "refresh_token"), ("refresh_token", "")],
            "invalid_request",
        ),
        (
            vec![
                ("grant_type", "refresh_token"),
                ("refresh_token", "a"),
                ("refresh_token", "b"),
            ],
            "invalid_request",
        ),
        (
            vec![("grant_type", "password"), ("username", "a")],
            "unsupported_grant_type",
        ),
        (vec![("refresh_token", "lsd_x")], "invalid_request"),
    ] {
        hub.post_form("/oauth/token", &form).await.is_error(400, error);
    }
    for body in ["", "{", "[]", "null", "{\"grant_type\":1}"] {
        hub.send(json_request(Method::POST, "/oauth/token", body))
            .await
            .is_error(400, "invalid_request");
    }
    let text = Request::post("/oauth/token")
        .header(header::CONTENT_TYPE, "text/plain")
        .body("x".into())
        .unwrap();
    hub.send(text).await.is_error(400, "invalid_request");
    let large = form_request("/oauth/token").body("a".repeat(20_000).into()).unwrap();
    hub.send(large).await.is_error(413, "invalid_request");
    let get = Request::get("/oauth/token").body(Body::empty()).unwrap();
    assert_eq!(hub.send(get).await.status, 405);
}

#[tokio::test]
async fn a_store_restored_from_a_backup_catches_up_with_its_devices() {
    let vault = Arc::new(Vault::ephemeral());
    let hub = Hub::node(store::memory(), vault.clone()).await;
    let device = hub.enrol("alice").await;
    let mut token = device.device_refresh_token.clone();
    let backup = hub.store.device(device.device_id).await.unwrap().unwrap();
    for _ in 0..5 {
        token = hub.refresh(&token).await.secret("refresh_token");
    }
    // The same keys, and the device as it was five rotations ago.
    let restored = store::memory();
    let keys = hub.store.shared("identity-keys").await.unwrap().unwrap();
    restored.share("identity-keys", keys, None).await.unwrap();
    restored.enrol(backup).await.unwrap();
    let hub = Hub::node(restored, vault).await;
    let next = hub.refresh(&token).await;
    assert_eq!(next.status, 200, "{}", next.body);
    assert_eq!(
        hub.refresh(&token).await.secret("refresh_token"),
        next.secret("refresh_token")
    );
    hub.refresh(&device.device_refresh_token)
        .await
        .is_error(400, "invalid_grant");
    assert!(
        hub.identity.is_revoked(device.device_id),
        "and a copy is still found out"
    );
}
