//! The HTTP half of enrolment: the device flow (RFC 8628), and the first purchase with a token that was handed over.

use std::time::Duration;

use lockstep_protocol::{DeviceId, Secret};
use reqwest::{RequestBuilder, Response};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use super::{
    http::{self, chain, plain, retry_after},
    net::Net,
};
use crate::enrol::{EnrolError, Enrolled};

/// The largest answer that is read.
const MOST_BODY: usize = 64 * 1024;
/// How often to ask when the hub does not say (RFC 8628 section 3.2).
const USUAL_INTERVAL: u64 = 5;
const LONGEST_INTERVAL: u64 = 300;
/// The longest that a code is believed to be good.
const LONGEST_LIFE: u64 = 24 * 3600;

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A login that waits for approval.
pub(crate) struct Begun {
    pub(crate) device_code: Secret,
    pub(crate) user_code: String,
    pub(crate) verification_uri: String,
    pub(crate) verification_uri_complete: Option<String>,
    pub(crate) expires_in: Duration,
    pub(crate) interval: Duration,
}

/// What became of a login.
pub(crate) enum Asked {
    Enrolled(Enrolled),
    Pending,
    SlowDown,
}

/// Begins a login (RFC 8628 section 3.1).
pub(crate) async fn begin(net: &Net, name: &str, kind: &str) -> Result<Begun, EnrolError> {
    #[derive(Deserialize)]
    struct Answer {
        device_code: Secret,
        user_code: String,
        verification_uri: String,
        #[serde(default)]
        verification_uri_complete: Option<String>,
        expires_in: u64,
        #[serde(default)]
        interval: Option<u64>,
    }
    let form = [("device_name", name), ("device_kind", kind)];
    let response = post(net, net.hub.device_authorization(), &form).await?;
    let answer: Answer = granted(response).await.map_err(|refusal| refusal.enrol_error())?;
    let interval = answer.interval.unwrap_or(USUAL_INTERVAL).clamp(1, LONGEST_INTERVAL);
    Ok(Begun {
        device_code: answer.device_code,
        user_code: plain(&answer.user_code),
        verification_uri: shown(&answer.verification_uri)?,
        verification_uri_complete: answer.verification_uri_complete.as_deref().map(shown).transpose()?,
        expires_in: Duration::from_secs(answer.expires_in.min(LONGEST_LIFE)),
        interval: Duration::from_secs(interval),
    })
}

/// Asks once whether the user has approved (RFC 8628 section 3.4).
pub(crate) async fn ask(net: &Net, device_code: &Secret) -> Result<Asked, EnrolError> {
    #[derive(Deserialize)]
    struct Answer {
        refresh_token: Secret,
        device_id: DeviceId,
    }
    let form = [("grant_type", DEVICE_CODE), ("device_code", device_code.expose())];
    let response = post(net, net.hub.token_endpoint(), &form).await?;
    match granted::<Answer>(response).await {
        Ok(answer) => Ok(Asked::Enrolled(Enrolled::new(answer.device_id, answer.refresh_token))),
        Err(refusal) => match refusal.error.as_deref() {
            Some("authorization_pending") => Ok(Asked::Pending),
            Some("slow_down") => Ok(Asked::SlowDown),
            Some("access_denied") => Err(EnrolError::Denied),
            Some("expired_token") => Err(EnrolError::Expired),
            _ => Err(refusal.enrol_error()),
        },
    }
}

/// Presents a device refresh token for the first time, and learns whose it is.
pub(crate) async fn adopt(net: &Net, refresh_token: &Secret) -> Result<Enrolled, EnrolError> {
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token.expose()),
    ];
    #[derive(Deserialize)]
    struct Answer {
        refresh_token: Option<Secret>,
        device_id: DeviceId,
    }
    let response = post(net, net.hub.token_endpoint(), &form).await?;
    match granted::<Answer>(response).await {
        Ok(answer) => {
            let newest = answer.refresh_token.unwrap_or_else(|| refresh_token.clone());
            Ok(Enrolled::new(answer.device_id, newest))
        }
        Err(refusal) => Err(refusal.enrol_error()),
    }
}

/// An answer other than success.
struct Refusal {
    status: u16,
    error: Option<String>,
    description: Option<String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn enrol_error(self) -> EnrolError {
        let words = match (self.description.or(self.error), self.status) {
            (Some(words), _) => words,
            (None, 200..=299) => "the answer is not a hub's".to_owned(),
            (None, status) => format!("HTTP {status}"),
        };
        match self.status {
            404 | 405 | 501 => EnrolError::NotOffered(self.status),
            408 | 429 | 500.. => EnrolError::Later {
                reason: words,
                retry_after: self.retry_after,
            },
            200..=399 => EnrolError::Unreachable(words),
            _ => EnrolError::Refused(words),
        }
    }
}

async fn post(net: &Net, url: Url, form: &[(&str, &str)]) -> Result<Response, EnrolError> {
    let request: RequestBuilder = net
        .http
        .post(url)
        .form(form)
        .timeout(net.timing.connect + net.timing.answer);
    let sent = request.send().await;
    sent.map_err(|error| EnrolError::Unreachable(format!("{}: {}", net.hub.as_str(), chain(&error.without_url()))))
}

async fn granted<T: DeserializeOwned>(response: Response) -> Result<T, Refusal> {
    #[derive(Deserialize)]
    struct Refused {
        error: String,
        #[serde(default)]
        error_description: Option<String>,
    }
    let status = response.status();
    let wait = retry_after(response.headers());
    let body = http::read(response, MOST_BODY).await;
    let refusal = |refused: Option<Refused>| Refusal {
        status: status.as_u16(),
        description: refused
            .as_ref()
            .and_then(|refused| refused.error_description.as_deref())
            .map(words),
        error: refused.map(|refused| plain(&refused.error)),
        retry_after: wait,
    };
    let Ok(body) = body else {
        return Err(refusal(None));
    };
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| refusal(None));
    }
    Err(refusal(serde_json::from_slice(&body).ok()))
}

/// Words of an answer, as far as they are fit to be shown.
fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(256).collect()
}

/// An address that people are sent to: a web address, and nothing that a terminal would act upon.
fn shown(uri: &str) -> Result<String, EnrolError> {
    match Url::parse(uri) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url.into()),
        _ => Err(EnrolError::Unreachable(
            "the hub's answer names no web page for the approval".into(),
        )),
    }
}
