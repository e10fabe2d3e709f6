//! The command line.

mod authserver;
mod bench;
mod storm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

/// Reproduces the multi-device refresh storm, and cures it.
#[derive(Debug, Parser)]
#[command(name = "client-demo", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
            eprintln!("client-demo: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command came to nothing, for people.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The answer cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The storm could not be shown.
    #[error(transparent)]
    Storm(#[from] crate::storm::StormError),
    /// The bench could not be run.
    #[error(transparent)]
    Bench(#[from] crate::bench::BenchError),
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    // The bench measures on threads that it pins by itself, and its floor has one thread.
    match command {
        Command::Authserver(args) => Runtime::new()?.block_on(authserver::run(args)),
        Command::Storm(args) => Runtime::new()?.block_on(storm::run(args)),
        Command::Bench(args) => bench::run(&args),
        Command::BenchFloor => Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(bench::floor()),
    }
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
