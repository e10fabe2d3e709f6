//! `client-demo authserver`.

use std::{io::Write as _, net::SocketAddr, process::ExitCode, time::Duration};

use clap::Args as ClapArgs;
use lockstep_protocol::Secret;

use super::Failure;
use crate::authserver::{Authserver, Client, Grace, Settings};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// How long an access token is good
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration, value_name = "DURATION")]
    access_ttl: Duration,
    /// How long a used refresh token is still accepted after its first use
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    grace: Option<Duration>,
    /// Within the grace, answer with the identical pair instead of another new one
    #[arg(long, requires = "grace")]
    grace_identical: bool,
    /// A rotation kills the previous access token at once
    #[arg(long)]
    kill_old_access: bool,
    /// Refresh tokens do not rotate, and answers carry none
    #[arg(long)]
    no_rotation: bool,
    /// Pad access tokens to this many bytes
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    access_bytes: usize,
    /// Let in only this client; without it, any
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The client's secret; without it, the client is a public one
    #[arg(long, requires = "client_id", value_name = "SECRET")]
    client_secret: Option<Secret>,
}

impl Args {
    fn settings(self) -> (SocketAddr, Settings) {
        let grace = match self.grace {
            None => Grace::None,
            Some(span) if self.grace_identical => Grace::SamePair(span),
            Some(span) => Grace::NewPair(span),
        };
        let settings = Settings {
            access_ttl: self.access_ttl,
            grace,
            kill_old_access: self.kill_old_access,
            rotate: !self.no_rotation,
            access_bytes: self.access_bytes.min(32 * 1024),
            client: self.client_id.map(|id| Client {
                id,
                secret: self.client_secret,
            }),
        };
        (self.listen, settings)
    }
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let (listen, settings) = args.settings();
    let server = Authserver::start(listen, settings).await?;
    let ready = serde_json::json!({ "listening": server.addr() });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{ready}")?;
    stdout.flush()?;
    super::stop_signal().await?;
    Ok(ExitCode::SUCCESS)
}
