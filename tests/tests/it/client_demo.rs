//! What a newcomer meets: `client-demo` against the real hub.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use lockstep_tests::{BOUND, Demo, Fault, GRANT, Link, Scene, Weather, demo, eventually, provider::Gate};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// The arguments of a command that talks to the hub of `scene`.
fn at(scene: &Scene, args: &[&str]) -> Vec<String> {
    let (command, rest) = args.split_first().expect("a command");
    let hub = format!("http://{}", scene.hub.listen);
    let mut all = vec![(*command).to_owned(), "--hub".into(), hub];
    all.extend(rest.iter().map(|arg| (*arg).to_owned()));
    all
}

/// The arguments of a device that enrols itself as one of alice's.
fn enrolling(scene: &Scene, dir: &TempDir, more: &[&str]) -> Vec<String> {
    let token = dir.path().join("admin.token");
    if !token.exists() {
        // Once: another device may be reading it.
        fs::write(&token, scene.hub.admin_token()).expect("a file can be written");
    }
    let admin = format!("http://{}", scene.hub.admin_listen);
    let token = token.display().to_string();
    let mut args = vec![
        "device",
        "--json",
        "--enrol",
        "alice",
        "--admin",
        &admin,
        "--admin-token-file",
        &token,
    ];
    args.extend(more);
    at(scene, &args)
}

/// A device file of a new device of alice.
async fn device_file(scene: &Scene, dir: &TempDir, name: &str) -> PathBuf {
    let device = scene.admin.enrol("alice").await;
    let token = dir.path().join(format!("{name}.lsd"));
    fs::write(&token, &device.refresh_token).expect("a file can be written");
    let file = dir.path().join(name);
    let (path, token) = (file.display().to_string(), token.display().to_string());
    let args = at(
        scene,
        &[
            "device",
            "--json",
            "--device-file",
            &path,
            "--refresh-token-file",
            &token,
        ],
    );
    let mut demo = Demo::start(&args);
    demo.event("up to date", BOUND, |event| event["event"] == "synced")
        .await;
    demo.signal(Signal::INT);
    assert_eq!(demo.ended(BOUND).await, 0);
    file
}

fn is_version(version: u64) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "token" && event["version"] == version
}

