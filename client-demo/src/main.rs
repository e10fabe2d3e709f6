//! `client-demo`: see the library for what it can do.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    client_demo::cli::run(client_demo::cli::Cli::parse())
}
