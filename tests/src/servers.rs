//! Private instances of the servers that hubs share: on ports and directories of the test's own, gone with the test.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    sync::OnceCell,
};

use crate::{
    network,
    ports::free_port,
    process::{run, run_within},
    wait::{eventually, within},
};

const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long a server may take to end that was told to, or killed.
const ENDED_WITHIN: Duration = Duration::from_secs(90);
/// How long making a database cluster may take: it is a second's work of one core, which a busy machine may not have.
const MADE_WITHIN: Duration = Duration::from_secs(180);

/// A server that the tests start, kill and start again.
pub(crate) struct Server {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) address: SocketAddr,
    pub(crate) child: Option<Child>,
    pub(crate) log: PathBuf,
    /// The directory of a server that nobody will stop: it goes with the process.
    pub(crate) outlived_by: Option<PathBuf>,
}

impl Server {
    pub(crate) async fn start(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log");
        let (mut command, stdin) = match &self.outlived_by {
            None => (unprivileged(&self.program), Stdio::null()),
            Some(directory) => (until_orphaned(&self.program, directory), Stdio::piped()),
        };
        let child = command
            .args(&self.arguments)
            .stdin(stdin)
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
        within("the server ends", ENDED_WITHIN, child.wait()).await.ok();
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
            outlived_by: None,
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

    /// Forgets everything.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn flush(&self) {
        let mut connection = TcpStream::connect(self.server.address).await.expect("Redis listens");
        connection.write_all(b"FLUSHALL\r\n").await.expect("Redis listens");
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).await.expect("Redis answers");
        assert_eq!(&answer, b"+OK\r\n");
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

/// Runs a server until the process that started this shell is gone, however it went; then removes its directory.
const UNTIL_ORPHANED: &str = r#"directory=$1; shift; exec 3<&0; "$@" </dev/null 3<&- & server=$!; \
    cat <&3 >/dev/null; kill -QUIT $server; wait $server; rm -rf "$directory""#;

impl Postgres {
    /// A new and empty database, on a server that all tests of this process share and that ends with it. It fsyncs
    /// nothing: for tests of rules, not of what a crash leaves. Returns the URL.
    ///
    /// # Panics
    /// When PostgreSQL is not installed (`scripts/setup` brings it).
    pub async fn database() -> String {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        let shared = SHARED.get_or_init(|| Self::make(true)).await;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        // Of the template that nobody is ever connected to, not even a vacuum: one that is in use is refused.
        shared.run(&format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        format!("postgres://postgres@{}/{name}", shared.server.address)
    }

    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed (`scripts/setup` brings it).
    pub async fn start() -> Self {
        Self::make(false).await
    }

    async fn make(shared: bool) -> Self {
        let dir = directory("lockstep-postgres-");
        let programs = newest_programs();
        let data = dir.path().join("data");
        let mut initdb = unprivileged(&programs.join("initdb"));
        initdb
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--pgdata"])
            .arg(&data);
        let made = run_within(MADE_WITHIN, &mut initdb).await;
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
            format!("fsync={}", if shared { "off" } else { "on" }),
        ];
        arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let mut server = Server {
            program: programs.join("postgres"),
            arguments,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            child: None,
            log: dir.path().join("postgres.log"),
            outlived_by: shared.then(|| dir.path().to_owned()),
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

    /// Keeps a copy of its data. Stopped, it must be.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub async fn back_up(&self) {
        assert!(self.server.child.is_none(), "stopped first");
        self.copy("data", "backup").await;
    }

    /// Has the data of the last [`Postgres::back_up`] again. Stopped, it must be.
    ///
    /// # Panics
    /// When there is no such copy.
    pub async fn restore(&self) {
        assert!(self.server.child.is_none(), "stopped first");
        self.copy("backup", "data").await;
    }

    async fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.dir.path().join(from), self.dir.path().join(to));
        fs::remove_dir_all(&to).ok();
        let copied = run(Command::new("cp").arg("-a").arg(&from).arg(&to)).await;
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
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

/// PostgreSQL refuses to run as root; then it runs as the user that its package made. Debian keeps nginx out of the
/// `PATH` of users.
fn unprivileged(program: &Path) -> Command {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin");
    let mut command = plain(program);
    command.env("PATH", path);
    command
}

fn plain(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() || !program.is_absolute() {
        return Command::new(program);
    }
    let become_another: &[&str] = if network::is_apart() {
        // There is no other user there; but it can be given another name.
        &["unshare", "--user", "--map-user=postgres", "--map-group=postgres"]
    } else {
        &["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    };
    let mut command = Command::new(become_another[0]);
    command.args(&become_another[1..]).arg(program);
    command
}

fn until_orphaned(program: &Path, directory: &Path) -> Command {
    let server = unprivileged(program);
    let mut command = Command::new("sh");
    command.args(["-c", UNTIL_ORPHANED, "sh"]).arg(directory);
    command
        .arg(server.as_std().get_program())
        .args(server.as_std().get_args());
    command
}

pub(crate) fn directory(prefix: &str) -> TempDir {
    let dir = TempDir::with_prefix(prefix).expect("a temporary directory");
    // PostgreSQL may run as another user than the test.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(dir.path(), open).expect("its mode can be set");
    dir
}
