//! What came of a redeem, judged by the table of the design's section 4. Pure.

use std::time::Duration;

use lockstep_protocol::{Secret, limits::fits};
use serde_json::{Map, Value};

use super::ProviderReply;

/// The rows of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Committed by the provider.
    Committed(Box<Issued>),
    /// Certainly (or most likely) not processed.
    NotProcessed {
        retry_after: Option<Duration>,
        detail: String,
    },
    /// Not processed, and not the grant's fault.
    RateLimited { retry_after: Option<Duration> },
    /// Nobody knows.
    Unknown { detail: String },
    /// Somebody else redeemed it.
    Conflict { detail: String },
    /// Our settings are wrong.
    Misconfigured { detail: String },
    /// Refused, cause unknown.
    Refused { detail: String },
}

impl Outcome {
    /// The row's name, and what else was said, for people.
    pub(super) fn told(&self) -> (&'static str, String) {
        match self {
            Self::Committed(_) => ("committed", String::new()),
            Self::NotProcessed { detail, .. } => ("not_processed", detail.clone()),
            Self::RateLimited { .. } => ("rate_limited", String::new()),
            Self::Unknown { detail } => ("unknown", detail.clone()),
            Self::Conflict { detail } => ("conflict", detail.clone()),
            Self::Misconfigured { detail } => ("misconfigured", detail.clone()),
            Self::Refused { detail } => ("refused", detail.clone()),
        }
    }
}

/// The name of the row that a reply falls into.
#[cfg(test)]
pub(crate) fn row_of(reply: &ProviderReply) -> &'static str {
    classify(reply).told().0
}

/// What a provider issued (RFC 6749 section 5.1), as far as it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issued {
    pub(super) access_token: Secret,
    pub(super) refresh_token: Option<Secret>,
    pub(super) token_type: String,
    pub(super) scope: Option<String>,
    pub(super) expires_in: Option<Duration>,
    pub(super) refresh_expires_in: Option<Duration>,
}

/// The longest life believed; keeps arithmetic and the wire's numbers in range.
const LONGEST_LIFE: u64 = 100 * 365 * 24 * 3600;

/// Words that say: this refresh token is used up, expired or revoked (RFC 6749 section 5.2 and what providers made of it).
const CONFLICT: [&str; 9] = [
    "invalid_grant",
    "refresh_token_reused",
    "refresh_token_expired",
    "refresh_token_invalidated",
    "refresh_token_already_used",
    "refresh_token_not_found",
    "refresh_token_revoked",
    "invalid_refresh_token",
    "bad_refresh_token",
];
/// Words that say: the client is set up wrongly (RFC 6749 section 5.2).
const MISCONFIGURED: [&str; 4] = [
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "incorrect_client_credentials",
];

/// Judges a reply.
pub(super) fn classify(reply: &ProviderReply) -> Outcome {
    match reply {
        ProviderReply::NotSent(detail) => Outcome::NotProcessed {
            retry_after: None,
            detail: detail.clone(),
        },
        ProviderReply::Lost(detail) => Outcome::Unknown { detail: detail.clone() },
        ProviderReply::Answered {
            status,
            retry_after,
            body,
        } => answered(*status, *retry_after, body),
    }
}

fn answered(status: u16, retry_after: Option<Duration>, body: &Secret) -> Outcome {
    let object = match serde_json::from_str(body.expose()) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    let word = object.as_ref().and_then(error_word);
    let detail = match &word {
        Some(word) => format!("HTTP {status} {word}"),
        None => format!("HTTP {status}"),
    };
    let is = |words: &[&str]| word.as_deref().is_some_and(|w| words.contains(&w));
    match status {
        200..=299 => match object.as_ref().and_then(issued) {
            Some(issued) => Outcome::Committed(Box::new(issued)),
            // Some providers say no with a 200 (GitHub's bad_refresh_token).
            None if is(&CONFLICT) => Outcome::Conflict { detail },
            None if is(&MISCONFIGURED) => Outcome::Misconfigured { detail },
            None => Outcome::Unknown {
                detail: format!("{detail} with an unusable body"),
            },
        },
        300..=399 | 404 => Outcome::Misconfigured { detail },
        429 => Outcome::RateLimited { retry_after },
        500 | 503 => Outcome::NotProcessed { retry_after, detail },
        400 | 401 | 403 if is(&CONFLICT) => Outcome::Conflict { detail },
        // 408: the server gave up on a request that it may have read.
        408 => Outcome::Unknown { detail },
        400..=499 if is(&MISCONFIGURED) => Outcome::Misconfigured { detail },
        400..=499 => Outcome::Refused { detail },
        // 502 and 504 by the table; what else a proxy may say of a request that it passed on, likewise.
        _ => Outcome::Unknown { detail },
    }
}

/// The body's error word, wherever this provider puts it. Never the description: it may quote a token.
fn error_word(object: &Map<String, Value>) -> Option<String> {
    let nested = |value: &Value| value.get("code").or_else(|| value.get("type")).cloned();
    let candidates = [
        object.get("error").cloned(),
        object.get("error").and_then(nested),
        object.get("error_code").cloned(),
        object.get("code").cloned(),
    ];
    candidates.into_iter().flatten().find_map(|value| {
        let word = value.as_str()?;
        let plain = word.len() <= 64 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        (plain && !word.is_empty()).then(|| word.to_owned())
    })
}

fn issued(object: &Map<String, Value>) -> Option<Issued> {
    let token = |name: &str| -> Option<Secret> {
        let text = object.get(name)?.as_str()?;
        (!text.is_empty()).then(|| Secret::new(text))
    };
    let access_token = token("access_token")?;
    let refresh_token = token("refresh_token");
    if !fits(&access_token, None) || refresh_token.as_ref().is_some_and(|token| !fits(token, None)) {
        return None;
    }
    // A scope too long for a frame is no reason to throw a token away.
    let scope = scope(object.get("scope")).filter(|scope| fits(&access_token, Some(scope)));
    Some(Issued {
        access_token,
        refresh_token,
        token_type: token_type(object.get("token_type").and_then(Value::as_str)),
        scope,
        expires_in: life(object.get("expires_in")),
        refresh_expires_in: life(
            object
                .get("refresh_token_expires_in")
                .or(object.get("refresh_expires_in")),
        ),
    })
}

/// `Bearer` in any case is `Bearer` (RFC 6749 section 5.1: case insensitive; clients are less liberal), and so is nothing.
pub(super) fn token_type(text: Option<&str>) -> String {
    match text {
        Some(text) if !text.is_empty() && !text.eq_ignore_ascii_case("bearer") => text.to_owned(),
        _ => "Bearer".to_owned(),
    }
}

fn scope(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        _ => None,
    }
}

/// Seconds as a number or as a text. Zero or less is no life that anybody could use: unknown.
fn life(value: Option<&Value>) -> Option<Duration> {
    let seconds = match value? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        _ => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be at least one; a float-to-int cast saturates"
    )]
    let whole = (seconds >= 1.0).then_some(seconds as u64);
    whole.map(seconds_of_life)
}

/// A life in seconds, within what is believed.
pub(super) fn seconds_of_life(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(LONGEST_LIFE))
}
