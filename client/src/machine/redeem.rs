//! Device-side redeem: the rules of a redeemer.
//!
//! `elected` → `accept` → `redeem` → the request to the provider → the result sealed on disk → `publish`, again after
//! each reconnect, until the hub has answered. A redeem that has begun goes on whatever happens to the connection: its
//! result is worth more than the session that it was asked for in (promise P5).

mod kept;

use std::{collections::BTreeMap, time::Duration};

use lockstep_protocol::{
    ClientFrame, Code, Epoch, GrantName, LeaseId, RequestId, Version,
    frame::{Accept, Elected, Failed, Lease, Publish, PublishedToken, Redeem, Renew},
};

pub(crate) use kept::{Issued, Kept};

use super::{LinkId, Refusal, io};
use crate::{
    clock::{Mono, Now},
    event::{Event, RedeemStep},
};

/// The most redeems at once; more are declined.
const MOST: usize = 16;
/// How many times a hub may say that a result's lease is unknown to it before it is believed.
const MOST_REFUSALS: u32 = 3;
/// How long to wait for the answer to `publish`, and before saying it again after a refusal that will pass.
const AGAIN: Duration = Duration::from_secs(10);
/// How many times it may be said on one connection before old answers stop to count.
const MOST_SAID: usize = 16;
/// When the hub did not say how often to renew.
const RENEW: Duration = Duration::from_secs(15);

/// What a device saw of its redeem. The hub judges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The provider's answer is usable.
    Issued(Box<PublishedToken>),
    /// No byte of the refresh token left.
    NotSent(String),
    /// It left, or may have; what was seen after that.
    Sent {
        status: Option<u16>,
        error: Option<String>,
        detail: String,
    },
}

/// What happens to a redeem.
#[derive(Debug)]
pub(crate) enum Input {
    /// The answer to [`Command::Send`].
    Came(LeaseId, Reply),
    /// The answer to [`Command::Keep`], whether or not it is on disk.
    Kept(LeaseId),
}

/// What a redeem wants done.
#[derive(Debug)]
pub(crate) enum Command {
    /// Keep a note that the request may leave; then send it, if it can leave in time.
    Send {
        note: Box<Kept>,
        redeem: Box<Redeem>,
        /// Nothing leaves after this.
        leave_by: Mono,
        /// Nothing is waited for after this.
        answer_by: Mono,
    },
    /// Seal the result on disk.
    Keep(Box<Kept>),
    /// The hub has it, or does not want it.
    Forget(LeaseId),
}

#[derive(Debug)]
enum Stage {
    /// `accept` is said.
    Accepted { at: Mono, until: Mono },
    /// The provider is being asked.
    Redeeming,
    /// The result is on its way to the disk.
    Keeping(Issued),
    /// The hub is to be told, until it has answered.
    Telling { told: Told, refusals: u32, outbox: Outbox },
}

#[derive(Debug)]
enum Told {
    Result(Issued),
    Failure(Reply),
}

/// When something is to be said, and what was said last.
#[derive(Debug, Default)]
struct Outbox {
    /// What it was said under on this connection: any answer is the answer.
    ids: Vec<RequestId>,
    link: Option<LinkId>,
    again_at: Mono,
}

#[derive(Debug)]
struct Work {
    grant: GrantName,
    from_version: Version,
    epoch: Option<Epoch>,
    renew_every: Duration,
    renew_at: Mono,
    stage: Stage,
}

#[derive(Debug)]
pub(crate) struct Redeemer {
    on: bool,
    works: BTreeMap<LeaseId, Work>,
    said: u64,
}

impl Redeemer {
    /// `left`: what an earlier run could not bring to an end.
    pub(crate) fn new(on: bool, left: Vec<Kept>) -> Self {
        let works = left.into_iter().map(|kept| (kept.lease, again(kept))).collect();
        Self { on, works, said: 0 }
    }

    /// Whether something is under way that a farewell should wait for.
    pub(crate) fn is_busy(&self) -> bool {
        !self.works.is_empty()
    }

