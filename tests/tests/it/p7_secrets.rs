//! P7: no secret in a log, metric, error, admin answer, config dump or core dump, nor open on disk.

use std::path::{Path, PathBuf};

use lockstep_tests::{
    Answer, BOUND, Enrolled, Fault, GRANT, Scene, Session, Settings,
    admin::http,
    binaries, eventually,
    process::{self, Process},
    provider::Reply,
};
use reqwest::Method;
use rustix::process::{Pid, geteuid};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// Somebody who is not root: root may look into everything.
const SOMEBODY: u32 = 65_534;

/// A life with all that goes well and ill; returns every secret that it used.
async fn live(scene: &Scene) -> Vec<String> {
    let mut secrets = Vec::new();
    let alice = scene.user("alice").await;
    let bob = scene.user("bob").await;
    let mut session = Session::fresh(&scene.hub, &alice).await;
    for version in 1..=3 {
        session.refresh(GRANT, version).await;
    }
    let faults = [
        Fault::Garble(Reply::empty(200).body("{\"access_token\":\"at-garbled-secret\",\"refresh_token\":17}")),
        Fault::Refuse(Reply::oauth(500, "server_error")),
        Fault::CutAfter,
    ];
    secrets.push("at-garbled-secret".to_owned());
    for fault in faults {
        scene.provider.fault(fault);
        scene.admin.refresh("bob", GRANT).await;
    }
    // Errors tempt a server to quote what it was sent.
    session
        .send_text("{\"type\":\"hello\",\"token\":\"typed-secret-1\",\"device\":7}")
        .await;
    session
        .send_text("{\"type\":\"publish\",\"token\":{\"access_token\":\"typed-secret-2\"")
        .await;
    session.settle().await;
    let mut stranger = Session::open(scene.hub.listen).await.expect("a connection");
    stranger
        .send(&json!({"type": "hello", "token": "typed-secret-3", "device": {"id": alice.id}, "state": "active"}))
        .await;
    stranger.closed().await;
    scene.oauth_token("lsd_typed-secret-4").await;
    let login = json!({"access_token": "typed-secret-5", "refresh_token": 7});
    scene.admin.login("alice", GRANT, &login).await;
    let wrong = scene
        .admin
        .anonymous(Method::GET, "/admin/v1/users/alice")
        .bearer_auth("typed-secret-6");
    Answer::to(wrong).await;
    scene.provider.revoke("alice");
    scene.admin.refresh("alice", GRANT).await;
    let rotated = rotate(scene, &bob).await;
    secrets.extend(codes_and_slaves(scene, &alice).await);
    secrets.extend((1..=8).map(|n| format!("typed-secret-{n}")));
    secrets.extend(
        [alice, bob]
            .into_iter()
            .flat_map(|device| [device.refresh_token, device.access_token]),
    );
    secrets.extend(rotated);
    secrets.extend(scene.provider.tokens());
    secrets.push(scene.hub.admin_token().to_owned());
    secrets.push("client-s3cret".to_owned());
    secrets
}

async fn rotate(scene: &Scene, device: &Enrolled) -> Vec<String> {
    let answer = scene.oauth_token(&device.refresh_token).await.expect(200);
    ["access_token", "refresh_token"]
        .map(|key| answer[key].as_str().unwrap_or_default().to_owned())
        .to_vec()
}

/// A device enrolled by code, a slave, and what is wrong with either.
async fn codes_and_slaves(scene: &Scene, device: &Enrolled) -> Vec<String> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let codes = Answer::to(http().post(scene.hub.url("/oauth/device_authorization")))
        .await
        .expect(200);
    let (device_code, user_code) = (text(&codes, "device_code"), text(&codes, "user_code"));
    let page = [("user_code", user_code.as_str()), ("token", "typed-secret-7")];
    Answer::to(http().post(scene.hub.url("/oauth/device")).form(&page)).await;
    let approve = scene
        .admin
        .request(Method::POST, &format!("/admin/v1/device-codes/{user_code}"));
    Answer::to(approve.json(&json!({"user": "alice"}))).await.expect(200);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", device_code.as_str()),
    ];
    let tokens = Answer::to(http().post(scene.hub.url("/oauth/token")).form(&form))
        .await
        .expect(200);
    let path = format!("/admin/v1/devices/{}/grants/{GRANT}", device.id);
    let slave = Answer::to(scene.admin.request(Method::POST, &path)).await.expect(201);
    let slave = text(&slave, "refresh_token");
    scene.oauth_token(&slave).await;
    let refused = scene.admin.anonymous(Method::GET, "/admin/v1/keys");
    Answer::to(refused.bearer_auth("typed-secret-8")).await;
    vec![
        device_code,
        slave,
        text(&tokens, "access_token"),
        text(&tokens, "refresh_token"),
    ]
}

/// Everything that the hub wrote, but for the two files that are there to hold a secret.
fn without_at_rest(secrets: &[String], dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            without_at_rest(secrets, &path);
        } else if !["lockstep.toml", "lockstep.key", "admin.token"].contains(&name.as_str()) {
            let bytes = std::fs::read(&path).expect("a file");
            let text = String::from_utf8_lossy(&bytes);
            for secret in secrets {
                assert!(!text.contains(secret.as_str()), "a secret lies open in {name}");
            }
        }
    }
}

fn without(secrets: &[String], place: &str, text: &str) {
    for secret in secrets {
        // The secret itself, not a part: ids of tokens may be told.
        let line = text.lines().find(|line| line.contains(secret.as_str()));
        assert!(line.is_none(), "a secret in {place}: {}", line.unwrap_or_default());
    }
}

