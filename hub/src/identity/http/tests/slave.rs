//! `lsg_…` at `/oauth/token`: the drop-in endpoint.

use super::*;

async fn hub_with_slave() -> (Hub, Enrolled, Secret) {
    let hub = Hub::start().await;
    let device = hub.enrol("alice").await;
    hub.grant("alice", "example/main").await;
    let slave = hub.slave(device.device_id, "example/main").await;
    (hub, device, slave)
}

#[tokio::test]
async fn a_slave_buys_the_providers_current_access_token_and_is_not_rotated() {
    let (hub, _, slave) = hub_with_slave().await;
    hub.grants.will_answer(Ok(provider_token(Some(100))));
    for _ in 0..2 {
        let answer = hub.refresh(&slave).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.body["access_token"], "at-3");
        assert_eq!(answer.body["token_type"], "Bearer");
        assert_eq!(answer.body["scope"], "read write");
        assert_eq!(answer.secret("refresh_token"), slave);
        let expires_in = answer.body["expires_in"].as_u64().expect("an integer");
        assert!((50..=101).contains(&expires_in), "what really remains: {expires_in}");
    }
    let seen = hub.grants.seen.lock().unwrap();
    assert_eq!(seen[0].0.as_str(), "alice");
    assert_eq!(seen[0].1.as_str(), "example/main");
    assert_eq!(seen[0].2, Duration::from_secs(60));
}

#[tokio::test]
async fn what_the_provider_did_not_say_is_filled_in() {
    let (hub, _, slave) = hub_with_slave().await;
    hub.grants.will_answer(Ok(frame::Token {
        scope: None,
        ..provider_token(None)
    }));
    let answer = hub.refresh(&slave).await;
    assert_eq!(answer.body["expires_in"], 3600);
    assert_eq!(answer.body["scope"], "");
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", slave.expose()),
        ("scope", "read"),
    ];
    let answer = hub.post_form("/oauth/token", &form).await;
    assert_eq!(
        answer.body["scope"], "read",
        "untold means: as asked (RFC 6749 section 5.1)"
    );
}

#[tokio::test]
async fn a_dead_grant_is_an_invalid_grant_that_says_why() {
    let (hub, _, slave) = hub_with_slave().await;
    hub.grants
        .will_answer(Err(GrantTrouble::Dead("the provider said invalid_grant".into())));
    let answer = hub.refresh(&slave).await;
    answer.is_error(400, "invalid_grant");
    assert_eq!(answer.body["error_description"], "the provider said invalid_grant");
}

#[tokio::test]
async fn a_passing_trouble_is_503_with_the_time_to_come_back() {
    let (hub, _, slave) = hub_with_slave().await;
    let retry_at = Some((now() + Duration::from_secs(30)).seconds());
    hub.grants.will_answer(Err(GrantTrouble::Passing {
        reason: "provider down".into(),
        retry_at,
    }));
    let answer = hub.refresh(&slave).await;
    answer.is_error(503, "temporarily_unavailable");
    let after: u64 = answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((15..=30).contains(&after), "{after}");
    hub.grants.will_answer(Err(GrantTrouble::Passing {
        reason: "busy".into(),
        retry_at: None,
    }));
    assert!(hub.refresh(&slave).await.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn an_unknown_slave_is_refused_before_any_grant_is_asked() {
    let (hub, _, _) = hub_with_slave().await;
    for token in ["lsg_", "lsg_AAAA", "lsg_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        hub.refresh(&token.into()).await.is_error(400, "invalid_grant");
    }
    assert_eq!(hub.grants.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_slave_ends_with_its_device() {
    let (hub, device, slave) = hub_with_slave().await;
    hub.grants.will_answer(Ok(provider_token(None)));
    assert_eq!(hub.refresh(&slave).await.status, 200);
    let path = format!("/admin/v1/devices/{}", device.device_id);
    assert_eq!(hub.send(json_request(Method::DELETE, &path, "")).await.status, 204);
    hub.refresh(&slave).await.is_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_slave_ends_with_its_grant() {
    let (hub, _, slave) = hub_with_slave().await;
    hub.grants.will_answer(Ok(provider_token(None)));
    let grant = "example/main".parse().unwrap();
    hub.store.delete_grant(&"alice".parse().unwrap(), &grant).await.unwrap();
    hub.refresh(&slave).await.is_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_slave_can_be_ended_alone() {
    let (hub, device, slave) = hub_with_slave().await;
    let other = hub.slave(device.device_id, "example/main").await;
    hub.grants.will_answer(Ok(provider_token(None)));
    assert_eq!(
        hub.post_form("/oauth/revoke", &[("token", slave.expose())])
            .await
            .status,
        200
    );
    hub.refresh(&slave).await.is_error(400, "invalid_grant");
    assert_eq!(hub.refresh(&other).await.status, 200);
    assert_eq!(hub.refresh(&device.device_refresh_token).await.status, 200);
}
