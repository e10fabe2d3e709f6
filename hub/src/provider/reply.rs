//! Reads an answer, bounded.

use std::time::{Duration, SystemTime};

use lockstep_engine::grant::ProviderReply;
use lockstep_protocol::Secret;
use reqwest::{
    RequestBuilder, Response,
    header::{HeaderMap, RETRY_AFTER},
};
use zeroize::Zeroizing;

use crate::error::chain;

/// The most of a body that is read; no token set is larger.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// Sends a request and reads its answer.
///
/// # Errors
/// Why there is no whole answer; never a secret.
pub(super) async fn receive(request: RequestBuilder) -> Result<ProviderReply, String> {
    let response = request.send().await.map_err(|error| chain(&error.without_url()))?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let body = body(response).await?;
    Ok(ProviderReply::Answered {
        status,
        retry_after,
        body,
    })
}

async fn body(mut response: Response) -> Result<Secret, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error.without_url()))? {
        let room = MAX_BODY - bytes.len();
        if chunk.len() > room {
            bytes.extend_from_slice(&chunk[..room]);
            break;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Secret::new(String::from_utf8_lossy(&bytes)))
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}
