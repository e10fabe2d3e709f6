//! `lockstep-hub config …`.

use std::path::{Path, PathBuf};

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
    /// File with the settings [default: lockstep.toml]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same, as `serve` takes it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl File {
    fn path(&self) -> &Path {
        let named = self.file.as_deref().or(self.config.as_deref());
        named.unwrap_or(Path::new("lockstep.toml"))
    }
}

pub(super) fn run(action: &Action) -> Done {
    match action {
        Action::Check(file) => {
            let config = load(file.path())?;
            // What can only be seen by opening other files.
            Providers::new(&config).map_err(Outcome::failed)?;
            if let Some(tls) = &config.tls {
                Certificates::load(tls).map_err(Outcome::failed)?;
            }
            show::text(&format!("{}: ok\n", file.path().display()))
        }
        Action::Print(file) => show::text(&load(file.path())?.print()),
        Action::Reference => show::text(&Config::reference()),
    }
}

/// Reads the settings from a file and the environment.
pub(super) fn load(file: &Path) -> Result<Config, Outcome> {
    Config::load(file, environment()).map_err(|errors| Outcome::failed(format!("the settings are wrong\n{errors}")))
}

/// The environment, as far as it is text.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
