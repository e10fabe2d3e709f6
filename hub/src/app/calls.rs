//! Asking a grant's machine something and waiting for its answer.

use std::{sync::Arc, time::Duration};

use lockstep_engine::grant::{Input, Reply, WaiterId};
use lockstep_protocol::{Code, GrantName};
use tokio::sync::oneshot;

use super::Hub;
use crate::user::{User, Waiter};

/// Machines answer in bounded time by themselves; this is for the case that one does not.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);
/// The most that may wait for one user's grants.
const MOST_WAITING: usize = 4096;

/// A machine did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer in time")]
pub struct NoAnswer;

/// Tells the machine when one who waits is gone.
struct Waiting<'a> {
    hub: &'a Arc<Hub>,
    user: &'a Arc<User>,
    grant: &'a GrantName,
    waiter: WaiterId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let answered = self.user.lock().waiters.remove(&self.waiter).is_none();
        if !answered {
            self.hub.tell(self.user, self.grant, Input::Left(self.waiter));
        }
    }
}

impl Hub {
    /// Asks a grant's machine something and waits for the answer. What was started goes on when the caller is gone.
    ///
    /// # Errors
    /// [`NoAnswer`] after three minutes.
    pub async fn call(
        self: &Arc<Self>,
        user: &Arc<User>,
        grant: &GrantName,
        input: impl FnOnce(WaiterId) -> Input,
    ) -> Result<Reply, NoAnswer> {
        let waiter = self.next_waiter();
        let (answer, answered) = oneshot::channel();
        {
            let mut inner = user.lock();
            if inner.waiters.len() >= MOST_WAITING {
                return Ok(Reply::Failed {
                    code: Code::RateLimited,
                    message: "too many requests wait for this user's grants".into(),
                    retry_at: None,
                });
            }
            inner.waiters.insert(waiter, (grant.clone(), Waiter::Call(answer)));
        }
        let _waiting = Waiting {
            hub: self,
            user,
            grant,
            waiter,
        };
        self.tell(user, grant, input(waiter));
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(reply)) => Ok(reply),
            _ => Err(NoAnswer),
        }
    }
}
