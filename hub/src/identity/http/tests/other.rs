//! Metadata, keys, revocation, introspection.

use super::*;

fn with_bearer(path: &str, bearer: &str, token: &str) -> Request<Body> {
    form_request(path)
        .header(header::AUTHORIZATION, format!("Bearer {bearer}"))
        .body(format!("token={token}").into())
        .unwrap()
}

async fn introspect(hub: &Hub, bearer: &str, token: &str) -> Answer {
    hub.send(with_bearer("/oauth/introspect", bearer, token)).await
}

async fn get(hub: &Hub, path: &str) -> Answer {
    hub.send(Request::get(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_published_key_verifies_access_tokens() {
    let hub = Hub::start().await;
    let token = hub.enrol("alice").await.access_token;
    let set: jsonwebtoken::jwk::JwkSet =
        serde_json::from_value(get(&hub, "/.well-known/jwks.json").await.body).unwrap();
    let kid = jsonwebtoken::decode_header(token.expose()).unwrap().kid.unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&kid).expect("the key is published")).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_audience(&["lockstep"]);
    validation.set_issuer(&["https://hub.example"]);
    jsonwebtoken::decode::<Value>(token.expose(), &key, &validation).unwrap();
}

#[tokio::test]
async fn nothing_private_is_published() {
    let hub = Hub::start().await;
    let answer = get(&hub, "/.well-known/jwks.json").await;
    let key = answer.body["keys"][0].as_object().unwrap();
    assert!(!key.contains_key("d"), "{key:?}");
}

#[tokio::test]
async fn metadata_names_the_endpoints() {
    let hub = Hub::start().await;
    let metadata = get(&hub, "/.well-known/oauth-authorization-server").await.body;
    assert_eq!(metadata["issuer"], "https://hub.example");
    assert_eq!(metadata["token_endpoint"], "https://hub.example/oauth/token");
    assert_eq!(metadata["jwks_uri"], "https://hub.example/.well-known/jwks.json");
    assert_eq!(metadata["response_types_supported"], json!([]));
}

#[tokio::test]
async fn whoever_holds_a_refresh_token_may_end_it() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    let answer = hub
        .post_form("/oauth/revoke", &[("token", device.device_refresh_token.expose())])
        .await;
    assert_eq!(answer.status, 200);
    assert!(hub.identity.is_revoked(device.device_id));
}

#[tokio::test]
async fn revoking_nonsense_is_no_error_and_revokes_nobody() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    let genuine = device.device_refresh_token.expose();
    let forged = format!("{}{}", &genuine[..30], "A".repeat(genuine.len() - 30));
    for token in ["x", "lsd_", "lsg_x", &forged] {
        assert_eq!(hub.post_form("/oauth/revoke", &[("token", token)]).await.status, 200);
    }
    assert!(!hub.identity.is_revoked(device.device_id));
    hub.post_form("/oauth/revoke", &[])
        .await
        .is_error(400, "invalid_request");
    let access = [("token", device.access_token.expose())];
    hub.post_form("/oauth/revoke", &access)
        .await
        .is_error(400, "unsupported_token_type");
}

#[tokio::test]
async fn introspection_needs_a_token() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    let answer = hub
        .post_form("/oauth/introspect", &[("token", device.access_token.expose())])
        .await;
    answer.is_error(401, "invalid_token");
    assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
    introspect(&hub, "wrong", device.access_token.expose())
        .await
        .is_error(401, "invalid_token");
    introspect(&hub, device.device_refresh_token.expose(), "x")
        .await
        .is_error(401, "invalid_token");
}

#[tokio::test]
async fn introspection_tells_of_each_kind_of_token() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    hub.grant("alice", "example/main").await;
    let slave = hub.slave(device.device_id, "example/main").await;
    for (token, kind) in [
        (&device.access_token, "Bearer"),
        (&device.device_refresh_token, "refresh_token"),
        (&slave, "refresh_token"),
    ] {
        for asker in [ADMIN, device.access_token.expose()] {
            let about = introspect(&hub, asker, token.expose()).await.body;
            assert_eq!(about["active"], true, "{about}");
            assert_eq!(about["sub"], "alice");
            assert_eq!(about["client_id"], device.device_id.to_string());
            assert_eq!(about["token_type"], kind);
        }
    }
    let about = introspect(&hub, ADMIN, slave.expose()).await.body;
    assert_eq!(about["grant"], "example/main");
}

#[tokio::test]
async fn a_device_learns_nothing_about_other_users() {
    let hub = Hub::start().await;
    let (alice, bob) = (hub.enrol("alice").await, hub.enrol("bob").await);
    hub.grant("bob", "example/main").await;
    let slave = hub.slave(bob.device_id, "example/main").await;
    for token in [&bob.access_token, &bob.device_refresh_token, &slave, &"nonsense".into()] {
        let answer = introspect(&hub, alice.access_token.expose(), token.expose()).await;
        assert_eq!(answer.body, json!({"active": false}));
    }
}

#[tokio::test]
async fn revoked_and_old_tokens_are_not_active() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    let second = hub.refresh(&device.device_refresh_token).await.secret("refresh_token");
    hub.refresh(&second).await;
    let about = introspect(&hub, ADMIN, device.device_refresh_token.expose()).await.body;
    assert_eq!(
        about,
        json!({"active": false}),
        "older than the parent, and asking does not revoke"
    );
    assert!(!hub.identity.is_revoked(device.device_id));
    hub.identity
        .revoke(device.device_id, crate::audit::RevokedWhy::Admin)
        .await
        .unwrap();
    for token in [&device.access_token, &second] {
        assert_eq!(
            introspect(&hub, ADMIN, token.expose()).await.body,
            json!({"active": false})
        );
    }
}
