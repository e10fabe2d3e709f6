//! Talks to a hub's admin API.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use lockstep_protocol::{Secret, http::Problem};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::{Serialize, de::DeserializeOwned};

use super::{config::load, outcome::Outcome};
use crate::{
    config::{Config, is_loopback},
    error::chain,
};

/// Where a hub's admin API is unless it is told.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:8788";
/// A redeem and its retries may take this long (`PUT` and `refresh` wait for them).
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Which hub, and who we are.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// Address of the admin API [default: admin_listen of --config, else http://127.0.0.1:8788]
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "LOCKSTEP_ADMIN",
        help_heading = "The hub"
    )]
    admin: Option<Url>,
    /// The admin token; other users of this machine can see it on the command line, so better set the variable
    #[arg(
        long,
        global = true,
        env = "LOCKSTEP_ADMIN_TOKEN",
        hide_env_values = true,
        help_heading = "The hub"
    )]
    token: Option<String>,
    /// File with the admin token [default: admin_token_file of --config]
    #[arg(long, value_name = "FILE", global = true, help_heading = "The hub")]
    token_file: Option<PathBuf>,
    /// The hub's settings, for its address and its token's file
    #[arg(long, value_name = "FILE", global = true, help_heading = "The hub")]
    pub(super) config: Option<PathBuf>,
    /// Answer with JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// A hub's admin API.
pub(super) struct Admin {
    client: Client,
    base: Url,
    token: Secret,
}

impl AdminArgs {
    pub(super) fn connect(&self) -> Result<Admin, Outcome> {
        let config = self.config.as_deref().map(load).transpose()?;
        let base = self.base(config.as_ref())?;
        let mut client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&base) {
            client = client.no_proxy();
        }
        Ok(Admin {
            client: client.build().map_err(Outcome::failed)?,
            base,
            token: self.token(config.as_ref())?,
        })
    }

    fn base(&self, config: Option<&Config>) -> Result<Url, Outcome> {
        let text = match (&self.admin, config) {
            (Some(url), _) => return Ok(url.clone()),
            (None, Some(config)) => {
                let mut address = config.server.admin_listen;
                if address.port() == 0 {
                    return Err(Outcome::failed(
                        "admin_listen has port 0: tell the hub's address with --admin",
                    ));
                }
                if address.ip().is_unspecified() {
                    address.set_ip(match address {
                        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                    });
                }
                let scheme = if config.serves_admin_over_tls() {
                    "https"
                } else {
                    "http"
                };
                format!("{scheme}://{address}")
            }
            (None, None) => DEFAULT_ADMIN.to_owned(),
        };
        text.parse().map_err(Outcome::failed)
    }

    fn token(&self, config: Option<&Config>) -> Result<Secret, Outcome> {
        if let Some(token) = &self.token {
            return Ok(Secret::new(token.trim()));
        }
        let file = self
            .token_file
            .as_deref()
            .or(config.map(|c| c.server.admin_token_file.as_path()))
            .ok_or_else(|| {
                Outcome::Unauthorized(
                    "no admin token: set LOCKSTEP_ADMIN_TOKEN, --token-file, or --config with the hub's settings"
                        .into(),
                )
            })?;
        let text = std::fs::read_to_string(file)
            .map_err(|error| Outcome::Unauthorized(format!("{}: {error}", file.display())))?;
        Ok(Secret::new(text.trim()))
    }
}

impl Admin {
    /// Asks for JSON.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Outcome> {
        self.answer(self.request(Method::GET, path)?).await
    }

    /// Sends JSON, and is answered with JSON.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, Outcome> {
        self.answer(self.request(method, path)?.json(body)).await
    }

    /// Asks for something to be done that is answered with nothing but success.
    pub(super) async fn delete(&self, path: &[&str]) -> Result<(), Outcome> {
        ask(self.request(Method::DELETE, path)?).await.map(drop)
    }

    /// `path` are segments below `/admin/v1`: a name cannot leave its place.
    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, Outcome> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Outcome::failed(format!("{}: not an address of a hub", self.base)))?
            .pop_if_empty()
            .extend(["admin", "v1"])
            .extend(path);
        Ok(self.client.request(method, url).bearer_auth(self.token.expose()))
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Outcome> {
        let bytes = ask(request).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Outcome::Unreachable(format!("{}: not a hub's answer: {error}", self.base)))
    }
}

async fn ask(request: RequestBuilder) -> Result<bytes::Bytes, Outcome> {
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let body = response.bytes().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(body);
    }
    let problem: Option<Problem> = serde_json::from_slice(&body).ok();
    let why = match problem {
        Some(problem) => explain(&problem),
        None => format!("the hub answered {status}"),
    };
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Unauthorized(why),
        StatusCode::NOT_FOUND => Outcome::Unknown(why),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Outcome::NotNow(why),
        _ => Outcome::Refused(why),
    })
}

fn explain(problem: &Problem) -> String {
    let when = problem
        .retry_at
        .map(|at| format!("; try again {}", super::show::from_now(Some(at))))
        .unwrap_or_default();
    format!("{}: {}{when}", problem.code, problem.detail)
}

fn unreachable(error: reqwest::Error) -> Outcome {
    let hub = error.url().map(|url| url.origin().ascii_serialization());
    let why = chain(&error.without_url());
    Outcome::Unreachable(format!("{}: {why}", hub.unwrap_or_default()))
}
