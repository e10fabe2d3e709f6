//! `POST /oauth/token` (RFC 6749 section 6).

use std::time::Duration;

use axum::{Json, extract::State, response::Response};
use lockstep_protocol::{DeviceId, Secret, UserId, frame};
use serde::Serialize;

use super::{
    Door,
    answer::{OAuthError, no_store, seconds_until},
    device_flow,
    params::Params,
};
use crate::{
    clock,
    identity::{Exchanged, GrantTrouble, IdentityError, Refused, device_token, enrol::SLAVE_PREFIX, token},
};

/// How much life a token must have left that is given out: clients refresh ahead by up to this much. The grant caps it at
/// half the token's life.
const MIN_VALIDITY: Duration = Duration::from_secs(60);
/// `expires_in` of a token whose provider did not say: clients fail without one.
const UNKNOWN_EXPIRY: u64 = 3600;

/// A slave may be revoked while a redeem is waited for: one that was looked up longer ago is looked up once more.
const LOOKED_UP_FOR: Duration = Duration::from_millis(500);

/// A successful answer (RFC 6749 section 5.1). All fields always: stock clients break over each that is missing.
#[derive(Serialize)]
pub(super) struct TokenAnswer {
    pub(super) access_token: Secret,
    pub(super) token_type: String,
    pub(super) expires_in: u64,
    pub(super) refresh_token: Secret,
    pub(super) scope: String,
    #[serde(flatten)]
    pub(super) device: Option<AboutDevice>,
}

/// What a device learns of itself.
#[derive(Serialize)]
pub(super) struct AboutDevice {
    pub(super) device_id: DeviceId,
    pub(super) user: UserId,
}

pub(super) async fn token(State(door): State<Door>, params: Params) -> Result<Response, OAuthError> {
    match params.required("grant_type")?.expose() {
        "refresh_token" => {}
        device_flow::GRANT_TYPE => return Ok(no_store(Json(device_flow::exchange(&door, &params).await?))),
        _ => return Err(OAuthError::unsupported_grant_type()),
    }
    let presented = params.required("refresh_token")?;
    let answer = if presented.expose().starts_with(device_token::PREFIX) {
        device_access(&door, presented).await?
    } else if presented.expose().starts_with(SLAVE_PREFIX) {
        provider_access(&door, presented, params.text("scope")).await?
    } else {
        return Err(OAuthError::invalid_grant());
    };
    Ok(no_store(Json(answer)))
}

/// `lsd_…`: a device access token and the newest device refresh token.
async fn device_access(door: &Door, presented: &Secret) -> Result<TokenAnswer, OAuthError> {
    let Exchanged {
        device,
        access_token,
        refresh_token,
        expires_in,
    } = door.identity.exchange(presented).await.map_err(refused)?;
    Ok(TokenAnswer {
        access_token,
        token_type: "Bearer".into(),
        expires_in,
        refresh_token,
        scope: token::scope_of(&device),
        device: Some(AboutDevice {
            device_id: device.id,
            user: device.user,
        }),
    })
}

/// `lsg_…`: the provider's current access token. The slave comes back as it was.
async fn provider_access(door: &Door, presented: &Secret, asked: Option<&str>) -> Result<TokenAnswer, OAuthError> {
    let slave = door.identity.slave(presented).await.map_err(failed)?;
    let slave = slave.ok_or_else(OAuthError::invalid_grant)?;
    let looked = clock::mono();
    let token = door
        .grants
        .token(&slave.user, &slave.grant, MIN_VALIDITY)
        .await
        .map_err(trouble)?;
    if clock::mono().since(looked) >= LOOKED_UP_FOR {
        let slave = door.identity.slave(presented).await.map_err(failed)?;
        slave.ok_or_else(OAuthError::invalid_grant)?;
    }
    Ok(TokenAnswer {
        expires_in: remaining(&token),
        access_token: token.access_token,
        token_type: plain_type(token.token_type),
        refresh_token: presented.clone(),
        // RFC 6749 section 5.1: a scope that is not told is the one that was asked for.
        scope: token.scope.or_else(|| asked.map(Into::into)).unwrap_or_default(),
        device: None,
    })
}

fn remaining(token: &frame::Token) -> u64 {
    token.expires_at.map_or(UNKNOWN_EXPIRY, |at| seconds_until(at).max(1))
}

/// Providers write `bearer` in any case, and some clients know only one (RFC 6749 section 5.1: case insensitive).
fn plain_type(token_type: String) -> String {
    if token_type.is_empty() || token_type.eq_ignore_ascii_case("bearer") {
        return "Bearer".into();
    }
    token_type
}

fn refused(refused: Refused) -> OAuthError {
    match refused {
        Refused::Unknown | Refused::Revoked | Refused::Replayed => {
            tracing::debug!(reason = %refused, "device refresh token refused");
            OAuthError::invalid_grant()
        }
        Refused::Failed(error) => failed(error),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn failed(error: IdentityError) -> OAuthError {
    tracing::error!(%error, "token endpoint");
    OAuthError::unavailable("the hub cannot answer now", None)
}

fn trouble(trouble: GrantTrouble) -> OAuthError {
    match trouble {
        GrantTrouble::Unknown => OAuthError::invalid_grant(),
        GrantTrouble::Dead(reason) => OAuthError::dead_grant(reason),
        GrantTrouble::Passing { reason, retry_at } => OAuthError::unavailable(reason, retry_at.map(seconds_until)),
    }
}