async fn p7_in(format: &str) {
    let settings = |settings: lockstep_tests::Settings| {
        settings
            .set("log.level", "trace")
            .set("log.format", format)
            .example("client_auth", "post")
            .example("client_secret", "client-s3cret")
            .example("late_wait", "1s")
    };
    let mut scene = Scene::set(settings).await;
    let secrets = live(&scene).await;

    let metrics = Answer::to(scene.admin.anonymous(Method::GET, "/metrics"))
        .await
        .body
        .to_string();
    without(&secrets, "the metrics", &metrics);
    for user in ["alice", "bob"] {
        without(
            &secrets,
            "an admin answer",
            &scene.admin.user(user).await.body.to_string(),
        );
    }
    for path in [
        "/admin/v1/keys",
        "/admin/v1/audit",
        &format!("/admin/v1/devices/{}", first_device(&scene).await),
    ] {
        let answer = Answer::to(scene.admin.request(Method::GET, path)).await;
        assert_eq!(answer.status, 200, "{path}");
        without(&secrets, path, &answer.body.to_string());
    }
    let mut print = Command::new(binaries::hub());
    print.args(["config", "print", "--config"]).arg(scene.hub.config());
    let printed = process::run(&mut print).await;
    assert!(printed.status.success());
    without(&secrets, "config print", &String::from_utf8_lossy(&printed.stdout));
    let pid = scene.hub.process().pid().expect("the hub runs").as_raw_nonzero();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap_or_default();
    let words: Vec<_> = core.split_whitespace().skip(4).collect();
    assert_eq!(words.first(), Some(&"0"), "no core dump: {core}");
    assert_eq!(words.get(1), Some(&"0"), "no core dump: {core}");
    scene.hub.crash().await;
    scene.hub.signal(rustix::process::Signal::TERM);
    scene.hub.ended(BOUND).await;
    let log = scene.hub.log();
    assert!(log.lines().count() > 20, "a log at trace level: {log}");
    without(&secrets, "the log", &log);
    without_at_rest(&secrets, scene.hub.dir());
}

async fn first_device(scene: &Scene) -> String {
    let view = scene.admin.user("alice").await.body;
    view["devices"][0]["device_id"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_no_secret_in_a_text_log_at_trace_level() {
    p7_in("text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_no_secret_in_a_json_log_at_trace_level() {
    p7_in("json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_refresh_tokens_never_reach_a_device() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let mut session = Session::fresh(&scene.hub, &device).await;
    for version in 1..=3 {
        session.refresh(GRANT, version).await;
    }
    session.settle().await;
    let polled = scene.poll(&device, "").await.expect(200).to_string();
    let direct = scene.get_token(&device, GRANT, "").await.expect(200).to_string();
    let seen: Vec<_> = session
        .frames
        .iter()
        .map(ToString::to_string)
        .chain([polled, direct])
        .collect();
    for token in scene.provider.tokens().iter().filter(|token| token.starts_with("rt-")) {
        assert!(seen.iter().all(|text| !text.contains(token.as_str())));
    }
}

/// A program as a user runs it who is not root: as ourselves, if we are none.
fn as_somebody(program: impl AsRef<Path>) -> Command {
    if !geteuid().is_root() {
        return Command::new(program.as_ref());
    }
    let mut command = Command::new("setpriv");
    let (user, group) = (format!("--reuid={SOMEBODY}"), format!("--regid={SOMEBODY}"));
    command.args([&user, &group, "--clear-groups"]).arg(program.as_ref());
    command
}

/// A directory of somebody's own with the hub's program in it: where it was built they may not be let in.
fn home_of_somebody() -> (TempDir, PathBuf) {
    let dir = TempDir::with_prefix("lockstep-somebody-").expect("a temporary directory");
    let program = dir.path().join("lockstep-hub");
    std::fs::copy(binaries::hub(), &program).expect("copied");
    if geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(SOMEBODY), Some(SOMEBODY)).expect("given away");
    }
    (dir, program)
}

/// Whether somebody may read a file of a process.
async fn may_read(pid: Pid, file: &str) -> bool {
    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
    // Opened, and not read: of `mem` there is nothing to be read at its beginning.
    let opens = format!("exec 3< {path}");
    let output = process::run(as_somebody("sh").args(["-c", &opens])).await;
    output.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_nobody_of_the_hub_s_own_user_id_looks_into_it() {
    let (dir, program) = home_of_somebody();
    let config = dir.path().join("hub.toml");
    std::fs::write(&config, Settings::new("http://127.0.0.1:1/token").text()).expect("a config file");
    let mut command = as_somebody(&program);
    command
        .args(["serve", "--config"])
        .arg(&config)
        .env("LOCKSTEP_ADMIN_TOKEN", "in-the-environment-and-secret");
    let log = TempDir::new().expect("a temporary directory");
    let started = Process::start(&mut command, &log.path().join("hub.log")).await;
    let (process, _) = started.unwrap_or_else(|refusal| panic!("it does not become ready: {}", refusal.log));
    let hub = process.pid().expect("it runs");

    // What they see of any other program that they run.
    let other = as_somebody("sleep")
        .arg("infinity")
        .kill_on_drop(true)
        .spawn()
        .expect("sleep");
    let id = other.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let id = id.expect("it runs");
    eventually("another program can be looked into", BOUND, async || {
        may_read(id, "environ").await.then_some(())
    })
    .await;

    for file in ["environ", "maps", "mem"] {
        assert!(!may_read(hub, file).await, "{file}");
    }
    assert!(may_read(hub, "cmdline").await, "it is there, and can be seen to be");
}
