//! `client-demo bench` and its hidden other half, `bench-floor`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args as ClapArgs;

use super::Failure;
use crate::{
    bench::{self, Options},
    term::Terminal,
};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// A tenth of the connections, in a fraction of the time
    #[arg(long)]
    quick: bool,
    /// How many connections the main fleet has
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// How many devices each of its users has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    devices_per_user: Option<u32>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Args {
    fn options(&self) -> Options {
        let mut options = if self.quick { Options::quick() } else { Options::full() };
        options.connections = self.connections.unwrap_or(options.connections);
        options.devices_per_user = self.devices_per_user.unwrap_or(options.devices_per_user);
        options
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let terminal = if args.json { Terminal::silent() } else { Terminal::new() };
    let report = bench::run(args.options(), terminal)?;
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        bench::show(terminal, &report);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn floor() -> Result<ExitCode, Failure> {
    bench::serve_floor(|listening, control| {
        let mut stdout = io::stdout();
        let ready = serde_json::json!({ "listening": listening, "control": control });
        writeln!(stdout, "{ready}")?;
        stdout.flush()
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
