//! Logins and deletions.

use std::{collections::VecDeque, time::Duration};

use lockstep_protocol::{Code, frame::Cause};

use super::{
    Asker, Command, CommitAnswer, CommitRequest, Cx, Grant, Login, Reply, Trouble, WaiterId, due::due_at,
    read::unknown_grant,
};
use crate::record::{GrantRecord, Health, TokenSet};

/// Logins, one at a time, in order.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Logins {
    queue: VecDeque<Pending>,
    stage: Stage,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Pending {
    waiter: WaiterId,
    login: Box<Login>,
    tries: u32,
}

/// Where the first login of the queue is.
#[derive(Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Clone))]
enum Stage {
    #[default]
    Idle,
    /// Its commit is with the store.
    Committing,
    /// The commit's answer was lost; the record is read again.
    Reading,
}

/// How many logins of one grant may wait.
const MOST: usize = 16;
/// How often one is tried when others get in first.
const TRIES: u32 = 5;

impl Logins {
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Grant {
    pub(super) fn on_login(&mut self, waiter: WaiterId, login: Box<Login>, cx: &mut Cx<'_>) {
        if self.logins.queue.len() >= MOST {
            return self.answer(
                waiter,
                Reply::failed(Code::Unavailable, "too many logins wait for this grant"),
            );
        }
        self.logins.queue.push_back(Pending {
            waiter,
            login,
            tries: 0,
        });
        self.next_login(cx);
    }

    /// Commits the first login of the queue, unless it changes nothing.
    fn next_login(&mut self, cx: &mut Cx<'_>) {
        while self.logins.stage == Stage::Idle {
            let Some(pending) = self.logins.queue.front_mut() else {
                return;
            };
            let record = self.known.record.as_deref();
            if record.is_some_and(|record| is_same(record, &pending.login.tokens)) {
                self.login_is_in(cx);
                continue;
            }
            pending.tries += 1;
            let tokens = pending.login.tokens.clone();
            let newest = record.map_or(lockstep_protocol::Version(0), |record| record.version);
            let old = record.and_then(|record| record.tokens.as_ref()?.refresh_token.clone());
            let due_at = due_at(&tokens, cx.now.unix, &self.policy, cx.entropy);
            self.logins.stage = Stage::Committing;
            self.order(Command::Commit(Box::new(CommitRequest {
                lease: None,
                from_version: newest,
                unless_retired: tokens.refresh_token.clone(),
                tokens,
                cause: Cause::Login,
                refreshed_at: cx.now.unix,
                due_at,
                retire: old,
                rejected_in_a_row: 0,
            })));
        }
    }

    pub(super) fn on_login_committed(&mut self, answer: CommitAnswer, cx: &mut Cx<'_>) {
        if self.logins.stage != Stage::Committing {
            return;
        }
        self.logins.stage = Stage::Idle;
        match answer {
            CommitAnswer::Done(record) => {
                self.absorb(record, cx);
                self.login_is_in(cx);
            }
            CommitAnswer::Superseded(record) => {
                match record {
                    Some(record) => self.absorb(record, cx),
                    None => self.known.record = None,
                }
                self.login_again("others keep changing this grant");
            }
            CommitAnswer::Retired => self.login_ends(Reply::Retired),
            CommitAnswer::Trouble(Trouble::Refused(why)) => self.login_fails(why, cx),
            CommitAnswer::Trouble(Trouble::Unknown(_)) => {
                self.logins.stage = Stage::Reading;
                self.load();
            }
        }
        self.next_login(cx);
    }

    fn login_again(&mut self, why: &str) {
        if self.logins.queue.front().is_some_and(|pending| pending.tries >= TRIES) {
            self.login_ends(Reply::failed(Code::Unavailable, why));
        }
    }

    fn login_fails(&mut self, why: String, cx: &Cx<'_>) {
        let at = cx.now.unix + Duration::from_secs(2);
        self.login_ends(Reply::failed_until(Code::Unavailable, why, at));
    }

    fn login_ends(&mut self, reply: Reply) {
        if let Some(pending) = self.logins.queue.pop_front() {
            self.answer(pending.waiter, reply);
        }
    }

    /// The record holds the login's tokens. If there is no access token among them, it is redeemed at once, and the answer
    /// waits for that.
    fn login_is_in(&mut self, cx: &mut Cx<'_>) {
        let Some((version, has_access)) = self.record().map(|record| (record.version, has_access(record))) else {
            return;
        };
        let Some(pending) = self.logins.queue.pop_front() else {
            return;
        };
        if has_access {
            self.answer(pending.waiter, Reply::Done(version));
        } else {
            self.wanted = Some(version);
            self.wait_beyond(version, pending.waiter, Asker::Operator, cx);
        }
    }

    pub(super) fn login_after_reading(&mut self, cx: &mut Cx<'_>) {
        if self.logins.stage == Stage::Reading {
            self.logins.stage = Stage::Idle;
            self.login_again("the store's answers are lost");
            self.next_login(cx);
        }
    }

    pub(super) fn login_without_reading(&mut self, cx: &mut Cx<'_>) {
        if self.logins.stage == Stage::Reading {
            self.logins.stage = Stage::Idle;
            self.login_fails("the store cannot be read".to_owned(), cx);
            self.next_login(cx);
        }
    }

    pub(super) fn on_delete(&mut self, waiter: WaiterId) {
        if self.deletes.is_empty() {
            self.order(Command::Delete);
        }
        self.deletes.push(waiter);
    }

    pub(super) fn on_deleted(&mut self, answer: Result<Option<Box<GrantRecord>>, Trouble>, cx: &mut Cx<'_>) {
        let reply = match answer {
            Ok(Some(record)) => {
                self.absorb(record, cx);
                Reply::Deleted
            }
            Ok(None) => unknown_grant(),
            Err(trouble) => {
                let at = cx.now.unix + Duration::from_secs(2);
                Reply::failed_until(Code::Unavailable, trouble.to_string(), at)
            }
        };
        for waiter in std::mem::take(&mut self.deletes) {
            self.answer(waiter, reply.clone());
        }
    }
}

fn has_access(record: &GrantRecord) -> bool {
    record
        .tokens
        .as_ref()
        .is_some_and(|tokens| tokens.access_token.is_some())
}

/// Whether a login brings what is current already: then nothing changes.
fn is_same(record: &GrantRecord, login: &TokenSet) -> bool {
    let Some(tokens) = record.tokens.as_ref().filter(|_| record.health != Health::Deleted) else {
        return false;
    };
    match (&login.refresh_token, &tokens.refresh_token) {
        (Some(new), Some(current)) => new == current,
        (None, None) => login.access_token.is_some() && login.access_token == tokens.access_token,
        _ => false,
    }
}
