//! Nobody knows what came of a redeem: the connection cut before and after the provider's commit, an answer after the
//! deadline, a hub killed in between. Against real servers: `client-demo authserver`, and `oidc-provider` behind a proxy
//! that loses things.

use std::time::Duration;

use futures::future::join_all;
use lockstep_tests::{
    Answer, Authserver, BOUND, Enrolled, GRANT, Hub, Oidc, Proxy, Settings, admin::http, authserver::Family,
    eventually, provider::Gate, proxy::Loss,
};
use serde_json::{Value, json};

/// Longer than an access token of these tests lives, with all waits that follow.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

/// `POST …/refresh` as a device does over HTTP.
async fn refresh(hub: &Hub, device: &Enrolled, grant: &str) -> Answer {
    let request = http().post(hub.url(&format!("/v1/grants/{grant}/refresh")));
    Answer::to(
        request
            .bearer_auth(&device.access_token)
            .json(&json!({"rejected_version": 1})),
    )
    .await
}

/// What the hub hands out for `grant` now.
async fn token(hub: &Hub, device: &Enrolled, grant: &str) -> Answer {
    let request = http().get(hub.url(&format!("/v1/grants/{grant}/token?min_validity=0")));
    Answer::to(request.bearer_auth(&device.access_token)).await
}

/// Unknown: the good token is served, and it is said why.
async fn is_suspect(hub: &Hub, device: &Enrolled, grant: &str) {
    let answer = refresh(hub, device, grant).await;
    assert_eq!(
        (answer.status, answer.text("code")),
        (409, "suspect"),
        "{}",
        answer.body
    );
    assert!(!answer.text("detail").is_empty(), "{}", answer.body);
    let served = token(hub, device, grant).await;
    assert_eq!(served.status, 200, "the token is good while it lives: {}", served.body);
    assert_eq!(served.body["version"], 1);
}

/// Waits until the grant is at version 2, or has come to an end.
async fn end(hub: &Hub, user: &str, grant: &str) -> Value {
    let what = format!("{user}'s {grant} is refreshed or given up");
    eventually(&what, ENDS_WITHIN, async || {
        Some(hub.admin().grant(user, grant).await)
            .filter(|view| view["version"] == 2 || view["health"] == "reauth_required")
    })
    .await
}

#[track_caller]
fn assert_given_up(view: &Value, words: &[&str]) {
    assert_eq!(
        (&view["health"], &view["version"]),
        (&"reauth_required".into(), &1.into()),
        "{view}"
    );
    let reason = view["reason"].as_str().unwrap_or_default();
    assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
}

#[track_caller]
fn assert_renewed(view: &Value) {
    assert_eq!((&view["health"], &view["version"]), (&"ok".into(), &2.into()), "{view}");
}

/// A user of the demo's server, one for each way to go wrong.
struct Case {
    user: &'static str,
    device: Enrolled,
    family: Family,
}

impl Case {
    async fn new(server: &Authserver, hub: &Hub, user: &'static str, fault: Value) -> Self {
        let family = server.log_in().await;
        hub.admin().login(user, GRANT, &family.login).await.expect(200);
        server.fault(&family, fault).await;
        let device = hub.admin().enrol(user).await;
        Self { user, device, family }
    }
}

/// Lost before the commit, after it, and answered too late.
async fn cases(server: &Authserver, hub: &Hub) -> [Case; 3] {
    [
        Case::new(server, hub, "lost-before", json!({"kind": "lost_before"})).await,
        Case::new(server, hub, "lost-after", json!({"kind": "lost_after"})).await,
        Case::new(
            server,
            hub,
            "too-late",
            json!({"kind": "delay", "when": "after", "ms": 12_000}),
        )
        .await,
    ]
}

