//! Long-poll and the HTTP endpoints of section 5.

use std::time::Duration;

use lockstep_tests::{Answer, BOUND, Fault, GRANT, Scene, Session, admin::http, eventually, provider::Gate};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

fn cursor(answer: &Value) -> String {
    answer["cursor"].as_str().expect("a cursor").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_poll_is_answered_at_once_and_the_next_waits_for_news() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let first = scene.poll(&device, "").await;
    assert!(
        first.header("content-length").is_some(),
        "complete answers: {:?}",
        first.headers
    );
    let first = first.expect(200);
    assert_eq!(first["resume"], "reset");
    assert_eq!(
        (&first["tokens"][0]["version"], &first["statuses"]),
        (&1.into(), &json!([]))
    );
    assert!(first["epoch"].is_string() && first["time"].is_u64());
    assert!(first["tokens"][0].get("refresh_token").is_none());

    let query = format!("?after={}&wait=25", cursor(&first));
    let (second, ()) = tokio::join!(scene.poll(&device, &query), async {
        eventually("the poll waits", BOUND, async || {
            (scene.admin.device(&device).await["transport"] == "poll").then_some(())
        })
        .await;
        scene.admin.refresh("alice", GRANT).await.expect(200);
    });

    let second = second.expect(200);
    assert_eq!(
        (&second["resume"], &second["tokens"][0]["version"]),
        (&"delta".into(), &2.into())
    );
    // The next poll's cursor is the ack of what this one brought.
    assert_eq!(scene.admin.device(&device).await["behind"], json!([GRANT]));
    let query = format!("?after={}&wait=0", cursor(&second));
    scene.poll(&device, &query).await.expect(204);
    assert_eq!(scene.admin.device(&device).await["behind"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_news_a_poll_ends_with_204_after_its_wait() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let first = scene.poll(&device, "").await.expect(200);
    let asked = Instant::now();
    scene
        .poll(&device, &format!("?after={}&wait=3", cursor(&first)))
        .await
        .expect(204);
    let waited = asked.elapsed();
    assert!(
        waited >= Duration::from_millis(2_300),
        "up to a fifth shorter, no more: {waited:?}"
    );
    assert!(
        waited < Duration::from_secs(20),
        "as if it had not said how long: {waited:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_cursors_and_waits_are_answered() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    for odd in ["garbage", "0123456789abcdef.1", "%F0%9F%92%A5", ""] {
        let answer = scene.poll(&device, &format!("?after={odd}&wait=25")).await.expect(200);
        assert_eq!(answer["resume"], "reset", "{odd}");
        assert_eq!(answer["tokens"][0]["version"], 1, "{odd}");
    }
    for odd in ["-1", "x", "1e3", "99999999999999999999"] {
        let answer = scene.poll(&device, &format!("?wait={odd}")).await;
        assert!(answer.status == 200 || answer.status == 400, "{odd}: {}", answer.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_poll_of_a_device_ends_its_older_one() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let first = scene.poll(&device, "").await.expect(200);
    // By itself the older one would end after 44 s at the soonest.
    let query = format!("?after={}&wait=55", cursor(&first));
    let started = Instant::now();
    let older = async {
        scene.poll(&device, &query).await.expect(204);
        let ended = started.elapsed();
        // There is news only when the newer one is alone.
        scene.log_in("alice").await;
        ended
    };
    let newer = async {
        // Its cursor is an ack: so the older one has come.
        eventually("the older poll waits", BOUND, async || {
            (scene.admin.device(&device).await["behind"] == json!([])).then_some(())
        })
        .await;
        scene.poll(&device, &query).await
    };
    let (ended, newer) = tokio::join!(older, newer);
    assert_eq!(newer.expect(200)["tokens"][0]["version"], 2);
    assert!(ended < Duration::from_secs(40), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_needs_a_device_token() {
    let scene = Scene::new().await;
    scene.user("alice").await;
    let paths = [
        (Method::GET, "/v1/tokens"),
        (Method::GET, "/v1/grants/example/main/token"),
        (Method::POST, "/v1/grants/example/main/refresh"),
        (Method::PUT, "/v1/grants/example/main"),
    ];
    for (method, path) in paths {
        for token in [None, Some("garbage"), Some(scene.hub.admin_token())] {
            let mut request = http()
                .request(method.clone(), scene.hub.url(path))
                .json(&json!({"rejected_version": 1}));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = Answer::to(request).await;
            assert_eq!(
                (answer.status, answer.text("code")),
                (401, "unauthorized"),
                "{method} {path}: {}",
                answer.body
            );
            assert!(answer.header("www-authenticate").is_some(), "{method} {path}");
        }
    }
    assert!(scene.provider.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_grant_is_unknown() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    scene.user("bob").await;
    let his = scene.provider.login("bob-2");
    scene.admin.login("bob", "example/his", &his.login()).await.expect(200);
    for grant in ["example/his", "example/nothing", "nowhere/main"] {
        for answer in [
            scene.get_token(&device, grant, "").await,
            scene.post_refresh(&device, grant, 1).await,
        ] {
            assert_eq!(
                (answer.status, answer.text("code")),
                (404, "unknown_grant"),
                "{grant}: {}",
                answer.body
            );
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        }
    }
    assert!(scene.provider.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_are_refused() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let url = scene.hub.url("/v1/grants/example/main/refresh");
    for body in [
        "",
        "{}",
        "[]",
        "{",
        r#"{"rejected_version":-1}"#,
        r#"{"rejected_version":"1"}"#,
    ] {
        let request = http()
            .post(&url)
            .bearer_auth(&device.access_token)
            .header("content-type", "application/json");
        let answer = Answer::to(request.body(body)).await;
        assert!(matches!(answer.status, 400 | 422), "{body}: {}", answer.status);
        assert!(!answer.text("code").is_empty(), "{body}: {}", answer.body);
    }
    let huge = json!({"rejected_version": 1, "x": "x".repeat(1 << 20)});
    // The hub need not read on once it knows; then the client sees a broken pipe.
    if let Ok(answer) = Answer::try_to(http().post(&url).bearer_auth(&device.access_token).json(&huge)).await {
        assert_eq!(
            (answer.status, answer.text("code")),
            (413, "too_large"),
            "{}",
            answer.body
        );
    }
    assert!(scene.provider.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_too_little_validity_is_refreshed_first() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let token = scene.get_token(&device, GRANT, "").await.expect(200);
    let fields = [
        "grant",
        "version",
        "access_token",
        "token_type",
        "expires_at",
        "refreshed_at",
    ];
    assert!(fields.iter().all(|field| !token[field].is_null()), "{token}");
    assert_eq!(
        scene.get_token(&device, GRANT, "?min_validity=1200").await.expect(200)["version"],
        1
    );
    assert!(scene.provider.calls().is_empty(), "an hour is enough");

    // Capped at half the token's life: a wish for more than any token has is no storm.
    assert_eq!(
        scene
            .get_token(&device, GRANT, "?min_validity=999999")
            .await
            .expect(200)["version"],
        1
    );
    assert!(scene.provider.calls().is_empty());

    let mut login = scene.provider.login("bob").login();
    login["expires_in"] = 20.into();
    // Half of 20 s: with 5 s gone it would still do, with a claim of no life left it does not.
    scene.admin.login("bob", GRANT, &login).await.expect(200);
    let bob = scene.admin.enrol("bob").await;
    let renewed = eventually("it is refreshed", BOUND, async || {
        let answer = scene.get_token(&bob, GRANT, "?min_validity=10").await.expect(200);
        (answer["version"] == 2).then_some(answer)
    })
    .await;
    assert_eq!(
        renewed["access_token"],
        scene.provider.newest("bob").access_token.as_str()
    );
    assert_eq!(scene.provider.calls_of("bob").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_over_http_waits_for_the_outcome() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldBefore(gate.clone()));
    let (answer, ()) = tokio::join!(scene.post_refresh(&device, GRANT, 1), async {
        scene.provider.called("alice", 1, BOUND).await;
        gate.open();
    });
    assert_eq!(answer.expect(200), json!({"grant": GRANT, "version": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_devices_and_sockets_hold_the_same() {
    let scene = Scene::new().await;
    let poller = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await;
    let mut answer = scene.poll(&poller, "").await.expect(200);
    for version in 2..=6 {
        let query = format!("?after={}&wait=25", cursor(&answer));
        let (next, _) = tokio::join!(scene.poll(&poller, &query), session.refresh(GRANT, version - 1));
        answer = next.expect(200);
        session.settle().await;
        let pushed = session.token(GRANT).expect("a token");
        for field in ["version", "seq", "access_token", "cursor", "expires_at"] {
            assert_eq!(answer["tokens"][0][field], pushed[field], "{field}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_cannot_offer_grants_without_end() {
    let scene = Scene::set(|settings| settings.set("server.limits.requests_per_second_per_device", 0)).await;
    let device = scene
        .admin
        .enrol_as("alice", &json!({"kind": "cli", "name": "x", "may_offer": true}))
        .await;
    let offer = async |n: usize| {
        let request = http().put(scene.hub.url(&format!("/v1/grants/example/{n}")));
        let login = json!({"access_token": format!("at-{n}-{}", uuid::Uuid::new_v4())});
        Answer::to(request.bearer_auth(&device.access_token).json(&login)).await
    };
    for some in (0..1000).collect::<Vec<_>>().chunks(50) {
        for answer in futures::future::join_all(some.iter().map(|n| offer(*n))).await {
            answer.expect(200);
        }
    }
    let refused = offer(1000).await;
    assert_eq!(
        (refused.status, refused.text("code")),
        (413, "too_large"),
        "{}",
        refused.body
    );
    offer(7).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_the_right_may_offer_a_fresh_login() {
    let scene = Scene::new().await;
    let without = scene.user("alice").await;
    let with = scene
        .admin
        .enrol_as("alice", &json!({"kind": "cli", "name": "x", "may_offer": true}))
        .await;
    let pair = scene.provider.login("alice");
    let offer = async |token: &str| {
        let request = http().put(scene.hub.url("/v1/grants/example/main"));
        Answer::to(request.bearer_auth(token).json(&pair.login())).await
    };
    let refused = offer(&without.access_token).await;
    assert_eq!(
        (refused.status, refused.text("code")),
        (403, "unauthorized"),
        "{}",
        refused.body
    );
    assert_eq!(
        offer(&with.access_token).await.expect(200),
        json!({"grant": GRANT, "version": 2})
    );
    let token = scene.get_token(&without, GRANT, "").await.expect(200);
    assert_eq!((&token["version"], &token["cause"]), (&2.into(), &"login".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_answered_and_change_nothing() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let request = |method: Method, path: &str| {
        let request = http().request(method, scene.hub.url(path));
        Answer::to(request.bearer_auth(&device.access_token))
    };
    let head = request(Method::HEAD, "/v1/tokens").await;
    assert_eq!((head.status, &head.body), (200, &Value::Null));
    let length = head
        .header("content-length")
        .and_then(|length| length.parse::<usize>().ok());
    assert!(length > Some(100), "as long as a GET's: {:?}", head.headers);
    for (method, path, allowed) in [
        (Method::OPTIONS, "/v1/tokens", "GET,HEAD"),
        (Method::POST, "/v1/tokens", "GET,HEAD"),
        (Method::DELETE, "/v1/grants/example/main", "PUT"),
        (Method::GET, "/v1/grants/example/main/refresh", "POST"),
    ] {
        let answer = request(method.clone(), path).await;
        assert_eq!(
            (answer.status, answer.header("allow"), answer.text("code")),
            (405, Some(allowed), "bad_frame"),
            "{method} {path}"
        );
    }
    let nothing = request(Method::GET, "/v1/nothing").await;
    assert_eq!(
        (nothing.status, nothing.header("content-type")),
        (404, Some("application/problem+json"))
    );
    assert!(scene.provider.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_whole_and_never_kept_by_anybody() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let first = scene.poll(&device, "").await;
    let after = cursor(&first.body);
    for (answer, status) in [
        (first, 200),
        (scene.poll(&device, &format!("?after={after}&wait=0")).await, 204),
        (scene.poll(&device, "?wait=soon").await, 400),
        (scene.get_token(&device, GRANT, "").await, 200),
        (scene.get_token(&device, "example/none", "").await, 404),
        (scene.post_refresh(&device, GRANT, 1).await, 200),
    ] {
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(answer.header("transfer-encoding"), None, "{:?}", answer.headers);
        assert_eq!(
            answer.header("content-length").is_some(),
            status != 204,
            "{:?}",
            answer.headers
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{:?}", answer.headers);
    }
}
