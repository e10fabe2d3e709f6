//! The HTTP half of the protocol: device access tokens, long-poll, refresh.

use std::{error::Error as StdError, time::Duration};

use lockstep_protocol::{
    Cursor, GrantName, Secret, Version,
    frame::Token,
    http::{GrantVersion, PollAnswer, Problem, RefreshBody},
};
use reqwest::{RequestBuilder, Response, header};
use serde::{Deserialize, de::DeserializeOwned};
use tokio_tungstenite::tungstenite::http::HeaderMap;

use super::net::Net;
use crate::machine::{Bought, HttpTrouble, NoAccess, Refusal};

/// The largest body that is read: a poll answers with every grant of a user.
const MOST_BODY: usize = 8 * 1024 * 1024;
/// The largest error body that is looked at.
const MOST_ERROR: usize = 64 * 1024;
/// A `Retry-After` further away than this is not believed.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);
/// How long a `refresh` may wait at the hub for a redeem and its retries.
const REFRESH_ANSWER: Duration = Duration::from_secs(90);

/// What the hub's token endpoint gives a device.
#[derive(Debug, Clone)]
pub(crate) struct Purchase {
    pub(crate) access: Bought,
    /// The next device refresh token, when it rotated.
    pub(crate) next: Option<Secret>,
}

/// Buys a device access token (RFC 6749 section 6).
pub(crate) async fn buy(net: &Net, device: &str, refresh_token: &Secret) -> Result<Purchase, NoAccess> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: Secret,
        #[serde(default)]
        expires_in: Option<u64>,
        #[serde(default)]
        refresh_token: Option<Secret>,
    }
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token.expose()),
        ("client_id", device),
    ];
    let request = net
        .http
        .post(net.hub.token_endpoint())
        .form(&form)
        .timeout(net.timing.connect + net.timing.answer);
    let later = |reason: String| NoAccess::Later {
        reason: format!("device access token: {reason}"),
        retry_after: None,
    };
    let response = request
        .send()
        .await
        .map_err(|error| later(chain(&error.without_url())))?;
    let status = response.status();
    if !status.is_success() {
        return Err(refused(status.as_u16(), response).await);
    }
    let granted: Granted = body(response, MOST_ERROR).await.map_err(later)?;
    Ok(Purchase {
        access: Bought {
            token: granted.access_token,
            good_for: granted.expires_in.map(Duration::from_secs),
        },
        next: granted.refresh_token.filter(|next| next != refresh_token),
    })
}

/// RFC 6749 section 5.2: only these words mean that the credential is at fault; everything else is worth another try.
async fn refused(status: u16, response: Response) -> NoAccess {
    #[derive(Deserialize)]
    struct Refused {
        error: String,
    }
    let wait = retry_after(response.headers());
    let word = body::<Refused>(response, MOST_ERROR).await.map(|refused| refused.error);
    match word.as_deref() {
        Ok(word @ ("invalid_grant" | "invalid_client" | "unauthorized_client"))
            if matches!(status, 400 | 401 | 403) =>
        {
            NoAccess::Refused(format!("the device refresh token was refused: {word}"))
        }
        Ok(word) => NoAccess::Later {
            reason: format!("device access token: HTTP {status} {}", plain(word)),
            retry_after: wait,
        },
        // A hub always says why.
        Err(_) if matches!(status, 404 | 405) => NoAccess::Later {
            reason: format!("device access token: HTTP {status}: no hub's address for devices, it seems"),
            retry_after: wait,
        },
        Err(_) => NoAccess::Later {
            reason: format!("device access token: HTTP {status}"),
            retry_after: wait,
        },
    }
}

/// A word of an answer, as far as it is fit to be shown.
pub(crate) fn plain(word: &str) -> String {
    word.chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(64)
        .collect()
}

