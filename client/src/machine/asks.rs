//! Callers that wait for a token, and the one `refresh` that is asked for all of them.
//!
//! However many callers want a newer version of a grant, the hub is asked once. A push that another device caused
//! serves them just as well as an answer.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use lockstep_protocol::{
    Code, GrantName, RequestId, UnixSeconds, Version,
    frame::{Health, RefreshReason},
};

use super::{
    held::{Held, NotBefore, retry_at},
    io::{Command, Need, Refusal, WaiterId},
};
use crate::{
    clock::{Mono, Now, Unix},
    error::{Error, Stopped},
    state::TokenLease,
};

/// The most callers that may wait at once.
const MOST_WAITERS: usize = 10_000;
/// How long after `done` the token itself may take.
const TOKEN_AFTER_DONE: Duration = Duration::from_secs(10);
/// When the hub says "later" without saying when.
const RETRY_SOON: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    need: Need,
    until: Mono,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// Not yet, or on a connection that is gone.
    No,
    /// The answer is due.
    Yes { id: RequestId, version: Version },
    /// The hub has it; the token is on its way.
    Done { version: Version, until: Mono },
}

#[derive(Debug)]
struct Ask {
    waiters: Vec<Waiter>,
    asked: Asked,
}

/// One request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) id: RequestId,
    pub(crate) grant: GrantName,
    pub(crate) what: What,
}

/// What is asked of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// The version cannot be used: evidence against it, for the hub to judge.
    Refresh { version: Version, reason: RefreshReason },
    /// The token works, and will not for long enough. No evidence against it: over HTTP, by the hub's own clock.
    Fetch { min_validity: Duration },
}

/// All callers that wait.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    open: BTreeMap<GrantName, Ask>,
    waiting: usize,
    asked_ever: u64,
}

/// What can be said to a caller now.
enum Verdict {
    Serve(Box<TokenLease>),
    Fail(Error),
    Ask,
}

impl Asks {
    /// A caller wants a token. [`Asks::review`] follows.
    pub(crate) fn add(&mut self, waiter: WaiterId, grant: GrantName, need: Need, until: Mono, out: &mut Vec<Command>) {
        if self.waiting >= MOST_WAITERS {
            let reason = "too many callers wait in this process".into();
            out.push(Command::Answer(waiter, Err(retry(None, reason, None))));
            return;
        }
        self.waiting += 1;
        let waiter = Waiter {
            id: waiter,
            need,
            until,
        };
        match self.open.entry(grant) {
            Entry::Occupied(mut ask) => ask.get_mut().waiters.push(waiter),
            Entry::Vacant(slot) => {
                slot.insert(Ask {
                    waiters: vec![waiter],
                    asked: Asked::No,
                });
            }
        }
    }

    /// Answers whoever can be answered from what is held. `certain`: what is held is the newest that the hub has;
    /// before that, bad news may be old news, and only good news is passed on.
    pub(crate) fn review(&mut self, held: &Held, certain: bool, now: Now, out: &mut Vec<Command>) {
        let waiting = &mut self.waiting;
        self.open.retain(|grant, ask| {
            ask.waiters.retain(|waiter| {
                let answer = match judge(held, grant, waiter.need, now) {
                    Verdict::Serve(lease) => Ok(*lease),
                    Verdict::Fail(error) if certain => Err(error),
                    Verdict::Fail(_) | Verdict::Ask if waiter.until > now.mono => return true,
                    Verdict::Fail(_) | Verdict::Ask => Err(late(held, grant, certain, now)),
                };
                *waiting = waiting.saturating_sub(1);
                out.push(Command::Answer(waiter.id, answer));
                false
            });
            if let Asked::Done { until, .. } = ask.asked
                && until <= now.mono
            {
                ask.asked = Asked::No;
            }
            !ask.waiters.is_empty()
        });
    }

    /// Whether something must be asked for which a device access token is needed.
    pub(crate) fn wants_http(&self, held: &Held, live: bool, now: Now) -> bool {
        self.open.iter().any(|(grant, ask)| {
            !ask.waits(newest(held, grant)) && (!live || matches!(ask.what(grant, held, now), What::Fetch { .. }))
        })
    }

