//! Sends a refresh token to a provider, at most once, and tells exactly what was seen.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use lockstep_protocol::{
    Secret,
    frame::{PublishedToken, Redeem, RequestFormat},
};
use reqwest::{RequestBuilder, header};
use serde::{Deserialize, Deserializer};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{
    http::{chain, plain, read},
    net::Net,
};
use crate::{
    clock::{self, Mono},
    machine::redeem::Reply,
};

/// The most of an answer that is read; no token set is larger.
const MOST_BODY: usize = 64 * 1024;

/// One redeem (RFC 6749 section 6). Nothing leaves after `leave_by`.
pub(crate) async fn redeem(net: &Net, redeem: &Redeem, leave_by: Mono, answer_by: Mono) -> Reply {
    let request = match request(net, redeem) {
        Ok(request) => request,
        Err(why) => return Reply::NotSent(why),
    };
    let (envelope, seal) = Envelope::seal(body(redeem), leave_by);
    let within = answer_by.since(clock::now().mono);
    let answer = tokio::time::timeout(within, receive(request.body(envelope))).await;
    let why = match answer {
        Ok(Ok(reply)) => return reply,
        Ok(Err(why)) => why,
        Err(_) => "no answer within the deadline".into(),
    };
    if seal.withdraw() {
        Reply::NotSent(why)
    } else {
        Reply::Sent {
            status: None,
            error: None,
            detail: why,
        }
    }
}

fn request(net: &Net, redeem: &Redeem) -> Result<RequestBuilder, String> {
    let url: Url = redeem
        .token_endpoint
        .parse()
        .map_err(|error| format!("token endpoint: {error}"))?;
    let kind = match redeem.request_format {
        RequestFormat::Form => "application/x-www-form-urlencoded",
        RequestFormat::Json => "application/json",
    };
    let http = net.provider_client(is_loopback(&url))?;
    Ok(http
        .post(url)
        .header(header::CONTENT_TYPE, kind)
        .header(header::ACCEPT, "application/json")
        .header(header::ACCEPT_ENCODING, "identity"))
}

/// A proxy for the outside world is not meant for this machine's own servers.
fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

fn body(redeem: &Redeem) -> Zeroizing<String> {
    let mut fields = vec![
        ("grant_type", "refresh_token"),
        ("refresh_token", redeem.refresh_token.expose()),
        ("client_id", redeem.client_id.as_str()),
    ];
    if let Some(scope) = &redeem.scope {
        fields.push(("scope", scope));
    }
    Zeroizing::new(match redeem.request_format {
        RequestFormat::Form => form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish(),
        RequestFormat::Json => {
            let object: serde_json::Map<_, _> = fields
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect();
            serde_json::Value::Object(object).to_string()
        }
    })
}

async fn receive(request: RequestBuilder) -> Result<Reply, String> {
    let response = request.send().await.map_err(|error| chain(&error.without_url()))?;
    let status = response.status().as_u16();
    let body = Zeroizing::new(read(response, MOST_BODY).await?);
    if status == 200
        && let Ok(issued) = serde_json::from_slice::<Issued>(&body)
        && !issued.access_token.is_empty()
    {
        return Ok(Reply::Issued(Box::new(issued.into())));
    }
    let error = serde_json::from_slice::<Refused>(&body).ok();
    Ok(Reply::Sent {
        status: Some(status),
        error: error.map(|refused| plain(&refused.error)),
        detail: format!("HTTP {status}"),
    })
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// RFC 6749 section 5.1, as providers really write it.
#[derive(Deserialize)]
struct Issued {
    access_token: Secret,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default)]
    scope: Option<String>,
}

impl From<Issued> for PublishedToken {
    fn from(issued: Issued) -> Self {
        Self {
            access_token: issued.access_token,
            refresh_token: issued.refresh_token.filter(|token| !token.is_empty()),
            expires_in: issued.expires_in,
            scope: issued.scope,
            token_type: issued.token_type.unwrap_or_else(|| "Bearer".into()),
        }
    }
}

/// Some providers write the number as text, or with a fraction; what makes no sense counts as not said.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Number(number) => number.as_u64().or_else(|| {
            let whole = number.as_f64().filter(|f| f.is_finite() && *f >= 0.0)?;
            format!("{whole:.0}").parse().ok()
        }),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

const SEALED: u8 = 0;
const GONE: u8 = 1;
const WITHDRAWN: u8 = 2;

/// A request body that leaves at most once and knows whether it left: the HTTP library asks for it when the connection
/// stands, right before it writes it. It cannot be cloned, so no layer below can send it again.
struct Envelope {
    body: Option<Bytes>,
    leave_by: Mono,
    seal: Seal,
}

#[derive(Clone)]
struct Seal(Arc<AtomicU8>);

#[derive(Debug, thiserror::Error)]
#[error("too late to be sent")]
struct Withdrawn;

impl Seal {
    /// Makes sure that the body does not leave any more. False: it has left.
    fn withdraw(&self) -> bool {
        self.change(WITHDRAWN) != Err(GONE)
    }

    fn change(&self, to: u8) -> Result<u8, u8> {
        self.0.compare_exchange(SEALED, to, Ordering::AcqRel, Ordering::Acquire)
    }
}

/// Wipes the bytes once the last reader is done with them.
struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Envelope {
    fn seal(body: Zeroizing<String>, leave_by: Mono) -> (reqwest::Body, Seal) {
        let seal = Seal(Arc::new(AtomicU8::new(SEALED)));
        let envelope = Self {
            body: Some(Bytes::from_owner(Wiped(body))),
            leave_by,
            seal: seal.clone(),
        };
        (reqwest::Body::wrap(envelope), seal)
    }
}

impl Body for Envelope {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let Some(body) = self.body.take() else {
            return Poll::Ready(None);
        };
        // The device may have slept while the connection was made.
        if clock::now().mono > self.leave_by {
            self.seal.withdraw();
        }
        Poll::Ready(Some(if self.seal.change(GONE).is_ok() {
            Ok(Frame::data(body))
        } else {
            Err(Withdrawn)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, |body| body.len() as u64))
    }
}
