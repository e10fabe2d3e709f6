//! What the environment says about the way to the hub. A process has one environment, so each case is a process: this test
//! program again, with the one test that is a client.

use std::{process::Stdio, sync::atomic::Ordering};

use lockstep_client::{Client, Event, Secret, TransportChoice};
use tokio::process::Command;

use crate::{
    device, grant,
    hub::Hub,
    proxy::{Kind, ROOT, proxy, tls},
    soon,
};

/// The hub's address, for the process that is a client.
const HUB: &str = "LOCKSTEP_TEST_HUB";
const POLL: &str = "LOCKSTEP_TEST_POLL";
/// The client is to find that it does not get through.
const FAILS: &str = "LOCKSTEP_TEST_FAILS";

/// Does nothing by itself: the others run it, in an environment of theirs.
#[tokio::test]
async fn a_client_as_the_environment_wants_it() {
    let Ok(hub) = std::env::var(HUB) else { return };
    let choice = match std::env::var(POLL) {
        Ok(_) => TransportChoice::Poll,
        Err(_) => TransportChoice::Ws,
    };
    let (client, mut events) = Client::builder(hub)
        .device(device(), Secret::new("lsd_0"))
        .transport(choice)
        .connect_listening()
        .await
        .unwrap();
    if std::env::var(FAILS).is_ok() {
        soon("a failure", async {
            while !matches!(events.recv().await.unwrap(), Event::Disconnected { .. }) {}
        })
        .await;
        println!("not synced by {choice:?}");
        return;
    }
    soon("sync", client.synced()).await.unwrap();
    assert!(client.state(&grant()).token().is_some());
    println!("synced by {choice:?}");
}

/// Runs a client of `hub` in this environment and no other. Whether it came to say `words`.
async fn says_in(words: &str, hub: &str, environment: &[(&str, &str)]) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "environment::a_client_as_the_environment_wants_it",
            "--nocapture",
        ])
        .env_clear()
        .env(HUB, hub)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains(words)
}

async fn synced_in(hub: &str, environment: &[(&str, &str)]) -> bool {
    says_in("synced by", hub, environment).await
}

#[tokio::test]
async fn proxies_are_found_in_the_environment() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    for (kind, scheme, variables) in [
        (Kind::Http, "http", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"]),
        (Kind::Socks5, "socks5h", ["http_proxy", "ALL_PROXY", "all_proxy"]),
    ] {
        let (addr, counts) = proxy(kind).await;
        let url = format!("{scheme}://user:password@{addr}");
        for (nth, variable) in variables.into_iter().enumerate() {
            assert!(synced_in(&hub.url(), &[(variable, &url)]).await, "{variable}={url}");
            assert!(
                counts.tunnels.load(Ordering::SeqCst) > nth,
                "{variable}={url} was not used"
            );
        }
    }
    let (addr, counts) = proxy(Kind::ForwardOnly).await;
    let url = format!("http://{addr}");
    assert!(synced_in(&hub.url(), &[("http_proxy", &url), (POLL, "1")]).await);
    assert!(counts.forwards.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn no_proxy_is_obeyed() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let (addr, counts) = proxy(Kind::Http).await;
    let url = format!("http://{addr}");
    for around in ["127.0.0.1", "127.0.0.0/8", "*"] {
        assert!(
            synced_in(&hub.url(), &[("http_proxy", &url), ("NO_PROXY", around)]).await,
            "{around}"
        );
    }
    assert_eq!(counts.tunnels.load(Ordering::SeqCst), 0);
    assert_eq!(counts.forwards.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_secure_hub_has_a_proxy_of_its_own() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let at = format!("https://localhost:{}", tls(&hub).await.port());
    let (addr, counts) = proxy(Kind::Http).await;
    let url = format!("http://user:password@{addr}");
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), ROOT).unwrap();
    let roots = roots.path().to_str().unwrap();
    for poll in [None, Some((POLL, "1"))] {
        let mut environment = vec![
            ("SSL_CERT_FILE", roots),
            ("HTTPS_PROXY", &url),
            ("HTTP_PROXY", "http://127.0.0.1:1"),
        ];
        environment.extend(poll);
        assert!(synced_in(&at, &environment).await, "{environment:?}");
    }
    assert!(counts.tunnels.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn the_systems_roots_are_trusted_and_no_others() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let at = format!("wss://localhost:{}", tls(&hub).await.port());
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), ROOT).unwrap();
    let roots = roots.path().to_str().unwrap();
    assert!(synced_in(&at, &[("SSL_CERT_FILE", roots)]).await);
    assert!(synced_in(&at, &[("SSL_CERT_FILE", roots), (POLL, "1")]).await);
    let purchases = hub.with(|core| core.purchases);
    let trusts_nobody = [("SSL_CERT_FILE", "/dev/null"), (FAILS, "1")];
    assert!(says_in("not synced by", &at, &trusts_nobody).await);
    hub.with(|core| assert_eq!(core.purchases, purchases, "a token went to somebody who is not trusted"));
}
