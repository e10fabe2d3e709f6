//! Tells a webhook about alerts: bounded, retried, never waited for.

use std::time::Duration;

use reqwest::Client;
use serde::Serialize;
use tokio::{sync::mpsc, time::sleep};

use super::rules::Change;
use crate::{
    clock,
    config::{Alerts, is_loopback},
    error::chain,
    telemetry::metrics,
};

/// How many changes may wait; more than that is a flood that nobody reads.
const WAITING: usize = 64;
/// How often one change is sent before it is given up.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a webhook is sent.
#[derive(Debug, Serialize)]
struct Message {
    /// The alert's name.
    alert: &'static str,
    /// `firing` or `resolved`.
    state: &'static str,
    /// 0 to 3.
    level: u8,
    value: f64,
    threshold: f64,
    /// For people.
    message: &'static str,
    /// Which node says so.
    node: String,
    /// Unix seconds.
    time: u64,
}

/// Where changes are handed in.
#[derive(Debug)]
pub(super) struct Webhook {
    queue: mpsc::Sender<Message>,
    node: String,
}

impl Webhook {
    /// Starts the task that sends. None: no webhook is configured, or there is no HTTP client to be had.
    pub(super) fn start(settings: &Alerts, node: &str) -> Option<Self> {
        let url = reqwest::Url::parse(settings.webhook.as_ref()?.expose()).ok()?;
        let mut client = Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&url) {
            client = client.no_proxy();
        }
        let client = match client.build() {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(error = chain(&error), "no HTTP client for the alerts' webhook");
                return None;
            }
        };
        let (queue, waiting) = mpsc::channel(WAITING);
        tokio::spawn(send_all(client, url, waiting));
        Some(Self {
            queue,
            node: node.to_owned(),
        })
    }

    /// Hands in a change. What does not fit is counted and dropped: it is in the log and in the metrics.
    pub(super) fn tell(&self, change: &Change) {
        let message = Message {
            alert: change.alert.as_str(),
            state: if change.level == 0 { "resolved" } else { "firing" },
            level: change.level,
            value: change.value,
            threshold: change.threshold,
            message: change.alert.meaning(),
            node: self.node.clone(),
            time: clock::unix().seconds().0,
        };
        if self.queue.try_send(message).is_err() {
            metrics::webhook_failed();
        }
    }
}

async fn send_all(client: Client, url: reqwest::Url, mut waiting: mpsc::Receiver<Message>) {
    while let Some(message) = waiting.recv().await {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=TRIES {
            match send(&client, &url, &message).await {
                Ok(()) => break,
                Err(why) if attempt == TRIES => {
                    tracing::warn!(alert = message.alert, why, "the webhook did not take an alert");
                    metrics::webhook_failed();
                }
                Err(why) => {
                    tracing::debug!(alert = message.alert, why, "the webhook is tried again");
                    sleep(pause).await;
                    pause *= 4;
                }
            }
        }
    }
}

/// The URL may hold a secret: errors leave it out.
async fn send(client: &Client, url: &reqwest::Url, message: &Message) -> Result<(), String> {
    let sent = client.post(url.clone()).json(message).send().await;
    let answer = sent.map_err(|error| chain(&error.without_url()))?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("answered {}", answer.status()))
    }
}
