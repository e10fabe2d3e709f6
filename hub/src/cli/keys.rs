//! `lockstep-hub keys …`.

use clap::Subcommand;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Done, admin::AdminArgs, block_on, show};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the sealing keys, and how much is sealed with each
    List,
    /// Make a fresh key, and seal everything anew with it; the old one stays in the file until it is removed
    Rotate,
    /// Seal everything anew with the key that seals: after keys were changed by hand, or a rotation that was interrupted
    Reseal,
    /// Forget a key that nothing is sealed with any more
    Remove {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Key {
    id: String,
    here: bool,
    seals: bool,
    records: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Rotated {
    key: String,
    grants: u64,
    shared: u64,
}

pub(super) fn run(args: Args) -> Done {
    let admin = args.admin.connect()?;
    let json = args.admin.json;
    block_on(async move {
        match args.action {
            Action::List => list(&admin.get::<Vec<Key>>(&["keys"]).await?, json),
            Action::Rotate => rotated(&admin.send(Method::POST, &["keys", "rotate"], &json!({})).await?, json),
            Action::Reseal => rotated(&admin.send(Method::POST, &["keys", "reseal"], &json!({})).await?, json),
            Action::Remove { id } => admin.delete(&["keys", &id]).await,
        }
    })
}

fn list(keys: &[Key], json: bool) -> Done {
    if json {
        return show::json(&keys);
    }
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let state = match (key.seals, key.here) {
                (true, _) => "seals",
                (false, true) => "opens",
                (false, false) => "MISSING",
            };
            [key.id.clone(), state.to_owned(), key.records.to_string()]
        })
        .collect();
    show::table(["KEY", "STATE", "RECORDS"], &rows)
}

fn rotated(done: &Rotated, json: bool) -> Done {
    if json {
        return show::json(done);
    }
    show::text(&format!(
        "key {} seals; sealed anew: {} grants, {} shared values\n",
        done.key, done.grants, done.shared
    ))
}
