//! What survives a restart of the client.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    time::{Duration, Instant},
};

use lockstep_client::{Client, DeviceFile, Enrolled, Error, Health, Secret, TransportChoice, Version};
use tempfile::TempDir;

use crate::{
    device, grant,
    hub::{Hub, Upgrade},
    quick, soon,
};

const MINUTE: Duration = Duration::from_secs(60);

fn place() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("deep/lockstep.json");
    (directory, path)
}

async fn cached(hub: &Hub, path: &PathBuf) -> Client {
    quick(hub)
        .transport(TransportChoice::Ws)
        .cache(path)
        .connect()
        .await
        .unwrap()
}

/// One run of a client, up to the ack of everything.
async fn run(hub: &Hub, path: &PathBuf) {
    let client = cached(hub, path).await;
    soon("sync", client.synced()).await.unwrap();
    hub.until("the ack", |core| core.acked == core.seq).await;
    soon("close", client.close()).await;
}

#[tokio::test]
async fn a_token_is_at_hand_while_the_hub_is_away() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let (_directory, path) = place();
    run(&hub, &path).await;

    hub.with(|core| core.upgrade = Upgrade::Refuse(500));
    let client = cached(&hub, &path).await;
    let mut subscription = client.subscribe(&grant());
    let state = if subscription.current().version().is_none() {
        soon("the cached state", subscription.changed()).await.unwrap()
    } else {
        subscription.current()
    };
    assert_eq!(state.version(), Some(Version(1)));
    assert_eq!(client.token(&grant(), MINUTE).await.unwrap().version, Version(1));
}

#[tokio::test]
async fn a_restart_resumes_by_cursor() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let (_directory, path) = place();
    run(&hub, &path).await;
    hub.mint(&grant());
    run(&hub, &path).await;
    hub.with(|core| {
        let cursors: Vec<_> = core.hellos.iter().map(|hello| hello.cursor.clone()).collect();
        assert_eq!(cursors, [None, Some(format!("{}.1", core.epoch))]);
    });
}

#[tokio::test]
async fn an_ack_says_that_it_is_on_disk() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let (_directory, path) = place();
    let client = cached(&hub, &path).await;
    for seq in 1..10 {
        hub.until("the ack", |core| core.acked == seq).await;
        let text = fs::read_to_string(&path).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let version = file["state"]["grants"][grant().as_str()]["version"].as_u64().unwrap();
        assert!(version >= seq, "acked {seq}, on disk {version}");
        hub.mint(&grant());
    }
    drop(client);
}

#[tokio::test]
async fn only_the_owner_may_read_it() {
    let hub = Hub::start().await;
    let (_directory, path) = place();
    run(&hub, &path).await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[tokio::test]
async fn the_newest_device_token_is_presented_after_a_restart() {
    let hub = Hub::start().await;
    // Short-lived, so that each run buys its own.
    hub.with(|core| core.expires_in = 30);
    let (_directory, path) = place();
    for _ in 0..4 {
        run(&hub, &path).await;
    }
    hub.with(|core| assert_eq!(core.presented, ["lsd_0", "lsd_1", "lsd_2", "lsd_3"]));
}

#[tokio::test]
async fn an_access_token_that_is_good_is_used_again() {
    let hub = Hub::start().await;
    let (_directory, path) = place();
    run(&hub, &path).await;
    run(&hub, &path).await;
    hub.with(|core| assert_eq!(core.presented, ["lsd_0"]));

    hub.with(|core| core.takes = Some("dat-2".into()));
    run(&hub, &path).await;
    hub.with(|core| assert_eq!(core.presented, ["lsd_0", "lsd_1"], "a refused one is not used again"));
}

#[tokio::test]
async fn a_corrupt_file_is_replaced() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let (_directory, path) = place();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for garbage in ["", "{", "[]", "{\"format\":99}", "\u{0}\u{1}"] {
        fs::write(&path, garbage).unwrap();
        hub.with(|core| core.device_token = ("lsd_0".into(), None));
        run(&hub, &path).await;
        let file: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(file["state"]["grants"][grant().as_str()]["version"], 1);
    }
}

#[tokio::test]
async fn a_corrupt_state_does_not_cost_the_credential() {
    let hub = Hub::start().await;
    hub.with(|core| core.expires_in = 30);
    hub.mint(&grant());
    let (_directory, path) = place();
    run(&hub, &path).await;
    run(&hub, &path).await;
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"cursor\"", "\"cursed\"")).unwrap();
    run(&hub, &path).await;
    hub.with(|core| {
        assert_eq!(core.presented, ["lsd_0", "lsd_1", "lsd_2"]);
        assert_eq!(core.hellos.last().unwrap().cursor, None);
    });
}

