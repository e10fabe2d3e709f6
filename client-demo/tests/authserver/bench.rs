//! A server of its own for each test, and what tests ask of it.

use std::time::{Duration, Instant};

use client_demo::authserver::{Authserver, Settings};
use reqwest::{Response, StatusCode, redirect::Policy};
use serde_json::Value;

/// Long enough for a busy machine; no test waits for it in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) server: Authserver,
    pub(crate) http: reqwest::Client,
}

impl Bench {
    pub(crate) async fn strict() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let listen = "127.0.0.1:0".parse().unwrap();
        Self {
            server: Authserver::start(listen, settings).await.unwrap(),
            http: reqwest::Client::builder()
                .redirect(Policy::none())
                .timeout(PATIENCE)
                .build()
                .unwrap(),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.addr())
    }

    pub(crate) async fn grant(&self) -> (String, String, String) {
        let made = self.http.post(self.url("/control/grants")).send().await.unwrap();
        assert_eq!(made.status(), StatusCode::CREATED);
        let made: Value = made.json().await.unwrap();
        (
            text(&made, "grant"),
            text(&made, "access_token"),
            text(&made, "refresh_token"),
        )
    }

    pub(crate) async fn try_refresh(&self, token: &str) -> reqwest::Result<Response> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", "app"),
        ];
        self.http.post(self.url("/token")).form(&form).send().await
    }

    pub(crate) async fn refresh(&self, token: &str) -> (StatusCode, Value) {
        let response = self.try_refresh(token).await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    pub(crate) async fn resource(&self, access: &str) -> Response {
        self.http
            .get(self.url("/resource"))
            .bearer_auth(access)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn fault(&self, spec: Value) {
        let answer = self
            .http
            .post(self.url("/control/faults"))
            .json(&spec)
            .send()
            .await
            .unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::NO_CONTENT,
            "{}",
            answer.text().await.unwrap()
        );
    }

    pub(crate) async fn calls(&self) -> Vec<Value> {
        self.http
            .get(self.url("/control/calls"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// Waits until so many calls have arrived.
    pub(crate) async fn called(&self, count: usize) {
        let until = Instant::now() + PATIENCE;
        while self.calls().await.len() < count {
            assert!(Instant::now() < until, "fewer than {count} calls");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn stats(&self) -> Value {
        self.http
            .get(self.url("/control/stats"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}

pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {value}"))
        .into()
}
