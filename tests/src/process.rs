//! A child process: ready line, captured logs, signals by its id.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::wait::within;

/// How long a process may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How long one may take to be gone that was killed, or has closed its output.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// How much of a log is shown when a test fails.
const TAIL: usize = 60;

/// A running process. It is killed when dropped, and its log's tail is printed if the test is failing.
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// A process that ended, or said nothing, instead of becoming ready.
#[derive(Debug)]
pub struct NotReady {
    /// How it ended, if it did.
    pub status: Option<ExitStatus>,
    /// Everything it wrote on stderr, this run and those before it.
    pub log: String,
}

impl Process {
    /// Starts `command` with stderr appended to `log`, and reads its ready line: one JSON object on stdout.
    ///
    /// # Errors
    /// [`NotReady`] when it ends, or is silent for a minute and a half.
    pub async fn start(command: &mut Command, log: &Path) -> Result<(Self, Value), NotReady> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(append(log))
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let first = timeout(READY_WITHIN, lines.next_line())
            .await
            .ok()
            .and_then(Result::ok)
            .flatten();
        // Whatever else it prints must not fill the pipe and stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let ready = first.as_deref().and_then(|line| serde_json::from_str(line).ok());
        let mut process = Self {
            child,
            log: log.to_path_buf(),
        };
        if let Some(ready) = ready {
            Ok((process, ready))
        } else {
            let status = timeout(GONE_WITHIN, process.child.wait())
                .await
                .ok()
                .and_then(Result::ok);
            let log = read(&process.log);
            Err(NotReady { status, log })
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill9(&mut self) {
        self.child.start_kill().ok();
        within("a killed process is gone", GONE_WITHIN, self.child.wait())
            .await
            .ok();
    }

    /// Sends `signal`; returns at once.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            kill_process(pid, signal).ok();
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it lives longer than `bound`.
    pub async fn ended(&mut self, bound: Duration) -> ExitStatus {
        within("the process ends", bound, self.child.wait())
            .await
            .expect("its status can be read")
    }

    /// Its id, while it lives.
    pub fn pid(&self) -> Option<Pid> {
        self.child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
    }

    /// Whether it still runs.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Everything it and its predecessors wrote on stderr.
    pub fn log(&self) -> String {
        read(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        if std::thread::panicking() {
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            eprintln!("--- the end of {}:\n{}\n---", self.log.display(), tail.join("\n"));
        } else if let Some(panic) = lines.iter().position(|line| line.contains("panicked at")) {
            let whole = lines[panic..].iter().take(TAIL).copied().collect::<Vec<_>>();
            panic!("a process panicked, whatever it did otherwise:\n{}", whole.join("\n"));
        }
    }
}

/// Runs `command` to its end.
///
/// # Panics
/// When it does not end within a minute and a half.
pub async fn run(command: &mut Command) -> Output {
    run_within(READY_WITHIN, command).await
}

/// Runs `command` to its end.
///
/// # Panics
/// When it does not end within `bound`.
pub async fn run_within(bound: Duration, command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    within("the command ends", bound, output)
        .await
        .expect("the binary starts")
}

fn append(log: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .expect("a log can be written")
}

fn read(log: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(log) {
        file.read_to_end(&mut bytes).ok();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
