//! Faults on demand.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::bench::{Bench, PATIENCE, text};

#[tokio::test]
async fn an_answer_lost_before_the_commit_costs_nothing_and_one_lost_after_costs_the_family() {
    let bench = Bench::strict().await;
    let (_, _, refresh) = bench.grant().await;
    bench.fault(json!({ "kind": "lost_before" })).await;
    assert!(bench.try_refresh(&refresh).await.is_err());
    let (status, answer) = bench.refresh(&refresh).await;
    assert_eq!(status, StatusCode::OK);

    let refresh = text(&answer, "refresh_token");
    bench.fault(json!({ "kind": "lost_after" })).await;
    assert!(bench.try_refresh(&refresh).await.is_err());
    assert_eq!(bench.refresh(&refresh).await.0, StatusCode::BAD_REQUEST);

    let calls = bench.calls().await;
    let seen: Vec<_> = calls
        .iter()
        .map(|c| (&c["fault"], &c["committed"], &c["status"]))
        .collect();
    assert_eq!(
        seen,
        [
            (&json!("lost_before"), &json!(false), &Value::Null),
            (&Value::Null, &json!(true), &json!(200)),
            (&json!("lost_after"), &json!(true), &Value::Null),
            (&Value::Null, &json!(false), &json!(400)),
        ]
    );
}

#[tokio::test]
async fn statuses_are_played_as_often_as_asked_and_for_the_grant_asked() {
    let bench = Bench::strict().await;
    let (_, _, other) = bench.grant().await;
    let (grant, _, refresh) = bench.grant().await;
    bench
        .fault(json!({ "kind": "status", "status": 503, "retry_after": 2, "body": "html", "count": 2, "grant": grant }))
        .await;
    assert_eq!(bench.refresh(&other).await.0, StatusCode::OK);
    for _ in 0..2 {
        let answer = bench.try_refresh(&refresh).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "2");
        assert!(answer.text().await.unwrap().starts_with("<html>"));
    }
    assert_eq!(bench.refresh(&refresh).await.0, StatusCode::OK);
}

#[tokio::test]
async fn faults_last_until_taken_back_when_their_count_is_zero() {
    let bench = Bench::strict().await;
    let (_, _, refresh) = bench.grant().await;
    bench.fault(json!({ "kind": "invalid_client", "count": 0 })).await;
    for _ in 0..3 {
        assert_eq!(bench.refresh(&refresh).await.1["error"], "invalid_client");
    }
    let cleared = bench.http.delete(bench.url("/control/faults")).send().await.unwrap();
    assert_eq!(cleared.status(), StatusCode::NO_CONTENT);
    assert_eq!(bench.refresh(&refresh).await.0, StatusCode::OK);
}

/// Makes the `nth` call of this server, and leaves it once it has arrived and `patience` is over. Whether it had no
/// answer by then.
async fn gives_up(bench: &Bench, nth: usize, refresh: &str, patience: Duration) -> bool {
    let arrived = async {
        bench.called(nth).await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        _ = bench.try_refresh(refresh) => false,
        () = arrived => true,
    }
}

#[tokio::test]
async fn a_delayed_commit_happens_though_the_client_gave_up() {
    let bench = Bench::strict().await;
    let mut calls = 0;
    let grant = loop {
        let (grant, _, refresh) = bench.grant().await;
        bench.fault(json!({ "kind": "delay", "ms": 300 })).await;
        calls += 1;
        if gives_up(&bench, calls, &refresh, Duration::ZERO).await {
            break grant;
        }
        // The machine stood still, and the answer was there before the client could give up.
        assert!(calls < 10, "always answered");
    };
    let until = Instant::now() + PATIENCE;
    while bench.server.family(&grant).unwrap().generation == 0 {
        assert!(Instant::now() < until, "never committed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_delay_adds_to_another_fault() {
    let bench = Bench::strict().await;
    let (_, _, refresh) = bench.grant().await;
    bench
        .fault(json!({ "kind": "delay", "ms": 100, "when": "after" }))
        .await;
    bench.fault(json!({ "kind": "garbage200" })).await;
    let started = Instant::now();
    let answer = bench.try_refresh(&refresh).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.json::<Value>().await.is_err());
    assert_eq!(bench.calls().await[0]["committed"], true);
}

#[tokio::test]
async fn a_hanging_call_never_answers() {
    let bench = Bench::strict().await;
    let (_, _, refresh) = bench.grant().await;
    bench.fault(json!({ "kind": "hang" })).await;
    assert!(gives_up(&bench, 1, &refresh, Duration::from_millis(200)).await);
    assert_eq!(bench.refresh(&refresh).await.0, StatusCode::OK);
}

#[tokio::test]
async fn answers_can_be_reshaped() {
    let bench = Bench::strict().await;
    let (_, _, refresh) = bench.grant().await;
    bench
        .fault(json!({ "kind": "reshape", "omit": ["refresh_token", "expires_in"], "set": { "token_type": "bearer" } }))
        .await;
    let (status, answer) = bench.refresh(&refresh).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["token_type"], "bearer");
    assert!(answer["refresh_token"].is_null() && answer["expires_in"].is_null());
    assert!(answer["access_token"].is_string());
}

#[tokio::test]
async fn a_fault_that_is_not_understood_is_refused() {
    let bench = Bench::strict().await;
    for (spec, status) in [
        (json!({ "kind": "explode" }), 422),
        (json!({ "kind": "delay" }), 422),
        (json!({ "kind": "status", "status": 99 }), 422),
        (json!({ "kind": "delay", "ms": 1, "grant": "x" }), 422),
        (json!({ "kind": "delay", "seconds": 1 }), 400),
    ] {
        let answer = bench
            .http
            .post(bench.url("/control/faults"))
            .json(&spec)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), status, "{spec}");
    }
}
