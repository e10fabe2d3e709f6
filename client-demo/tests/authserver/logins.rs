//! Logins, clients, and what is no request.

use client_demo::authserver::{Client, Settings, pkce_challenge};
use lockstep_protocol::Secret;
use reqwest::StatusCode;
use serde_json::{Value, json};
use url::Url;

use crate::bench::{Bench, text};

#[tokio::test]
async fn a_json_body_is_taken_as_well_as_a_form() {
    let bench = Bench::strict().await;
    let (_, _, refresh) = bench.grant().await;
    let body = json!({ "grant_type": "refresh_token", "refresh_token": refresh, "client_id": "app", "stray": 1 });
    let answer = bench.http.post(bench.url("/token")).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_confidential_client_authenticates_by_header_or_body() {
    let bench = Bench::with(Settings {
        client: Some(Client {
            id: "app".into(),
            secret: Some(Secret::new("s%c:ret")),
        }),
        ..Settings::default()
    })
    .await;
    let (_, _, mut refresh) = bench.grant().await;
    let (status, error) = bench.refresh(&refresh).await;
    assert_eq!(
        (status, &error["error"]),
        (StatusCode::UNAUTHORIZED, &json!("invalid_client"))
    );
    for in_header in [true, false] {
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", &refresh)];
        let mut request = bench.http.post(bench.url("/token"));
        if in_header {
            request = request.basic_auth("app", Some("s%25c%3Aret"));
        } else {
            form.extend([("client_id", "app"), ("client_secret", "s%c:ret")]);
        }
        let answer: Value = request.form(&form).send().await.unwrap().json().await.unwrap();
        refresh = text(&answer, "refresh_token");
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_and_cost_no_family() {
    let bench = Bench::strict().await;
    let (_, _, refresh) = bench.grant().await;
    let post = |content_type: &'static str, body: String| {
        let request = bench.http.post(bench.url("/token"));
        async move {
            let answer = request
                .header("content-type", content_type)
                .body(body)
                .send()
                .await
                .unwrap();
            let status = answer.status();
            (status.as_u16(), answer.json::<Value>().await.unwrap()["error"].clone())
        }
    };
    let form = "application/x-www-form-urlencoded";
    let cases = [
        (form, String::new(), "invalid_request"),
        (form, "grant_type=password".into(), "unsupported_grant_type"),
        (form, "grant_type=refresh_token".into(), "invalid_request"),
        (
            form,
            format!("grant_type=refresh_token&refresh_token={refresh}&refresh_token={refresh}"),
            "invalid_request",
        ),
        (
            form,
            "grant_type=refresh_token&refresh_token=rt.g1.0.AAAA".into(),
            "invalid_grant",
        ),
        ("application/json", "{".into(), "invalid_request"),
        ("text/plain", "grant_type=refresh_token".into(), "invalid_request"),
    ];
    for (content_type, body, error) in cases {
        assert_eq!(post(content_type, body.clone()).await, (400, json!(error)), "{body}");
    }
    assert_eq!(bench.refresh(&refresh).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_login_by_code_needs_the_right_verifier_and_works_once() {
    let bench = Bench::strict().await;
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let authorize = || async {
        let url = Url::parse_with_params(
            &bench.url("/authorize"),
            [
                ("response_type", "code"),
                ("client_id", "app"),
                ("redirect_uri", "http://127.0.0.1:1/back"),
                ("state", "a b"),
                ("scope", "read"),
                ("code_challenge", &pkce_challenge(verifier)),
                ("code_challenge_method", "S256"),
            ],
        )
        .unwrap();
        let answer = bench.http.get(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let back = Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
        let param = |name: &str| back.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned());
        assert_eq!(param("state").as_deref(), Some("a b"));
        param("code").unwrap()
    };
    let exchange = |code: String, verifier: &'static str| {
        let form = [
            ("grant_type", "authorization_code".to_owned()),
            ("code", code),
            ("client_id", "app".into()),
            ("redirect_uri", "http://127.0.0.1:1/back".into()),
            ("code_verifier", verifier.into()),
        ];
        let request = bench.http.post(bench.url("/token")).form(&form);
        async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let wrong = exchange(authorize().await, "wrong").await;
    assert_eq!(wrong["error"], "invalid_grant");
    let code = authorize().await;
    let tokens = exchange(code.clone(), verifier).await;
    assert_eq!(tokens["scope"], "read");
    assert_eq!(
        bench.resource(&text(&tokens, "access_token")).await.status(),
        StatusCode::OK
    );
    let again = exchange(code, verifier).await;
    assert_eq!(again["error"], "invalid_grant");
    let dead = bench.resource(&text(&tokens, "access_token")).await;
    assert_eq!(
        dead.status(),
        StatusCode::UNAUTHORIZED,
        "a code that came twice revokes what it brought"
    );
}

#[tokio::test]
async fn metadata_names_the_endpoints() {
    let bench = Bench::strict().await;
    let url = bench.url("/.well-known/oauth-authorization-server");
    let metadata: Value = bench.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(metadata["token_endpoint"], bench.server.token_endpoint());
    assert_eq!(metadata["code_challenge_methods_supported"][0], "S256");
}

#[tokio::test]
async fn revocation_by_rfc_7009_ends_the_family() {
    let bench = Bench::strict().await;
    let (_, access, refresh) = bench.grant().await;
    let answer = bench
        .http
        .post(bench.url("/revoke"))
        .form(&[("token", &refresh)])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(bench.resource(&access).await.status(), StatusCode::UNAUTHORIZED);
}
