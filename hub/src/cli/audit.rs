//! `lockstep-hub audit …`.

use std::path::PathBuf;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::{Done, admin::AdminArgs, block_on, config::load, outcome::Outcome, show};
use crate::audit::{Head, Link, PublicKey, verify};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the end of a node's chain, and the key that verifies it: keep both somewhere else
    Head,
    /// Check a node's chain: finds any record altered, dropped, reordered or added
    Verify {
        /// The chain's directory [default: that of --config: audit in the spool]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// The key that verifies it [default: what the hub says now, which is then asked for its end of the chain too]
        #[arg(long, value_parser = key)]
        key: Option<PublicKey>,
        /// A record that the chain must have: from `audit head`, or from a device's receipt; may be given several times
        #[arg(long, value_name = "N:LINK", value_parser = known)]
        known: Vec<Head>,
    },
}

fn key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).ok_or_else(|| "not a key in base64url".into())
}

fn known(text: &str) -> Result<Head, String> {
    let (n, link) = text.split_once(':').ok_or("expected N:LINK")?;
    Ok(Head {
        n: n.parse().map_err(|_| "N is not a number")?,
        link: Link::parse(link).ok_or("LINK is not 64 hex digits")?,
    })
}

/// The end of a chain, as the hub tells it.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    node: String,
    key: String,
    head: Head,
}

/// What came of a check, for scripts.
#[derive(Serialize)]
struct Found {
    records: u64,
    /// The last record that the hub dropped for its age.
    expired: Option<Head>,
    head: Head,
    faults: Vec<String>,
}

pub(super) fn run(args: Args) -> Done {
    match args.action {
        Action::Head => {
            let end = ask(&args.admin)?;
            if args.admin.json {
                return show::json(&end);
            }
            let rows = [
                ["key".to_owned(), end.key],
                ["known".to_owned(), format!("{}:{}", end.head.n, end.head.link)],
            ];
            show::table(["node", &end.node], &rows)
        }
        Action::Verify { dir, key, mut known } => {
            let dir = dir.map_or_else(|| dir_of(&args.admin), Ok)?;
            let key = match key {
                Some(key) => key,
                None => {
                    let end = ask(&args.admin)?;
                    known.push(end.head);
                    self::key(&end.key).map_err(Outcome::failed)?
                }
            };
            check(&dir, &key, &known, args.admin.json)
        }
    }
}

fn dir_of(admin: &AdminArgs) -> Result<PathBuf, Outcome> {
    let config = admin
        .config
        .as_deref()
        .ok_or_else(|| Outcome::failed("which chain? Give --dir, or --config with the hub's settings"))?;
    Ok(load(config)?.store.spool.join("audit"))
}

fn ask(args: &AdminArgs) -> Result<End, Outcome> {
    let admin = args.connect()?;
    let mut end = None;
    block_on(async {
        end = Some(admin.get(&["audit"]).await?);
        Ok(())
    })?;
    end.ok_or_else(|| Outcome::Unreachable("no answer".into()))
}

fn check(dir: &std::path::Path, key: &PublicKey, known: &[Head], json: bool) -> Done {
    let report = verify::verify(dir, key, known).map_err(Outcome::failed)?;
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    let is_clean = report.is_clean();
    if json {
        show::json(&Found {
            records: report.records,
            expired: report.expired,
            head: report.head,
            faults,
        })?;
    } else {
        for fault in &faults {
            show::text(&format!("{fault}\n"))?;
        }
        if let Some(last) = report.expired {
            show::text(&format!(
                "records up to {}:{} were dropped for their age, as a signed record says\n",
                last.n, last.link
            ))?;
        }
        show::text(&format!(
            "{} records hold together, up to {}:{}\n",
            report.records, report.head.n, report.head.link
        ))?;
    }
    if is_clean {
        Ok(())
    } else {
        Err(Outcome::failed("the history was tampered with, or damaged"))
    }
}
