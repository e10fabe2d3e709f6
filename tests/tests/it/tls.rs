//! TLS as the hub itself serves it.

use std::{path::Path, time::Duration};

use lockstep_tests::{Answer, BOUND, Event, GRANT, Scene, Settings, admin::http, eventually, fleet::Member};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::process::Signal;
use tempfile::TempDir;

/// Puts a fresh certificate for `localhost` in place; gives it, to be trusted.
fn exchange(dir: &Path) -> String {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()]).expect("made");
    // The key first: a hub that looks in between finds two that do not belong together, and keeps what it has.
    std::fs::write(dir.join("key.pem"), signing_key.serialize_pem()).expect("written");
    std::fs::write(dir.join("cert.pem"), cert.pem()).expect("written");
    cert.pem()
}

fn with_tls(settings: Settings, dir: &Path) -> Settings {
    settings
        .set("tls.cert", dir.join("cert.pem").display().to_string())
        .set("tls.key", dir.join("key.pem").display().to_string())
}

async fn member(scene: &Scene, root: &str) -> Member {
    let url = format!("https://localhost:{}", scene.hub.listen.port());
    let device = scene.admin.enrol("alice").await;
    Member::start(&url, device, |builder| builder.roots(root)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_exchanged_under_live_sessions() {
    let dir = TempDir::new().expect("a directory");
    let old = exchange(dir.path());
    let scene = Scene::set(|settings| with_tls(settings, dir.path())).await;
    scene.log_in("alice").await;
    let staying = member(&scene, &old).await;
    staying.reaches(1, BOUND).await;
    let mut events = staying.client.events();

    let new = exchange(dir.path());
    scene.hub.signal(Signal::HUP);

    eventually("the exchange is logged", BOUND, async || {
        scene.hub.log().contains("certificate exchanged").then_some(())
    })
    .await;
    let newcomer = member(&scene, &new).await;
    newcomer.reaches(1, BOUND).await;
    // Nobody who trusts only the former gets in any more, and whoever is in stays.
    let late = member(&scene, &old).await;
    let mut trouble = late.client.events();
    let refused = eventually("a failure", BOUND, async || match trouble.recv().await {
        Ok(lockstep_client::Event::Disconnected { reason, .. }) => Some(reason),
        _ => None,
    })
    .await;
    assert!(refused.contains("certificate"), "{refused}");
    scene.admin.refresh("alice", GRANT).await.expect(200);
    staying.reaches(2, BOUND).await;
    newcomer.reaches(2, BOUND).await;
    while let Ok(event) = events.try_recv() {
        let gone = matches!(event, lockstep_client::Event::Disconnected { .. });
        assert!(!gone, "the session did not survive: {event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_certificates_goes_on_after_sighup_and_says_that_nothing_was_read() {
    let mut scene = Scene::new().await;
    let mut session = scene.session("alice").await;

    scene.hub.signal(Signal::HUP);

    eventually("it is logged", BOUND, async || {
        assert!(scene.hub.lives(), "SIGHUP ended the hub");
        scene.hub.log().contains("nothing is to be reloaded").then_some(())
    })
    .await;
    assert_eq!(session.refresh(GRANT, 1).await["version"], 2, "the session stayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tls_is_spoken_nothing_else_is() {
    let dir = TempDir::new().expect("a directory");
    exchange(dir.path());
    let scene = Scene::set(|settings| with_tls(settings, dir.path())).await;
    let device = scene.user("alice").await;

    let plain = Answer::try_to(
        http()
            .get(scene.hub.url("/v1/tokens"))
            .bearer_auth(&device.access_token),
    )
    .await;
    assert!(plain.is_err(), "{plain:?}");
    assert!(lockstep_tests::Session::open(scene.hub.listen).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_polls_pass_over_tls_too() {
    let dir = TempDir::new().expect("a directory");
    let root = exchange(dir.path());
    let scene = Scene::set(|settings| with_tls(settings, dir.path())).await;
    scene.log_in("alice").await;
    let url = format!("https://localhost:{}", scene.hub.listen.port());
    let poll = lockstep_client::TransportChoice::Poll;
    let device = scene.admin.enrol("alice").await;
    let member = Member::start(&url, device, |builder| builder.roots(root).transport(poll)).await;
    member.reaches(1, BOUND).await;
    scene.admin.refresh("alice", GRANT).await.expect(200);
    member.reaches(2, BOUND).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_does_not_start_without_its_certificate_nor_with_anothers_key() {
    let dir = TempDir::new().expect("a directory");
    exchange(dir.path());
    let mut scene = Scene::set(|settings| with_tls(settings, dir.path())).await;
    scene.hub.kill9().await;
    let key = std::fs::read(dir.path().join("key.pem")).expect("the key");
    exchange(dir.path());
    std::fs::write(dir.path().join("key.pem"), key).expect("written");
    let other = scene.hub.try_start().await.expect_err("the key of another certificate");
    assert!(
        other
            .log
            .contains("key.pem: this key does not belong to the certificate"),
        "{}",
        other.log
    );
    std::fs::remove_file(dir.path().join("cert.pem")).expect("removed");
    let none = scene.hub.try_start().await.expect_err("no certificate");
    assert!(none.log.contains("cert.pem"), "{}", none.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_travels_unencrypted_by_mistake() {
    let mut scene = Scene::new().await;
    scene.hub.kill9().await;
    for (key, word) in [("server.listen", "tokens"), ("server.admin_listen", "the admin token")] {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8787"] {
            scene.hub.change(|settings| settings.set(key, address));
            let refused = scene.hub.try_start().await.expect_err("a plain listener for everybody");
            assert!(refused.status.is_some_and(|status| !status.success()), "{refused:?}");
            let why = format!("{key}: not a loopback address: {word} would travel unencrypted");
            assert!(refused.log.contains(&why), "{why}: {}", refused.log);
        }
        scene.hub.change(|settings| settings.set(key, "127.0.0.1:0"));
    }
    scene.hub.start_again().await;
    scene.admin = scene.hub.admin();
    let mut session = scene.session("bob").await;
    assert_eq!(session.next_within(Duration::from_millis(50)).await, None::<Event>);
}
