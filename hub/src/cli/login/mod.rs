//! `lockstep-hub grants login`: a user logs in at the provider, and the hub gets the grant.
//!
//! Either by the authorization code flow with PKCE and a redirect to this machine (RFC 8252, RFC 7636), or by the
//! provider's device flow (RFC 8628). The tokens go from the provider through this process to the admin API, and nowhere
//! else.

mod code;
mod device;

use std::{path::PathBuf, time::Duration};

use lockstep_protocol::{GrantName, Secret, UserId};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use super::{config::load, grants::Login, outcome::Outcome};
use crate::{
    config::ProviderSettings,
    provider::{Exchange, Provider},
};

/// How long one call of the provider may take.
const CALL_WITHIN: Duration = Duration::from_secs(30);

/// Where to log in, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The grant, as provider/account
    #[arg(value_name = "PROVIDER/ACCOUNT")]
    pub(super) grant: GrantName,
    /// Whose it is to be
    #[arg(long)]
    pub(super) user: UserId,
    /// By the provider's device flow: log in on another machine
    #[arg(long)]
    device: bool,
    /// Print the address, and do not open a browser
    #[arg(long)]
    no_browser: bool,
    /// The scope to ask for [default: that of the provider's settings]
    #[arg(long)]
    scope: Option<String>,
    /// One more parameter for the authorization endpoint, like access_type=offline; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "device")]
    params: Vec<(String, String)>,
    /// The port that the provider sends the browser back to [default: any free one]
    #[arg(long, default_value_t = 0, hide_default_value = true, conflicts_with = "device")]
    port: u16,
    /// How long to wait for the user
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = humantime::parse_duration)]
    patience: Duration,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Takes the user through the login; what the provider answered is what the admin API takes.
pub(super) async fn walk(args: &Args, config: Option<&PathBuf>) -> Result<Login, Outcome> {
    let config =
        config.ok_or_else(|| Outcome::failed("--config with the hub's settings is needed: they name the provider"))?;
    let config = load(config)?;
    let name = args.grant.provider();
    let settings = config
        .providers
        .get(name)
        .ok_or_else(|| Outcome::Unknown(format!("no provider {name} in the settings")))?;
    let provider = Provider::new(name, settings).map_err(Outcome::failed)?;
    let login = Walk {
        args,
        settings,
        provider: &provider,
    };
    let walked = async {
        if args.device {
            login.by_device().await
        } else {
            login.by_code().await
        }
    };
    match tokio::time::timeout(args.patience, walked).await {
        Ok(done) => done,
        Err(_) => Err(Outcome::NotNow("nobody logged in in time".into())),
    }
}

/// One login under way.
struct Walk<'a> {
    args: &'a Args,
    settings: &'a ProviderSettings,
    provider: &'a Provider,
}

/// An error answer (RFC 6749 section 5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

impl Walk<'_> {
    fn scope(&self) -> Option<&str> {
        self.args.scope.as_deref().or(self.settings.scope.as_deref())
    }

    /// The endpoint that a setting names.
    fn endpoint<'a>(&self, url: &'a Option<Url>, setting: &str) -> Result<&'a Url, Outcome> {
        url.as_ref().ok_or_else(|| {
            let name = self.provider.name();
            Outcome::failed(format!("providers.{name}.{setting} is not set"))
        })
    }

    /// Posts to one of the provider's endpoints; the outer error is that there was no answer, the inner the provider's.
    async fn post<T: DeserializeOwned>(
        &self,
        endpoint: &Url,
        fields: &[(&str, &str)],
    ) -> Result<Result<T, Refusal>, Outcome> {
        let exchange = Exchange {
            endpoint,
            fields,
            deadline: CALL_WITHIN,
        };
        let (status, body) = self
            .provider
            .ask(exchange)
            .await
            .map_err(|why| Outcome::Unreachable(format!("{}: {why}", endpoint.origin().ascii_serialization())))?;
        read(status, &body)
    }
}

/// What serde says of an answer may quote it, and it holds tokens: only that it cannot be read is told.
fn read<T: DeserializeOwned>(status: u16, body: &Secret) -> Result<Result<T, Refusal>, Outcome> {
    let unreadable = || {
        Outcome::failed(format!(
            "the provider answered {status} with something that is no OAuth answer"
        ))
    };
    if (200..300).contains(&status) {
        return serde_json::from_str(body.expose()).map(Ok).map_err(|_| unreadable());
    }
    serde_json::from_str(body.expose()).map(Err).map_err(|_| unreadable())
}

impl Refusal {
    fn told(self) -> Outcome {
        let more = self
            .error_description
            .map(|more| format!(": {more}"))
            .unwrap_or_default();
        Outcome::failed(format!("the provider refused: {}{more}", self.error))
    }
}
