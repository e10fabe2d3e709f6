//! `lockstep-hub grants login`: at the demo's authorization server, and at a certified one.

use std::{path::Path, process::Stdio};

use lockstep_tests::{BOUND, Hub, Oidc, Settings, binaries, process::Process, within};
use reqwest::{Client, header};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Starts a login; gives the process and the address that it prints.
async fn login(hub: &Hub, more: &[&str]) -> (Child, String) {
    let mut child = Command::new(binaries::hub())
        .args([
            "grants",
            "login",
            "example/main",
            "--user",
            "alice",
            "--no-browser",
            "--config",
        ])
        .arg(hub.config())
        .args(more)
        .env("LOCKSTEP_ADMIN", format!("http://{}", hub.admin_listen))
        .env("LOCKSTEP_ADMIN_TOKEN", hub.admin_token())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
    let said = within("the login says where to go", BOUND, async {
        let mut said = String::new();
        while let Ok(Some(line)) = lines.next_line().await {
            said += &line;
            if let Some((_, address)) = line.split_once("Log in at ") {
                return address.to_owned();
            }
        }
        panic!("no address: {said}")
    })
    .await;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, said)
}

/// A browser: follows redirects and keeps cookies.
async fn browse(address: &str) -> (u16, String) {
    let client = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let mut next = url::Url::parse(address).expect("an address");
    let mut cookies: Vec<String> = Vec::new();
    for _ in 0..12 {
        let request = client.get(next.clone()).header(header::COOKIE, cookies.join("; "));
        let response = request.send().await.expect("an answer");
        for set in response.headers().get_all(header::SET_COOKIE) {
            let pair = set.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            let name = pair.split('=').next().unwrap_or_default().to_owned();
            cookies.retain(|known| known.split('=').next() != Some(&name));
            cookies.push(pair.to_owned());
        }
        let location = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
        match location.map(|to| next.join(to).expect("a URL")) {
            Some(to) => next = to,
            None => return (response.status().as_u16(), response.text().await.unwrap_or_default()),
        }
    }
    panic!("too many redirects")
}

async fn succeeds(mut child: Child) {
    let status = within("the login ends", BOUND, child.wait()).await.expect("a status");
    assert!(status.success(), "{status}");
}

async fn demo_server(dir: &Path) -> (Process, Value) {
    let mut command = Command::new(binaries::demo());
    command.args(["authserver", "--listen", "127.0.0.1:0"]);
    match Process::start(&mut command, &dir.join("authserver.log")).await {
        Ok(started) => started,
        Err(refusal) => panic!("the authorization server does not start:\n{}", refusal.log),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_code_flow_brings_a_grant_that_refreshes() {
    let dir = TempDir::new().expect("a temporary directory");
    let (_server, ready) = demo_server(dir.path()).await;
    let base = format!("http://{}", ready["listening"].as_str().unwrap_or_default());
    let settings =
        Settings::new(&format!("{base}/token")).example("authorization_endpoint", format!("{base}/authorize"));
    let hub = Hub::start(settings).await;
    let (child, address) = login(&hub, &["--scope", "demo"]).await;
    for part in [
        "code_challenge_method=S256",
        "state=",
        "scope=demo",
        "redirect_uri=http%3A%2F%2F127.0.0.1%3A",
    ] {
        assert!(address.contains(part), "{part} in {address}");
    }
    // Somebody who guesses at the port comes to nothing.
    let redirect = url::Url::parse(&address).expect("a URL");
    let redirect = redirect
        .query_pairs()
        .find(|(key, _)| key == "redirect_uri")
        .map(|(_, to)| to.into_owned());
    let redirect = redirect.unwrap_or_default();
    assert_eq!(browse(&format!("{redirect}?code=stolen&state=guessed")).await.0, 404);
    let (status, said) = browse(&address).await;
    assert_eq!(status, 200, "{said}");
    succeeds(child).await;
    let grant = hub.admin().grant("alice", "example/main").await;
    assert_eq!(
        (&grant["version"], &grant["health"]),
        (&1.into(), &"ok".into()),
        "{grant}"
    );
    let refreshed = hub.admin().refresh("alice", "example/main").await.expect(200);
    assert_eq!(refreshed["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certified_provider_is_content_with_the_login() {
    let provider = Oidc::start(3600).await;
    let base = provider.token_endpoint().trim_end_matches("/token").to_owned();
    let settings = Settings::new(&provider.token_endpoint())
        .example("authorization_endpoint", format!("{base}/auth"))
        .example("scope", "openid offline_access");
    let hub = Hub::start(settings).await;
    let (child, address) = login(&hub, &["--param", "prompt=consent"]).await;
    let (status, said) = browse(&address).await;
    assert_eq!(status, 200, "{said}");
    succeeds(child).await;
    let refreshed = hub.admin().refresh("alice", "example/main").await.expect(200);
    assert_eq!(refreshed["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let hub = Hub::start(Settings::new("http://127.0.0.1:9/token")).await;
    for (more, setting) in [
        (None, "authorization_endpoint"),
        (Some("--device"), "device_authorization_endpoint"),
    ] {
        let output = Command::new(binaries::hub())
            .args(["grants", "login", "example/main", "--user", "alice", "--config"])
            .arg(hub.config())
            .args(more)
            .env("LOCKSTEP_ADMIN", format!("http://{}", hub.admin_listen))
            .env("LOCKSTEP_ADMIN_TOKEN", hub.admin_token())
            .output()
            .await
            .expect("the binary starts");
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(setting), "{said}");
    }
}
