//! The provider's device flow (RFC 8628): the user logs in on whatever machine has a browser.

use std::time::Duration;

use lockstep_protocol::Secret;
use serde::Deserialize;

use super::{Login, Outcome, Walk};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// RFC 8628 section 3.2.
#[derive(Deserialize)]
struct Codes {
    device_code: Secret,
    user_code: String,
    // Some providers spell it with an l.
    #[serde(alias = "verification_url")]
    verification_uri: String,
    verification_uri_complete: Option<String>,
    #[serde(default = "five")]
    interval: u64,
}

const fn five() -> u64 {
    5
}

impl Walk<'_> {
    /// Shows the code and asks until the user has answered. Whoever calls bounds it in time.
    pub(super) async fn by_device(&self) -> Result<Login, Outcome> {
        let endpoint = self.endpoint(
            &self.settings.device_authorization_endpoint,
            "device_authorization_endpoint",
        )?;
        let scope = self.scope().map(|scope| ("scope", scope));
        let fields: Vec<_> = scope.into_iter().collect();
        let codes: Codes = self.post(endpoint, &fields).await?.map_err(super::Refusal::told)?;
        eprintln!("Open {} and type {}", codes.verification_uri, codes.user_code);
        if let Some(complete) = &codes.verification_uri_complete {
            eprintln!("or open {complete}");
        }
        let mut interval = Duration::from_secs(codes.interval.max(1));
        loop {
            tokio::time::sleep(interval).await;
            let fields = [("grant_type", GRANT_TYPE), ("device_code", codes.device_code.expose())];
            let refusal = match self.post(&self.settings.token_endpoint, &fields).await {
                Ok(Ok(login)) => return Ok(login),
                Ok(Err(refusal)) => refusal,
                // RFC 8628 section 3.5: a lost answer is no reason to give up.
                Err(Outcome::Unreachable(_)) => continue,
                Err(other) => return Err(other),
            };
            match refusal.error.as_str() {
                "authorization_pending" => {}
                "slow_down" => interval += Duration::from_secs(5),
                _ => return Err(refusal.told()),
            }
        }
    }
}
