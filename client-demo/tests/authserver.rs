//! The authorization server, seen over HTTP.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic as tests may"
)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use client_demo::authserver::{Authserver, Client, Grace, Settings, pkce_challenge};
use lockstep_protocol::Secret;
use reqwest::{Response, StatusCode, redirect::Policy};
use serde_json::{Value, json};
use url::Url;

struct Bench {
    server: Authserver,
    http: reqwest::Client,
}

impl Bench {
    async fn strict() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let listen = "127.0.0.1:0".parse().unwrap();
        Self {
            server: Authserver::start(listen, settings).await.unwrap(),
            http: reqwest::Client::builder()
                .redirect(Policy::none())
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.addr())
    }

    async fn grant(&self) -> (String, String, String) {
        let made = self.http.post(self.url("/control/grants")).send().await.unwrap();
        assert_eq!(made.status(), StatusCode::CREATED);
        let made: Value = made.json().await.unwrap();
        (
            text(&made, "grant"),
            text(&made, "access_token"),
            text(&made, "refresh_token"),
        )
    }

    async fn try_refresh(&self, token: &str) -> reqwest::Result<Response> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", "app"),
        ];
        self.http.post(self.url("/token")).form(&form).send().await
    }

    async fn refresh(&self, token: &str) -> (StatusCode, Value) {
        let response = self.try_refresh(token).await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    async fn resource(&self, access: &str) -> Response {
        self.http
            .get(self.url("/resource"))
            .bearer_auth(access)
            .send()
            .await
            .unwrap()
    }

    async fn fault(&self, spec: Value) {
        let answer = self
            .http
            .post(self.url("/control/faults"))
            .json(&spec)
            .send()
            .await
            .unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::NO_CONTENT,
            "{}",
            answer.text().await.unwrap()
        );
    }

    async fn calls(&self) -> Vec<Value> {
        self.http
            .get(self.url("/control/calls"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn stats(&self) -> Value {
        self.http
            .get(self.url("/control/stats"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {value}"))
        .into()
}

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

#[tokio::test]
async fn a_delayed_commit_happens_though_the_client_gave_up() {
    let bench = Bench::strict().await;
    let (grant, _, refresh) = bench.grant().await;
    bench.fault(json!({ "kind": "delay", "ms": 300 })).await;
    let hasty = bench
        .http
        .post(bench.url("/token"))
        .form(&[("grant_type", "refresh_token"), ("refresh_token", &refresh)])
        .timeout(Duration::from_millis(50));
    assert!(hasty.send().await.unwrap_err().is_timeout());
    let until = Instant::now() + Duration::from_secs(5);
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
    let call = tokio::time::timeout(Duration::from_millis(200), bench.try_refresh(&refresh));
    assert!(call.await.is_err());
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

#[test]
fn the_program_prints_one_ready_line_and_stops_on_sigterm() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_client-demo"))
        .args(["authserver", "--access-ttl", "2s", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert!(ready["listening"].as_str().unwrap().starts_with("127.0.0.1:"));
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert!(child.wait().unwrap().success());
}
