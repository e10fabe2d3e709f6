//! What the operator does and sees: config, start, health, metrics.

use std::{fs, path::Path};

use lockstep_tests::{Answer, BOUND, GRANT, Hub, Scene, Session, Settings, binaries, eventually, process};
use reqwest::Method;
use tempfile::TempDir;
use tokio::process::Command;

/// Runs `config check` on a file with this text; gives whether it was good, and all that was said.
async fn check(text: &str) -> (bool, String) {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("hub.toml");
    fs::write(&file, text).expect("a file");
    hub(
        &["config", "check", "--config", &file.display().to_string()],
        dir.path(),
    )
    .await
}

async fn hub(arguments: &[&str], dir: &Path) -> (bool, String) {
    let output = process::run(Command::new(binaries::hub()).args(arguments).current_dir(dir)).await;
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    (output.status.success(), text)
}

const GOOD: &str = "[providers.example]\ntoken_endpoint = \"https://auth.example.com/token\"\nclient_id = \"app\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_named_with_line_key_and_nearest_key() {
    assert!(check(GOOD).await.0);
    for (mistake, line, words) in [
        (
            "[server]\nlisten = \"127.0.0.1:1\"\nadmin_lisen = \"127.0.0.1:2\"\n",
            3,
            vec!["admin_lisen", "admin_listen"],
        ),
        ("[server]\nlisten = 7\n", 2, vec!["listen"]),
        ("[servers]\n", 1, vec!["servers", "server"]),
        ("[store]\nurl = \"ftp://x\"\n", 2, vec!["url"]),
        ("[store]\nspool = [1]\n", 2, vec!["spool"]),
        ("[server]\ndrain = \"soon\"\n", 2, vec!["drain"]),
        ("[server]\ndrain = 10\n", 2, vec!["drain"]),
        (
            "[server]\nlisten = \"0.0.0.0:8787\"\n",
            2,
            vec!["listen", "behind_proxy"],
        ),
        ("[server\n", 1, vec![]),
    ] {
        let (good, said) = check(&format!("{mistake}{GOOD}")).await;
        assert!(!good, "{mistake} passed: {said}");
        assert!(said.contains(&format!(":{line}")), "line {line} of {mistake}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in {said}");
    }
    let (good, said) = check(&GOOD.replace("client_id", "client_idd")).await;
    assert!(
        !good && said.contains("client_idd") && said.contains("client_id"),
        "{said}"
    );
    let (good, said) = check(&format!("{GOOD}lease = \"5m\"\n")).await;
    assert!(!good && said.contains("lease"), "{said}");
    let (good, said) = check(&format!(
        "{GOOD}refresher = \"device\"\nclient_auth = \"basic\"\nclient_secret = \"x\"\n"
    ))
    .await;
    assert!(!good && said.contains("refresher"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_refuses_what_check_refuses_and_says_why() {
    for (key, value) in [
        ("server.lisen", "127.0.0.1:0"),
        ("server.listen", "0.0.0.0:0"),
        ("store.urll", "memory:"),
    ] {
        let scene = Scene::new();
        let mut scene = scene.await;
        scene.hub.kill9().await;
        scene.hub.change(|settings| settings.set(key, value));
        let refusal = scene.hub.try_start().await.expect_err("a refusal");
        assert!(refusal.status.is_some_and(|status| !status.success()), "{key}");
        let last = key.rsplit('.').next().unwrap_or_default();
        assert!(refusal.log.contains(last), "{key}: {}", refusal.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_non_loopback_listener_is_taken_behind_a_proxy() {
    let settings = Settings::new("http://127.0.0.1:1/token")
        .set("server.listen", "0.0.0.0:0")
        .set("server.behind_proxy", true);
    Hub::start(settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_goes_before_the_file() {
    let settings = Settings::new("http://127.0.0.1:1/token").set("server.drain", "3s");
    let environment = [
        ("LOCKSTEP_STORE__URL", "memory:"),
        ("LOCKSTEP_PROVIDERS__EXAMPLE__LEAD", "90s"),
    ];
    let hub = Hub::start_with(settings, &environment).await;
    assert!(!hub.dir().join("lockstep.db").exists(), "the store is in memory");

    let mut hub = hub;
    hub.kill9().await;
    let settings = Settings::new("http://127.0.0.1:1/token");
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("hub.toml");
    fs::write(&file, settings.text()).expect("a file");
    let mut command = Command::new(binaries::hub());
    command
        .args(["config", "check"])
        .arg(&file)
        .env("LOCKSTEP_SERVER__LISEN", "127.0.0.1:1");
    let output = process::run(&mut command).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        !output.status.success() && said.contains("LOCKSTEP_SERVER__LISEN"),
        "{said}"
    );
    assert!(
        said.contains("LOCKSTEP_SERVER__LISTEN"),
        "the nearest known one: {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn print_shows_what_is_in_force_without_secrets_and_reference_every_setting() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("hub.toml");
    fs::write(&file, format!("{GOOD}client_secret = \"very-s3cret\"\n")).expect("a file");
    let (good, said) = hub(
        &["config", "print", "--config", &file.display().to_string()],
        dir.path(),
    )
    .await;
    assert!(
        good && said.contains("https://auth.example.com/token") && said.contains("reject_interval"),
        "{said}"
    );
    assert!(!said.contains("very-s3cret"), "{said}");
    let (good, said) = hub(&["config", "reference"], dir.path()).await;
    for key in [
        "listen",
        "admin_token_file",
        "allowed_origins",
        "key_file",
        "spool",
        "lead",
        "grace",
        "refresher",
    ] {
        assert!(good && said.contains(key), "{key} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_need_no_token_and_tell_what_happened() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    session.refresh(GRANT, 1).await;
    session.settle().await;
    for path in ["/healthz", "/readyz"] {
        let answer = Answer::to(scene.admin.anonymous(Method::GET, path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    let metrics = eventually("the metrics tell", BOUND, async || {
        let answer = Answer::to(scene.admin.anonymous(Method::GET, "/metrics")).await;
        let text = answer.body.as_str().unwrap_or_default().to_owned();
        text.contains("lockstep_").then_some(text)
    })
    .await;
    let own: Vec<_> = metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    assert!(own.iter().all(|line| line.starts_with("lockstep_")), "{metrics}");
    for word in ["redeem", "commit", "ack", "session"] {
        assert!(
            own.iter().any(|line| line.contains(word)),
            "something about {word} in {metrics}"
        );
    }
    assert!(!metrics.contains("alice"), "no user in a label");
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_serves_at_once_and_says_what_to_do_next() {
    let mut command = Command::new(binaries::hub());
    let dir = TempDir::new().expect("a temporary directory");
    command
        .arg("dev")
        .current_dir(dir.path())
        .kill_on_drop(true)
        .stdin(std::process::Stdio::null());
    command
        .env("LOCKSTEP_SERVER__LISTEN", "127.0.0.1:0")
        .env("LOCKSTEP_SERVER__ADMIN_LISTEN", "127.0.0.1:0");
    let log = dir.path().join("dev.log");
    command
        .stdout(fs::File::create(&log).expect("a file"))
        .stderr(fs::File::create(dir.path().join("err")).expect("a file"));
    let mut child = command.spawn().expect("the hub starts");
    let said = eventually("it says what to do next", BOUND, async || {
        let said = fs::read_to_string(&log).unwrap_or_default()
            + &fs::read_to_string(dir.path().join("err")).unwrap_or_default();
        (said.contains("127.0.0.1") && said.contains("curl") || said.contains("grants") || said.contains("devices"))
            .then_some(said)
    })
    .await;
    assert!(child.try_wait().expect("a status").is_none(), "it runs: {said}");
    child.kill().await.expect("it can be ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_never_share_a_store() {
    let scene = Scene::new().await;
    let mut command = Command::new(binaries::hub());
    let config = scene.hub.dir().join("second.toml");
    let text = fs::read_to_string(scene.hub.config()).expect("the config");
    let text = text
        .replace(&scene.hub.listen.to_string(), "127.0.0.1:0")
        .replace(&scene.hub.admin_listen.to_string(), "127.0.0.1:0");
    fs::write(&config, text).expect("a file");
    command.args(["serve", "--config"]).arg(&config);
    let output = process::run(&mut command).await;
    assert!(!output.status.success(), "a second hub served the same store");
    let mut session = Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await;
    session.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_talks_to_the_admin_api() {
    let scene = Scene::new().await;
    let config = scene.hub.config().display().to_string();
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(binaries::hub());
        command
            .args(arguments)
            .args(["--config", &config])
            .env("LOCKSTEP_ADMIN_TOKEN", scene.hub.admin_token());
        let output = process::run(&mut command).await;
        let text = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat();
        (output.status.success(), text)
    };
    scene.user("alice").await;
    for help in [["grants", "--help"], ["devices", "--help"]] {
        let (good, said) = run(&help).await;
        assert!(good, "{help:?}: {said}");
    }
    let (_, said) = run(&["devices", "list", "--user", "alice"]).await;
    assert!(!said.is_empty());
}
