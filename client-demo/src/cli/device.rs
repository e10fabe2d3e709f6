//! `client-demo device`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args as ClapArgs, ValueEnum};
use lockstep_client::{Builder, Client, DeviceFile, GrantName, PresenceState, Secret, Stopped, TransportChoice};
use url::Url;

use super::{
    Failure,
    hub_args::{HubArgs, directory_of, text_of, writable},
    logs, stop_signal,
};
use crate::{
    device::{FirstStart, NewDevice, Said, Show, Watch, token_in},
    hub::Admin,
};

/// Where a hub's admin API is unless it is told.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:8788";

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    identity: Identity,
    /// Show only this grant, as provider/account; may be repeated [default: all]
    #[arg(long = "grant", value_name = "PROVIDER/ACCOUNT")]
    grants: Vec<GrantName>,
    /// How to talk to the hub
    #[arg(long, value_enum, default_value_t = Transport::Auto)]
    transport: Transport,
    /// Redeem when the hub elects this device (it must be enrolled for that)
    #[arg(long)]
    refresher: bool,
    /// Tell the hub that nobody uses the device now: others are elected first
    #[arg(long)]
    idle: bool,
    /// Directory for what the device holds across restarts: tokens, cursor, results of redeems
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// One JSON object for each thing that happens
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "The device")]
struct Identity {
    /// File (0600) that keeps the device and its newest token; made at the first start
    #[arg(long, env = "LOCKSTEP_DEVICE_FILE", value_name = "FILE")]
    device_file: Option<PathBuf>,
    /// First start: file with the device refresh token (lsd_…), or with what `lockstep-hub devices enrol --json` printed;
    /// "-" is stdin
    #[arg(long, value_name = "FILE", requires = "device_file")]
    refresh_token_file: Option<PathBuf>,
    /// First start: the device refresh token; other users of this machine can see it here, so better set the variable
    #[arg(
        long,
        env = "LOCKSTEP_DEVICE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "refresh_token_file"
    )]
    refresh_token: Option<Secret>,
    /// First start, for demonstrations: enrol a new device of this user through the admin API
    #[arg(long, value_name = "USER", conflicts_with_all = ["refresh_token_file", "refresh_token"])]
    enrol: Option<String>,
    /// What the new device is
    #[arg(long, value_enum, default_value_t = Kind::Cli)]
    kind: Kind,
    /// What people call the new device
    #[arg(long, default_value = "client-demo")]
    name: String,
    /// Address of the admin API
    #[arg(long, env = "LOCKSTEP_ADMIN", value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: Url,
    /// File with the admin token [default: the variable LOCKSTEP_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// Which transports may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// WebSocket where it works, long-poll where it does not
    Auto,
    /// WebSocket only
    Ws,
    /// Long-poll only
    Poll,
}

/// The kinds of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Desktop,
    Web,
    Cli,
    Mobile,
    Server,
    Iot,
}

