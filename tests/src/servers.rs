//! Private instances of the servers that hubs share: on ports and directories of the test's own, gone with the test.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    process::run,
    wait::{eventually, within},
};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A port that is free now. Whoever takes it in between makes the server fail to start, and the test with it.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    listener.local_addr().expect("its address").port()
}

/// A server that the tests start, kill and start again.
struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    child: Option<Child>,
    log: PathBuf,
}

impl Server {
    async fn start(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log");
        let child = unprivileged(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start ({error}): run scripts/setup", self.program.display()));
        self.child = Some(child);
        let what = format!("{} takes connections", self.program.display());
        eventually(&what, READY_WITHIN, async || {
            TcpStream::connect(self.address).await.ok()
        })
        .await;
    }

    async fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, signal).ok();
        }
        within("the server ends", Duration::from_secs(20), child.wait())
            .await
            .ok();
    }

    fn signal(&self, signal: Signal) {
        let id = self
            .child
            .as_ref()
            .and_then(Child::id)
            .and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, signal).ok();
        }
    }
}

/// A Redis that keeps nothing on disk.
pub struct Redis {
    server: Server,
    _dir: TempDir,
}

impl Redis {
    /// Starts one.
    pub async fn start() -> Self {
        let dir = directory("lockstep-redis-");
        let port = free_port();
        let text = |value: &str| value.to_owned();
        let mut server = Server {
            program: PathBuf::from("redis-server"),
            arguments: vec![
                text("--port"),
                port.to_string(),
                text("--bind"),
                text("127.0.0.1"),
                text("--save"),
                text(""),
                text("--appendonly"),
                text("no"),
                text("--dir"),
                dir.path().display().to_string(),
            ],
            address: (Ipv4Addr::LOCALHOST, port).into(),
            child: None,
            log: dir.path().join("redis.log"),
        };
        server.start().await;
        Self { server, _dir: dir }
    }

    /// Its URL for `cluster.url`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.server.address)
    }

    /// `kill -9`.
    pub async fn kill9(&mut self) {
        self.server.end(Signal::KILL).await;
    }

    /// Starts again, empty, on the same port.
    pub async fn start_again(&mut self) {
        self.server.start().await;
    }

    /// Stops it in its tracks, connections open.
    pub fn pause(&self) {
        self.server.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.server.signal(Signal::CONT);
    }
}

/// A PostgreSQL with a database cluster of its own.
pub struct Postgres {
    server: Server,
    dir: TempDir,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed (`scripts/setup` brings it).
    pub async fn start() -> Self {
        let dir = directory("lockstep-postgres-");
        let programs = newest_programs();
        let data = dir.path().join("data");
        let mut initdb = unprivileged(&programs.join("initdb"));
        initdb
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--pgdata"])
            .arg(&data);
        let made = run(&mut initdb).await;
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let port = free_port();
        let mut arguments = vec![
            "-D".to_owned(),
            data.display().to_string(),
            "-p".to_owned(),
            port.to_string(),
        ];
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", dir.path().display()),
            "max_connections=200".to_owned(),
        ];
        arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let mut server = Server {
            program: programs.join("postgres"),
            arguments,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            child: None,
            log: dir.path().join("postgres.log"),
        };
        server.start().await;
        let postgres = Self { server, dir };
        postgres.answers().await;
        postgres
    }

    /// Its URL for `store.url`: the database that every cluster has.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.server.address)
    }

    /// Stops at once, as after a loss of power: connections are cut, the next start recovers.
    pub async fn stop_at_once(&mut self) {
        self.server.end(Signal::QUIT).await;
    }

    /// Starts again on the same data and port.
    pub async fn start_again(&mut self) {
        self.server.start().await;
        self.answers().await;
    }

    /// Runs one statement; gives what `psql` printed, unaligned and without headings.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn run(&self, statement: &str) -> String {
        let mut psql = Command::new(newest_programs().join("psql"));
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", statement])
            .arg(self.url());
        let said = run(&mut psql).await;
        assert!(
            said.status.success(),
            "{statement}: {}",
            String::from_utf8_lossy(&said.stderr)
        );
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    /// Its directory: data, socket, log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    async fn answers(&self) {
        let ready = newest_programs().join("pg_isready");
        eventually("PostgreSQL answers", READY_WITHIN, async || {
            let mut command = Command::new(&ready);
            command.args(["--quiet", "--dbname"]).arg(self.url());
            run(&mut command).await.status.success().then_some(())
        })
        .await;
    }
}

/// Debian keeps PostgreSQL's own programs out of `PATH`, by version.
fn newest_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .map(|entry| entry.path().join("bin"))
        .filter(|path| path.join("initdb").exists())
        .max();
    newest.expect("PostgreSQL is installed: run scripts/setup")
}

/// PostgreSQL refuses to run as root; then it runs as the user that its package made.
fn unprivileged(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() && program.is_absolute() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn directory(prefix: &str) -> TempDir {
    let dir = TempDir::with_prefix(prefix).expect("a temporary directory");
    // PostgreSQL may run as another user than the test.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(dir.path(), open).expect("its mode can be set");
    dir
}
