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

/// What `dev` has when it is given no settings.
const DEV: &str = r#"
[providers.example]
token_endpoint = "http://127.0.0.1:9000/token"
client_id = "app"
"#;

pub(super) fn serve(args: &ServeArgs) -> Done {
    run(load(&args.config)?)
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
    eprint!("{}", guide(&config));
    run(config)
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

/// What to do next, for a newcomer.
fn guide(config: &Config) -> String {
    let server = &config.server;
    let (name, endpoint) = config.providers.iter().next().map_or_else(
        || ("PROVIDER", "none in the settings".to_owned()),
        |(name, provider)| (name.as_str(), provider.token_endpoint.to_string()),
    );
    let (admin, where_from) = match server.admin_listen.port() {
        0 => ("http://ADMIN".to_owned(), " (ADMIN: see the line of JSON below)"),
        _ => (format!("http://{}", server.admin_listen), ""),
    };
    let token = server.admin_token_file.display();
    format!(
        "lockstep-hub dev: everything is in memory and gone when this ends.\n\
         \n\
         provider   {name}, token endpoint {endpoint}\n\
         operators  {admin}{where_from}, admin token in {token}\n\
         \n\
         Next, in another terminal:\n\
         \n\
         \x20 export LOCKSTEP_ADMIN={admin} LOCKSTEP_ADMIN_TOKEN=$(cat {token})\n\
         \x20 lockstep-hub grants put alice {name}/main --refresh-token-file FILE   # a refresh token of the provider\n\
         \x20 lockstep-hub devices enrol alice --kind cli --name laptop             # a device, and the token it connects with\n\
         \x20 lockstep-hub grants list alice\n\
         \n",
    )
}

fn run(config: Config) -> Done {
    let variable = std::env::var(logs::VARIABLE).ok();
    logs::start(&config.log, variable.as_deref()).map_err(Outcome::failed)?;
    metrics::install();
    metrics::expect_providers(config.providers.keys());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Outcome::failed)?;
    runtime.block_on(app::run(config)).map_err(Outcome::failed)
}
