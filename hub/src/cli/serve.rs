//! `lockstep-hub serve` and `lockstep-hub dev`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    Done,
    config::{environment, load},
    outcome::Outcome,
};
use crate::{
    app,
    config::{ClusterUrl, Config, StoreUrl},
    hangup::Hangup,
    telemetry::{logs, metrics},
};

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// File with the settings; `lockstep-hub config reference` tells them all
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct DevArgs {
    /// File with settings, of which store, cluster and listeners are ignored [default: one provider "example" at
    /// http://127.0.0.1:9000/token with client id "app"]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for devices
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Address for operators
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8788")]
    admin_listen: SocketAddr,
}

/// Where devices look for a hub that they are not told of.
const DEFAULT_HUB: &str = "http://127.0.0.1:8787";

/// What `dev` has when it is given no settings.
const DEV: &str = r#"
[providers.example]
token_endpoint = "http://127.0.0.1:9000/token"
client_id = "app"
"#;

pub(super) fn serve(args: &ServeArgs) -> Done {
    run(load(&args.config)?, Hangup::Reloads)
}

pub(super) fn dev(args: &DevArgs) -> Done {
    for address in [args.listen, args.admin_listen] {
        if !address.ip().is_loopback() {
            return Err(Outcome::failed(format!(
                "{address}: dev listens on loopback addresses only"
            )));
        }
    }
    let dir = tempfile::Builder::new()
        .prefix("lockstep-dev-")
        .tempdir()
        .map_err(|error| Outcome::failed(format!("no temporary directory: {error}")))?;
    let config = dev_config(args, dir.path())?;
    eprint!("{}", guide(&config, args.config.is_none()));
    run(config, Hangup::Ends)
}

fn dev_config(args: &DevArgs, dir: &Path) -> Result<Config, Outcome> {
    let mut config = match &args.config {
        Some(file) => load(file)?,
        None => Config::parse("built-in settings", DEV, dir, environment()).map_err(Outcome::failed)?,
    };
    config.server.listen = args.listen;
    config.server.admin_listen = args.admin_listen;
    config.server.admin_token_file = dir.join("admin.token");
    config.store.url = StoreUrl::Memory;
    config.store.key_file = dir.join("lockstep.key");
    config.store.spool = dir.join("spool");
    config.cluster.url = ClusterUrl::Local;
    config.tls = None;
    Ok(config)
}

/// What to do next, for a newcomer: lines to be copied as they are.
fn guide(config: &Config, built_in: bool) -> String {
    let server = &config.server;
    let (name, endpoint) = config.providers.iter().next().map_or_else(
        || ("PROVIDER", "none in the settings".to_owned()),
        |(name, provider)| (name.as_str(), provider.token_endpoint.to_string()),
    );
    let (devices, operators) = (url(server.listen, "HUB"), url(server.admin_listen, "ADMIN"));
    let unknown = match (server.listen.port(), server.admin_listen.port()) {
        (0, _) | (_, 0) => "\n  HUB, ADMIN  see the line of JSON below\n",
        _ => "",
    };
    let token = quoted(&server.admin_token_file);
    let (hub, demo) = programs();
    let to_hub = match devices.as_str() {
        DEFAULT_HUB => String::new(),
        url => format!(" --hub {url} --admin {operators}"),
    };
    let (provider, login) = if built_in {
        (
            format!(
                "\x20 a provider whose tokens live for a minute\n\
                 \x20    {demo} authserver --listen 127.0.0.1:9000 --access-ttl 1m\n"
            ),
            format!(
                "curl -s -X POST http://127.0.0.1:9000/control/grants | {hub} grants put alice {name}/main --from -"
            ),
        )
    } else {
        (
            String::new(),
            format!("{hub} grants put alice {name}/main --refresh-token-file FILE   # a refresh token of the provider"),
        )
    };
    format!(
        "lockstep-hub dev: everything is in memory and gone when this ends.\n\
         \n\
         \x20 devices    {devices}\n\
         \x20 operators  {operators}, admin token in {token}\n\
         \x20 provider   {name}, token endpoint {endpoint}\n\
         {unknown}\n\
         Next, in other terminals:\n\
         \n\
         {provider}\
         \x20 a login of alice, brought to the hub\n\
         \x20    export LOCKSTEP_ADMIN={operators} LOCKSTEP_ADMIN_TOKEN=$(cat {token})\n\
         \x20    {login}\n\
         \x20 devices of alice, as many as you like; each is pushed what the others caused\n\
         \x20    {demo} device --enrol alice --name laptop --admin-token-file {token}{to_hub}\n\
         \x20    {demo} device --enrol alice --name phone --transport poll --admin-token-file {token}{to_hub}\n\
         \x20 what the hub knows of them (with the two variables from above), and a refresh at once\n\
         \x20    {hub} devices list alice\n\
         \x20    {hub} grants refresh alice {name}/main\n\
         \n",
    )
}

/// An address, or a word for it as long as the system has not chosen one.
fn url(address: SocketAddr, unknown: &str) -> String {
    match address.port() {
        0 => format!("http://{unknown}"),
        _ => format!("http://{address}"),
    }
}

/// How to call this program and the demo from another terminal: by name if the shell found them, else by their place.
fn programs() -> (String, String) {
    let called = std::env::args_os().next().map(PathBuf::from);
    let by_name = called.is_some_and(|called| called.parent().is_some_and(|parent| parent.as_os_str().is_empty()));
    match std::env::current_exe() {
        Ok(own) if !by_name => (quoted(&own), quoted(&own.with_file_name("client-demo"))),
        _ => ("lockstep-hub".into(), "client-demo".into()),
    }
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b)) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn run(config: Config, hangup: Hangup) -> Done {
    let variable = std::env::var(logs::VARIABLE).ok();
    logs::start(&config.log, variable.as_deref()).map_err(Outcome::failed)?;
    metrics::install();
    metrics::expect_providers(config.providers.keys());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Outcome::failed)?;
    runtime.block_on(app::run(config, hangup)).map_err(Outcome::failed)
}
