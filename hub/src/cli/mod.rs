//! The command line.

mod admin;
mod audit;
mod config;
mod devices;
mod grants;
mod keys;
mod login;
mod outcome;
mod serve;
mod show;
mod store;
mod users;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use outcome::Outcome;

/// Every exit code, for `--help`.
const EXIT_CODES: &str = "Exit codes: 0 done · 1 refused: settings that are wrong, or a request that the hub does not \
    grant · 2 the command line is wrong · 3 the hub cannot be reached · 4 the admin token is missing or wrong · \
    5 no such user, grant, device or provider · 6 not now: the hub or the provider is busy, try again";

/// The Lockstep hub: one redeem per expiry, every device pushed.
#[derive(Debug, Parser)]
#[command(name = "lockstep-hub", version, about, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a hub
    Serve(serve::ServeArgs),
    /// Run a hub to try things out: everything in memory, loopback only
    Dev(serve::DevArgs),
    /// Check, print or explain the settings
    #[command(subcommand)]
    Config(config::Action),
    /// See a user's grants, bring logins, redeem now
    Grants(grants::Args),
    /// See a user's devices, enrol and revoke them
    Devices(devices::Args),
    /// See a user as JSON, or delete one
    Users(users::Args),
    /// Check the history that the hub wrote
    Audit(audit::Args),
    /// See and rotate the keys that seal what is stored
    Keys(keys::Args),
    /// Tell a store that it was restored
    #[command(subcommand)]
    Store(store::Action),
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::serve(&args),
        Command::Dev(args) => serve::dev(&args),
        Command::Config(action) => config::run(&action),
        Command::Grants(args) => grants::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Users(args) => users::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Store(action) => store::run(&action),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(outcome) => {
            outcome.tell();
            outcome.code()
        }
    }
}

/// What a command comes to.
type Done = Result<(), Outcome>;

/// Runs one asynchronous command.
fn block_on(work: impl Future<Output = Done>) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Outcome::failed)?;
    runtime.block_on(work)
}
