//! `POST /oauth/introspect` (RFC 7662), for the hub's own tokens.
//!
//! The administrator may ask about all, a device about its user's. About anything else the answer is the same as about
//! nonsense: not active.

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use lockstep_protocol::{DeviceId, GrantName, Secret, UserId};
use serde::Serialize;

use super::{
    Door,
    answer::{OAuthError, no_store},
    bearer,
    params::Params,
    token::failed,
};
use crate::{
    clock,
    identity::{IdentityError, Presented, token},
    store::DeviceKind,
};

/// RFC 7662 section 2.2.
#[derive(Serialize)]
struct Introspection {
    active: bool,
    #[serde(flatten)]
    about: Option<About>,
}

#[derive(Serialize)]
struct About {
    sub: UserId,
    client_id: DeviceId,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<DeviceKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<GrantName>,
    #[serde(flatten)]
    claims: Option<Lifetime>,
}

/// What only an access token has.
#[derive(Serialize)]
struct Lifetime {
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
    jti: uuid::Uuid,
}

/// Who asks.
enum Asker {
    Admin,
    DeviceOf(UserId),
}

impl Asker {
    fn may_know(&self, about: &About) -> bool {
        match self {
            Self::Admin => true,
            Self::DeviceOf(user) => *user == about.sub,
        }
    }
}

pub(super) async fn introspect(
    State(door): State<Door>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, OAuthError> {
    let asker = who_asks(&door, &headers)
        .await
        .ok_or_else(OAuthError::not_authenticated)?;
    let about = look_at(&door, params.required("token")?).await.map_err(failed)?;
    let about = about.filter(|about| asker.may_know(about));
    Ok(no_store(Json(Introspection {
        active: about.is_some(),
        about,
    })))
}

async fn who_asks(door: &Door, headers: &HeaderMap) -> Option<Asker> {
    let token = bearer(headers)?;
    if (door.is_admin)(&token) {
        return Some(Asker::Admin);
    }
    let (user, _) = door.identity.vouched(&token, clock::unix()).await.ok()?;
    Some(Asker::DeviceOf(user))
}

async fn look_at(door: &Door, token: &Secret) -> Result<Option<About>, IdentityError> {
    let identity = &door.identity;
    Ok(match Presented::read(token) {
        Presented::Device => identity.peek(token).await?.map(|device| About {
            scope: Some(token::scope_of(&device)),
            kind: Some(device.kind),
            sub: device.user,
            client_id: device.id,
            token_type: "refresh_token",
            grant: None,
            claims: None,
        }),
        Presented::Slave => identity.slave(token).await?.map(|slave| About {
            sub: slave.user,
            client_id: slave.device,
            token_type: "refresh_token",
            scope: None,
            kind: None,
            grant: Some(slave.grant),
            claims: None,
        }),
        Presented::Access => identity.claims(token, clock::unix()).ok().map(|claims| About {
            sub: claims.sub,
            client_id: claims.client_id,
            token_type: "Bearer",
            scope: Some(claims.scope),
            kind: Some(claims.kind),
            grant: None,
            claims: Some(Lifetime {
                iss: claims.iss,
                aud: claims.aud,
                iat: claims.iat,
                exp: claims.exp,
                jti: claims.jti,
            }),
        }),
        Presented::Other => None,
    })
}
