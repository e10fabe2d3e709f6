//! The command line.

mod authserver;
mod storm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

/// Runs a parsed command line.
pub fn run(cli: Cli) -> ExitCode {
    let outcome = tokio::runtime::Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(dispatch(cli.command)));
    match outcome {
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
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Authserver(args) => authserver::run(args).await,
        Command::Storm(args) => storm::run(args).await,
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