/// Presenting the token that the program was given, long retired, would have the device revoked.
#[tokio::test]
async fn a_file_that_cannot_be_read_for_a_while_costs_no_credential() {
    let hub = Hub::start().await;
    hub.with(|core| core.expires_in = 30);
    let (_directory, path) = place();
    run(&hub, &path).await;
    run(&hub, &path).await;
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).unwrap();
    symlink(&path, &path).unwrap();
    let client = cached(&hub, &path).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    hub.with(|core| assert_eq!(core.presented, ["lsd_0", "lsd_1"]));
    fs::rename(&aside, &path).unwrap();
    soon("sync", client.synced()).await.unwrap();
    hub.with(|core| assert_eq!(core.presented, ["lsd_0", "lsd_1", "lsd_2"]));
}

/// Several programs share a device file: one that only used what another bought knows the newest all the same.
#[tokio::test]
async fn a_device_file_that_vanishes_throws_nobody_back_to_a_token_long_retired() {
    let hub = Hub::start().await;
    let (directory, _) = place();
    let path = directory.path().join("device.json");
    let device = Enrolled::new(device(), Secret::new("lsd_0"));
    let opened = DeviceFile::create(&path, &hub.url(), &device).unwrap();
    for bought in 1..=2 {
        hub.with(|core| core.takes = Some(format!("dat-{bought}")));
        let file = DeviceFile::open(&path).unwrap().unwrap();
        let client = quick(&hub).device_file(file).connect().await.unwrap();
        soon("sync", client.synced()).await.unwrap();
        soon("close", client.close()).await;
    }
    let client = quick(&hub).device_file(opened).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    hub.with(|core| assert_eq!(core.presented, ["lsd_0", "lsd_1"], "it used what the others bought"));

    fs::remove_file(&path).unwrap();
    hub.with(|core| core.takes = Some("dat-3".into()));
    hub.kill_sessions();
    hub.until("a purchase", |core| core.presented.len() > 2).await;
    hub.with(|core| assert_eq!(core.presented[2], "lsd_2"));
    soon("sync", client.synced()).await.unwrap();
}

#[tokio::test]
async fn bad_news_of_an_earlier_run_is_checked_first() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    hub.with(|core| core.status(&grant(), Health::ReauthRequired, "revoked"));
    let (_directory, path) = place();
    run(&hub, &path).await;
    // Somebody logs in while the client is away.
    hub.mint(&grant());
    let client = cached(&hub, &path).await;
    let lease = soon("token", client.token(&grant(), MINUTE)).await.unwrap();
    assert_eq!(lease.version, Version(2));
}

#[tokio::test]
async fn a_blocked_websocket_is_remembered() {
    let hub = Hub::start().await;
    hub.with(|core| core.upgrade = Upgrade::Refuse(403));
    hub.mint(&grant());
    let (_directory, path) = place();
    let client = quick(&hub).cache(&path).connect().await.unwrap();
    hub.until("the ack", |core| core.acked == 1).await;
    soon("close", client.close()).await;
    hub.with(|core| {
        core.upgrades = 0;
        core.polls.clear();
    });
    let client = quick(&hub).cache(&path).connect().await.unwrap();
    hub.until("a poll or an upgrade", |core| {
        core.upgrades > 0 || !core.polls.is_empty()
    })
    .await;
    hub.with(|core| assert_eq!(core.upgrades, 0, "long-poll comes first where WebSocket was blocked"));
    hub.until("a probe", |core| core.upgrades > 0).await;
    drop(client);
}

/// Another program buys with the same file, from a hub that takes its time.
#[test]
fn a_file_that_another_program_holds_stops_neither_the_start_nor_the_end() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_directory, path) = place();
    let held = runtime.block_on(async {
        let hub = Hub::start().await;
        run(&hub, &path).await;
        let held = fs::File::open(path.with_extension("json.lock")).unwrap();
        held.try_lock().unwrap();
        let client = soon("start", quick(&hub).cache(&path).connect()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(client);
        held
    });
    let start = Instant::now();
    drop(runtime);
    // Half of what it waits for the lock.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    drop(held);
}

#[tokio::test]
async fn a_place_that_cannot_be_a_cache_is_named() {
    let hub = Hub::start().await;
    let (directory, _) = place();
    let result = quick(&hub).cache(directory.path()).connect().await;
    assert!(matches!(result, Err(Error::Misuse(_))), "{result:?}");
    let result = quick(&hub).cache("/proc/no/such/place").connect().await;
    assert!(matches!(result, Err(Error::Misuse(_))), "{result:?}");
}
