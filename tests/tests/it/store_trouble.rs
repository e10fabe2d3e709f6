//! A store that is full, read-only, corrupt, or sealed with other keys: the hub says so, serves what it may, and never
//! redeems what it could not keep.

use std::{fs, io::Write, path::Path, time::Duration};

use lockstep_tests::{Answer, GRANT, Hub, Provider, Scene, Session, Settings, eventually};
use reqwest::Method;

/// Fills a file system to the last byte.
fn fill(volume: &Path) -> fs::File {
    let mut file = fs::File::create(volume.join("ballast")).expect("a file on the volume");
    for size in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_redeems_nothing_that_it_could_not_keep_and_heals() {
    let provider = Provider::start().await;
    let hub = Hub::start_on_volume(Settings::new(&provider.token_endpoint()), 48 << 20).await;
    let admin = hub.admin();
    let scene = Scene { provider, hub, admin };
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let ballast = fill(&scene.hub.volume());

    // What the store had set aside may still serve for a while; then it refuses.
    let mut version = 1;
    let refusal = eventually("the store is full", Duration::from_secs(60), async || {
        let answer = scene.admin.refresh("alice", GRANT).await;
        if answer.status != 200 {
            return Some(answer);
        }
        version += 1;
        let big = serde_json::json!({"access_token": "x".repeat(40_000)});
        scene.admin.login("bob", &format!("example/{version}"), &big).await;
        None
    })
    .await;

    assert_eq!(
        (refusal.status, refusal.text("code")),
        (503, "unavailable"),
        "{}",
        refusal.body
    );
    let calls = scene.provider.calls().len();
    for _ in 0..3 {
        scene.admin.refresh("alice", GRANT).await;
    }
    assert!(
        scene.provider.calls().len() <= calls + 1,
        "it goes on redeeming into a full store"
    );
    assert_eq!(
        Answer::to(scene.admin.anonymous(Method::GET, "/healthz")).await.status,
        200
    );
    let served = scene.get_token(&device, GRANT, "").await;
    assert_eq!(served.status, 200, "what is good is served: {}", served.body);
    session.settle().await;

    ballast.set_len(0).expect("the ballast goes");
    eventually("it heals", Duration::from_secs(60), async || {
        (scene.admin.refresh("alice", GRANT).await.status == 200).then_some(())
    })
    .await;
    let token = scene.get_token(&device, GRANT, "").await.expect(200);
    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str(),
        "nothing was wasted"
    );
    assert!(!scene.provider.is_revoked("alice"));
    scene.hub.signal(rustix::process::Signal::TERM);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_store_is_named_and_left_as_it_is() {
    let mut scene = Scene::new().await;
    scene.user("alice").await;
    scene.hub.kill9().await;
    let path = scene.hub.dir().join("lockstep.db");
    let mut bytes = fs::read(&path).expect("the store");
    let middle = bytes.len() / 2;
    bytes[..512].fill(0xa5);
    bytes[middle..middle + 512].fill(0x5a);
    fs::write(&path, &bytes).expect("the store can be damaged");

    let refusal = scene
        .hub
        .try_start()
        .await
        .expect_err("a hub does not serve a corrupt store");

    assert!(refusal.status.is_some_and(|status| !status.success()));
    assert!(refusal.log.contains("lockstep.db"), "{}", refusal.log);
    assert!(!refusal.log.contains("panicked"), "{}", refusal.log);
    assert!(
        fs::read(&path).expect("the store") == bytes,
        "what is left of it is evidence: it must not be touched"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_store_is_not_overwritten() {
    let mut scene = Scene::new().await;
    scene.hub.kill9().await;
    let path = scene.hub.dir().join("lockstep.db");
    fs::write(&path, "my thesis").expect("a file");
    let refusal = scene.hub.try_start().await.expect_err("a refusal");
    assert!(refusal.log.contains("lockstep.db"), "{}", refusal.log);
    assert_eq!(fs::read_to_string(&path).expect("the file"), "my thesis");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_or_none_opens_no_store() {
    let mut scene = Scene::new().await;
    scene.user("alice").await;
    scene.hub.kill9().await;
    let other = Scene::new().await;
    let key = scene.hub.dir().join("lockstep.key");
    fs::rename(&key, key.with_extension("right")).expect("the key goes");
    fs::copy(other.hub.dir().join("lockstep.key"), &key).expect("another key");
    let refusal = scene.hub.try_start().await.expect_err("a refusal");
    assert!(refusal.log.contains("key"), "{}", refusal.log);
    fs::rename(&key, key.with_extension("other")).expect("no key");
    let refusal = scene.hub.try_start().await.expect_err("a refusal");
    assert!(refusal.log.contains("key"), "{}", refusal.log);

    fs::rename(key.with_extension("right"), &key).expect("the key is back");
    scene.hub.start_again().await;
    assert_eq!(scene.grant("alice").await["version"], 1, "nothing was harmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_written_is_refused_at_the_start() {
    let mut scene = Scene::new().await;
    scene.hub.kill9().await;
    scene
        .hub
        .change(|settings| settings.set("store.url", "file:/proc/lockstep.db"));
    let refusal = scene.hub.try_start().await.expect_err("a refusal");
    assert!(refusal.status.is_some_and(|status| !status.success()));
    assert!(refusal.log.contains("/proc/lockstep.db"), "{}", refusal.log);
}
