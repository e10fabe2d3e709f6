//! `lockstep-hub config …`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Done, outcome::Outcome, show};
use crate::{config::Config, provider::Providers, tls::Certificates};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Check the settings: every mistake, with its line
    Check(File),
    /// Print the settings in effect, secrets left out
    Print(File),
    /// Print every setting there is, with its default and what it means
    Reference,
}

/// Which settings.
#[derive(Debug, clap::Args)]
pub(super) struct File {
    /// File with the settings
    #[arg(long, value_name = "FILE", default_value = "lockstep.toml")]
    config: PathBuf,
}

pub(super) fn run(action: &Action) -> Done {
    match action {
        Action::Check(file) => {
            let config = load(&file.config)?;
            // What can only be seen by opening other files.
            Providers::new(&config).map_err(Outcome::failed)?;
            if let Some(tls) = &config.tls {
                Certificates::load(tls).map_err(Outcome::failed)?;
            }
            show::text(&format!("{}: ok\n", file.config.display()))
        }
        Action::Print(file) => show::text(&load(&file.config)?.print()),
        Action::Reference => show::text(&Config::reference()),
    }
}

/// Reads the settings from a file and the environment.
pub(super) fn load(file: &std::path::Path) -> Result<Config, Outcome> {
    Config::load(file, environment()).map_err(|errors| Outcome::failed(format!("the settings are wrong\n{errors}")))
}

/// The environment, as far as it is text.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