    /// What must be asked now; only while the hub can hear it. `ws`, `http`: which ways are open.
    pub(crate) fn wanted(&mut self, held: &Held, ws: bool, http: bool, now: Now) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (grant, ask) in &mut self.open {
            let version = newest(held, grant);
            let what = ask.what(grant, held, now);
            let open = http || ws && matches!(what, What::Refresh { .. });
            if ask.waits(version) || !open {
                continue;
            }
            self.asked_ever += 1;
            let Some(id) = RequestId::new(format!("r{}", self.asked_ever)) else {
                continue;
            };
            ask.asked = Asked::Yes {
                id: id.clone(),
                version,
            };
            wanted.push(Wanted {
                id,
                grant: grant.clone(),
                what,
            });
        }
        wanted
    }

    /// The hub answered a `refresh`: it has `version` now.
    pub(crate) fn done(&mut self, id: &RequestId, version: Version, now: Now) {
        if let Some(ask) = self.find(id) {
            ask.asked = Asked::Done {
                version,
                until: now.mono + TOKEN_AFTER_DONE,
            };
        }
    }

    /// The hub gave a token that is good enough by its own clock, whatever ours says.
    pub(crate) fn fetched(&mut self, id: &RequestId, lease: &TokenLease, held: &Held, out: &mut Vec<Command>) {
        let Some(ask) = self.find(id) else {
            return;
        };
        ask.asked = Asked::No;
        if lease.version < newest(held, &lease.grant) || held.is_rejected(&lease.grant, lease.version) {
            return;
        }
        let before = ask.waiters.len();
        ask.waiters.retain(|waiter| {
            let serves = matches!(waiter.need, Need::Validity(_));
            if serves {
                out.push(Command::Answer(waiter.id, Ok(lease.clone())));
            }
            !serves
        });
        let served = before - ask.waiters.len();
        self.waiting = self.waiting.saturating_sub(served);
    }

    /// The hub answered with a no.
    pub(crate) fn refused(
        &mut self,
        id: &RequestId,
        refusal: &Refusal,
        held: &mut Held,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        let Some((grant, version)) = self.open.iter().find_map(|(grant, ask)| match &ask.asked {
            Asked::Yes { id: asked, version } if asked == id => Some((grant.clone(), *version)),
            _ => None,
        }) else {
            return;
        };
        // Good news may have come before the answer.
        self.review(held, false, now, out);
        let Some(ask) = self.open.remove(&grant) else {
            return;
        };
        let error = error_of(&grant, version, refusal, held, now);
        self.waiting = self.waiting.saturating_sub(ask.waiters.len());
        out.extend(ask.waiters.iter().map(|w| Command::Answer(w.id, Err(error.clone()))));
    }

    /// The request was not taken: to be asked again.
    pub(crate) fn lost(&mut self, id: &RequestId) {
        if let Some(ask) = self.find(id) {
            ask.asked = Asked::No;
        }
    }

    /// The connection is gone, and all answers with it.
    pub(crate) fn all_lost(&mut self) {
        for ask in self.open.values_mut() {
            ask.asked = Asked::No;
        }
    }

    /// No answer will come any more.
    pub(crate) fn stop(&mut self, why: &Stopped, out: &mut Vec<Command>) {
        for ask in std::mem::take(&mut self.open).into_values() {
            out.extend(
                ask.waiters
                    .iter()
                    .map(|w| Command::Answer(w.id, Err(Error::Stopped(why.clone())))),
            );
        }
        self.waiting = 0;
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        let done = self.open.values().filter_map(|ask| match ask.asked {
            Asked::Done { until, .. } => Some(until),
            Asked::No | Asked::Yes { .. } => None,
        });
        let waiters = self.open.values().flat_map(|ask| ask.waiters.iter().map(|w| w.until));
        waiters.chain(done).min()
    }

    fn find(&mut self, id: &RequestId) -> Option<&mut Ask> {
        self.open
            .values_mut()
            .find(|ask| matches!(&ask.asked, Asked::Yes { id: asked, .. } if asked == id))
    }
}

impl Ask {
    /// Whether an answer is due that may bring better than `version`.
    fn waits(&self, version: Version) -> bool {
        match &self.asked {
            Asked::No => false,
            Asked::Yes { version: asked, .. } => *asked >= version,
            Asked::Done { version: promised, .. } => *promised > version,
        }
    }

