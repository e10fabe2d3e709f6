//! The calls of the hub's admin API that the demo needs.

use std::error::Error as _;

use lockstep_protocol::{DeviceId, GrantName, Secret, Seq, Version, http::Problem};
use reqwest::{Client, Method, RequestBuilder, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::HubProcess;

/// Speaks to one hub's admin API.
#[derive(Debug, Clone)]
pub struct Admin {
    http: Client,
    base: String,
    token: Secret,
}

/// Why an admin call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No answer, or not one that can be read.
    #[error("the hub's admin API cannot be used: {0}")]
    Http(String),
    /// An answer that says no.
    #[error("the hub's admin API says no: {why} (HTTP {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Why, in words for people.
        why: String,
    },
}

/// An enrolled device and its first tokens.
#[derive(Debug, Clone, Deserialize)]
pub struct Enrolled {
    /// The device.
    pub device_id: DeviceId,
    /// Its `lsd_…` token.
    pub device_refresh_token: Secret,
}

/// A user as the hub shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct UserView {
    /// The user's newest seq.
    pub seq: Seq,
    /// The user's grants.
    pub grants: Vec<GrantView>,
    /// The user's devices.
    pub devices: Vec<DeviceView>,
}

/// A grant as the hub shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct GrantView {
    /// Its name.
    pub grant: GrantName,
    /// Its newest version.
    pub version: Version,
}

/// A device as the hub shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct DeviceView {
    /// The device.
    pub device_id: DeviceId,
    /// Whether it has a session.
    pub connected: bool,
    /// The newest seq that it acked.
    pub acked: Option<Seq>,
    /// The grants whose newest word it has not acked.
    pub behind: Vec<String>,
}

/// A login for the hub to keep.
#[derive(Debug, Serialize)]
struct Login<'a> {
    access_token: &'a Secret,
    refresh_token: &'a Secret,
    expires_in: u64,
}

#[derive(Debug, Deserialize)]
struct AtVersion {
    version: Version,
}

impl Admin {
    /// For `hub`.
    pub fn new(hub: &HubProcess) -> Self {
        Self {
            http: direct(),
            base: format!("http://{}/admin/v1", hub.admin()),
            token: hub.admin_token().clone(),
        }
    }

    /// At the address of an admin API.
    pub fn at(base: &Url, token: Secret) -> Self {
        let here = matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let base = base.as_str().trim_end_matches('/');
        Self {
            http: if here { direct() } else { Client::new() },
            base: format!("{base}/admin/v1"),
            token,
        }
    }

    /// Gives the hub a login for the grant `demo/main` of `user`.
    ///
    /// # Errors
    /// When the hub refuses or does not answer.
    pub async fn login(&self, user: &str, granted: &crate::authserver::Granted) -> Result<Version, AdminError> {
        let login = Login {
            access_token: &granted.access_token,
            refresh_token: &granted.refresh_token,
            expires_in: granted.expires_in,
        };
        let request = self.request(Method::PUT, &format!("/users/{user}/grants/demo/main"));
        let answer: AtVersion = ask(request.json(&login)).await?;
        Ok(answer.version)
    }

    /// Enrols a device.
    ///
    /// # Errors
    /// When the hub refuses or does not answer.
    pub async fn enrol(&self, user: &str, kind: &str, name: &str) -> Result<Enrolled, AdminError> {
        self.enrol_as(user, kind, name, false).await
    }

    /// Enrols a device that may redeem, or may not.
    ///
    /// # Errors
    /// When the hub refuses or does not answer.
    pub async fn enrol_as(&self, user: &str, kind: &str, name: &str, redeemer: bool) -> Result<Enrolled, AdminError> {
        let body = json!({ "kind": kind, "name": name, "redeemer": redeemer });
        ask(self
            .request(Method::POST, &format!("/users/{user}/devices"))
            .json(&body))
        .await
    }

    /// The state of `user`.
    ///
    /// # Errors
    /// When the hub refuses or does not answer.
    pub async fn user(&self, user: &str) -> Result<UserView, AdminError> {
        ask(self.request(Method::GET, &format!("/users/{user}"))).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(self.token.expose())
    }
}

/// Speaks to this machine's own servers: a proxy for the outside world is not meant for them.
pub(crate) fn direct() -> Client {
    Client::builder().no_proxy().build().unwrap_or_default()
}

async fn ask<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, AdminError> {
    let response = request.send().await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response.json().await?);
    }
    let problem = response.json::<Problem>().await.map(|problem| problem.detail);
    Err(AdminError::Refused {
        status: status.as_u16(),
        why: problem.unwrap_or_else(|_| "this may not be an admin API".into()),
    })
}

impl From<reqwest::Error> for AdminError {
    fn from(error: reqwest::Error) -> Self {
        let mut words = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            words = format!("{words}: {cause}");
            source = cause.source();
        }
        Self::Http(words)
    }
}
