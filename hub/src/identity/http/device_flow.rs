//! `POST /oauth/device_authorization` (RFC 8628 section 3.1), and its grant type at the token endpoint.

use std::net::IpAddr;

use axum::{
    Json,
    extract::{Extension, State},
    http::StatusCode,
    response::Response,
};
use lockstep_protocol::Secret;
use serde::Serialize;

use super::{
    Door,
    answer::{OAuthError, no_store},
    page,
    params::Params,
    token::{AboutDevice, TokenAnswer, failed},
};
use crate::{
    identity::{Asks, NotBegun, NotYet},
    store::DeviceKind,
    transport::listener::Peer,
};

/// The grant type (RFC 8628 section 3.4).
pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// What a device is called that does not say.
const NAMELESS: &str = "a new device";

/// Where a request came from.
pub(super) fn address(peer: Option<Extension<Peer>>) -> Option<IpAddr> {
    peer.map(|Extension(peer)| peer.address)
}

/// RFC 8628 section 3.2.
#[derive(Serialize)]
struct Codes {
    device_code: Secret,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: String,
    expires_in: u64,
    interval: u64,
}

pub(super) async fn authorize(
    State(door): State<Door>,
    peer: Option<Extension<Peer>>,
    params: Params,
) -> Result<Response, OAuthError> {
    let kind = match params.text("device_kind") {
        Some(kind) => kind
            .parse()
            .map_err(|error| OAuthError::invalid_request(format!("device_kind: {error}")))?,
        None => DeviceKind::Cli,
    };
    let asks = Asks {
        name: params.text("device_name").unwrap_or(NAMELESS).to_owned(),
        kind,
        address: address(peer),
    };
    let begun = door.identity.begin(asks).await.map_err(refused)?;
    let uri = format!("{}{}", door.identity.settings.issuer.url(), page::PATH);
    Ok(no_store(Json(Codes {
        verification_uri_complete: format!("{uri}?user_code={}", begun.user_code),
        verification_uri: uri,
        device_code: begun.device_code,
        user_code: begun.user_code,
        expires_in: begun.expires_in.as_secs(),
        interval: begun.interval.as_secs(),
    })))
}

/// `ldc_…`: a new device's first tokens, once its user has said yes.
pub(super) async fn exchange(door: &Door, params: &Params) -> Result<TokenAnswer, OAuthError> {
    let presented = params.required("device_code")?;
    let (enrolled, user) = door.identity.redeem_code(presented).await.map_err(not_yet)?;
    Ok(TokenAnswer {
        access_token: enrolled.access_token,
        token_type: "Bearer".into(),
        expires_in: enrolled.expires_in,
        refresh_token: enrolled.device_refresh_token,
        scope: enrolled.scope,
        device: Some(AboutDevice {
            device_id: enrolled.device_id,
            user,
        }),
    })
}

fn refused(refused: NotBegun) -> OAuthError {
    match refused {
        NotBegun::Invalid(why) => OAuthError::invalid_request(format!("device_name: {why}")),
        NotBegun::TooOften(come_back) => {
            let seconds = come_back.as_secs() + 1;
            OAuthError::unavailable("too many device codes were asked for from this address", Some(seconds))
                .with_status(StatusCode::TOO_MANY_REQUESTS)
        }
        NotBegun::Full => OAuthError::unavailable("too many devices wait to be approved", Some(60)),
        NotBegun::Failed(error) => failed(error),
    }
}

fn not_yet(refused: NotYet) -> OAuthError {
    let words = refused.to_string();
    match refused {
        NotYet::Pending => OAuthError::of_device_flow("authorization_pending", words),
        NotYet::SlowDown => OAuthError::of_device_flow("slow_down", words),
        NotYet::Denied => OAuthError::of_device_flow("access_denied", words),
        NotYet::Expired => OAuthError::of_device_flow("expired_token", words),
        NotYet::Unknown => OAuthError::of_device_flow("invalid_grant", words),
        NotYet::Failed(error) => failed(error),
    }
}