    fn what(&self, grant: &GrantName, held: &Held, now: Now) -> What {
        let works = good_still(held, grant, now).is_some();
        let longest = self.waiters.iter().filter_map(|waiter| match waiter.need {
            Need::Validity(least) => Some(least),
            Need::Newer(_) => None,
        });
        if works && let Some(min_validity) = longest.max() {
            return What::Fetch { min_validity };
        }
        let version = newest(held, grant);
        What::Refresh {
            version,
            reason: if held.is_rejected(grant, version) {
                RefreshReason::Rejected
            } else {
                RefreshReason::Expired
            },
        }
    }
}

fn newest(held: &Held, grant: &GrantName) -> Version {
    held.get(grant).map_or(Version(0), |register| register.version)
}

fn judge(held: &Held, grant: &GrantName, need: Need, now: Now) -> Verdict {
    let Some(register) = held.get(grant) else {
        return Verdict::Ask;
    };
    if let Some(lease) = held.lease(grant) {
        let good = match need {
            Need::Validity(least) => lease.lasts(least, now),
            Need::Newer(version) => lease.version > version && lease.lasts(Duration::ZERO, now),
        };
        if good {
            return Verdict::Serve(Box::new(lease));
        }
    }
    let status = register.status.as_ref();
    match register.health {
        Health::ReauthRequired => {
            return Verdict::Fail(Error::Reauth {
                grant: grant.clone(),
                reason: status
                    .and_then(|s| s.reason.clone())
                    .unwrap_or_else(|| "the provider does not accept the refresh token any more".into()),
                login_url: status.and_then(|s| s.login_url.clone()),
            });
        }
        Health::Deleted => return Verdict::Fail(Error::UnknownGrant { grant: grant.clone() }),
        Health::Ok | Health::Refreshing | Health::Suspect => {}
    }
    match &register.not_before {
        Some(no) if no.version >= register.version && no.until > now.mono => {
            let wait = no.until.since(now.mono);
            Verdict::Fail(retry_in(wait, no.reason.clone(), good_still(held, grant, now), now))
        }
        _ => Verdict::Ask,
    }
}

fn good_still(held: &Held, grant: &GrantName, now: Now) -> Option<Box<TokenLease>> {
    held.lease(grant)
        .filter(|lease| lease.lasts(Duration::ZERO, now))
        .map(Box::new)
}

fn error_of(grant: &GrantName, version: Version, refusal: &Refusal, held: &mut Held, now: Now) -> Error {
    let status = held.get(grant).and_then(|register| register.status.as_ref());
    match refusal.code {
        Code::UnknownGrant => Error::UnknownGrant { grant: grant.clone() },
        Code::ReauthRequired => Error::Reauth {
            grant: grant.clone(),
            reason: status
                .and_then(|s| s.reason.clone())
                .unwrap_or_else(|| refusal.message.clone()),
            login_url: status.and_then(|s| s.login_url.clone()),
        },
        _ => {
            let later = refusal.retry_at.or_else(|| held.get(grant).and_then(retry_at));
            let wait = later.map_or(RETRY_SOON, |at| until(at, held, now));
            let until = now.mono + wait;
            held.not_before(
                grant,
                NotBefore {
                    version,
                    until,
                    reason: refusal.message.clone(),
                },
            );
            retry_in(wait, refusal.message.clone(), good_still(held, grant, now), now)
        }
    }
}

fn until(retry_at: UnixSeconds, held: &Held, now: Now) -> Duration {
    Unix::from_wire(retry_at).since(held.clock.at(now))
}

fn late(held: &Held, grant: &GrantName, certain: bool, now: Now) -> Error {
    let reason = if certain {
        "the hub has not answered in time"
    } else {
        "the hub cannot be reached"
    };
    retry(None, reason.into(), good_still(held, grant, now))
}

fn retry_in(wait: Duration, reason: String, held: Option<Box<TokenLease>>, now: Now) -> Error {
    let unix = Duration::from_millis(now.unix.plus(wait).0);
    retry(std::time::SystemTime::UNIX_EPOCH.checked_add(unix), reason, held)
}

const fn retry(retry_at: Option<std::time::SystemTime>, reason: String, held: Option<Box<TokenLease>>) -> Error {
    Error::Retry { retry_at, reason, held }
}
