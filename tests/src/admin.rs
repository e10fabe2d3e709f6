//! The admin API, spoken with a plain HTTP client.

use std::{sync::LazyLock, time::Duration};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::device::Enrolled;

/// An answer over HTTP.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; null if it is empty, a string if it is not JSON.
    pub body: Value,
}

impl Answer {
    /// Sends `request` and reads the whole answer.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn to(request: RequestBuilder) -> Self {
        Self::try_to(request).await.expect("an HTTP answer")
    }

    /// The same, when it may well be that none comes.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn try_to(request: RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let text = response.text().await?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        Ok(Self { status, headers, body })
    }

    /// The field `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body, if the status is `status`.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "the body was {}", self.body);
        self.body
    }

    /// The body's string `key`; empty if there is none.
    pub fn text(&self, key: &str) -> &str {
        self.body[key].as_str().unwrap_or_default()
    }
}

/// A client without proxies, pools or redirects: what a test says goes to the hub as it is.
///
/// # Panics
/// When the system has no TLS roots at all.
pub fn http() -> Client {
    // One for all: building one reads the system's certificates, and nothing is kept between two requests.
    static CLIENT: LazyLock<Client> = LazyLock::new(|| {
        Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            // A request may ask for less.
            .timeout(Duration::from_secs(90))
            .build()
            .expect("an HTTP client")
    });
    CLIENT.clone()
}

/// The admin API of a hub.
#[derive(Debug, Clone)]
pub struct Admin {
    base: String,
    token: String,
    http: Client,
}

impl Admin {
    /// Speaks to `base` (`http://host:port`) with `token`.
    pub fn new(base: String, token: String) -> Self {
        Self {
            base,
            token,
            http: http(),
        }
    }

    /// A request to `path` with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(&self.token)
    }

    /// A request to `path` without a token.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// A login: `PUT …/users/{user}/grants/{grant}`.
    pub async fn login(&self, user: &str, grant: &str, tokens: &Value) -> Answer {
        let path = format!("/admin/v1/users/{user}/grants/{grant}");
        Answer::to(self.request(Method::PUT, &path).json(tokens)).await
    }

    /// `DELETE` of a grant.
    pub async fn delete_grant(&self, user: &str, grant: &str) -> Answer {
        Answer::to(self.request(Method::DELETE, &format!("/admin/v1/users/{user}/grants/{grant}"))).await
    }

    /// `DELETE` of a user.
    pub async fn delete_user(&self, user: &str) -> Answer {
        Answer::to(self.request(Method::DELETE, &format!("/admin/v1/users/{user}"))).await
    }

    /// Enrols a device of kind `cli`.
    pub async fn enrol(&self, user: &str) -> Enrolled {
        self.enrol_as(user, &json!({"kind": "cli", "name": "test"})).await
    }

    /// Enrols a device.
    ///
    /// # Panics
    /// When the hub refuses, or its answer lacks a field.
    pub async fn enrol_as(&self, user: &str, device: &Value) -> Enrolled {
        let path = format!("/admin/v1/users/{user}/devices");
        let body = Answer::to(self.request(Method::POST, &path).json(device))
            .await
            .expect(201);
        let text = |key: &str| {
            body[key]
                .as_str()
                .unwrap_or_else(|| panic!("{key} in {body}"))
                .to_owned()
        };
        Enrolled {
            user: user.to_owned(),
            id: text("device_id"),
            refresh_token: text("device_refresh_token"),
            access_token: text("access_token"),
        }
    }

    /// `DELETE` of a device.
    pub async fn revoke(&self, device: &Enrolled) -> Answer {
        Answer::to(self.request(Method::DELETE, &format!("/admin/v1/devices/{}", device.id))).await
    }

    /// The view of a user.
    pub async fn user(&self, user: &str) -> Answer {
        Answer::to(self.request(Method::GET, &format!("/admin/v1/users/{user}"))).await
    }

    /// The view of one grant of a user; null if it is not listed.
    pub async fn grant(&self, user: &str, grant: &str) -> Value {
        self.user(user).await.entry("grants", "grant", grant)
    }

    /// The view of one device of a user; null if it is not listed.
    pub async fn device(&self, device: &Enrolled) -> Value {
        self.user(&device.user).await.entry("devices", "device_id", &device.id)
    }

    /// Orders a refresh.
    pub async fn refresh(&self, user: &str, grant: &str) -> Answer {
        let path = format!("/admin/v1/users/{user}/grants/{grant}/refresh");
        Answer::to(self.request(Method::POST, &path)).await
    }
}

impl Answer {
    fn entry(&self, list: &str, key: &str, value: &str) -> Value {
        let entries = self.body[list].as_array().cloned().unwrap_or_default();
        entries
            .into_iter()
            .find(|entry| entry[key] == value)
            .unwrap_or(Value::Null)
    }
}
