//! Keys, audit log, restored stores: what an operator does to keep a hub trustworthy.

use std::{fs, os::unix::fs::PermissionsExt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_tests::{Answer, BOUND, GRANT, Hub, Scene, Session, admin::http, binaries, eventually, process};
use reqwest::Method;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::process::Command;

/// Runs a command of the hub beside it; whether it succeeded, and all that it said.
async fn command(hub: &Hub, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(binaries::hub());
    command
        .args(arguments)
        // The settings name port 0.
        .env("LOCKSTEP_ADMIN", format!("http://{}", hub.admin_listen))
        .env("LOCKSTEP_ADMIN_TOKEN", hub.admin_token())
        .current_dir(hub.dir());
    let output = process::run(&mut command).await;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

async fn keys(hub: &Hub) -> Vec<Value> {
    let answer = Answer::to(hub.admin().request(Method::GET, "/admin/v1/keys"))
        .await
        .expect(200);
    answer.as_array().cloned().unwrap_or_default()
}

fn key_file(hub: &Hub) -> String {
    fs::read_to_string(hub.dir().join("lockstep.key")).expect("the key file")
}

fn write_key(hub: &Hub, text: &str) {
    let path = hub.dir().join("lockstep.key");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its owner's alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_under_way_and_the_old_one_can_be_thrown_away() {
    let mut scene = Scene::new().await;
    let mut users = Vec::new();
    for name in ["a", "b", "c"] {
        users.push(scene.user(name).await);
    }
    let mut session = Session::fresh(&scene.hub, &users[0]).await;
    let old = key_file(&scene.hub);
    let old_id = old.split(' ').next().unwrap_or_default().to_owned();
    let (good, said) = command(&scene.hub, &["keys", "rotate", "--config", "lockstep.toml"]).await;
    assert!(good && said.contains("3 grants"), "{said}");
    assert_eq!(session.refresh(GRANT, 1).await["version"], 2, "the hub went on");
    let listed = keys(&scene.hub).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let of = |id: &str| listed.iter().find(|key| key["id"] == id).cloned().unwrap_or_default();
    assert_eq!(
        (&of(&old_id)["records"], &of(&old_id)["seals"]),
        (&0.into(), &false.into())
    );

    let remove = |id: String| {
        let path = format!("/admin/v1/keys/{id}");
        Answer::to(scene.admin.request(Method::DELETE, &path))
    };
    let new_id = listed
        .iter()
        .find(|key| key["seals"] == true)
        .map(|key| key["id"].clone());
    let new_id = new_id.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    assert_eq!(remove(new_id).await.status, 409, "the one that seals stays");
    assert_eq!(remove(old_id.clone()).await.status, 204);
    assert_eq!(remove(old_id).await.status, 404);
    scene.hub.crash().await;
    assert!(!key_file(&scene.hub).contains(old.trim()));
    for device in &users {
        let answer = scene.get_token(device, GRANT, "").await;
        assert_eq!(answer.status, 200, "{}: {answer:?}", device.user);
        assert_eq!(scene.oauth_token(&device.refresh_token).await.status, 200);
    }
    let (good, said) = command(&scene.hub, &["audit", "verify", "--config", "lockstep.toml"]).await;
    assert!(good, "the chain goes on over a rotation: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_interrupted_loses_nothing() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    let old = key_file(&scene.hub);
    // As after a crash between the file and the first record: both keys in the file, everything sealed with the older.
    let (fresh, _) = {
        let other = Scene::new().await;
        (key_file(&other.hub), other)
    };
    scene.hub.kill9().await;
    write_key(&scene.hub, &format!("{fresh}{old}"));
    scene.hub.start_again().await;
    assert_eq!(scene.get_token(&device, GRANT, "").await.status, 200);
    // The older one is needed still: without it the hub does not start.
    scene.hub.kill9().await;
    write_key(&scene.hub, &fresh);
    let refused = scene.hub.try_start().await.expect_err("it does not start");
    let id = old.split(' ').next().unwrap_or_default();
    assert!(refused.log.contains(id), "names the key {id}: {}", refused.log);
    write_key(&scene.hub, &format!("{fresh}{old}"));
    scene.hub.start_again().await;
    let done = Answer::to(scene.admin.request(Method::POST, "/admin/v1/keys/reseal"))
        .await
        .expect(200);
    assert_eq!(done["grants"], 1, "{done}");
    scene.hub.kill9().await;
    write_key(&scene.hub, &fresh);
    scene.hub.start_again().await;
    assert_eq!(scene.get_token(&device, GRANT, "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_missing_key_is_refused_by_name_and_nothing_is_touched() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    let right = key_file(&scene.hub);
    scene.hub.signal(rustix::process::Signal::TERM);
    scene.hub.ended(lockstep_tests::BOUND).await;
    let spool = scene.hub.dir().join("spool");
    let chain = fs::read(spool.join("audit/000001.jsonl")).expect("the chain");
    let wrong = key_file(&Scene::new().await.hub);
    let id = right.split(' ').next().unwrap_or_default();
    for (key, word) in [(Some(wrong), id), (None, "lockstep.key")] {
        let path = scene.hub.dir().join("lockstep.key");
        match &key {
            Some(key) => write_key(&scene.hub, key),
            None => fs::remove_file(&path).expect("removed"),
        }
        let refused = scene.hub.try_start().await.expect_err("it does not start");
        assert!(refused.log.contains(word), "{word} in {}", refused.log);
        assert!(!path.exists() || key.is_some(), "no key is made over a lost one");
        assert_eq!(fs::read(spool.join("audit/000001.jsonl")).expect("the chain"), chain);
    }
    // The store's file may change its size by being opened; what is stored in it is the same.
    write_key(&scene.hub, &right);
    scene.hub.start_again().await;
    let served = scene.get_token(&device, GRANT, "").await.expect(200);
    assert_eq!((&served["version"], &served["seq"]), (&1.into(), &1.into()));
}

/// Every kind of change to the chain is found, without the hub.
async fn is_noticed(hub: &Hub, head: &Value, text: &str) {
    let chain = hub.dir().join("spool/audit/000001.jsonl");
    let key = head["key"].as_str().unwrap_or_default();
    let known = format!(
        "{}:{}",
        head["head"]["n"],
        head["head"]["link"].as_str().unwrap_or_default()
    );
    let offline = [
        &["audit", "verify", "--config", "lockstep.toml"][..],
        &["--key", key, "--known", &known],
    ]
    .concat();
    assert!(command(hub, &offline).await.0);
    let lines: Vec<&str> = text.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.contains("\"event\":\"login\""))
        .expect("a login");
    let without: Vec<_> = lines
        .iter()
        .enumerate()
        .filter(|(n, _)| *n != at)
        .map(|(_, line)| *line)
        .collect();
    let mut swapped = lines.clone();
    swapped.swap(at, at + 1);
    let altered = text.replacen("\"user\":\"alice\"", "\"user\":\"bob\"", 1);
    // What was written after the end that is known may be missing, as far as anybody can tell.
    let end = head["head"]["n"].as_u64().and_then(|n| usize::try_from(n).ok());
    let cut = lines[..end.expect("the end") - 1].join("\n") + "\n";
    for (what, forged) in [
        ("dropped", without.join("\n") + "\n"),
        ("reordered", swapped.join("\n") + "\n"),
        ("altered", altered),
        ("cut off", cut),
        ("added", format!("{text}{}\n", lines[at])),
    ] {
        fs::write(&chain, &forged).expect("written");
        let (good, said) = command(hub, &offline).await;
        assert!(!good, "{what} was not noticed: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_tells_all_that_happened_and_that_it_was_not_changed() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    session.refresh(GRANT, 1).await;
    let path = format!("/admin/v1/devices/{}/grants/{GRANT}", device.id);
    Answer::to(scene.admin.request(Method::POST, &path)).await.expect(201);
    let gone = scene.admin.enrol("alice").await;
    scene.admin.revoke(&gone).await;
    scene.admin.delete_grant("alice", GRANT).await;
    let head = Answer::to(scene.admin.request(Method::GET, "/admin/v1/audit"))
        .await
        .expect(200);
    let chain = scene.hub.dir().join("spool/audit/000001.jsonl");
    let text = fs::read_to_string(&chain).expect("the chain");
    for event in [
        "started",
        "enrolled",
        "login",
        "redeem",
        "commit",
        "slave_made",
        "revoked",
        "grant_deleted",
        "admin_call",
    ] {
        assert!(text.contains(&format!("\"event\":\"{event}\"")), "{event} in {text}");
    }
    for secret in scene
        .provider
        .tokens()
        .iter()
        .chain([&device.refresh_token, &device.access_token])
    {
        assert!(!text.contains(secret.as_str()), "a secret in the audit log");
    }
    let verify = ["audit", "verify", "--config", "lockstep.toml"];
    let (good, said) = command(&scene.hub, &verify).await;
    assert!(good, "{said}");

    scene.hub.kill9().await;
    // With what came since: the store may know of it.
    let text = fs::read_to_string(&chain).expect("the chain");
    is_noticed(&scene.hub, &head, &text).await;
    fs::write(&chain, &text).expect("written");
    scene.hub.start_again().await;
    assert!(command(&scene.hub, &verify).await.0, "and it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_log_that_was_taken_away_is_missed_after_the_next_start() {
    let mut scene = Scene::new().await;
    scene.user("alice").await;
    scene.hub.kill9().await;
    fs::write(scene.hub.dir().join("spool/audit/000001.jsonl"), "").expect("written");
    let verify = ["audit", "verify", "--config", "lockstep.toml"];
    // However often the hub starts over it.
    for _ in 0..2 {
        scene.hub.start_again().await;
        let (good, said) = command(&scene.hub, &verify).await;
        assert!(!good && said.contains("no longer there when the hub started"), "{said}");
        scene.hub.kill9().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_audit_records_are_dropped_and_a_thief_s_doing_is_still_found() {
    let mut scene = Scene::set(|settings| settings.set("audit.keep", "1s")).await;
    let audit = scene.hub.dir().join("spool/audit");
    eventually("the oldest records are dropped", BOUND, async || {
        // Every call is a record, and a file goes only once another follows it.
        scene.admin.enrol("alice").await;
        (!audit.join("000001.jsonl").exists()).then_some(())
    })
    .await;
    scene.hub.kill9().await;
    // From here on nothing changes under the hands of whoever looks.
    scene.hub.change(|settings| settings.set("audit.keep", "1h"));
    scene.hub.start_again().await;

    let verify = ["audit", "verify", "--config", "lockstep.toml"];
    let (good, said) = command(&scene.hub, &verify).await;
    assert!(good && said.contains("were dropped for their age"), "{said}");
    let first = format!("1:{}", "0".repeat(64));
    let (good, said) = command(&scene.hub, &[&verify[..], &["--known", &first]].concat()).await;
    assert!(
        !good && said.contains("record 1 is "),
        "a note of it cannot be made up: {said}"
    );

    let files = fs::read_dir(&audit)
        .expect("its files")
        .flatten()
        .map(|entry| entry.path());
    let oldest = files.min().expect("a file");
    let text = fs::read_to_string(&oldest).expect("records");
    let (_, rest) = text.split_once('\n').expect("a record");
    // On a slow machine a file may hold one record only.
    match rest {
        "" => fs::remove_file(&oldest).expect("removed"),
        _ => fs::write(&oldest, rest).expect("written"),
    }
    let (good, said) = command(&scene.hub, &verify).await;
    assert!(!good && said.contains("were dropped\n"), "{said}");
}

/// What an independent client does with a receipt: SHA-256 of the record, and of its token.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_can_check_that_what_it_was_pushed_is_in_the_chain() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    session.refresh(GRANT, 1).await;
    let token = session.token(GRANT).cloned().expect("a token");
    let url = scene
        .hub
        .url(&format!("/v1/grants/{GRANT}/audit?version={}", token["version"]));
    let receipt = Answer::to(http().get(url).bearer_auth(&device.access_token))
        .await
        .expect(200);

    let record = receipt["record"].as_str().unwrap_or_default();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let link = Sha256::digest([b"lockstep audit record v1\0", record.as_bytes()].concat());
    assert_eq!(receipt["link"], hex(&link), "{receipt}");
    let told: Value = serde_json::from_str(&format!("{record}}}")).expect("a record");
    assert_eq!(
        (&told["event"], &told["version"]),
        (&"commit".into(), &token["version"])
    );
    let access = token["access_token"].as_str().unwrap_or_default();
    assert_eq!(told["access_token"], hex(&Sha256::digest(access)));
    assert_eq!(
        URL_SAFE_NO_PAD
            .decode(receipt["sig"].as_str().unwrap_or_default())
            .map(|sig| sig.len()),
        Ok(64)
    );

    let known = format!("{}:{}", receipt["n"], receipt["link"].as_str().unwrap_or_default());
    let verify = ["audit", "verify", "--config", "lockstep.toml", "--known"];
    let (good, said) = command(&scene.hub, &[&verify[..], &[&known]].concat()).await;
    assert!(good, "{said}");
    let other = format!("{}:{}", receipt["n"], "0".repeat(64));
    assert!(!command(&scene.hub, &[&verify[..], &[&other]].concat()).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_restored_by_hand_trusts_no_grant() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    let epoch = scene.admin.user("alice").await.body["epoch"].clone();
    let said = ["store", "restored", "--config", "lockstep.toml"];
    assert!(!command(&scene.hub, &said).await.0, "not under a running hub");
    scene.hub.kill9().await;
    let (good, text) = command(&scene.hub, &said).await;
    assert!(good, "{text}");
    scene.hub.start_again().await;
    let view = scene.admin.user("alice").await.body;
    assert_ne!(view["epoch"], epoch);
    assert_eq!(view["grants"][0]["health"], "suspect", "{view}");
    assert_eq!(
        scene.get_token(&device, GRANT, "").await.status,
        200,
        "the good token is served"
    );
    assert!(scene.provider.calls().is_empty(), "and nothing is replayed");
}
