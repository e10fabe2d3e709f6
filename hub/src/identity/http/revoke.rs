//! `POST /oauth/revoke` (RFC 7009). Whoever holds a refresh token may end it.

use axum::{Json, extract::State, response::Response};

use super::{
    Door,
    answer::{OAuthError, no_store},
    params::Params,
    token::failed,
};
use crate::{
    audit::RevokedWhy,
    identity::{Presented, device_token},
};

pub(super) async fn revoke(State(door): State<Door>, params: Params) -> Result<Response, OAuthError> {
    let presented = params.required("token")?;
    let identity = &door.identity;
    match Presented::read(presented) {
        Presented::Device => {
            // Genuine of whatever generation: whoever holds an old copy ends what it was a copy of.
            if let Some(genuine) = device_token::read(identity.keys.mac(), presented.expose()) {
                identity
                    .revoke(genuine.device, RevokedWhy::Holder)
                    .await
                    .map_err(failed)?;
            }
        }
        Presented::Slave => {
            identity.drop_slave(presented).await.map_err(failed)?;
        }
        Presented::Access => return Err(OAuthError::unsupported_token_type()),
        Presented::Other => {}
    }
    // RFC 7009 section 2.2: 200 for unknown tokens too.
    Ok(no_store(Json(serde_json::json!({}))))
}
