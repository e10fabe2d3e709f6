//! Every device refreshes by itself.

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use lockstep_protocol::Secret;
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Options, StormError, device_name, strict_authserver};
use crate::{authserver::Authserver, hub::direct, term::Terminal};

/// What came of the part without a hub.
#[derive(Debug, Clone, Serialize)]
pub struct Without {
    /// Each device, in order.
    pub devices: Vec<LoneDevice>,
    /// Calls of the token endpoint.
    pub token_calls: u64,
    /// Refreshes that were answered `invalid_grant`.
    pub invalid_grants: u64,
    /// Whether the authorization server revoked the family.
    pub family_revoked: bool,
    /// Devices without a good token at the end.
    pub logged_out: usize,
}

/// What became of one device.
#[derive(Debug, Clone, Serialize)]
pub struct LoneDevice {
    /// Its name.
    pub name: String,
    /// The HTTP status of its refresh.
    pub refresh_status: u16,
    /// The `error` of its refresh, when it was refused.
    pub refresh_error: Option<String>,
    /// Whether it has no good token at the end.
    pub logged_out: bool,
}

/// A device that does what programs do today: on 401 it refreshes, and on `invalid_grant` it wipes its tokens.
struct Device {
    name: String,
    http: Client,
    access_token: Option<Secret>,
    refresh_token: Secret,
}

#[derive(Deserialize)]
struct Refreshed {
    access_token: Option<Secret>,
    error: Option<String>,
}

pub(super) async fn run(options: Options, terminal: Terminal) -> Result<Without, StormError> {
    let server = strict_authserver(options.access_ttl).await?;
    let granted = server.grant();
    let mut devices: Vec<_> = (0..options.devices)
        .map(|index| Device {
            name: device_name(index).1,
            http: direct(),
            access_token: Some(granted.access_token.clone()),
            refresh_token: granted.refresh_token.clone(),
        })
        .collect();

    let spinner = terminal.spinner("all devices work; their token is about to expire");
    while devices[0].has_good_token(&server).await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(spinner);
    let outcomes = try_join_all(devices.iter_mut().map(|device| device.refresh(&server))).await?;
    let good = join_all(devices.iter().map(|device| device.has_good_token(&server))).await;

    let mut report = Vec::new();
    for ((device, (status, error)), good) in devices.into_iter().zip(outcomes).zip(good) {
        report.push(LoneDevice {
            name: device.name,
            refresh_status: status.as_u16(),
            refresh_error: error,
            logged_out: !good?,
        });
    }
    let stats = server.stats();
    Ok(Without {
        logged_out: report.iter().filter(|device| device.logged_out).count(),
        devices: report,
        token_calls: stats.calls,
        invalid_grants: stats.invalid_grants,
        family_revoked: stats.revoked_families > 0,
    })
}

impl Device {
    async fn has_good_token(&self, server: &Authserver) -> Result<bool, reqwest::Error> {
        let Some(token) = &self.access_token else {
            return Ok(false);
        };
        let request = self.http.get(server.resource()).bearer_auth(token.expose());
        Ok(request.send().await?.status() == StatusCode::OK)
    }

    async fn refresh(&mut self, server: &Authserver) -> Result<(StatusCode, Option<String>), reqwest::Error> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", self.refresh_token.expose()),
            ("client_id", "client-demo"),
        ];
        let response = self.http.post(server.token_endpoint()).form(&form).send().await?;
        let status = response.status();
        let refreshed: Refreshed = response.json().await?;
        self.access_token = refreshed.access_token;
        Ok((status, refreshed.error))
    }
}