    /// Whether the provider is being asked, or its answer is on its way to the disk.
    pub(crate) fn is_under_way(&self) -> bool {
        self.works
            .values()
            .any(|work| matches!(work.stage, Stage::Redeeming | Stage::Keeping(_)))
    }

    /// No more elections.
    pub(crate) const fn retire(&mut self) {
        self.on = false;
    }

    pub(crate) fn elected(&mut self, link: LinkId, elected: Elected, now: Now, out: &mut Vec<io::Command>) {
        let lease = elected.lease.id;
        let grant = elected.grant;
        if !self.on || self.works.len() >= MOST {
            let why = if self.on {
                "too many redeems here"
            } else {
                "this device does not redeem"
            };
            let id = self.next_id();
            let reason = why.to_owned();
            out.push(step(&grant, elected.from_version, RedeemStep::Declined { reason }));
            out.extend(id.map(|id| send(link, failed(id, grant, lease, &Reply::NotSent(why.into())))));
            return;
        }
        let accept = Accept {
            grant: grant.clone(),
            lease,
        };
        out.push(send(link, ClientFrame::Accept(accept)));
        out.push(step(&grant, elected.from_version, RedeemStep::Elected));
        let renew_every = Duration::from_secs(elected.lease.renew_every.clamp(1, 60));
        self.works.entry(lease).or_insert_with(|| Work {
            grant,
            from_version: elected.from_version,
            epoch: None,
            renew_every,
            renew_at: now.mono + renew_every,
            stage: Stage::Accepted {
                at: now.mono,
                until: now.mono + Duration::from_secs(elected.lease.expires_in),
            },
        });
    }

    /// The refresh token is here. The clock has run since `accept` was said.
    pub(crate) fn redeem(&mut self, redeem: Redeem, epoch: Option<Epoch>, now: Now, out: &mut Vec<io::Command>) {
        let lease = redeem.lease;
        let (accepted, renew_every) = match self.works.get(&lease) {
            Some(Work {
                stage: Stage::Accepted { at, .. },
                renew_every,
                ..
            }) => (*at, *renew_every),
            // Said twice: the first time counts.
            Some(_) => return,
            None => (now.mono, RENEW),
        };
        let mut work = Work {
            grant: redeem.grant.clone(),
            from_version: redeem.from_version,
            epoch,
            renew_every,
            renew_at: now.mono + renew_every,
            stage: Stage::Redeeming,
        };
        match epoch {
            Some(epoch) if self.on => {
                out.push(step(&work.grant, work.from_version, RedeemStep::Redeeming));
                out.push(command(Command::Send {
                    note: Box::new(Kept {
                        lease,
                        grant: redeem.grant.clone(),
                        epoch,
                        from_version: redeem.from_version,
                        result: None,
                    }),
                    leave_by: accepted + Duration::from_secs(redeem.send_within),
                    answer_by: accepted + Duration::from_secs(redeem.deadline),
                    redeem: Box::new(redeem),
                }));
            }
            _ => work.stage = telling(Told::Failure(Reply::NotSent("this device does not redeem".into()))),
        }
        self.works.insert(lease, work);
    }

    /// The hub has granted more time; nothing here depends on it: the request has its own deadline.
    pub(crate) fn lease(&mut self, lease: &Lease, now: Now) {
        if let Some(work) = self.works.get_mut(&lease.id) {
            work.renew_at = now.mono + work.renew_every;
        }
    }

    pub(crate) fn handle(&mut self, input: Input, now: Now, out: &mut Vec<io::Command>) {
        match input {
            Input::Came(lease, reply) => self.came(lease, reply, now, out),
            Input::Kept(lease) => {
                if let Some(work) = self.works.get_mut(&lease)
                    && let Stage::Keeping(issued) = &work.stage
                {
                    out.push(step(&work.grant, work.from_version, RedeemStep::Sealed));
                    work.stage = telling(Told::Result(issued.clone()));
                }
            }
        }
    }

