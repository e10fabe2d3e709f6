//! What `deploy/` holds is right for the programs that read it.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use lockstep_tests::{binaries, process};
use tempfile::TempDir;
use tokio::process::Command;
use yaml_rust2::{Yaml, YamlLoader};

/// How long a hub's last redeems may take after the drain, in seconds.
const LAST_REDEEMS: i64 = 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document of a file.
fn yaml(path: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn config(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn seconds(text: &str) -> i64 {
    let number = text.strip_suffix('s').and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("seconds, like \"20s\": {text}"))
}

fn drain(path: &str) -> i64 {
    config(path)["server"]
        .get("drain")
        .and_then(toml::Value::as_str)
        .map_or(10, seconds)
}

/// Runs a program; panics with what it said if it is not content.
async fn content(command: &mut Command) -> String {
    let output = process::run(command).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hub_config_passes_the_check() {
    for part in ["docker", "systemd", "kubernetes"] {
        let file = root().join("deploy").join(part).join("hub.toml");
        content(
            Command::new(binaries::hub())
                .args(["config", "check", "--config"])
                .arg(file),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_takes_its_config() {
    let dir = TempDir::new().expect("a temporary directory");
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address")
        .port();
    let mut site = read("deploy/proxies/nginx.conf");
    for (there, here) in [
        ("listen 443 ssl", format!("listen 127.0.0.1:{port} ssl")),
        (
            "/etc/nginx/tls/fullchain.pem",
            root().join("client/tests/it/tls/server.pem").display().to_string(),
        ),
        (
            "/etc/nginx/tls/privkey.pem",
            root().join("client/tests/it/tls/server.key").display().to_string(),
        ),
        ("hub-1:8787", "127.0.0.1:8787".to_owned()),
        ("hub-2:8787", "127.0.0.2:8787".to_owned()),
        ("hub-3:8787", "127.0.0.3:8787".to_owned()),
    ] {
        assert!(site.contains(there), "{there} in nginx.conf");
        site = site.replace(there, &here);
    }
    let place = dir.path().display();
    let main = format!(
        "pid {place}/pid; error_log stderr; events {{}} http {{ access_log off; client_body_temp_path {place}/body; \
         proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; \
         include {place}/site.conf; }}"
    );
    fs::write(dir.path().join("site.conf"), site).expect("a file");
    fs::write(dir.path().join("nginx.conf"), main).expect("a file");
    let mut nginx = Command::new("nginx");
    nginx
        .env("PATH", "/usr/sbin:/usr/bin:/bin")
        .arg("-t")
        .arg("-p")
        .arg(dir.path());
    content(nginx.arg("-c").arg(dir.path().join("nginx.conf"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_takes_the_unit_and_finds_it_hard() {
    let dir = TempDir::new().expect("a temporary directory");
    let unit = read("deploy/systemd/lockstep-hub.service");
    let installed = "/usr/local/bin/lockstep-hub";
    assert!(unit.contains(installed));
    let here = dir.path().join("lockstep-hub.service");
    fs::write(&here, unit.replace(installed, &binaries::hub().display().to_string())).expect("a file");
    let mut verify = Command::new("systemd-analyze");
    let said = content(verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&here)).await;
    assert!(!said.contains("lockstep-hub.service"), "{said}");
    let mut security = Command::new("systemd-analyze");
    // In tenths, 0 (nothing to gain) to 100; a unit without any hardening has 96.
    content(
        security
            .args(["security", "--offline=true", "--threshold=20"])
            .arg(&here),
    )
    .await;

    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="))
        .expect("a time-out");
    let stop: i64 = stop.parse().expect("seconds");
    assert!(stop > drain("deploy/systemd/hub.toml") + LAST_REDEEMS);
}

#[test]
fn compose_runs_three_nodes_that_share_nothing_of_their_own() {
    let file = &yaml("deploy/docker/compose.yml")[0];
    let grace = seconds(file["x-hub"]["stop_grace_period"].as_str().expect("a grace period"));
    assert!(grace > drain("deploy/docker/hub.toml") + LAST_REDEEMS);
    let services = file["services"].as_hash().expect("services");
    let hubs: Vec<_> = services
        .iter()
        .filter(|(name, _)| name.as_str().is_some_and(|n| n.starts_with("hub-")))
        .collect();
    let nodes = config("deploy/docker/hub.toml")["cluster"]["nodes"].as_integer();
    assert_eq!(nodes, Some(i64::try_from(hubs.len()).expect("a few")));
    let proxy = read("deploy/proxies/nginx.conf");
    for (name, hub) in hubs {
        let name = name.as_str().expect("a name");
        assert_eq!(hub["environment"]["LOCKSTEP_CLUSTER__NODE"].as_str(), Some(name));
        let mounts: Vec<_> = hub["volumes"]
            .as_vec()
            .expect("volumes")
            .iter()
            .filter_map(Yaml::as_str)
            .collect();
        assert!(
            mounts.contains(&format!("{name}:/var/lib/lockstep").as_str()),
            "{name}: a spool of its own"
        );
        assert!(!file["volumes"][name].is_badvalue(), "volume {name}");
        assert!(proxy.contains(&format!("server {name}:8787")), "nginx knows {name}");
    }
    // What is mounted from here is here, but for what the operator makes.
    for (name, service) in services {
        for mount in service["volumes"]
            .as_vec()
            .into_iter()
            .flatten()
            .filter_map(Yaml::as_str)
        {
            let from = mount.split(':').next().unwrap_or_default();
            if from.starts_with('.') && from != "./tls" {
                let path = root().join("deploy/docker").join(from);
                assert!(path.exists(), "{name:?} mounts {from}");
            }
        }
    }
}

#[test]
fn the_image_is_built_with_the_workspace_s_rust() {
    let manifest = config("Cargo.toml");
    let rust = manifest["workspace"]["package"]["rust-version"]
        .as_str()
        .expect("a version");
    let dockerfile = read("deploy/docker/Dockerfile");
    assert!(dockerfile.contains(&format!("FROM rust:{rust}-")), "rust {rust}");
    assert!(dockerfile.contains("USER lockstep") && dockerfile.contains("STOPSIGNAL SIGTERM"));
}

/// The one document of this kind and name.
fn manifest<'a>(all: &'a [Yaml], kind: &str, name: &str) -> &'a Yaml {
    let found = all
        .iter()
        .find(|one| one["kind"].as_str() == Some(kind) && one["metadata"]["name"].as_str() == Some(name));
    found.unwrap_or_else(|| panic!("a {kind} named {name}"))
}

#[test]
fn kubernetes_gives_a_hub_the_time_that_it_needs() {
    let all = yaml("deploy/kubernetes/hub.yaml");
    assert!(
        all.iter()
            .all(|one| one["apiVersion"].as_str().is_some() && one["kind"].as_str().is_some())
    );
    let set = manifest(&all, "StatefulSet", "lockstep-hub");
    let pod = &set["spec"]["template"];
    let hub = &pod["spec"]["containers"][0];
    let wait = hub["lifecycle"]["preStop"]["exec"]["command"][1]
        .as_str()
        .and_then(|n| n.parse::<i64>().ok());
    let needed = wait.expect("a pause before SIGTERM") + drain("deploy/kubernetes/hub.toml") + LAST_REDEEMS;
    let given = pod["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .expect("a grace period");
    assert!(given > needed, "{given} s for {needed} s");
    let nodes = config("deploy/kubernetes/hub.toml")["cluster"]["nodes"].as_integer();
    assert_eq!(set["spec"]["replicas"].as_i64(), nodes);
    assert_eq!(
        set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"].as_str(),
        Some("state"),
        "the spool is kept"
    );

    let ports: Vec<_> = hub["ports"]
        .as_vec()
        .expect("ports")
        .iter()
        .map(|port| &port["name"])
        .collect();
    for (probe, path) in [
        ("startupProbe", "/readyz"),
        ("readinessProbe", "/readyz"),
        ("livenessProbe", "/healthz"),
    ] {
        let get = &hub[probe]["httpGet"];
        assert_eq!(get["path"].as_str(), Some(path), "{probe}");
        assert!(ports.contains(&&get["port"]), "{probe} asks a port that there is");
    }
    let labels = &pod["metadata"]["labels"];
    for (kind, name) in [("StatefulSet", "lockstep-hub"), ("PodDisruptionBudget", "lockstep-hub")] {
        assert_eq!(
            &manifest(&all, kind, name)["spec"]["selector"]["matchLabels"],
            labels,
            "{kind}"
        );
    }
    for name in ["lockstep-hub", "lockstep"] {
        assert_eq!(&manifest(&all, "Service", name)["spec"]["selector"], labels, "{name}");
    }
    assert_eq!(
        manifest(&all, "PodDisruptionBudget", "lockstep-hub")["spec"]["maxUnavailable"].as_i64(),
        Some(1)
    );
}

/// A hub ends a connection on which nothing is asked for 10 s. A proxy that keeps it longer sends requests to their end.
#[test]
fn proxies_let_idle_connections_go_before_the_hub_does() {
    for (file, key) in [
        ("deploy/proxies/nginx.conf", "keepalive_timeout "),
        ("deploy/proxies/Caddyfile", "keepalive "),
    ] {
        assert!(seconds(setting(file, key).as_str()) < 10, "{file}");
    }
}

/// The longest poll is 55 s: whoever is in front must wait longer.
#[test]
fn proxies_wait_for_the_longest_poll() {
    for (file, key) in [
        ("deploy/proxies/nginx.conf", "proxy_read_timeout "),
        ("deploy/proxies/Caddyfile", "response_header_timeout "),
    ] {
        assert!(seconds(setting(file, key).as_str()) > 60, "{file}");
    }
}

/// What follows `key` on the line that begins with it.
fn setting(file: &str, key: &str) -> String {
    let text = read(file);
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
    line.unwrap_or_else(|| panic!("{key} in {file}"))
        .trim_end_matches(';')
        .to_owned()
}