fn settings(endpoint: &str) -> Settings {
    Settings::new(endpoint)
        .example("timeout", "6s")
        .example("late_wait", "1s")
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_strict_server_nothing_is_replayed_while_there_is_something_to_lose() {
    let server = Authserver::start(&["--access-ttl", "25s"]).await;
    let hub = Hub::start(settings(&server.token_endpoint()).example("lead", "1s")).await;
    let cases = cases(&server, &hub).await;

    join_all(cases.iter().map(|case| is_suspect(&hub, &case.device, GRANT))).await;

    for case in &cases {
        assert_eq!(server.calls(&case.family).await.len(), 1, "{}", case.user);
        assert!(!server.is_revoked(&case.family).await, "{}", case.user);
    }
    let ends = join_all(cases.iter().map(|case| end(&hub, case.user, GRANT))).await;
    assert_renewed(&ends[0]);
    for end in &ends[1..] {
        assert_given_up(end, &["unknown", "invalid_grant"]);
    }
    for case in &cases {
        assert_eq!(server.calls(&case.family).await.len(), 2, "one last try: {}", case.user);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_the_grace_the_answer_is_fetched_again() {
    for pair in [&["--grace-identical"][..], &[]] {
        let arguments = [&["--access-ttl", "1h", "--grace", "30s"], pair].concat();
        let server = Authserver::start(&arguments).await;
        let hub = Hub::start(settings(&server.token_endpoint()).example("grace", "30s")).await;
        let cases = cases(&server, &hub).await;

        let answers = join_all(cases.iter().map(|case| refresh(&hub, &case.device, GRANT))).await;

        for (case, answer) in cases.iter().zip(answers) {
            assert_eq!(answer.expect(200)["version"], 2, "{}", case.user);
            assert_eq!(server.calls(&case.family).await.len(), 2, "{}", case.user);
            assert!(!server.is_revoked(&case.family).await, "{}", case.user);
            let served = token(&hub, &case.device, GRANT).await.expect(200);
            assert!(
                server
                    .is_live(served["access_token"].as_str().unwrap_or_default())
                    .await
            );
        }
    }
}

/// Has the hub killed once the server has committed and before it answers.
async fn killed_between_the_commits(arguments: &[&str], grace: &str) -> (Authserver, Hub, Case) {
    let server = Authserver::start(arguments).await;
    let settings = settings(&server.token_endpoint())
        .example("lead", "1s")
        .example("grace", grace);
    let mut hub = Hub::start(settings.example("timeout", "20s")).await;
    let fault = json!({"kind": "delay", "when": "after", "ms": 60_000});
    let case = Case::new(&server, &hub, "alice", fault).await;
    let asked = tokio::spawn({
        let url = hub.url(&format!("/v1/grants/{GRANT}/refresh"));
        let request = http().post(url).bearer_auth(&case.device.access_token);
        Answer::try_to(request.json(&json!({"rejected_version": 1})))
    });
    eventually("the server has committed", BOUND, async || {
        server
            .calls(&case.family)
            .await
            .iter()
            .any(|call| call["committed"] == true)
            .then_some(())
    })
    .await;
    hub.crash().await;
    assert!(asked.await.expect("a task").is_err(), "the hub answered and died");
    (server, hub, case)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_killed_between_the_servers_commit_and_its_own_loses_a_strict_grant_and_says_so() {
    let (server, hub, case) = killed_between_the_commits(&["--access-ttl", "20s"], "0s").await;
    is_suspect(&hub, &case.device, GRANT).await;
    assert_eq!(server.calls(&case.family).await.len(), 1);
    let end = end(&hub, case.user, GRANT).await;
    assert_given_up(&end, &["cut short", "invalid_grant"]);
    assert_eq!(server.calls(&case.family).await.len(), 2, "one last try");
    assert_eq!(token(&hub, &case.device, GRANT).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_killed_between_the_servers_commit_and_its_own_loses_nothing_with_a_grace() {
    let (server, hub, case) = killed_between_the_commits(&["--access-ttl", "1h", "--grace", "60s"], "60s").await;
    assert_renewed(&end(&hub, case.user, GRANT).await);
    assert_eq!(server.calls(&case.family).await.len(), 2);
    let served = token(&hub, &case.device, GRANT).await.expect(200);
    assert!(
        server
            .is_live(served["access_token"].as_str().unwrap_or_default())
            .await
    );
}

/// The real provider knows no grace and cannot be told to misbehave: three proxies lose a request, an answer, and hold one
/// back past the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_real_provider_nothing_is_replayed_while_there_is_something_to_lose() {
    let oidc = Oidc::start(25).await;
    let gate = Gate::closed();
    let losses = [
        ("request", Loss::Request),
        ("answer", Loss::Answer),
        ("late", Loss::Late(gate.clone())),
    ];
    let mut proxies = Vec::new();
    let mut settings = Settings::new(&oidc.token_endpoint());
    for (name, loss) in losses {
        let proxy = Proxy::before(&oidc.token_endpoint()).await;
        proxy.lose(loss);
        settings = settings
            .provider(name, &proxy.endpoint())
            .set(&format!("providers.{name}.timeout"), "6s")
            .set(&format!("providers.{name}.lead"), "1s")
            .set(&format!("providers.{name}.late_wait"), "1s");
        proxies.push((format!("{name}/main"), proxy));
    }
    let hub = Hub::start(settings).await;
    let admin = hub.admin();
    let device = admin.enrol("alice").await;
    let mut tokens = Vec::new();
    for (grant, _) in &proxies {
        let login = oidc.mint().await;
        admin.login("alice", grant, &login).await.expect(200);
        tokens.push(login["refresh_token"].clone());
    }

    join_all(proxies.iter().map(|(grant, _)| is_suspect(&hub, &device, grant))).await;

    gate.open();
    let sent = async |token: &Value| -> Vec<Value> {
        let refreshes = oidc.refreshes().await;
        refreshes
            .into_iter()
            .filter(|call| call["refresh_token"] == *token)
            .collect()
    };
    assert_eq!(sent(&tokens[0]).await.len(), 0, "it never arrived");
    assert_eq!(sent(&tokens[1]).await.len(), 1);
    assert_eq!(sent(&tokens[2]).await.len(), 1);
    let ends = join_all(proxies.iter().map(|(grant, _)| end(&hub, "alice", grant))).await;
    assert_renewed(&ends[0]);
    for end in &ends[1..] {
        assert_given_up(end, &["unknown", "invalid_grant"]);
    }
    for token in &tokens[1..] {
        let statuses: Vec<_> = sent(token).await.iter().map(|call| call["status"].clone()).collect();
        assert_eq!(statuses, [200, 400], "one last try");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_killed_between_the_real_providers_commit_and_its_own_says_what_is_lost() {
    let oidc = Oidc::start(20).await;
    let proxy = Proxy::before(&oidc.token_endpoint()).await;
    proxy.lose(Loss::Late(Gate::closed()));
    let mut hub = Hub::start(
        settings(&proxy.endpoint())
            .example("lead", "1s")
            .example("timeout", "20s"),
    )
    .await;
    let admin = hub.admin();
    let device = admin.enrol("alice").await;
    admin.login("alice", GRANT, &oidc.mint().await).await.expect(200);
    let request = http().post(hub.url(&format!("/v1/grants/{GRANT}/refresh")));
    let request = request
        .bearer_auth(&device.access_token)
        .json(&json!({"rejected_version": 1}));
    let asked = tokio::spawn(Answer::try_to(request));
    eventually("the provider has committed", BOUND, async || {
        oidc.refreshes()
            .await
            .iter()
            .any(|call| call["status"] == 200)
            .then_some(())
    })
    .await;

    hub.crash().await;

    assert!(asked.await.expect("a task").is_err(), "the hub answered and died");
    is_suspect(&hub, &device, GRANT).await;
    assert_eq!(oidc.refreshes().await.len(), 1);
    assert_given_up(&end(&hub, "alice", GRANT).await, &["cut short", "invalid_grant"]);
    assert_eq!(oidc.refreshes().await.len(), 2, "one last try");
}
