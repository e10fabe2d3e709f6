//! `client-demo storm`.

use std::{io::Write as _, process::ExitCode, time::Duration};

use clap::{Args as ClapArgs, value_parser};

use super::Failure;
use crate::{
    storm::{self, Options},
    term::Terminal,
};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// How many devices share the grant
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u16).range(2..=1000), value_name = "N")]
    devices: u16,
    /// How often the token expires in the part with a hub
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u16).range(1..=1000), value_name = "N")]
    rounds: u16,
    /// How long an access token is good
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    access_ttl: Duration,
    /// In the part with a hub, let every second device use long-poll
    #[arg(long)]
    mixed: bool,
    /// Print one JSON object instead of words
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let options = Options {
        devices: args.devices.into(),
        rounds: args.rounds.into(),
        access_ttl: args.access_ttl,
        mixed: args.mixed,
    };
    let terminal = if args.json { Terminal::silent() } else { Terminal::new() };
    let report = storm::run(options, terminal).await?;
    if args.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    Ok(if report.with.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
