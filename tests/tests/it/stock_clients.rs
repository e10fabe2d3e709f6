//! Stock OAuth clients, unmodified, share one grant through the hub's token endpoint: each as its users would use it.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lockstep_tests::{
    Answer, BOUND, GRANT, Scene, Session, admin::http, binaries::python, eventually, process, provider::Rules,
};
use oauth2::{
    AuthUrl, ClientId, HttpRequest, HttpResponse, RefreshToken, TokenResponse, TokenUrl, basic::BasicClient,
    http::Response,
};
use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stock-clients");
/// How many processes of each library wake up at once with a stale token.
const PROCESSES: usize = 3;

/// A grant whose access token has just expired, and a slave of it.
async fn stale() -> (Scene, String) {
    let rules = Rules {
        ttl: Some(Duration::from_secs(2)),
        ..Rules::default()
    };
    let scene = Scene::with(rules, |settings| settings.example("lead", "0s")).await;
    let pair = scene.provider.login("alice");
    // Whatever comes next lives long, also when the hub's scheduler is the first to redeem.
    scene
        .provider
        .rules(|rules| rules.ttl = Some(Duration::from_secs(3600)));
    scene.admin.login("alice", GRANT, &pair.login()).await.expect(200);
    let device = scene.admin.enrol("alice").await;
    let path = format!("/admin/v1/devices/{}/grants/{GRANT}", device.id);
    let made = Answer::to(scene.admin.request(Method::POST, &path)).await.expect(201);
    let slave = made["refresh_token"].as_str().expect("a slave").to_owned();
    // The hub heard of it a moment after it was issued, and takes it to live for so much longer.
    eventually("the token expires", BOUND, async || {
        let grant = scene.grant("alice").await;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let is_over = grant["version"] != 1 || grant["expires_at"].as_u64() < Some(now);
        (is_over && !scene.provider.is_live(&pair.access_token)).then_some(())
    })
    .await;
    (scene, slave)
}

async fn wake(scene: &Scene, program: &Path, script: &str, library: &str, slave: &str) -> Value {
    let mut command = Command::new(program);
    command.current_dir(HOME).args([
        script,
        library,
        &scene.hub.url("/oauth/token"),
        slave,
        &scene.provider.resource(),
    ]);
    let output = process::run(&mut command).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&said).unwrap_or_else(|_| {
        panic!(
            "{library} (run scripts/setup?): {said}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

async fn share(program: &Path, script: &str, library: &str) {
    let (scene, slave) = stale().await;

    let woken = (0..PROCESSES).map(|_| wake(&scene, program, script, library, &slave));
    let woken = futures::future::join_all(woken).await;

    let newest = scene.provider.newest("alice").access_token;
    for held in woken {
        assert_eq!(
            (&held["status"], &held["access_token"]),
            (&200.into(), &newest.as_str().into()),
            "{library}: {held}"
        );
        assert_eq!(
            held["refresh_token"],
            slave.as_str(),
            "{library} keeps what it needs next time"
        );
    }
    assert_eq!(scene.provider.calls().len(), 1, "{library}: one redeem");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_oauthlib_shares_one_grant() {
    share(&python(), "stock.py", "requests-oauthlib").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_shares_one_grant() {
    share(&python(), "stock.py", "authlib").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn google_auth_shares_one_grant() {
    share(&python(), "stock.py", "google-auth").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_shares_one_grant() {
    share(Path::new("node"), "stock.mjs", "openid-client").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simple_oauth2_shares_one_grant() {
    share(Path::new("node"), "stock.mjs", "simple-oauth2").await;
}

/// The transport that the `oauth2` crate leaves to its users.
async fn send(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let (head, body) = request.into_parts();
    let response = http()
        .request(head.method, head.uri.to_string())
        .headers(head.headers)
        .body(body)
        .send()
        .await?;
    let mut answer = Response::new(Vec::new());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = response.headers().clone();
    *answer.body_mut() = response.bytes().await?.to_vec();
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_crate_oauth2_shares_one_grant() {
    let (scene, slave) = stale().await;
    let url = scene.hub.url("/oauth/token");
    let client = BasicClient::new(ClientId::new("stock".into()))
        .set_auth_uri(AuthUrl::new(url.clone()).expect("a URL"))
        .set_token_uri(TokenUrl::new(url).expect("a URL"));
    let slave = RefreshToken::new(slave);

    let exchange = || async { client.exchange_refresh_token(&slave).request_async(&send).await };
    let answers = futures::future::join_all((0..8).map(|_| exchange())).await;

    let newest = scene.provider.newest("alice").access_token;
    for answer in answers {
        let token = answer.expect("a token");
        assert_eq!(token.access_token().secret(), &newest);
        assert!(token.refresh_token().is_some() && token.expires_in().is_some());
    }
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_and_a_device_on_a_socket_share_one_redeem() {
    let (scene, slave) = stale().await;
    let other = scene.admin.enrol("alice").await;
    let mut session = Session::fresh(&scene.hub, &other).await;
    let python = python();
    let node = Path::new("node");

    let clients = futures::future::join_all([
        wake(&scene, &python, "stock.py", "requests-oauthlib", &slave),
        wake(&scene, &python, "stock.py", "authlib", &slave),
        wake(&scene, &python, "stock.py", "google-auth", &slave),
        wake(&scene, node, "stock.mjs", "openid-client", &slave),
        wake(&scene, node, "stock.mjs", "simple-oauth2", &slave),
    ]);
    // The hub's own scheduler may have been quicker than all of them: then the device holds version 2 already.
    let (woken, done) = tokio::join!(clients, session.refresh(GRANT, 1));
    assert_eq!((&done["type"], &done["version"]), (&"done".into(), &2.into()), "{done}");
    session.settle().await;
    let pushed = session.token(GRANT).expect("a token");
    for held in woken {
        assert_eq!(
            (&held["status"], &held["access_token"]),
            (&200.into(), &pushed["access_token"]),
            "{held}"
        );
    }
    assert_eq!(scene.provider.calls().len(), 1);
}
