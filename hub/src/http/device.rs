//! `/v1/grants/…`: what devices ask without a session.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as Answer,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use lockstep_engine::grant::{Ask, Asker, Input, Reply};
use lockstep_protocol::{
    Code, GrantName,
    frame::Token,
    http::{GrantVersion, RefreshBody},
};
use serde::Deserialize;

use super::{
    admin,
    auth::Caller,
    body::{Json, LoginBody, OfGrant},
    problem::Problem,
    serve_token,
};
use crate::{app::Hub, audit::By, clock, identity::Principal, user::User};

/// Validity asked for when a reader does not say, in seconds.
const MIN_VALIDITY: u64 = 60;

/// The query of [`token`].
#[derive(Deserialize)]
pub(super) struct TokenQuery {
    min_validity: Option<u64>,
}

/// `GET /v1/grants/{provider}/{account}/token`.
pub(super) async fn token(
    State(hub): State<Arc<Hub>>,
    Caller(principal): Caller,
    OfGrant(grant): OfGrant,
    query: Result<Query<TokenQuery>, QueryRejection>,
) -> Result<Answer<Token>, Problem> {
    let Query(query) = query.map_err(|_| Problem::new(Code::BadFrame, "min_validity is a number of seconds"))?;
    let user = hub.user(&principal.user).await?;
    let min_validity = Duration::from_secs(query.min_validity.unwrap_or(MIN_VALIDITY));
    let token = serve_token::serve(&hub, &user, &grant, min_validity).await?;
    // A redeem may have been waited for.
    if hub.identity.is_revoked(principal.device) {
        return Err(Problem::new(Code::Unauthorized, "the device is revoked"));
    }
    Ok(Answer(token))
}

/// `POST /v1/grants/{provider}/{account}/refresh`.
pub(super) async fn refresh(
    State(hub): State<Arc<Hub>>,
    Caller(principal): Caller,
    OfGrant(grant): OfGrant,
    body: Json<RefreshBody>,
) -> Result<Answer<GrantVersion>, Problem> {
    let user = hub.user(&principal.user).await?;
    let by = witness(&user, &grant, &principal)?;
    let reply = hub.call(&user, &grant, |waiter| {
        Input::Ask(Ask {
            waiter: Some(waiter),
            by,
            rejected: Some(body.0.rejected_version),
        })
    });
    admin::version(grant.clone(), reply.await)
}

/// What a device's word about a grant weighs.
fn witness(user: &User, grant: &GrantName, principal: &Principal) -> Result<Asker, Problem> {
    let inner = user.lock();
    if !inner.knows(grant) {
        return Err(admin::no_grant());
    }
    let acked = inner.board.entry(grant).is_some_and(|entry| {
        let mut sessions = inner.sessions.iter().filter(|s| s.device == principal.device);
        let poller = inner.pollers.get(&principal.device);
        sessions.any(|s| s.acked() >= entry.seq) || poller.is_some_and(|p| p.acked.max(p.sent) >= entry.seq)
    });
    Ok(Asker::Device {
        device: principal.device,
        acked,
        connected: inner.connected(clock::mono()).max(1),
    })
}

/// `PUT /v1/grants/{provider}/{account}`: a fresh login, from a device that may.
pub(super) async fn offer(
    State(hub): State<Arc<Hub>>,
    Caller(principal): Caller,
    OfGrant(grant): OfGrant,
    body: Json<LoginBody>,
) -> Result<Answer<GrantVersion>, Problem> {
    if !principal.may_offer {
        let refused = Problem::new(Code::Unauthorized, "this device is not enrolled to offer logins");
        return Err(refused.with_status(StatusCode::FORBIDDEN));
    }
    let user = hub.user(&principal.user).await?;
    if user.lock().is_full_for(&grant) {
        return Err(Problem::new(
            Code::TooLarge,
            "the user has as many grants as one may have",
        ));
    }
    let by = By::Device(principal.device);
    admin::take_login(&hub, &principal.user, grant, body.0, by).await
}

/// What a machine's reply to a request means when nothing but a version will do.
pub(super) fn no_answer() -> Problem {
    Problem::new(Code::Unavailable, "no answer in time")
}

impl From<crate::app::NoAnswer> for Problem {
    fn from(_: crate::app::NoAnswer) -> Self {
        no_answer()
    }
}

/// A reply that is no version.
pub(super) fn refusal(reply: Reply) -> Problem {
    Problem::of_reply(reply).unwrap_or_else(|| Problem::new(Code::UnknownGrant, "the grant was deleted"))
}
