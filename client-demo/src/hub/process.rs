//! Finds the hub's program and runs it in a directory of its own.

use std::{
    env, fmt, fs,
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use lockstep_protocol::Secret;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use uuid::Uuid;

/// How long a hub may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a hub may take to stop before it is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);
/// How many of its last log lines are shown when it fails.
const LOG_LINES_SHOWN: usize = 8;

/// What a hub is started with. It has one provider, named `demo`.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The provider's token endpoint.
    pub token_endpoint: String,
    /// The store's URL; `file:` paths are relative to the hub's directory.
    pub store: &'static str,
    /// More lines for the provider's section.
    pub provider: &'static str,
    /// More sections.
    pub more: &'static str,
}

impl HubSettings {
    fn toml(&self) -> String {
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\n\
             [store]\nurl = \"{}\"\n\n\
             [providers.demo]\ntoken_endpoint = \"{}\"\nclient_id = \"client-demo\"\n{}\n{}\n",
            self.store, self.token_endpoint, self.provider, self.more
        )
    }
}

/// Why there is no hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The program is nowhere.
    #[error(
        "lockstep-hub was not found beside client-demo; build it (cargo build -p lockstep-hub) or name it in LOCKSTEP_HUB"
    )]
    NotFound,
    /// The program could not be run, or its directory not be made.
    #[error("the hub cannot be started: {0}")]
    Io(#[from] io::Error),
    /// It ended, or said nothing for too long.
    #[error("the hub did not become ready{0}")]
    NotReady(LogTail),
}

/// The last lines of a hub's log, for an error.
#[derive(Debug)]
pub struct LogTail(String);

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.lines().collect();
        if lines.is_empty() {
            return f.write_str(", and logged nothing");
        }
        f.write_str("; its last words:")?;
        for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// A running hub. Dropping it stops it and removes its directory.
#[derive(Debug)]
pub struct HubProcess {
    child: Child,
    dir: TempDir,
    ready: Ready,
    admin_token: Secret,
}

/// The line that a hub prints when it is ready.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Ready {
    listening: SocketAddr,
    admin: SocketAddr,
}

impl HubProcess {
    /// Starts a hub and waits until it is ready; blocks.
    ///
    /// # Errors
    /// When there is no hub program, or it does not become ready.
    pub fn start(settings: &HubSettings) -> Result<Self, HubError> {
        let program = find_program()?;
        let dir = TempDir::with_prefix("lockstep-demo-")?;
        let config = dir.path().join("lockstep.toml");
        fs::write(&config, settings.toml())?;
        let admin_token = Uuid::new_v4().simple().to_string();
        let mut child = Command::new(program)
            .args(["serve", "--config"])
            .arg(&config)
            .current_dir(dir.path())
            .env("LOCKSTEP_ADMIN_TOKEN", &admin_token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.path().join("hub.log"))?)
            .spawn()?;
        let ready = child.stdout.take().and_then(read_ready);
        let Some(ready) = ready else {
            let _ = child.kill();
            let _ = child.wait();
            let log = fs::read_to_string(dir.path().join("hub.log")).unwrap_or_default();
            return Err(HubError::NotReady(LogTail(log)));
        };
        Ok(Self {
            child,
            dir,
            ready,
            admin_token: Secret::new(admin_token),
        })
    }

    /// Where devices connect.
    pub fn listening(&self) -> SocketAddr {
        self.ready.listening
    }

    /// Where operators connect.
    pub fn admin(&self) -> SocketAddr {
        self.ready.admin
    }

    /// What operators show.
    pub fn admin_token(&self) -> &Secret {
        &self.admin_token
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> LogTail {
        LogTail(fs::read_to_string(self.dir.path().join("hub.log")).unwrap_or_default())
    }

    fn stop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + STOPPED_WITHIN;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `$LOCKSTEP_HUB`, or the program beside this one (examples and tests lie one directory deeper).
fn find_program() -> Result<PathBuf, HubError> {
    if let Some(path) = env::var_os("LOCKSTEP_HUB") {
        return Ok(path.into());
    }
    let own = env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("lockstep-hub"))
        .find(|path| path.is_file())
        .ok_or(HubError::NotFound)
}

fn read_ready(stdout: ChildStdout) -> Option<Ready> {
    let (tell, told) = mpsc::sync_channel(1);
    // The thread goes on reading: a hub that says more later must not find its pipe full or closed.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = tell.try_send(line);
        }
    });
    let line = told.recv_timeout(READY_WITHIN).ok()?;
    serde_json::from_str(&line).ok()
}
