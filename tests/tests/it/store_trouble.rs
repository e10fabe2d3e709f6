//! A store that is full, read-only, corrupt, or sealed with other keys: the hub says so, serves what it may, and never
//! redeems what it could not keep.

use std::{fs, time::Duration};

use lockstep_tests::{
    Answer, BOUND, Enrolled, Fault, GRANT, Hub, Provider, Scene, Session, Settings, eventually,
    provider::{Gate, Rules},
};
use reqwest::Method;

/// What the volumes of these tests hold: a store wants 16 MiB free.
const VOLUME: u64 = 48 << 20;

/// A hub whose store lies on a volume.
async fn on_volume(rules: Rules, change: impl FnOnce(Settings) -> Settings) -> Scene {
    let provider = Provider::with(rules).await;
    let settings = change(Settings::new(&provider.token_endpoint()));
    let hub = Hub::start_on_volume(settings, VOLUME).await;
    let admin = hub.admin();
    Scene { provider, hub, admin }
}

/// The store is full when the answer to a redeem comes that it took the claim of.
async fn full_in_the_middle(scene: &Scene) -> (Enrolled, Session, fs::File) {
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldAfter(gate.clone()));
    let id = session.ask_refresh(GRANT, 1).await;
    scene.provider.called("alice", 1, BOUND).await;
    let ballast = scene.hub.volume().fill();
    gate.open();
    let answer = session.answer(&id).await;
    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&"error".into(), &"unavailable".into()),
        "{answer}"
    );
    assert!(answer["retry_at"].is_u64(), "{answer}");
    eventually("the result is in the spool", BOUND, async || {
        (scene.hub.spooled() == 1).then_some(())
    })
    .await;
    session.settle().await;
    let shown = session.token(GRANT).expect("version 1");
    assert_eq!(shown["version"], 1, "promise P2: it is not committed yet");
    (device, session, ballast)
}

