//! The newest token of a grant with enough life left, redeemed first if need be.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lockstep_engine::grant::{Ask, Asker, Input, Reply, view};
use lockstep_protocol::{Code, GrantName, HubFrame, UserId, frame};

use super::problem::Problem;
use crate::{
    app::Hub,
    clock,
    identity::{GrantTrouble, Grants},
    user::User,
};

/// The grants as the drop-in endpoint sees them.
pub(super) struct Served(pub Arc<Hub>);

#[async_trait]
impl Grants for Served {
    async fn token(
        &self,
        user: &UserId,
        grant: &GrantName,
        min_validity: Duration,
    ) -> Result<frame::Token, GrantTrouble> {
        let passing = |reason: String| GrantTrouble::Passing { reason, retry_at: None };
        let user = self.0.user(user).await.map_err(|error| passing(error.to_string()))?;
        serve(&self.0, &user, grant, min_validity)
            .await
            .map_err(|problem| match problem.code {
                Code::UnknownGrant => GrantTrouble::Unknown,
                Code::ReauthRequired => GrantTrouble::Dead(problem.detail),
                _ => GrantTrouble::Passing {
                    reason: problem.detail,
                    retry_at: problem.retry_at.map(lockstep_engine::time::Unix::seconds_up),
                },
            })
    }
}

/// What is known of a grant when a token is asked for.
enum Known {
    Good(Box<frame::Token>),
    /// There may be a better one: this version will not do.
    Wanting(lockstep_protocol::Version),
}

/// The newest token with at least `min_validity` left (capped at half its life); a redeem is joined or started if it has
/// less.
///
/// # Errors
/// 404, 409, 429 or 503: why there is none.
pub(super) async fn serve(
    hub: &Arc<Hub>,
    user: &Arc<User>,
    grant: &GrantName,
    min_validity: Duration,
) -> Result<frame::Token, Problem> {
    hub.mark_used(user);
    let rejected = match known(hub, user, grant, min_validity)? {
        Known::Good(token) => return Ok(*token),
        Known::Wanting(version) => version,
    };
    let reply = hub.call(user, grant, |waiter| {
        Input::Ask(Ask {
            waiter: Some(waiter),
            by: Asker::Reader,
            rejected: Some(rejected),
        })
    });
    let reply = reply
        .await
        .map_err(|error| Problem::new(Code::Unavailable, error.to_string()))?;
    let refused = match reply {
        Reply::Done(_) => None,
        Reply::Deleted => Some(unknown()),
        failed => Problem::of_reply(failed),
    };
    // Whatever came of it: a token that is good by now is what was asked for.
    match known(hub, user, grant, min_validity)? {
        Known::Good(token) => Ok(*token),
        Known::Wanting(_) => {
            Err(refused.unwrap_or_else(|| Problem::new(Code::Unavailable, "the newest token has too little life left")))
        }
    }
}

fn unknown() -> Problem {
    Problem::new(Code::UnknownGrant, "no such grant")
}

fn known(hub: &Hub, user: &User, grant: &GrantName, min_validity: Duration) -> Result<Known, Problem> {
    let now = clock::now();
    let mut inner = user.lock();
    hub.bury(&mut inner, now);
    let record = inner.record(grant).ok_or_else(unknown)?;
    if record.health == lockstep_engine::record::Health::Deleted {
        return Err(unknown());
    }
    if view::is_valid_for(record, min_validity, now.unix)
        && let HubFrame::Token(token) = view::frame_of(record, grant, hub.epoch(), now)
    {
        return Ok(Known::Good(Box::new(token)));
    }
    Ok(Known::Wanting(record.version))
}
