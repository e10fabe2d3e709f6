//! Rotation, reuse, and grace.

use std::time::Duration;

use client_demo::authserver::{Grace, Settings};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::bench::{Bench, text};

#[tokio::test]
async fn a_rotation_brings_a_new_pair_and_the_old_access_token_lives_on() {
    let bench = Bench::strict().await;
    let (grant, access, refresh) = bench.grant().await;
    let response = bench.try_refresh(&refresh).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["token_type"], "Bearer");
    assert!((3590..=3600).contains(&answer["expires_in"].as_u64().unwrap()));
    assert_ne!(text(&answer, "refresh_token"), refresh);
    for token in [&access, &text(&answer, "access_token")] {
        let body: Value = bench.resource(token).await.json().await.unwrap();
        assert_eq!(body["grant"], *grant);
    }
}

#[tokio::test]
async fn reuse_revokes_the_family_and_is_listed() {
    let bench = Bench::strict().await;
    let (grant, _, first) = bench.grant().await;
    let (_, winner) = bench.refresh(&first).await;
    let (status, error) = bench.refresh(&first).await;
    assert_eq!(
        (status, &error["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_grant"))
    );
    let refused = bench.resource(&text(&winner, "access_token")).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("error=\"invalid_token\"") && challenge.contains("revoked"));
    let (status, _) = bench.refresh(&text(&winner, "refresh_token")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    let calls = bench.calls().await;
    let seen: Vec<_> = calls.iter().map(|c| (&c["outcome"], &c["generation"])).collect();
    assert_eq!(
        seen,
        [
            (&json!("rotated"), &json!(0)),
            (&json!("reuse"), &json!(0)),
            (&json!("revoked"), &json!(1))
        ]
    );
    assert!(
        calls
            .iter()
            .all(|c| c["grant"] == *grant && c["client_id"] == "app" && c["client"].is_string())
    );
    let stats = bench.stats().await;
    assert_eq!(stats["calls"], 3);
    assert_eq!(stats["reuses"], 1);
    assert_eq!(stats["revoked_families"], 1);
    assert_eq!(stats["most_redeems_of_one_generation"], 2);
}

#[tokio::test]
async fn the_list_of_calls_never_holds_a_token() {
    let bench = Bench::strict().await;
    let (_, _, first) = bench.grant().await;
    let (_, second) = bench.refresh(&first).await;
    let listed = serde_json::to_string(&bench.calls().await).unwrap();
    assert!(!listed.contains(&first) && !listed.contains(&text(&second, "access_token")));
    assert_eq!(
        bench
            .http
            .get(bench.url("/control/calls?after=1"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "[]"
    );
}

#[tokio::test]
async fn of_many_racing_refreshes_one_wins_and_the_family_dies() {
    let bench = Bench::strict().await;
    let (grant, _, first) = bench.grant().await;
    let answers = futures::future::join_all((0..8).map(|_| bench.refresh(&first))).await;
    assert_eq!(
        answers.iter().filter(|(status, _)| *status == StatusCode::OK).count(),
        1
    );
    let family: Value = bench
        .http
        .get(bench.url(&format!("/control/grants/{grant}")))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(family["revoked"], true);
    assert_eq!(family["redeems"], json!([8]));
}

#[tokio::test]
async fn within_grace_the_used_token_brings_another_pair() {
    let bench = Bench::with(Settings {
        grace: Grace::NewPair(Duration::from_secs(60)),
        ..Settings::default()
    })
    .await;
    let (_, _, first) = bench.grant().await;
    let (_, one) = bench.refresh(&first).await;
    let (status, other) = bench.refresh(&first).await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(one["refresh_token"], other["refresh_token"]);
    assert_eq!(bench.calls().await[1]["outcome"], "grace");
}

#[tokio::test]
async fn identical_grace_brings_the_same_pair() {
    let bench = Bench::with(Settings {
        grace: Grace::SamePair(Duration::from_secs(60)),
        access_bytes: 1200,
        ..Settings::default()
    })
    .await;
    let (_, access, first) = bench.grant().await;
    assert_eq!(access.len(), 1200);
    let (_, one) = bench.refresh(&first).await;
    let (_, other) = bench.refresh(&first).await;
    assert_eq!(one["refresh_token"], other["refresh_token"]);
    assert_eq!(one["access_token"], other["access_token"]);
}

#[tokio::test]
async fn access_tokens_expire_die_by_rotation_and_by_control() {
    let bench = Bench::with(Settings {
        kill_old_access: true,
        ..Settings::default()
    })
    .await;
    let (grant, access, refresh) = bench.grant().await;
    let (_, answer) = bench.refresh(&refresh).await;
    assert_eq!(bench.resource(&access).await.status(), StatusCode::UNAUTHORIZED);
    let access = text(&answer, "access_token");
    assert_eq!(bench.resource(&access).await.status(), StatusCode::OK);
    let kill = bench.url(&format!("/control/grants/{grant}/kill-access"));
    assert_eq!(
        bench.http.post(kill).send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(bench.resource(&access).await.status(), StatusCode::UNAUTHORIZED);

    let bench = Bench::with(Settings {
        access_ttl: Duration::ZERO,
        ..Settings::default()
    })
    .await;
    let (_, access, _) = bench.grant().await;
    let expired = bench.resource(&access).await;
    assert!(
        expired.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("expired")
    );
}
