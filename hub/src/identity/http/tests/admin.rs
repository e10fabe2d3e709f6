//! The administrator's endpoints.

use super::*;

const DEVICES: &str = "/admin/v1/users/alice/devices";

#[tokio::test]
async fn enrolment_answers_with_all_that_a_device_needs() {
    let hub = Hub::start().await;
    let body = r#"{"kind":"desktop","name":"desk","redeemer":true,"may_offer":true,"priority":7}"#;
    let answer = hub.send(json_request(Method::POST, DEVICES, body)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.body["expires_in"], 900);
    assert!(answer.secret("device_refresh_token").expose().starts_with("lsd_"));
    let principal = hub
        .identity
        .authenticate(&answer.secret("access_token"), now())
        .unwrap();
    assert_eq!(answer.body["device_id"], principal.device.to_string());
    assert_eq!((principal.kind, principal.priority), (DeviceKind::Desktop, 7));
    assert!(principal.redeemer && principal.may_offer);
}

#[tokio::test]
async fn rights_must_be_given_and_priority_is_that_of_the_kind() {
    let hub = Hub::start().await;
    let answer = hub
        .send(json_request(Method::POST, DEVICES, r#"{"kind":"iot","name":"lamp"}"#))
        .await;
    let principal = hub
        .identity
        .authenticate(&answer.secret("access_token"), now())
        .unwrap();
    assert!(!principal.redeemer && !principal.may_offer);
    assert_eq!(principal.priority, DeviceKind::Iot.priority());
}

#[tokio::test]
async fn bad_bodies_are_problems() {
    let hub = Hub::start().await;
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 422),
        (r#"["cli","x"]"#, 422),
        ("{}", 422),
        (r#"{"kind":"toaster","name":"x"}"#, 422),
        (r#"{"kind":"cli"}"#, 422),
        (r#"{"kind":"cli","name":""}"#, 422),
        (r#"{"kind":"cli","name":"  "}"#, 422),
        (r#"{"kind":"cli","name":"a\u0007b"}"#, 422),
        (r#"{"kind":"cli","name":"x","priority":-1}"#, 422),
        (r#"{"kind":"cli","name":"x","priority":256}"#, 422),
        (r#"{"kind":"cli","name":"x","redeemer":"yes"}"#, 422),
        (r#"{"kind":"cli","name":"x"} trailing"#, 400),
    ] {
        hub.send(json_request(Method::POST, DEVICES, body))
            .await
            .is_problem(status, "bad_frame");
    }
    let long = format!(r#"{{"kind":"cli","name":"{}"}}"#, "x".repeat(129));
    hub.send(json_request(Method::POST, DEVICES, &long))
        .await
        .is_problem(422, "bad_frame");
    let huge = format!(r#"{{"kind":"cli","name":"{}"}}"#, "x".repeat(20_000));
    hub.send(json_request(Method::POST, DEVICES, &huge))
        .await
        .is_problem(413, "too_large");
    for user in ["a%20b", "a%2Fb", "..%2f", "%00"] {
        let path = format!("/admin/v1/users/{user}/devices");
        let answer = hub
            .send(json_request(Method::POST, &path, r#"{"kind":"cli","name":"x"}"#))
            .await;
        answer.is_problem(400, "bad_frame");
    }
}

#[tokio::test]
async fn revocation_is_told_once_and_works_at_once() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    hub.identity
        .on_revoked(Box::new(move |user, device| tell.lock().unwrap().push((user, device))));
    let path = format!("/admin/v1/devices/{}", device.device_id);
    for _ in 0..2 {
        assert_eq!(hub.send(json_request(Method::DELETE, &path, "")).await.status, 204);
    }
    assert_eq!(
        *told.lock().unwrap(),
        [(Some("alice".parse().unwrap()), device.device_id)]
    );
    assert!(hub.identity.authenticate(&device.access_token, now()).is_err());
    hub.refresh(&device.device_refresh_token)
        .await
        .is_error(400, "invalid_grant");
}

#[tokio::test]
async fn another_node_learns_of_a_revocation_from_the_store() {
    let store = store::memory();
    let vault = Arc::new(Vault::ephemeral());
    let here = Hub::node(store.clone(), vault.clone()).await;
    let there = Hub::node(store.clone(), vault.clone()).await;
    let device = here.enrol("alice").await;
    let told = Arc::new(AtomicUsize::new(0));
    let tell = told.clone();
    there.identity.on_revoked(Box::new(move |_, _| {
        let _ = tell.fetch_add(1, Ordering::Relaxed);
    }));
    here.identity
        .revoke(device.device_id, crate::audit::RevokedWhy::Admin)
        .await
        .unwrap();
    for _ in 0..2 {
        there.identity.reload_revocations().await.unwrap();
    }
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(there.identity.authenticate(&device.access_token, now()).is_err());
    let started_later = Hub::node(store, vault).await;
    assert!(
        started_later
            .identity
            .authenticate(&device.access_token, now())
            .is_err()
    );
}

#[tokio::test]
async fn unknown_devices_and_grants_are_not_found() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await.device_id;
    hub.grant("bob", "example/main").await;
    for (method, path) in [
        (
            Method::DELETE,
            "/admin/v1/devices/7d0c7f0a-0000-4000-8000-000000000000".to_owned(),
        ),
        (Method::DELETE, "/admin/v1/devices/nonsense".to_owned()),
        (
            Method::POST,
            "/admin/v1/devices/7d0c7f0a-0000-4000-8000-000000000000/grants/example/main".to_owned(),
        ),
        (Method::POST, format!("/admin/v1/devices/{device}/grants/example/main")),
    ] {
        hub.send(json_request(method, &path, ""))
            .await
            .is_problem(404, "unknown_grant");
    }
    let path = format!("/admin/v1/devices/{device}/grants/a%20b/main");
    hub.send(json_request(Method::POST, &path, ""))
        .await
        .is_problem(400, "bad_frame");
}

#[tokio::test]
async fn a_slave_is_made_for_a_grant_of_the_devices_user() {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await.device_id;
    hub.grant("alice", "example/main").await;
    let path = format!("/admin/v1/devices/{device}/grants/example/main");
    let answer = hub.send(json_request(Method::POST, &path, "")).await;
    assert_eq!(answer.status, 201);
    assert!(answer.secret("refresh_token").expose().starts_with("lsg_"));
    assert_eq!(hub.store.slaves(device).await.unwrap().len(), 1);
}