async fn code(args: &[String]) -> (i32, String) {
    let output = demo::run(args, Duration::from_secs(60)).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("an exit code"), words)
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_show_each_version_and_never_a_token() {
    let scene = Scene::new().await;
    let dir = TempDir::new().expect("a directory");
    scene.log_in("alice").await;
    let mut devices: Vec<_> = ["ws", "poll", "auto"]
        .map(|transport| Demo::start(&enrolling(&scene, &dir, &["--transport", transport])))
        .into();
    for version in 1..=3 {
        for device in &devices {
            device.event("a version", BOUND, is_version(version)).await;
        }
        scene.admin.refresh("alice", GRANT).await.expect(200);
    }
    for (device, transport) in devices.iter().zip(["ws", "poll", "ws"]) {
        let synced = device
            .event("up to date", BOUND, |event| event["event"] == "synced")
            .await;
        assert_eq!(synced["transport"], transport);
    }
    for (device, signal) in devices.iter_mut().zip([Signal::INT, Signal::TERM, Signal::INT]) {
        device.signal(signal);
        assert_eq!(device.ended(BOUND).await, 0);
        // What it wrote may be read after its end.
        device
            .event("it stopped", BOUND, |event| event["event"] == "stopped")
            .await;
        let written = device.written().join("\n");
        let last = device.events().pop().expect("a last event");
        assert_eq!((&last["event"], &last["code"]), (&json!("stopped"), &json!(1000)));
        for secret in ["lsd_", "eyJ", &scene.provider.newest("alice").access_token] {
            assert!(!written.contains(secret), "{secret} in {written}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_file_is_the_device_across_restarts() {
    let scene = Scene::new().await;
    let dir = TempDir::new().expect("a directory");
    scene.log_in("alice").await;
    let file = device_file(&scene, &dir, "laptop.json").await;
    let mode = fs::metadata(&file).expect("the file is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let mut ids = Vec::new();
    for _ in 0..3 {
        // Neither the hub's address nor a token is needed any more.
        let mut device = Demo::start(&["device", "--json", "--device-file", &file.display().to_string()]);
        let started = device
            .event("started", BOUND, |event| event["event"] == "started")
            .await;
        assert_eq!(started["enrolled"], false);
        ids.push(started["device"].clone());
        device.event("a version", BOUND, is_version(1)).await;
        device.signal(Signal::TERM);
        assert_eq!(device.ended(BOUND).await, 0);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let words = fs::read_to_string(&file).expect("the file can be read");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("the mode can be set");
    let (exit, why) = code(&["device".into(), "--device-file".into(), file.display().to_string()]).await;
    assert_eq!(exit, 1);
    assert!(
        why.contains("chmod 600") && !why.contains("lsd_"),
        "{why}; {}",
        words.len()
    );
}

/// A proxy in front of the hub that refuses upgrades.
async fn without_websockets(hub: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(forward(stream, hub));
        }
    });
    address
}

async fn forward(mut device: TcpStream, hub: SocketAddr) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if device.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    if String::from_utf8_lossy(&head)
        .to_lowercase()
        .contains("upgrade: websocket")
    {
        return device
            .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await;
    }
    let mut hub = TcpStream::connect(hub).await?;
    hub.write_all(&head).await?;
    copy_bidirectional(&mut device, &mut hub).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_transport_is_shown_and_loses_no_version() {
    let scene = Scene::new().await;
    let dir = TempDir::new().expect("a directory");
    scene.log_in("alice").await;
    let mut args = enrolling(&scene, &dir, &[]);
    args[2] = format!("http://{}", without_websockets(scene.hub.listen).await);
    let device = Demo::start(&args);
    let change = device
        .event("a change", BOUND, |event| event["event"] == "transport")
        .await;
    assert_eq!((&change["from"], &change["to"]), (&json!("ws"), &json!("poll")));
    for version in 2..=4 {
        scene.admin.refresh("alice", GRANT).await.expect(200);
        device.event("a version", BOUND, is_version(version)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresher_shows_how_it_redeems() {
    let scene = Scene::set(|settings| settings.example("refresher", "device")).await;
    let dir = TempDir::new().expect("a directory");
    scene.log_in("alice").await;
    let file = dir.path().join("device.json").display().to_string();
    let device = Demo::start(&enrolling(&scene, &dir, &["--refresher", "--device-file", &file]));
    device
        .event("up to date", BOUND, |event| event["event"] == "synced")
        .await;
    scene.admin.refresh("alice", GRANT).await.expect(200);
    device.event("version 2", BOUND, is_version(2)).await;
    device
        .event("published", BOUND, |event| event["step"] == "published")
        .await;
    let events = device.events();
    let steps: Vec<_> = events.iter().filter_map(|event| event["step"].as_str()).collect();
    assert_eq!(steps, ["elected", "redeeming", "sealed", "publishing", "published"]);
    assert_eq!(scene.provider.calls_of("alice").len(), 1);
    let sealed = Path::new(&format!("{file}.redeem")).join("redeem.key");
    assert!(sealed.exists(), "results are sealed beside the device file");
}

/// The provider has rotated, the result is sealed on the device's disk and nowhere else, and the device is killed.
#[tokio::test(flavor = "multi_thread")]
async fn p5_a_refresher_that_is_killed_with_a_result_in_hand_publishes_it_when_it_is_back() {
    let scene = Scene::set(|settings| settings.example("refresher", "device")).await;
    let dir = TempDir::new().expect("a directory");
    scene.log_in("alice").await;
    let link = Link::to(scene.hub.listen).await;
    let file = dir.path().join("device.json").display().to_string();
    let mut args = enrolling(&scene, &dir, &["--refresher", "--device-file", &file]);
    args[2] = link.over(&args[2]);
    let mut device = Demo::start(&args);
    let step = |step: &'static str| move |event: &Value| event["step"] == step;
    device
        .event("up to date", BOUND, |event| event["event"] == "synced")
        .await;
    let gate = Gate::closed();
    scene.provider.fault_for("alice", Fault::HoldAfter(gate.clone()));
    let asked = tokio::spawn({
        let admin = scene.admin.clone();
        async move { admin.refresh("alice", GRANT).await }
    });
    scene.provider.called("alice", 1, BOUND).await;
    link.turn(Weather::Silent);
    gate.open();
    device.event("sealed", BOUND, step("sealed")).await;
    device.kill9().await;
    // What it had said of it is lost with the connection.
    link.turn(Weather::Cut);
    assert_eq!(scene.grant("alice").await["version"], 1, "nobody knows of it");

    link.turn(Weather::Fair);
    let device = Demo::start(&args);
    device.event("version 2", BOUND, is_version(2)).await;
    device.event("published", BOUND, step("published")).await;
    assert_eq!(scene.provider.calls_of("alice").len(), 1, "nobody redeemed again");
    assert_eq!(scene.grant("alice").await["health"], "ok");
    asked.await.expect("whoever asked is answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_prints_a_token_and_nothing_else() {
    let mut scene = Scene::new().await;
    let dir = TempDir::new().expect("a directory");
    scene.log_in("alice").await;
    let file = device_file(&scene, &dir, "ci.json").await.display().to_string();
    let token = |more: &[&str]| {
        let mut args = vec!["token", "--device-file", &file];
        args.extend(more);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let output = demo::run(&token(&[GRANT]), BOUND).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed, format!("{}\n", scene.provider.newest("alice").access_token));
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));

    let newer = demo::run(&token(&[GRANT, "--rejected", "1", "--json"]), BOUND).await;
    let newer: Value = serde_json::from_slice(&newer.stdout).expect("JSON");
    assert_eq!(newer["version"], 2);
    assert_eq!(newer["access_token"], scene.provider.newest("alice").access_token);

    let table: [(&[&str], i32, &str); 3] = [
        (&["example/nobody"], 5, "example/nobody"),
        (&["nonsense"], 2, "provider/account"),
        (&[GRANT, "--hub", "http://127.0.0.1:9"], 1, "enrolled at"),
    ];
    for (args, expected, word) in table {
        let (exit, why) = code(&token(args)).await;
        assert!(exit == expected && why.contains(word), "{args:?}: {exit} {why}");
    }
    let missing = ["token", GRANT, "--device-file", "/nonexistent/device.json"].map(str::to_owned);
    assert_eq!(code(&missing).await.0, 4);

    scene.hub.kill9().await;
    let start = Instant::now();
    let (exit, why) = code(&token(&[GRANT, "--wait", "4s"])).await;
    assert!(exit == 3 && why.contains("onnect"), "{exit} {why}");
    let took = start.elapsed();
    // Without being told it waits for 15 s.
    assert!(
        took < Duration::from_secs(14),
        "it waits as long as it was told: {took:?}"
    );
    scene.hub.start_again().await;
    assert_eq!(demo::run(&token(&[GRANT]), BOUND).await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn login_waits_for_the_approval_and_keeps_the_device() {
    let scene = Scene::new().await;
    let dir = TempDir::new().expect("a directory");
    scene.log_in("alice").await;
    let file = dir.path().join("new/device.json").display().to_string();
    let login = at(
        &scene,
        &["login", "--json", "--name", "notebook", "--device-file", &file],
    );
    let mut demo = Demo::start(&login);
    let shown = demo.event("a code", BOUND, |event| event["event"] == "code").await;
    let code_path = |shown: &Value| {
        format!(
            "/admin/v1/device-codes/{}",
            shown["user_code"].as_str().expect("a code")
        )
    };
    let approve = scene.admin.request(Method::POST, &code_path(&shown));
    let approved = approve.json(&json!({"user": "alice"})).send().await.expect("an answer");
    assert!(approved.status().is_success());
    assert_eq!(demo.ended(Duration::from_secs(60)).await, 0);
    let written = demo.written().join("\n");
    assert!(!written.contains("lsd_"), "{written}");
    let token = ["token", GRANT, "--device-file", &file].map(str::to_owned);
    assert_eq!(code(&token).await.0, 0);

    let (exit, why) = code(&login).await;
    assert!(exit == 1 && why.contains("--force"), "{exit} {why}");

    let other = dir.path().join("other.json").display().to_string();
    let mut denied = Demo::start(&at(&scene, &["login", "--json", "--device-file", &other]));
    let shown = denied.event("a code", BOUND, |event| event["event"] == "code").await;
    let deny = scene.admin.request(Method::DELETE, &code_path(&shown)).send().await;
    assert!(deny.expect("an answer").status().is_success());
    assert_eq!(denied.ended(Duration::from_secs(60)).await, 4);
    assert!(!Path::new(&other).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_has_its_exit_code() {
    let scene = Scene::new().await;
    let dir = TempDir::new().expect("a directory");
    scene.log_in("alice").await;
    let file = device_file(&scene, &dir, "one.json").await.display().to_string();
    let args = ["device", "--json", "--device-file", &file];
    let mut first = Demo::start(&args);
    first
        .event("up to date", BOUND, |event| event["event"] == "synced")
        .await;
    let mut second = Demo::start(&args);
    assert_eq!(first.ended(BOUND).await, 9, "replaced by the second");
    let started = second
        .event("up to date", BOUND, |event| event["event"] == "started")
        .await;
    second
        .event("up to date", BOUND, |event| event["event"] == "synced")
        .await;
    let path = format!("/admin/v1/devices/{}", started["device"].as_str().expect("an id"));
    let revoked = scene
        .admin
        .request(Method::DELETE, &path)
        .send()
        .await
        .expect("an answer");
    assert_eq!(revoked.status(), 204);
    assert_eq!(second.ended(BOUND).await, 8, "revoked");
    let (exit, why) = code(&args.map(str::to_owned)).await;
    assert!(exit == 4 || exit == 8, "not enrolled any more: {exit} {why}");
    assert!(why.contains("login --force"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_before_a_device_is_enrolled() {
    let scene = Scene::new().await;
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("a-file");
    fs::write(&file, "").expect("a file can be written");
    let (below, file) = (file.join("x.json").display().to_string(), file.display().to_string());
    let good = enrolling(&scene, &dir, &[]);
    let with = |more: &[&str]| [good.clone(), more.iter().map(|arg| (*arg).to_owned()).collect()].concat();
    let mut nowhere = with(&[]);
    nowhere[2] = "hub.example".into();
    let mut swapped = with(&[]);
    let admin = swapped.iter().position(|arg| arg == "--admin").expect("an argument") + 1;
    swapped[admin] = format!("http://{}", scene.hub.listen);
    let table = [
        (with(&["--cache", &file]), 1, "a-file"),
        (with(&["--device-file", &below]), 1, "a-file"),
        (nowhere, 1, "must begin with https://"),
        (swapped, 1, "server.admin_listen"),
        (with(&["--refresher"]), 2, "--device-file"),
        (with(&["--refresher", "--transport", "poll"]), 2, "WebSocket"),
    ];
    for (args, expected, word) in table {
        let (exit, why) = code(&args).await;
        assert!(exit == expected && why.contains(word), "{args:?}: {exit} {why}");
    }
    let view = scene.admin.user("alice").await;
    assert_eq!(view.body["devices"].as_array().map_or(0, Vec::len), 0, "{}", view.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_storm_starts_and_ends_all_that_it_needs() {
    let dir = TempDir::new().expect("a directory");
    let mut storm = demo::command(&["storm", "--devices", "5", "--rounds", "2", "--mixed", "--json"]);
    let output = storm
        .env("TMPDIR", dir.path())
        .output()
        .await
        .expect("the binary starts");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["without"]["logged_out"], 5);
    let rounds = report["with"]["rounds"].as_array().expect("rounds");
    for round in rounds {
        // On a busy machine a token of two seconds may expire twice in a round: each version is redeemed once all the same.
        assert!(
            round["redeems"] == round["versions"] && round["redeems"] != 0,
            "{round}"
        );
    }
    assert_eq!((rounds.len(), &report["with"]["acked"]), (2, &json!(10)));
    assert_eq!(
        (&report["with"]["ok"], &report["with"]["logged_out"]),
        (&json!(true), &json!(0))
    );
    let left = eventually("no process of it is left", BOUND, async || {
        let links = fs::read_dir("/proc").expect("/proc").flatten();
        let alive = links.filter_map(|entry| fs::read_link(entry.path().join("cwd")).ok());
        (!alive.into_iter().any(|cwd| cwd.starts_with(dir.path()))).then_some(())
    });
    left.await;
    assert_eq!(
        fs::read_dir(dir.path()).expect("the directory").count(),
        0,
        "nor any file"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_storm_in_words_is_plain_when_piped_and_says_so_when_there_is_no_hub() {
    let output = demo::run(&["storm", "--devices", "3", "--rounds", "1"], Duration::from_secs(90)).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text}");
    let results: Vec<_> = text
        .lines()
        .filter(|line| line.trim_start().starts_with("Result:"))
        .collect();
    assert_eq!(results.len(), 2, "{text}");
    assert!(results[0].contains("3 of 3 devices logged out") && results[1].contains("everyone is still logged in"));

    let mut broken = demo::command(&["storm", "--devices", "3", "--rounds", "1"]);
    let output = broken
        .env("LOCKSTEP_HUB", "/bin/false")
        .output()
        .await
        .expect("the binary starts");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(words.contains("the hub did not become ready"), "{words}");
}