    fn came(&mut self, lease: LeaseId, reply: Reply, now: Now, out: &mut Vec<io::Command>) {
        let Some(work) = self.works.get_mut(&lease) else {
            return;
        };
        match (reply, work.epoch) {
            (Reply::Issued(token), Some(epoch)) => {
                let issued = Issued {
                    token: *token,
                    at: now.mono,
                };
                out.push(command(Command::Keep(Box::new(Kept {
                    lease,
                    grant: work.grant.clone(),
                    epoch,
                    from_version: work.from_version,
                    result: Some(issued.clone()),
                }))));
                work.stage = Stage::Keeping(issued);
            }
            (reply, _) => {
                let (sent, reason) = match &reply {
                    Reply::NotSent(why) => (false, why.clone()),
                    Reply::Sent { error, detail, .. } => (true, error.clone().unwrap_or_else(|| detail.clone())),
                    Reply::Issued(_) => (true, "of no known epoch".into()),
                };
                out.push(step(
                    &work.grant,
                    work.from_version,
                    RedeemStep::Failed { sent, reason },
                ));
                work.stage = telling(Told::Failure(reply));
            }
        }
    }

    /// The hub has taken what it was told. False: the answer is to something else.
    pub(crate) fn done(&mut self, id: &RequestId, version: Version, out: &mut Vec<io::Command>) -> bool {
        let Some(lease) = self.find(id) else {
            return false;
        };
        if let Some(work) = self.works.get(&lease).filter(|work| work.holds_result()) {
            out.push(step(&work.grant, work.from_version, RedeemStep::Published { version }));
        }
        self.forget(lease, out);
        true
    }

    /// The hub has not. False: the answer is to something else.
    pub(crate) fn refused(&mut self, id: &RequestId, refusal: &Refusal, now: Now, out: &mut Vec<io::Command>) -> bool {
        let Some(lease) = self.find(id) else {
            return false;
        };
        let Some(Work {
            stage: Stage::Telling { told, refusals, outbox },
            grant,
            from_version,
            ..
        }) = self.works.get_mut(&lease)
        else {
            return true;
        };
        *refusals += 1;
        let last = match refusal.code {
            // A newer version is committed, the grant is gone, or no repetition will make it better.
            Code::Superseded | Code::UnknownGrant | Code::BadFrame | Code::TooLarge => true,
            // A result is not thrown away on one word; a failure is not worth more words.
            Code::NotElected | Code::Unauthorized | Code::ReauthRequired => *refusals >= MOST_REFUSALS,
            Code::RateLimited | Code::Suspect | Code::Unavailable => false,
        };
        if last || matches!(told, Told::Failure(_)) {
            tracing::warn!(%lease, code = %refusal.code, "the hub does not take what came of a redeem");
            if matches!(told, Told::Result(_)) {
                let reason = format!("{}: {}", refusal.code, refusal.message);
                out.push(step(grant, *from_version, RedeemStep::Refused { reason }));
            }
            self.forget(lease, out);
        } else {
            outbox.link = None;
            outbox.again_at = now.mono + AGAIN;
        }
        true
    }

