//! The command line.

mod authserver;
mod bench;
mod device;
mod failure;
mod hub_args;
mod login;
mod storm;
mod token;

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use failure::Failure;

/// Every exit code, for `--help`.
const EXIT_CODES: &str = "Exit codes: 0 done · 1 failed: a file, a setting, or the promise of the storm did not hold · \
    2 the command line is wrong · 3 the hub cannot be reached · 4 not enrolled, or not any more · 5 no such grant · \
    6 not now: try again · 7 somebody must log in at the provider · 8 the device was revoked · 9 another program took \
    over with the same device · 10 hub and client do not speak the same protocol";
/// The variable that says how much is logged, as for the hub.
const LOG: &str = "LOCKSTEP_LOG";

/// Devices of a hub, and the refresh storm without one.
#[derive(Debug, Parser)]
#[command(name = "client-demo", version, about, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One device that shows what it is pushed, live
    Device(Box<device::Args>),
    /// Print a token that is good for a while yet, and nothing else
    Token(token::Args),
    /// Become a device of a hub: the user approves it in a browser, or an operator on the command line
    Login(login::Args),
    /// A strict, rotating authorization server with faults on demand, for demonstrations and tests
    Authserver(authserver::Args),
    /// The storm, before and after: N devices on one grant, first without a hub, then with it
    Storm(storm::Args),
    /// Measures the hub beside a floor of the same run
    Bench(bench::Args),
    /// The floor of the bench: a bare WebSocket server
    #[command(hide = true)]
    BenchFloor,
}

/// Runs a parsed command line.
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            failure.tell();
            failure.code()
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    // The bench measures on threads that it pins by itself, and its floor has one thread.
    match command {
        Command::Device(args) => Runtime::new()?.block_on(device::run(*args)),
        Command::Token(args) => Runtime::new()?.block_on(token::run(args)),
        Command::Login(args) => Runtime::new()?.block_on(login::run(args)),
        Command::Authserver(args) => Runtime::new()?.block_on(authserver::run(args)),
        Command::Storm(args) => Runtime::new()?.block_on(storm::run(args)),
        Command::Bench(args) => bench::run(&args),
        Command::BenchFloor => Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(bench::floor()),
    }
}

/// Logs to stderr: warnings, or what `LOCKSTEP_LOG` says. Below `info`, libraries may write what they send and receive:
/// they are not asked.
fn logs() {
    let discreet = |line: &Metadata<'_>| *line.level() <= Level::INFO || line.target().starts_with("lockstep_");
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new("warn"));
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(false).compact();
    let _already = tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_filter(filter_fn(discreet)))
        .try_init();
}

/// Waits for SIGINT or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
