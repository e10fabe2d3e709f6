//! `/admin/v1/users/{user}/grants/…`.

use std::sync::Arc;

use axum::{Json as Answer, extract::State, http::StatusCode};
use lockstep_engine::grant::{Ask, Asker, Input, Reply};
use lockstep_protocol::{Code, GrantName, UserId, http::GrantVersion};

use super::{
    body::{Json, LoginBody, OfUserGrant},
    device::refusal,
    problem::Problem,
};
use crate::{
    app::{Hub, NoAnswer},
    audit::{By, Event},
    clock,
    user::User,
};

/// `PUT …/grants/{provider}/{account}`: a login.
pub(super) async fn login(
    State(hub): State<Arc<Hub>>,
    OfUserGrant(user, grant): OfUserGrant,
    body: Json<LoginBody>,
) -> Result<Answer<GrantVersion>, Problem> {
    take_login(&hub, &user, grant, body.0, By::Admin).await
}

/// Brings a login to the grant's machine.
pub(super) async fn take_login(
    hub: &Arc<Hub>,
    user: &UserId,
    grant: GrantName,
    body: LoginBody,
    by: By,
) -> Result<Answer<GrantVersion>, Problem> {
    if hub.providers.get(grant.provider()).is_none() {
        return Err(Problem::new(
            Code::UnknownGrant,
            format!("no provider {} in the settings", grant.provider()),
        ));
    }
    let login = Box::new(body.into_login(clock::unix())?);
    let user = hub.user(user).await?;
    let reply = hub.call(&user, &grant, |waiter| Input::Login { waiter, login });
    let reply = reply.await;
    if let Ok(Reply::Done(version)) = &reply {
        hub.audit.record(Event::Login {
            user: user.id.clone(),
            grant: grant.clone(),
            version: *version,
            by,
        });
    }
    version(grant, reply)
}

/// `POST …/grants/{provider}/{account}/refresh`: a redeem now.
pub(super) async fn refresh(
    State(hub): State<Arc<Hub>>,
    OfUserGrant(user, grant): OfUserGrant,
) -> Result<Answer<GrantVersion>, Problem> {
    let user = hub.user(&user).await?;
    known(&user, &grant)?;
    let reply = hub.call(&user, &grant, |waiter| {
        Input::Ask(Ask {
            waiter: Some(waiter),
            by: Asker::Operator,
            rejected: None,
        })
    });
    version(grant.clone(), reply.await)
}

/// `DELETE …/grants/{provider}/{account}`.
pub(super) async fn remove(
    State(hub): State<Arc<Hub>>,
    OfUserGrant(user, grant): OfUserGrant,
) -> Result<StatusCode, Problem> {
    let user = hub.user(&user).await?;
    let ever = user.lock().record(&grant).is_some();
    ever.then_some(()).ok_or_else(no_grant)?;
    match hub.call(&user, &grant, |waiter| Input::Delete { waiter }).await? {
        Reply::Done(_) | Reply::Deleted => Ok(StatusCode::NO_CONTENT),
        failed => Err(refusal(failed)),
    }
}

fn known(user: &User, grant: &GrantName) -> Result<(), Problem> {
    let known = user.lock().knows(grant);
    known.then_some(()).ok_or_else(no_grant)
}

pub(super) fn no_grant() -> Problem {
    Problem::new(Code::UnknownGrant, "no such grant")
}

/// The answer to a request for a version.
pub(super) fn version(grant: GrantName, reply: Result<Reply, NoAnswer>) -> Result<Answer<GrantVersion>, Problem> {
    match reply? {
        Reply::Done(version) => Ok(Answer(GrantVersion { grant, version })),
        failed => Err(refusal(failed)),
    }
}