impl Kind {
    /// As the hub writes it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Web => "web",
            Self::Cli => "cli",
            Self::Mobile => "mobile",
            Self::Server => "server",
            Self::Iot => "iot",
        }
    }
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    logs();
    if args.refresher && args.transport == Transport::Poll {
        return Err(Failure::Usage(
            "--refresher needs a WebSocket: a device on long-poll is never elected".into(),
        ));
    }
    if args.refresher {
        args.state_dir()?;
    }
    let show = Show::new(args.json);
    let (builder, started) = args.first().await?;
    show.say(&started)?;
    let (client, events) = args.set(builder)?.connect_listening().await?;
    let mut watch = Watch::new(client.clone(), args.grants, show);
    let ended = tokio::select! {
        ended = watch.run(events) => Some(ended?),
        signal = stop_signal() => {
            signal?;
            None
        }
    };
    match ended {
        Some(why) => {
            show.say(&Said::stopped(&why))?;
            Err(why.into())
        }
        None => {
            // A redeem that has begun is seen through, unless whoever waits says it again.
            tokio::select! {
                () = client.close() => {}
                signal = stop_signal() => signal?,
            }
            show.say(&Said::stopped(&Stopped::Closed))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Args {
    /// The device, enrolled now if it was not yet.
    async fn first(&self) -> Result<(Builder, Said), Failure> {
        let path = self.identity.device_file.as_deref();
        let known = path.map(DeviceFile::open).transpose()?.flatten();
        if let Some(file) = known {
            let started = started(file.device(), file.hub_url(), path, false);
            return Ok((self.hub.builder_of(&file)?, started));
        }
        let url = self.hub.url();
        Client::builder(url).check()?;
        let places = [path.map(directory_of), self.cache.as_deref()];
        places.into_iter().flatten().try_for_each(writable)?;
        let first_start = self.identity.first_start(self.refresher)?;
        let builder = self.hub.builder(url)?;
        let enrolled = first_start.enrol(&builder).await?;
        let started = started(enrolled.device, url, path, true);
        let builder = match path {
            None => builder.device(enrolled.device, enrolled.refresh_token),
            Some(path) => self.hub.builder_of(&DeviceFile::create(path, url, &enrolled)?)?,
        };
        Ok((builder, started))
    }

    /// Everything about the client that is not the device.
    fn set(&self, builder: Builder) -> Result<Builder, Failure> {
        let mut builder = builder
            .app(concat!("client-demo/", env!("CARGO_PKG_VERSION")))
            .transport(match self.transport {
                Transport::Auto => TransportChoice::Auto,
                Transport::Ws => TransportChoice::Ws,
                Transport::Poll => TransportChoice::Poll,
            });
        if self.idle {
            builder = builder.presence(PresenceState::Idle);
        }
        if let Some(directory) = &self.cache {
            builder = builder.cache_dir(directory);
        }
        if self.refresher {
            builder = builder.redeemer(true).state_dir(self.state_dir()?);
        }
        Ok(builder)
    }

    /// Where results of redeems are kept: one directory for each device.
    fn state_dir(&self) -> Result<PathBuf, Failure> {
        let beside = |file: &Path| {
            let mut name = file.as_os_str().to_owned();
            name.push(".redeem");
            PathBuf::from(name)
        };
        match (&self.identity.device_file, &self.cache) {
            (Some(file), _) => Ok(beside(file)),
            (None, Some(directory)) => Ok(directory.join("redeem")),
            (None, None) => Err(Failure::Usage(
                "--refresher needs --device-file or --cache: a result is sealed on disk until the hub has it".into(),
            )),
        }
    }
}

impl Identity {
    fn first_start(&self, redeemer: bool) -> Result<FirstStart, Failure> {
        if let Some(user) = &self.enrol {
            let token = self.admin_token()?;
            return Ok(FirstStart::Admin(Box::new(NewDevice {
                admin: Admin::at(&self.admin, token),
                user: user.clone(),
                kind: self.kind.as_str().to_owned(),
                name: self.name.clone(),
                redeemer,
            })));
        }
        if let Some(file) = &self.refresh_token_file {
            let token = token_in(&text_of(file)?);
            return token.map(FirstStart::Token).ok_or_else(|| {
                Failure::NotEnrolled(format!("{}: holds no device refresh token (lsd_…)", file.display()))
            });
        }
        match (&self.refresh_token, &self.device_file) {
            (Some(token), Some(_)) => Ok(FirstStart::Token(token.clone())),
            (Some(_), None) => Err(Failure::Usage(
                "a device refresh token rotates with each use: name a --device-file that keeps the newest".into(),
            )),
            (None, Some(file)) => Err(Failure::NotEnrolled(format!(
                "{0}: no such device file; `client-demo login --device-file {0}` makes one, or see --help for the first start",
                file.display()
            ))),
            (None, None) => Err(Failure::Usage(
                "which device? Name its --device-file, or --enrol USER for a demonstration; see --help".into(),
            )),
        }
    }

    fn admin_token(&self) -> Result<Secret, Failure> {
        let text = match &self.admin_token_file {
            Some(file) => text_of(file)?,
            None => std::env::var("LOCKSTEP_ADMIN_TOKEN").unwrap_or_default(),
        };
        match text.trim() {
            "" => Err(Failure::NotEnrolled(
                "no admin token: set LOCKSTEP_ADMIN_TOKEN, or name --admin-token-file".into(),
            )),
            token => Ok(Secret::new(token)),
        }
    }
}

fn started(device: lockstep_client::DeviceId, hub: &str, file: Option<&Path>, enrolled: bool) -> Said {
    Said::Started {
        device,
        hub: hub.to_owned(),
        device_file: file.map(|file| file.display().to_string()),
        enrolled,
    }
}
