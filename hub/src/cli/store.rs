//! `lockstep-hub store …`: on the store itself, while no hub runs on it.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use lockstep_protocol::Epoch;

use super::{Done, block_on, config::load, outcome::Outcome, show};
use crate::{
    config::StoreUrl,
    store::{self, StoreError},
};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Say that the store was restored from a backup: a new epoch, and every grant is suspect, so that no refresh token
    /// is sent that may have been used since. Run it before the hub is started again
    Restored {
        /// File with the settings
        #[arg(long, value_name = "FILE", default_value = "lockstep.toml")]
        config: PathBuf,
        /// Why, in words for people
        #[arg(long, default_value = "the hub's store was restored from an older state")]
        reason: String,
    },
}

pub(super) fn run(action: &Action) -> Done {
    let Action::Restored { config, reason } = action;
    let config = load(config)?;
    block_on(async move {
        let store = match &config.store.url {
            StoreUrl::Memory => return Err(Outcome::failed("a store in memory cannot be restored")),
            StoreUrl::File(path) if !path.exists() => {
                return Err(Outcome::Unknown(format!("{}: no such store", path.display())));
            }
            StoreUrl::File(path) => store::open(&format!("file:{}", path.display()), Path::new("")).await,
            StoreUrl::Postgres(url) => store::open(url.expose(), Path::new("")).await,
        };
        let store = store.map_err(not_opened)?;
        let mark = store.restored(Epoch(rand::random()), reason).await;
        let mark = mark.map_err(Outcome::failed)?;
        show::text(&format!(
            "epoch {}; every grant is suspect until its next success\n",
            mark.epoch
        ))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_opened(error: StoreError) -> Outcome {
    Outcome::failed(format!("{error}; is a hub running on it? Stop it first"))
}
