//! A real browser with a page as a device (`tests/browser`).

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::wait::within;

/// How long a browser may take to start or to answer: a big program on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// The name of the page whose origin the hub lists.
pub const LISTED: &str = "127.0.0.1";
/// The name of the same page under another origin.
pub const FOREIGN: &str = "localhost";

/// A headless Chromium. It ends when dropped.
pub struct Browser {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    origin: String,
}

impl Browser {
    /// Starts one, with the page open under both origins.
    ///
    /// # Panics
    /// When Chromium or its packages are missing (`scripts/setup` brings them).
    pub async fn start() -> Self {
        let home = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/browser"));
        let mut child = Command::new("node")
            .current_dir(home)
            .arg("device.mjs")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts (run scripts/setup?)");
        let orders = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut browser = Self {
            _child: child,
            orders,
            answers: BufReader::new(stdout).lines(),
            origin: String::new(),
        };
        let ready = browser.answer().await;
        ready["listed"]
            .as_str()
            .expect("an origin")
            .clone_into(&mut browser.origin);
        browser
    }

    /// The origin of [`LISTED`].
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Runs a function of the page and returns what it returns.
    ///
    /// # Panics
    /// When the browser does not answer.
    pub async fn run(&mut self, page: &str, function: &str, args: &[&str]) -> Value {
        let order = json!({"page": page, "run": function, "args": args});
        self.orders
            .write_all(format!("{order}\n").as_bytes())
            .await
            .expect("the browser listens");
        self.answer().await
    }

    async fn answer(&mut self) -> Value {
        let line = within("the browser answers", PATIENCE, self.answers.next_line()).await;
        let line = line
            .expect("the browser speaks")
            .expect("the browser runs (run scripts/setup?)");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }
}