/// `GET /v1/tokens`. `None`: nothing newer.
pub(crate) async fn poll(
    net: &Net,
    token: &Secret,
    after: Option<Cursor>,
    wait: Duration,
) -> Result<Option<Box<PollAnswer>>, HttpTrouble> {
    let mut query = vec![("wait", wait.as_secs().to_string())];
    if let Some(after) = after {
        query.push(("after", after.to_string()));
    }
    let request = net
        .http
        .get(net.hub.tokens())
        .query(&query)
        .timeout(wait + net.timing.connect + net.timing.answer);
    let response = send(request, token).await?;
    if response.status().as_u16() == 204 {
        return Ok(None);
    }
    let answer = body(response, MOST_BODY).await.map_err(HttpTrouble::Broken)?;
    Ok(Some(Box::new(answer)))
}

/// `POST /v1/grants/{provider}/{account}/refresh`: waits for the outcome.
pub(crate) async fn refresh(
    net: &Net,
    token: &Secret,
    grant: &GrantName,
    version: Version,
) -> Result<Version, HttpTrouble> {
    let request = net
        .http
        .post(net.hub.refresh(grant))
        .json(&RefreshBody {
            rejected_version: version,
        })
        .timeout(REFRESH_ANSWER);
    let response = send(request, token).await?;
    let answer: GrantVersion = body(response, MOST_ERROR).await.map_err(HttpTrouble::Broken)?;
    Ok(answer.version)
}

/// `GET /v1/grants/{provider}/{account}/token`: the hub refreshes first if it must.
pub(crate) async fn fetch(
    net: &Net,
    token: &Secret,
    grant: &GrantName,
    min_validity: Duration,
) -> Result<Box<Token>, HttpTrouble> {
    let request = net
        .http
        .get(net.hub.token(grant))
        .query(&[("min_validity", min_validity.as_secs())])
        .timeout(REFRESH_ANSWER);
    let response = send(request, token).await?;
    let answer: Token = body(response, MOST_ERROR).await.map_err(HttpTrouble::Broken)?;
    if answer.grant == *grant {
        Ok(Box::new(answer))
    } else {
        Err(HttpTrouble::Broken("the answer is about another grant".into()))
    }
}

async fn send(request: RequestBuilder, token: &Secret) -> Result<Response, HttpTrouble> {
    let response = request.bearer_auth(token.expose()).send().await.map_err(|error| {
        let unreached = error.is_connect() || error.is_builder();
        let words = chain(&error.without_url());
        if unreached {
            HttpTrouble::Unreachable(words)
        } else {
            HttpTrouble::Broken(words)
        }
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let wait = retry_after(response.headers());
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.contains("json"));
    let problem = if json {
        body::<Problem>(response, MOST_ERROR).await.ok()
    } else {
        None
    };
    Err(HttpTrouble::Status {
        status: status.as_u16(),
        retry_after: wait,
        problem: problem.map(|problem| Refusal {
            code: problem.code,
            message: if problem.detail.is_empty() {
                problem.title
            } else {
                problem.detail
            },
            retry_at: problem.retry_at,
        }),
    })
}

/// Reads a JSON body up to a bound. The error never repeats any of it: it may hold a token.
async fn body<T: DeserializeOwned>(response: Response, most: usize) -> Result<T, String> {
    let bytes = read(response, most).await?;
    serde_json::from_slice(&bytes).map_err(|error| format!("answer not understood (line {})", error.line()))
}

/// Reads a body up to a bound.
pub(crate) async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error.without_url()))? {
        if bytes.len() + chunk.len() > most {
            return Err(format!("answer larger than {most} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The `Retry-After` header (RFC 9110 section 10.2.3) in seconds; a date is not worth the trust in two clocks, and
/// counts as the shortest wait that one can be.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse::<u64>().unwrap_or(1);
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY))
}

/// An error with all that it says about its causes.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    // What the HTTP library says of itself helps nobody.
    for layer in ["error sending request: ", "client error (Connect): "] {
        words = words.strip_prefix(layer).map(str::to_owned).unwrap_or(words);
    }
    words
}
