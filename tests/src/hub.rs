//! The hub, as a process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::Instant};

use crate::{
    admin::Admin,
    binaries,
    process::{NotReady, Process},
    settings::Settings,
    volume::Volume,
};

/// How long a killed hub's ports may stay taken.
const PORTS_FREE_WITHIN: Duration = Duration::from_secs(60);

/// A hub with its directory, which outlives its process.
pub struct Hub {
    process: Option<Process>,
    settings: Settings,
    environment: Vec<(String, String)>,
    /// What its command begins with, if it runs elsewhere.
    enter: Vec<String>,
    volume: Option<Volume>,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin_listen: SocketAddr,
    admin_token: String,
    dir: TempDir,
}

impl Hub {
    /// Starts a hub in a directory of its own.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(settings: Settings) -> Self {
        Self::start_with(settings, &[]).await
    }

    /// The same, with more environment variables.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_with(settings: Settings, environment: &[(&str, &str)]) -> Self {
        let mut hub = Self::prepare(settings);
        hub.environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        hub.start_again().await;
        hub
    }

    /// The same, inside what a command beginning with `enter` enters.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_inside(settings: Settings, enter: Vec<String>) -> Self {
        let mut hub = Self::prepare(settings);
        hub.enter = enter;
        hub.start_again().await;
        hub
    }

    /// A hub whose store lies on a file system of its own, of `bytes`: it can be filled (see [`Hub::volume`]).
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_on_volume(settings: Settings, bytes: u64) -> Self {
        Self::start_beside_volume(settings.set("store.url", "file:volume/lockstep.db"), bytes).await
    }

    /// A hub with such a file system in its directory, as `volume`, for whatever the settings put there.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_beside_volume(settings: Settings, bytes: u64) -> Self {
        let mut hub = Self::prepare(settings);
        let volume = Volume::mount(&hub.dir.path().join("volume"), bytes).await;
        hub.enter = volume.enter();
        hub.volume = Some(volume);
        hub.start_again().await;
        hub
    }

    fn prepare(mut settings: Settings) -> Self {
        settings.choose_ports();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            process: None,
            settings,
            environment: Vec::new(),
            enter: Vec::new(),
            volume: None,
            listen: nowhere,
            admin_listen: nowhere,
            admin_token: format!("admin-{}", uuid::Uuid::new_v4().simple()),
            dir: TempDir::with_prefix("lockstep-hub-").expect("a temporary directory"),
        }
    }

    /// Starts it again in the same directory and, from the second time on, on the same ports.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_again(&mut self) {
        let deadline = Instant::now() + PORTS_FREE_WITHIN;
        loop {
            match self.try_start().await {
                Ok(()) => return,
                Err(refusal) if refusal.log.contains("in use") && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(refusal) => panic!("the hub did not become ready ({:?}):\n{}", refusal.status, refusal.log),
            }
        }
    }

    /// The same, when it may well be that it refuses.
    ///
    /// # Errors
    /// [`NotReady`] with what it said.
    pub async fn try_start(&mut self) -> Result<(), NotReady> {
        std::fs::write(self.config(), self.settings.text()).expect("a config file can be written");
        let (process, ready) = Process::start(&mut self.command(), &self.dir.path().join("hub.log")).await?;
        self.process = Some(process);
        self.listen = address(&ready, "listening");
        self.admin_listen = address(&ready, "admin");
        self.settings.put("server.listen", self.listen.to_string().into());
        self.settings
            .put("server.admin_listen", self.admin_listen.to_string().into());
        Ok(())
    }

    fn command(&self) -> Command {
        let hub = binaries::hub();
        let mut command = match self.enter.split_first() {
            None => Command::new(hub),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(hub);
                command
            }
        };
        command
            .arg("serve")
            .arg("--config")
            .arg(self.config())
            .env("LOCKSTEP_ADMIN_TOKEN", &self.admin_token)
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Changes settings for the next start.
    pub fn change(&mut self, change: impl FnOnce(Settings) -> Settings) {
        self.settings = change(self.settings.clone());
    }

    /// Environment variables for the next start, instead of those that it had.
    pub fn surround(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// `kill -9`.
    pub async fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9().await;
        }
    }

    /// `kill -9` and a new start.
    pub async fn crash(&mut self) {
        self.kill9().await;
        self.start_again().await;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// When it does not within `bound`, or was not running.
    pub async fn ended(&mut self, bound: Duration) -> ExitStatus {
        self.process.take().expect("the hub runs").ended(bound).await
    }

    /// Whether the process runs.
    pub fn lives(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::lives)
    }

    /// The running process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the hub runs")
    }

    /// The admin API.
    pub fn admin(&self) -> Admin {
        Admin::new(format!("http://{}", self.admin_listen), self.admin_token.clone())
    }

    /// The URL of `path` on the clients' listener.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        std::fs::read(self.dir.path().join("hub.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The file system of its own that the store lies on.
    ///
    /// # Panics
    /// When it has none.
    pub fn volume(&self) -> &Volume {
        self.volume.as_ref().expect("a hub that was started on a volume")
    }

    /// How many results wait in the spool.
    pub fn spooled(&self) -> usize {
        let names = std::fs::read_dir(self.dir.path().join("spool"))
            .into_iter()
            .flatten()
            .flatten();
        names
            .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "spool"))
            .count()
    }

    /// The hub's directory: config, store, key, spool, log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The config file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("lockstep.toml")
    }

    /// The operator's token.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }
}

fn address(ready: &Value, key: &str) -> SocketAddr {
    let text = ready[key].as_str().unwrap_or_default();
    text.parse()
        .unwrap_or_else(|_| panic!("no address {key} in the ready line {ready}"))
}
