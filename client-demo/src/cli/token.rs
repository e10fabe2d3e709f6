//! `client-demo token`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Args as ClapArgs;
use lockstep_client::{Client, Error, Event, GrantName, TokenLease, TransportChoice, Version};
use serde::Serialize;
use tokio::{
    sync::broadcast::Receiver,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Failure,
    hub_args::{HubArgs, enrolled},
    logs,
};
use crate::term::Terminal;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The grant, as provider/account
    #[arg(value_name = "PROVIDER/ACCOUNT")]
    grant: GrantName,
    /// File that keeps the device and its newest token
    #[arg(long, env = "LOCKSTEP_DEVICE_FILE", value_name = "FILE")]
    device_file: PathBuf,
    /// How long the token must be good at least (or half its life, if that is less)
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    min_validity: Duration,
    /// The API refused the token of this version: get a newer one
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64))]
    rejected: Option<u64>,
    /// How long to wait for the hub
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    wait: Duration,
    /// Directory with what `device --cache` holds: a token that is good is then found without the hub
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    #[command(flatten)]
    hub: HubArgs,
    /// Print one JSON object with the token, its version and its expiry
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    grant: &'a GrantName,
    version: Version,
    access_token: &'a str,
    token_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    expires_at: Option<u64>,
    expires_in: Option<u64>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    logs();
    let file = enrolled(&args.device_file)?;
    // Over long-poll: a WebSocket would take the place of the session of a program that runs with the same device.
    let mut builder = args
        .hub
        .builder_of(&file)?
        .app(concat!("client-demo-token/", env!("CARGO_PKG_VERSION")))
        .transport(TransportChoice::Poll)
        .patience(args.wait);
    if let Some(directory) = &args.cache {
        builder = builder.cache_dir(directory);
    }
    let (client, mut events) = builder.connect_listening().await?;
    let spinner = Terminal::new().spinner("asking the hub");
    let got = get(&client, &args).await;
    drop(spinner);
    let synced = client.connection().borrow().synced;
    // A farewell is a courtesy; the token is what somebody waits for.
    let _ = timeout(Duration::from_secs(1), client.close()).await;
    match got {
        Ok(lease) => {
            print(&lease, args.json)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(Error::Retry { .. }) if !synced => Err(Failure::Unreachable(why(&mut events))),
        Err(error) => Err(better(error)),
    }
}

async fn get(client: &Client, args: &Args) -> Result<TokenLease, Error> {
    let until = Instant::now() + args.wait;
    // The newest, if the hub can be reached; else what the cache has.
    let heard = timeout_at(until, client.synced()).await;
    if let Ok(Err(why)) = heard {
        return Err(why.into());
    }
    let wanted = async {
        match args.rejected {
            Some(version) => client.report_rejected(&args.grant, Version(version)).await,
            None => client.token(&args.grant, args.min_validity).await,
        }
    };
    // What is at hand is given although the time is over; nothing else is waited for longer than was said.
    let got = timeout_at(until, wanted).await;
    got.unwrap_or_else(|_| {
        let is_good = |lease: &&TokenLease| lease.remaining().is_none_or(|left| !left.is_zero());
        Err(Error::Retry {
            retry_at: None,
            reason: "the hub has not answered in time".into(),
            held: client.state(&args.grant).token().filter(is_good).cloned().map(Box::new),
        })
    })
}

fn print(lease: &TokenLease, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let printed = Printed {
            grant: &lease.grant,
            version: lease.version,
            access_token: lease.access_token.expose(),
            token_type: &lease.token_type,
            scope: lease.scope.as_deref(),
            expires_at: lease.expires_at.map(|at| at.0),
            expires_in: lease.remaining().as_ref().map(Duration::as_secs),
        };
        serde_json::to_writer(&mut out, &printed)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", lease.access_token.expose())?;
    }
    out.flush()
}

/// Why the hub was not reached: the last word about the connection.
fn why(events: &mut Receiver<Event>) -> String {
    let mut last = "the hub does not answer".to_owned();
    while let Ok(event) = events.try_recv() {
        if let Event::Disconnected { reason, .. } = event {
            last = reason;
        }
    }
    last
}

/// An error that names the way out.
fn better(error: Error) -> Failure {
    if let Some(held) = error.usable_token() {
        let left = held.remaining().unwrap_or_default();
        let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
        return Failure::NotNow(format!(
            "{error}; a token that is good for {left} is there: ask with a shorter --min-validity"
        ));
    }
    match &error {
        Error::Retry { retry_at: Some(at), .. } => Failure::NotNow(format!(
            "{error}; try again at {}",
            humantime::format_rfc3339_seconds(*at)
        )),
        Error::Reauth {
            login_url: Some(url), ..
        } => Failure::LoginNeeded(format!("{error}; at {url}")),
        _ => error.into(),
    }
}
