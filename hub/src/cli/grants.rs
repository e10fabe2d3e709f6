//! `lockstep-hub grants …`.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use lockstep_protocol::{GrantName, Secret, UserId, http::GrantVersion};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Done,
    admin::AdminArgs,
    block_on, login,
    outcome::Outcome,
    show::{self, from_now},
    users::Grant,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

/// Which grant.
#[derive(Debug, clap::Args)]
struct Which {
    /// Whose
    user: UserId,
    /// The grant, as provider/account
    #[arg(value_name = "PROVIDER/ACCOUNT")]
    grant: GrantName,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List a user's grants
    List {
        /// Whose
        user: UserId,
    },
    /// Show one grant
    Show(Which),
    /// Bring a login: what an authorization server answered, or a refresh token
    Put {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        login: LoginArgs,
    },
    /// Log in at the provider, and bring what it answers
    Login(login::Args),
    /// Delete a grant
    Delete(Which),
    /// Redeem now, and wait for the outcome
    Refresh(Which),
}

#[derive(Debug, clap::Args)]
struct LoginArgs {
    /// File with the token endpoint's answer as JSON; "-" is stdin
    #[arg(long, value_name = "FILE", required_unless_present_any = ["refresh_token_file", "access_token_file"])]
    from: Option<PathBuf>,
    /// File with the refresh token; "-" is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    refresh_token_file: Option<PathBuf>,
    /// File with the access token; without one the hub redeems at once
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    access_token_file: Option<PathBuf>,
    /// Seconds until the access token expires
    #[arg(long, value_name = "SECONDS", conflicts_with = "from")]
    expires_in: Option<u64>,
    /// The scope that was granted
    #[arg(long, conflicts_with = "from")]
    scope: Option<String>,
}

/// A login, as the admin API takes it. What else a token endpoint answers is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Login {
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token_expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

pub(super) fn run(args: Args) -> Done {
    let admin = args.admin.connect()?;
    let json = args.admin.json;
    let config = args.admin.config.clone();
    block_on(async move {
        match args.action {
            Action::List { user } => {
                let grants = admin.user(&user).await?.grants;
                list(&grants, json)
            }
            Action::Show(which) => {
                let grants = admin.user(&which.user).await?.grants;
                let grant = grants.into_iter().find(|grant| grant.grant == which.grant);
                let grant = grant.ok_or_else(|| Outcome::Unknown(format!("{}: no such grant", which.grant)))?;
                if json { show::json(&grant) } else { one(&grant) }
            }
            Action::Put { which, login } => {
                let at = admin.send(Method::PUT, &which.path(&[]), &login.read()?).await?;
                version(&at, json)
            }
            Action::Login(args) => {
                let login = login::walk(&args, config.as_ref()).await?;
                let (provider, account) = (args.grant.provider(), args.grant.account());
                let path = ["users", args.user.as_str(), "grants", provider, account];
                version(&admin.send(Method::PUT, &path, &login).await?, json)
            }
            Action::Delete(which) => admin.delete(&which.path(&[])).await,
            Action::Refresh(which) => {
                let at = admin.send(Method::POST, &which.path(&["refresh"]), &json!({})).await?;
                version(&at, json)
            }
        }
    })
}

impl Which {
    fn path<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let grant = [self.grant.provider(), self.grant.account()];
        [&["users", self.user.as_str(), "grants"], &grant[..], more].concat()
    }
}

impl LoginArgs {
    fn read(&self) -> Result<Login, Outcome> {
        if let Some(file) = &self.from {
            let text = read(file)?;
            // The error of serde may quote the input, which holds tokens.
            return serde_json::from_str(text.expose()).map_err(|error| {
                Outcome::failed(format!(
                    "{}: not a token endpoint's answer (line {})",
                    file.display(),
                    error.line()
                ))
            });
        }
        let token = |file: &Option<PathBuf>| file.as_deref().map(read).transpose();
        Ok(Login {
            refresh_token: token(&self.refresh_token_file)?,
            access_token: token(&self.access_token_file)?,
            expires_in: self.expires_in,
            scope: self.scope.clone(),
            ..Login::default()
        })
    }
}

fn read(file: &Path) -> Result<Secret, Outcome> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|whole| text = whole)
    };
    read.map_err(|error| Outcome::failed(format!("{}: {error}", file.display())))?;
    match text.trim() {
        "" => Err(Outcome::failed(format!("{}: empty", file.display()))),
        text => Ok(Secret::new(text)),
    }
}

fn list(grants: &[Grant], json: bool) -> Done {
    if json {
        return show::json(&grants);
    }
    let rows: Vec<_> = grants
        .iter()
        .map(|grant| {
            [
                grant.grant.to_string(),
                grant.version.to_string(),
                grant.health.clone(),
                from_now(grant.expires_at),
                from_now(grant.refreshed_at),
                grant.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    show::table(["GRANT", "VERSION", "HEALTH", "EXPIRES", "REFRESHED", "REASON"], &rows)
}

fn one(grant: &Grant) -> Done {
    let rows = [
        ["version".to_owned(), grant.version.to_string()],
        ["seq".to_owned(), grant.seq.to_string()],
        ["health".to_owned(), grant.health.clone()],
        ["reason".to_owned(), grant.reason.clone().unwrap_or("-".into())],
        ["retry".to_owned(), from_now(grant.retry_at)],
        ["expires".to_owned(), from_now(grant.expires_at)],
        ["refreshed".to_owned(), from_now(grant.refreshed_at)],
    ];
    show::table(["grant", grant.grant.as_str()], &rows)
}

fn version(at: &GrantVersion, json: bool) -> Done {
    if json {
        show::json(at)
    } else {
        show::text(&format!("{} is at version {}\n", at.grant, at.version))
    }
}
