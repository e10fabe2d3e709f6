//! `client-demo` as a process whose lines a test reads as they come.

use std::{
    ffi::OsStr,
    process::{Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    binaries,
    wait::{BOUND, eventually, within},
};

/// A running `client-demo`. It is killed when dropped.
pub struct Demo {
    child: Child,
    out: Lines,
    err: Lines,
}

/// What was written so far, and whoever reads on.
struct Lines {
    read: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Lines {
    fn of(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let read = Arc::<Mutex<Vec<String>>>::default();
        let kept = read.clone();
        let mut lines = BufReader::new(stream).lines();
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Self { read, reader }
    }

    fn get(&self) -> Vec<String> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until nothing more can come; not for ever, for a child of the child may have the pipe too.
    async fn end(&mut self) {
        if !self.reader.is_finished() {
            timeout(BOUND, &mut self.reader).await.ok();
        }
    }
}

/// The command `client-demo`, without anything from the environment of the tests.
pub fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(binaries::demo());
    for (name, _) in std::env::vars_os() {
        let lower = name.to_string_lossy().to_lowercase();
        if lower.starts_with("lockstep_") || lower.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs `client-demo` to its end.
///
/// # Panics
/// When it takes longer than `bound`.
pub async fn run<S: AsRef<OsStr>>(args: &[S], bound: Duration) -> Output {
    within("client-demo ends", bound, command(args).output())
        .await
        .expect("the binary starts")
}

impl Demo {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Self {
        Self::spawn(&mut command(args))
    }

    /// Starts a command whose lines are read in the same way.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = Lines::of(child.stdout.take().expect("stdout is piped"));
        let err = Lines::of(child.stderr.take().expect("stderr is piped"));
        Self { child, out, err }
    }

    /// Waits for an event of `--json` for which `good` holds.
    ///
    /// # Panics
    /// When none comes within `bound`.
    pub async fn event(&self, what: &str, bound: Duration, good: impl Fn(&Value) -> bool) -> Value {
        eventually(what, bound, async || self.events().into_iter().find(&good)).await
    }

    /// Waits for a line that holds `text`.
    ///
    /// # Panics
    /// When none comes within `bound`.
    pub async fn line(&self, text: &str, bound: Duration) -> String {
        let has = |line: &String| line.contains(text);
        eventually(text, bound, async || self.written().into_iter().find(has)).await
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The events of `--json` so far.
    pub fn events(&self) -> Vec<Value> {
        let lines = self.out.get();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Everything written so far, on stdout and stderr.
    pub fn written(&self) -> Vec<String> {
        [self.out.get(), self.err.get()].concat()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            kill_process(pid, signal).ok();
        }
    }

    /// Kills it, and waits until it is dead.
    pub async fn kill9(&mut self) {
        self.child.kill().await.ok();
    }

    /// Waits for its end and the last it wrote, and gives its exit code.
    ///
    /// # Panics
    /// When it lives longer than `bound`, or was killed.
    pub async fn ended(&mut self, bound: Duration) -> i32 {
        let status = within("client-demo ends", bound, self.child.wait()).await;
        self.out.end().await;
        self.err.end().await;
        status.expect("its status can be read").code().expect("an exit code")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what a process wrote:\n{}\n---", self.written().join("\n"));
        }
    }
}