    /// Says what is due: renewals, and what came of a redeem. After a reconnect everything is due again.
    pub(crate) fn settle(&mut self, link: Option<LinkId>, now: Now, out: &mut Vec<io::Command>) {
        self.works
            .retain(|_, work| !matches!(work.stage, Stage::Accepted { until, .. } if until <= now.mono));
        let Some(link) = link else {
            return;
        };
        for (lease, work) in &mut self.works {
            if let Stage::Telling { told, outbox, .. } = &mut work.stage {
                // A new connection has heard nothing yet, save of a refusal that asked for patience.
                if outbox.again_at > now.mono && outbox.link.is_none_or(|heard| heard == link) {
                    continue;
                }
                self.said += 1;
                let Some(id) = RequestId::new(format!("p{}", self.said)) else {
                    continue;
                };
                if outbox.link != Some(link) || outbox.ids.len() >= MOST_SAID {
                    outbox.ids.clear();
                }
                outbox.ids.push(id.clone());
                outbox.link = Some(link);
                outbox.again_at = now.mono + AGAIN;
                let frame = match (told, work.epoch) {
                    (Told::Result(issued), Some(epoch)) => {
                        out.push(step(&work.grant, work.from_version, RedeemStep::Publishing));
                        ClientFrame::Publish(Publish {
                            id,
                            grant: work.grant.clone(),
                            lease: *lease,
                            epoch,
                            from_version: work.from_version,
                            token: issued.remaining(now),
                        })
                    }
                    (Told::Result(_), None) => continue,
                    (Told::Failure(reply), _) => failed(id, work.grant.clone(), *lease, reply),
                };
                out.push(send(link, frame));
            } else if !matches!(work.stage, Stage::Accepted { .. }) && work.renew_at <= now.mono {
                work.renew_at = now.mono + work.renew_every;
                let renew = Renew {
                    grant: work.grant.clone(),
                    lease: *lease,
                };
                out.push(send(link, ClientFrame::Renew(renew)));
            }
        }
    }

    /// Deadlines; those of things to be said only count while somebody hears them.
    pub(crate) fn next_timeout(&self, live: bool) -> Option<Mono> {
        let due = self.works.values().filter_map(|work| match &work.stage {
            Stage::Accepted { until, .. } => Some(*until),
            _ if !live => None,
            Stage::Telling { outbox, .. } => Some(outbox.again_at),
            Stage::Redeeming | Stage::Keeping(_) => Some(work.renew_at),
        });
        due.min()
    }

    fn next_id(&mut self) -> Option<RequestId> {
        self.said += 1;
        RequestId::new(format!("p{}", self.said))
    }

    fn find(&self, id: &RequestId) -> Option<LeaseId> {
        self.works.iter().find_map(|(lease, work)| match &work.stage {
            Stage::Telling { outbox, .. } if outbox.ids.contains(id) => Some(*lease),
            _ => None,
        })
    }

    fn forget(&mut self, lease: LeaseId, out: &mut Vec<io::Command>) {
        self.works.remove(&lease);
        out.push(command(Command::Forget(lease)));
    }
}

impl Work {
    fn holds_result(&self) -> bool {
        matches!(
            &self.stage,
            Stage::Telling {
                told: Told::Result(_),
                ..
            }
        )
    }
}

fn again(kept: Kept) -> Work {
    let told = kept.result.map_or_else(
        || {
            Told::Failure(Reply::Sent {
                status: None,
                error: None,
                detail: "the client ended while it redeemed".into(),
            })
        },
        Told::Result,
    );
    Work {
        grant: kept.grant,
        from_version: kept.from_version,
        epoch: Some(kept.epoch),
        renew_every: RENEW,
        renew_at: Mono(0),
        stage: telling(told),
    }
}

fn telling(told: Told) -> Stage {
    Stage::Telling {
        told,
        refusals: 0,
        outbox: Outbox::default(),
    }
}

fn failed(id: RequestId, grant: GrantName, lease: LeaseId, reply: &Reply) -> ClientFrame {
    let (sent, status, error, detail) = match reply {
        Reply::Issued(_) => (true, None, None, "issued".to_owned()),
        Reply::NotSent(detail) => (false, None, None, detail.clone()),
        Reply::Sent { status, error, detail } => (true, *status, error.clone(), detail.clone()),
    };
    ClientFrame::Failed(Failed {
        id,
        grant,
        lease,
        sent,
        status,
        error,
        detail: Some(detail),
    })
}

fn send(link: LinkId, frame: ClientFrame) -> io::Command {
    io::Command::Send(link, Box::new(frame))
}

fn step(grant: &GrantName, from_version: Version, step: RedeemStep) -> io::Command {
    io::Command::Event(Event::Redeem {
        grant: grant.clone(),
        from_version,
        step,
    })
}

const fn command(command: Command) -> io::Command {
    io::Command::Redeem(command)
}