/// The result of the one redeem is what devices hold, and the spool is empty.
async fn landed(scene: &Scene, device: &Enrolled) {
    let what = "the result is committed and gone from the spool";
    eventually(what, Duration::from_secs(60), async || {
        (scene.grant("alice").await["version"] == 2 && scene.hub.spooled() == 0).then_some(())
    })
    .await;
    let token = scene.get_token(device, GRANT, "?min_validity=0").await.expect(200);
    assert_eq!(
        token["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
    assert_eq!(scene.grant("alice").await["health"], "ok");
    let first = scene
        .provider
        .calls_of("alice")
        .iter()
        .filter(|call| call.generation == 1)
        .count();
    assert_eq!(first, 1, "the used refresh token was sent again");
    assert!(!scene.provider.is_revoked("alice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_result_that_the_store_refuses_waits_in_the_spool_and_lands_when_there_is_room() {
    let scene = on_volume(Rules::default(), |settings| settings).await;
    let (device, mut session, ballast) = full_in_the_middle(&scene).await;
    for _ in 0..3 {
        assert_eq!(scene.admin.refresh("alice", GRANT).await.status, 503);
    }
    assert_eq!(
        scene.provider.calls().len(),
        1,
        "it goes on redeeming into a full store"
    );
    let ready = Answer::to(scene.admin.anonymous(Method::GET, "/readyz")).await;
    assert_ne!(ready.body["writes"], "ok", "and it says so: {}", ready.body);
    assert_eq!(ready.status, 200, "what is good is served: {}", ready.body);
    assert_eq!(scene.get_token(&device, GRANT, "").await.expect(200)["version"], 1);

    ballast.set_len(0).expect("the ballast goes");

    session
        .until("version 2", |frame| frame["type"] == "token" && frame["version"] == 2)
        .await;
    landed(&scene, &device).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_spooled_result_lands_after_kill_9_before_anything_is_redeemed() {
    let rules = Rules {
        ttl: Some(Duration::from_secs(8)),
        ..Rules::default()
    };
    let mut scene = on_volume(rules, |settings| {
        settings.example("lead", "1s").example("late_wait", "1s")
    })
    .await;
    let (device, session, ballast) = full_in_the_middle(&scene).await;
    let first = session.token(GRANT).expect("version 1")["access_token"].clone();
    drop(session);
    scene.hub.kill9().await;
    // Nothing is left to lose: whoever forgets the spool will send the used refresh token.
    eventually("version 1 expires", BOUND, async || {
        (!scene.provider.is_live(first.as_str().unwrap_or_default())).then_some(())
    })
    .await;
    scene
        .provider
        .rules(|rules| rules.ttl = Some(Duration::from_secs(3600)));
    ballast.set_len(0).expect("the ballast goes");

    scene.hub.start_again().await;

    eventually("the spool is empty", BOUND, async || {
        (scene.hub.spooled() == 0).then_some(())
    })
    .await;
    let sent = scene.provider.calls_of("alice");
    assert_eq!(sent.iter().filter(|call| call.generation == 1).count(), 1, "{sent:?}");
    assert!(!scene.provider.is_revoked("alice"));
    // What landed has a short life: the scheduler may be about to replace it.
    eventually("the newest is served", BOUND, async || {
        let token = scene.get_token(&device, GRANT, "?min_validity=0").await.expect(200);
        assert!(token["version"].as_u64() >= Some(2), "{token}");
        (token["access_token"] == scene.provider.newest("alice").access_token.as_str()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_spool_without_room_means_that_nothing_is_redeemed() {
    let provider = Provider::start().await;
    let settings = Settings::new(&provider.token_endpoint()).set("store.spool", "volume/spool");
    let hub = Hub::start_beside_volume(settings, 4 << 20).await;
    let admin = hub.admin();
    let scene = Scene { provider, hub, admin };
    let device = scene.user("alice").await;
    let ballast = scene.hub.volume().fill();

    let refused = scene.post_refresh(&device, GRANT, 1).await;

    assert_eq!(
        (refused.status, refused.text("code")),
        (503, "unavailable"),
        "{}",
        refused.body
    );
    assert!(scene.provider.calls().is_empty());
    assert_eq!(scene.get_token(&device, GRANT, "").await.expect(200)["version"], 1);
    ballast.set_len(0).expect("the ballast goes");
    eventually("it heals", Duration::from_secs(60), async || {
        (scene.admin.refresh("alice", GRANT).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_store_is_refused_at_the_start_and_left_as_it_is() {
    let mut scene = on_volume(Rules::default(), |settings| settings).await;
    scene.user("alice").await;
    scene.hub.kill9().await;
    scene.hub.volume().set_read_only(true).await;

    let refusal = scene
        .hub
        .try_start()
        .await
        .expect_err("a hub does not serve what it cannot write");

    assert!(refusal.status.is_some_and(|status| !status.success()));
    assert!(
        refusal.log.contains("lockstep.db") && refusal.log.contains("ead-only"),
        "{}",
        refusal.log
    );
    scene.hub.volume().set_read_only(false).await;
    scene.hub.start_again().await;
    assert_eq!(scene.grant("alice").await["version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_redeems_nothing_that_it_could_not_keep_and_heals() {
    let scene = on_volume(Rules::default(), |settings| settings).await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    let ballast = scene.hub.volume().fill();

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

/// Stops the hub, so that its witness is written, and puts another store in place of its own.
async fn restore(scene: &mut Scene, backup: &[u8]) {
    scene.hub.signal(rustix::process::Signal::TERM);
    assert!(scene.hub.ended(BOUND).await.success());
    fs::write(scene.hub.dir().join("lockstep.db"), backup).expect("a backup is put back");
    scene.hub.start_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_went_back_in_time_is_noticed_each_time_and_replays_nothing() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    scene.hub.signal(rustix::process::Signal::TERM);
    scene.hub.ended(BOUND).await;
    let backup = fs::read(scene.hub.dir().join("lockstep.db")).expect("the store");
    scene.hub.start_again().await;
    let (session, welcome) = Session::connect(&scene.hub, &device, None).await;
    let mut epochs = vec![welcome["epoch"].clone()];
    let cursor = session.cursor();
    drop(session);
    scene.admin.refresh("alice", GRANT).await.expect(200);

    // The second time the backup is of an epoch that was left behind already.
    for _ in 0..2 {
        restore(&mut scene, &backup).await;

        let (_, welcome) = Session::connect(&scene.hub, &device, cursor.as_deref()).await;
        assert_eq!(welcome["resume"], "reset");
        assert!(!epochs.contains(&welcome["epoch"]), "{epochs:?}, {welcome}");
        epochs.push(welcome["epoch"].clone());
        let grant = scene.grant("alice").await;
        assert_eq!(
            (&grant["health"], &grant["version"]),
            (&"suspect".into(), &1.into()),
            "{grant}"
        );
        assert!(
            grant["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("restored")),
            "{grant}"
        );
        let served = scene.get_token(&device, GRANT, "").await.expect(200);
        assert_eq!(served["version"], 1, "it may be good yet");
    }
    let sent = scene.provider.calls();
    assert_eq!(sent.len(), 1, "a used refresh token was sent: {sent:?}");
    assert_eq!(scene.log_in("alice").await, 2);
    assert_eq!(scene.grant("alice").await["health"], "ok");
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
