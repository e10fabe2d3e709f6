//! Section 11: the admin API, call by call.

use lockstep_tests::{Answer, BOUND, Fault, GRANT, Scene, Session, eventually, provider::Gate};
use reqwest::Method;
use serde_json::{Value, json};

const PATHS: [(&str, &str); 8] = [
    ("PUT", "/admin/v1/users/alice/grants/example/main"),
    ("DELETE", "/admin/v1/users/alice/grants/example/main"),
    ("DELETE", "/admin/v1/users/alice"),
    ("GET", "/admin/v1/users/alice"),
    ("POST", "/admin/v1/users/alice/devices"),
    ("POST", "/admin/v1/users/alice/grants/example/main/refresh"),
    ("DELETE", "/admin/v1/devices/00000000-0000-4000-8000-000000000000"),
    (
        "POST",
        "/admin/v1/devices/00000000-0000-4000-8000-000000000000/grants/example/main",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_call_needs_the_admin_token() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    for (method, path) in PATHS {
        let method: Method = method.parse().expect("a method");
        for token in [None, Some("garbage"), Some(""), Some(device.access_token.as_str())] {
            let mut request = scene.admin.anonymous(method.clone(), path).json(&json!({}));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = Answer::to(request).await;
            assert_eq!(answer.status, 401, "{method} {path} with {token:?}: {}", answer.body);
        }
    }
    assert_eq!(scene.grant("alice").await["version"], 1, "nothing happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_is_not_on_the_clients_listener_nor_the_other_way_round() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let http = lockstep_tests::admin::http();
    let url = scene.hub.url("/admin/v1/users/alice");
    assert_eq!(
        Answer::to(http.get(url).bearer_auth(scene.hub.admin_token()))
            .await
            .status,
        404
    );
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(Answer::to(http.get(scene.hub.url(path))).await.status, 404, "{path}");
    }
    let tokens = scene
        .admin
        .anonymous(Method::GET, "/v1/tokens")
        .bearer_auth(&device.access_token);
    assert!(matches!(Answer::to(tokens).await.status, 401 | 404));
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_make_no_sense_are_refused() {
    let scene = Scene::new().await;
    let good = json!({"access_token": "a"});
    assert_eq!(scene.admin.login("alice", "nowhere/main", &good).await.status, 404);
    for body in [
        json!({}),
        json!([]),
        json!("x"),
        json!({"access_token": 1}),
        json!({"access_token": ""}),
        json!({"refresh_token": ""}),
        json!({"access_token": "a", "expires_in": -1}),
        json!({"access_token": "a", "expires_in": "soon"}),
        json!({"expires_in": 60}),
    ] {
        let answer = scene.admin.login("alice", GRANT, &body).await;
        assert!(
            matches!(answer.status, 400 | 422),
            "{body}: {} {}",
            answer.status,
            answer.body
        );
    }
    for text in ["", "{", "access_token=a"] {
        let path = format!("/admin/v1/users/alice/grants/{GRANT}");
        let request = scene
            .admin
            .request(Method::PUT, &path)
            .header("content-type", "application/json");
        let answer = Answer::to(request.body(text)).await;
        assert!(
            matches!(answer.status, 400 | 415 | 422),
            "{text}: {} {}",
            answer.status,
            answer.body
        );
    }
    for grant in ["example/a%20b", "example/..", "example/%2e%2e", "example/a%2Fb"] {
        let answer = scene.admin.login("alice", grant, &good).await;
        assert!((400..500).contains(&answer.status), "{grant}: {}", answer.status);
    }
    for user in ["a%20b", &"x".repeat(129)] {
        let answer = scene.admin.login(user, GRANT, &good).await;
        assert!((400..500).contains(&answer.status), "{user}: {}", answer.status);
    }
    let huge = json!({"access_token": "x".repeat(4 << 20)});
    let request = scene
        .admin
        .request(Method::PUT, &format!("/admin/v1/users/alice/grants/{GRANT}"));
    // The hub need not read on once it knows; then the client sees a broken pipe.
    if let Ok(answer) = Answer::try_to(request.json(&huge)).await {
        assert!(matches!(answer.status, 400 | 413 | 422), "{}", answer.status);
    }
    assert!(scene.grant("alice").await.is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_would_not_fit_into_a_frame_is_refused_at_the_door() {
    let scene = Scene::new().await;
    let (most, scope) = ("x".repeat(40 * 1024), "y".repeat(20 * 1024 - 4));
    let mut session = Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await;
    for huge in [
        json!({"access_token": "x".repeat(70_000)}),
        json!({"access_token": "x".repeat(62_000)}),
        json!({"access_token": format!("{most}x"), "scope": scope}),
        json!({"refresh_token": format!("{most}x"), "scope": scope}),
        // Twice as long in JSON.
        json!({"access_token": "\"".repeat(31_000)}),
    ] {
        let answer = scene.admin.login("alice", GRANT, &huge).await;
        assert_eq!(
            (answer.status, answer.text("code")),
            (413, "too_large"),
            "{}",
            answer.body
        );
    }
    let large = json!({"access_token": most, "scope": scope});
    scene.admin.login("alice", GRANT, &large).await.expect(200);
    session.settle().await;
    assert_eq!(
        session.token(GRANT).expect("a token")["access_token"],
        large["access_token"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_login_again_changes_nothing_and_a_new_one_is_the_next_version() {
    let scene = Scene::new().await;
    let device = scene.admin.enrol("alice").await;
    let first = scene.provider.login("alice");
    for _ in 0..3 {
        let answer = scene.admin.login("alice", GRANT, &first.login()).await.expect(200);
        assert_eq!(answer, json!({"grant": GRANT, "version": 1}));
    }
    let mut session = Session::fresh(&scene.hub, &device).await;
    let seq = scene.admin.user("alice").await.expect(200)["seq"].clone();
    scene.admin.login("alice", GRANT, &first.login()).await.expect(200);
    assert!(session.settle().await.is_empty(), "nothing is pushed");
    assert_eq!(scene.admin.user("alice").await.expect(200)["seq"], seq);

    assert_eq!(scene.log_in("alice").await, 2);
    session
        .until("the new login", |frame| {
            frame["type"] == "token" && frame["version"] == 2
        })
        .await;
    let old = scene.admin.login("alice", GRANT, &first.login()).await;
    assert_eq!(
        old.status, 409,
        "an older login never overwrites a newer one: {}",
        old.body
    );
    assert_eq!(scene.grant("alice").await["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_of_a_user_tells_grants_and_devices() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    session.settle().await;
    let view = eventually("the ack is seen", BOUND, async || {
        let view = scene.admin.user("alice").await.expect(200);
        (view["devices"][0]["acked"] == view["seq"]).then_some(view)
    })
    .await;

    assert_eq!(view["user"], "alice");
    assert_eq!(view["epoch"], session.frames[0]["epoch"]);
    let grant = &view["grants"][0];
    assert_eq!(
        (&grant["grant"], &grant["version"], &grant["health"]),
        (&GRANT.into(), &1.into(), &"ok".into())
    );
    let token = session.token(GRANT).expect("a token");
    for field in ["seq", "expires_at", "refreshed_at"] {
        assert_eq!(grant[field], token[field], "{field}");
    }
    let shown = &view["devices"][0];
    assert_eq!(
        (&shown["device_id"], &shown["kind"]),
        (&device.id.as_str().into(), &"cli".into())
    );
    assert!(shown["last_seen"].is_u64() && shown["redeemer"].is_boolean(), "{shown}");
    assert_eq!(scene.admin.user("nobody").await.status, 404);
    let text = view.to_string();
    assert!(
        scene.provider.tokens().iter().all(|token| !text.contains(token)),
        "no token in the view"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_are_answered_with_204_and_the_absent_with_404() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    scene.admin.delete_grant("alice", GRANT).await.expect(204);
    assert_eq!(scene.admin.refresh("alice", GRANT).await.status, 404);
    assert!(matches!(
        scene.admin.delete_grant("alice", "example/never").await.status,
        204 | 404
    ));
    scene.admin.revoke(&device).await.expect(204);
    assert!(matches!(scene.admin.revoke(&device).await.status, 204 | 404));
    let path = "/admin/v1/devices/not-a-uuid";
    let answer = Answer::to(scene.admin.request(Method::DELETE, path)).await;
    assert!(matches!(answer.status, 400 | 404 | 422), "{}", answer.status);
    let left = scene.admin.user("alice").await.expect(200);
    assert_eq!(left["devices"], json!([]), "a user without devices is a user");
    scene.admin.delete_user("alice").await.expect(204);
    assert_eq!(scene.admin.user("alice").await.status, 404);
    scene.admin.enrol("alice").await;
    scene.admin.user("alice").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redeem_that_is_under_way_when_its_grant_is_deleted_is_not_resurrected() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldAfter(gate.clone()));
    let id = session.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;

    scene.admin.delete_grant("alice", GRANT).await.expect(204);
    gate.open();

    assert_eq!(session.answer(&id).await["type"], "error");
    session.settle().await;
    let token = session.token(GRANT).cloned().unwrap_or_default();
    assert_eq!(token["version"], 1, "no version 2 was ever pushed");
    let grant = scene.grant("alice").await;
    assert!(grant.is_null() || grant["health"] == "deleted", "{grant}");
}

/// A grant that is nothing but a refresh token yet, with its redeem under way.
async fn half_a_login(scene: &Scene) -> (Value, Gate) {
    let mut login = scene.provider.login("alice").login();
    login.as_object_mut().expect("an object").remove("access_token");
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldAfter(gate.clone()));
    (login, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_while_a_first_login_is_redeemed_waits_for_the_same_redeem() {
    let scene = Scene::new().await;
    let device = scene.admin.enrol("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let (login, gate) = half_a_login(&scene).await;
    let (login, operator, polling, answer) = tokio::join!(
        scene.admin.login("alice", GRANT, &login),
        async {
            scene.provider.called("alice", 1, BOUND).await;
            scene.admin.refresh("alice", GRANT).await
        },
        async {
            scene.provider.called("alice", 1, BOUND).await;
            scene.post_refresh(&device, GRANT, 1).await
        },
        async {
            scene.provider.called("alice", 1, BOUND).await;
            let id = session.ask_refresh(GRANT, 1).await;
            session.settle().await;
            gate.open();
            session.answer(&id).await
        }
    );
    login.expect(200);
    polling.expect(200);
    assert_eq!(answer["type"], "done", "{answer}");
    // An operator who comes too late for this redeem causes another one.
    operator.expect(200);
    let first = scene
        .provider
        .calls()
        .iter()
        .filter(|call| call.generation == 1)
        .count();
    assert_eq!(first, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_login_that_is_deleted_while_it_is_redeemed_stays_away() {
    let scene = Scene::new().await;
    let device = scene.admin.enrol("alice").await;
    let (login, gate) = half_a_login(&scene).await;
    let (login, ()) = tokio::join!(scene.admin.login("alice", GRANT, &login), async {
        scene.provider.called("alice", 1, BOUND).await;
        scene.admin.delete_grant("alice", GRANT).await.expect(204);
        gate.open();
    });
    assert_eq!(login.status, 404, "{}", login.body);
    assert_eq!(scene.get_token(&device, GRANT, "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_make_no_sense_are_refused() {
    let scene = Scene::new().await;
    for body in [
        json!({}),
        json!({"kind": "toaster", "name": "x"}),
        json!({"kind": "cli", "name": 7}),
        json!({"kind": "cli", "name": "x", "redeemer": "yes"}),
    ] {
        let request = scene
            .admin
            .request(Method::POST, "/admin/v1/users/alice/devices")
            .json(&body);
        let answer = Answer::to(request).await;
        assert!(
            matches!(answer.status, 400 | 422),
            "{body}: {} {}",
            answer.status,
            answer.body
        );
    }
    for kind in ["desktop", "web", "cli", "mobile", "server", "iot"] {
        scene
            .admin
            .enrol_as("alice", &json!({"kind": kind, "name": kind}))
            .await;
    }
    let view: Value = scene.admin.user("alice").await.expect(200);
    assert_eq!(view["devices"].as_array().map(Vec::len), Some(6));
    assert_eq!(view["grants"], json!([]));
}
