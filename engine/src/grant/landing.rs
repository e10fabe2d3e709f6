//! A result is committed, or kept until it can be: nothing that a provider issued is thrown away.

use std::time::Duration;

use lockstep_protocol::{Code, LeaseId, Secret, Version, frame::Cause};

use super::{
    Command, CommitAnswer, CommitRequest, Cx, Grant, Note, Reply, Trouble, WaiterId, broken::Broken, due::due_at,
    outcome::Issued, schedule::Timer,
};
use crate::{
    record::{GrantRecord, Health, Purpose, TokenSet},
    time::Unix,
};

/// A result on its way into the store.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Landing {
    pub(super) lease: LeaseId,
    pub(super) from: Version,
    pub(super) tokens: TokenSet,
    pub(super) issued_at: Unix,
    /// Whether it comes after its flight was over.
    pub(super) late: bool,
    pub(super) rejected_in_a_row: u32,
    /// Those who published it.
    pub(super) publishers: Vec<WaiterId>,
    pub(super) spool: Spool,
    pub(super) stage: Stage,
    pub(super) tries: u32,
}

/// Whether a result is in the node's spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spool {
    No,
    Asked,
    Durable,
}

/// Where a landing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The commit is with the store.
    Committing,
    /// The commit's answer was lost; the record is read again.
    Reading,
    /// It is the second of two results, and is being kept as the alternate.
    Keeping,
    /// The store could not; to be tried again.
    Waiting,
}

/// The longest pause before a commit is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many results of one grant may be on their way at once.
pub(super) const MOST_LANDINGS: usize = 8;

impl Grant {
    /// Lands what a provider answered to this node's own redeem, `took` ago sent.
    pub(super) fn land_issued(
        &mut self,
        lease: LeaseId,
        from: Version,
        issued: Issued,
        took: Duration,
        cx: &mut Cx<'_>,
    ) {
        // A life counts from when the provider made the token, which was not before we asked.
        let issued_at = cx.now.unix.minus(took);
        let tokens = self.complete(lease, from, issued, issued_at);
        let flight = self.flight.as_ref().filter(|flight| flight.lease == Some(lease));
        let rejected = flight.is_some_and(|flight| flight.rejected);
        let row = self.record().map_or(0, |record| record.rejected_in_a_row);
        self.land(
            Landing {
                lease,
                from,
                tokens,
                issued_at,
                late: flight.is_none(),
                rejected_in_a_row: if rejected { row.saturating_add(1) } else { 0 },
                publishers: Vec::new(),
                spool: Spool::No,
                stage: Stage::Committing,
                tries: 0,
            },
            cx,
        );
    }

    /// A whole token set: the old refresh token and scope where the answer has none.
    pub(super) fn complete(&self, lease: LeaseId, from: Version, issued: Issued, issued_at: Unix) -> TokenSet {
        let record = self.record().filter(|record| record.version == from);
        let old = record.and_then(|record| redeemed_under(record, lease));
        let kept = issued.refresh_token.is_none();
        let expires = issued.refresh_expires_in.map(|span| issued_at + span);
        TokenSet {
            access_token: Some(issued.access_token),
            refresh_token: issued
                .refresh_token
                .or_else(|| old.and_then(|old| old.refresh_token.clone())),
            token_type: issued.token_type,
            scope: issued.scope.or_else(|| old.and_then(|old| old.scope.clone())),
            expires_at: issued.expires_in.map(|span| issued_at + span),
            refresh_expires_at: expires.or_else(|| old.filter(|_| kept).and_then(|old| old.refresh_expires_at)),
        }
    }

    /// Commits a result, if its version is still current.
    pub(super) fn land(&mut self, landing: Landing, cx: &mut Cx<'_>) {
        let current = |record: &GrantRecord| record.version == landing.from && record.health != Health::Deleted;
        if self.record().is_some_and(current) {
            if self.is_broken(Broken::PushBeforeCommit) {
                self.push_early(&landing);
            }
            self.commit(&landing, cx);
            self.landings.push(landing);
        } else {
            self.superseded(landing);
        }
    }

    fn push_early(&mut self, landing: &Landing) {
        if let Some(mut record) = self.known.record.clone() {
            record.version = record.version.next();
            record.seq = record.seq.next();
            record.tokens = Some(landing.tokens.clone());
            self.order(Command::Push(record));
        }
    }

    fn commit(&mut self, landing: &Landing, cx: &mut Cx<'_>) {
        let old = self
            .record()
            .and_then(|record| record.tokens.as_ref()?.refresh_token.clone());
        let is_new = |old: &Secret| landing.tokens.refresh_token.as_ref() != Some(old);
        let due_at = due_at(&landing.tokens, landing.issued_at, &self.policy, cx.entropy);
        self.order(Command::Commit(Box::new(CommitRequest {
            lease: Some(landing.lease),
            from_version: landing.from,
            tokens: landing.tokens.clone(),
            cause: Cause::Refresh,
            refreshed_at: landing.issued_at,
            due_at,
            retire: old.filter(is_new),
            unless_retired: None,
            rejected_in_a_row: landing.rejected_in_a_row,
        })));
    }

    pub(super) fn on_committed(&mut self, lease: Option<LeaseId>, answer: CommitAnswer, cx: &mut Cx<'_>) {
        let Some(lease) = lease else {
            return self.on_login_committed(answer, cx);
        };
        let Some(index) = self.landings.iter().position(|landing| landing.lease == lease) else {
            return;
        };
        match answer {
            CommitAnswer::Done(record) => {
                self.absorb(record, cx);
                let landing = self.landings.swap_remove(index);
                self.landed(landing);
            }
            CommitAnswer::Superseded(record) => {
                match record {
                    Some(record) => self.absorb(record, cx),
                    None => self.known.record = None,
                }
                let landing = self.landings.swap_remove(index);
                self.superseded(landing);
            }
            CommitAnswer::Trouble(Trouble::Unknown(_)) if self.is_broken(Broken::DropUnknown) => {
                self.landings.swap_remove(index);
                self.end_flight();
            }
            CommitAnswer::Trouble(Trouble::Refused(_)) if self.is_broken(Broken::DropRefused) => {
                self.landings.swap_remove(index);
                self.end_flight();
            }
            CommitAnswer::Trouble(Trouble::Unknown(_)) => {
                self.landings[index].stage = Stage::Reading;
                self.load();
            }
            CommitAnswer::Trouble(Trouble::Refused(_)) | CommitAnswer::Retired => self.keep(index, cx),
        }
    }

    fn landed(&mut self, landing: Landing) {
        let version = landing.from.next();
        self.note(Note::Committed { version });
        if landing.late {
            self.note(Note::LateResult { lease: landing.lease });
        }
        for waiter in landing.publishers {
            self.answer(waiter, Reply::Done(version));
        }
        self.unspool(landing.lease, landing.spool);
    }

    fn unspool(&mut self, lease: LeaseId, spool: Spool) {
        match spool {
            Spool::No => {}
            // Removed once it is there: orders are carried out at once, and the removal might come first.
            Spool::Asked => self.unspool.push(lease),
            Spool::Durable => self.order(Command::Unspool { lease }),
        }
    }

    /// The version moved on without this result: it may be the second of two that both succeeded.
    pub(super) fn superseded(&mut self, landing: Landing) {
        let record = self.known.record.as_deref();
        if record.is_some_and(|record| is_its_commit(record, &landing)) {
            return self.landed(landing);
        }
        let rival = |record: &GrantRecord| {
            let known = landing.spool == Spool::Durable || record.former_leases.contains(&landing.lease);
            let follows = record.version == landing.from.next() && record.cause == Cause::Refresh;
            let is_other = |tokens: &TokenSet| tokens.refresh_token != landing.tokens.refresh_token;
            let news = record.tokens.as_ref().is_some_and(is_other) && landing.tokens.refresh_token.is_some();
            known && follows && news && record.health != Health::Deleted
        };
        if record.is_some_and(rival) && !self.is_broken(Broken::DropSecond) {
            return self.keep_alternate(landing);
        }
        self.dismiss(landing);
    }

    fn keep_alternate(&mut self, mut landing: Landing) {
        landing.stage = Stage::Keeping;
        self.order(Command::KeepAlternate {
            lease: landing.lease,
            tokens: Box::new(landing.tokens.clone()),
            from_version: landing.from,
        });
        self.landings.push(landing);
    }

    pub(super) fn on_alternate_kept(&mut self, lease: LeaseId, answer: &Result<(), Trouble>, cx: &mut Cx<'_>) {
        let keeps = |landing: &Landing| landing.lease == lease && landing.stage == Stage::Keeping;
        let Some(index) = self.landings.iter().position(keeps) else {
            return;
        };
        if answer.is_err() {
            return self.keep(index, cx);
        }
        let landing = self.landings.swap_remove(index);
        self.note(Note::KeptAlternate);
        self.dismiss(landing);
    }

    /// Whether a result waits for the store to take it.
    pub(super) fn is_kept_waiting(&self) -> bool {
        self.landings.iter().any(|landing| landing.stage == Stage::Waiting)
    }

    /// It is of no use: tells those who published it.
    fn dismiss(&mut self, landing: Landing) {
        for waiter in landing.publishers {
            self.answer(waiter, Reply::failed(Code::Superseded, "a newer version is committed"));
        }
        self.unspool(landing.lease, landing.spool);
    }

    /// The store refuses it: into the spool, and again later.
    fn keep(&mut self, index: usize, cx: &mut Cx<'_>) {
        let landing = &mut self.landings[index];
        landing.stage = Stage::Waiting;
        landing.tries += 1;
        let pause = (Duration::from_millis(125) * 2_u32.pow(landing.tries.min(8))).min(LONGEST_PAUSE);
        let publishers = std::mem::take(&mut landing.publishers);
        let spool = (landing.spool == Spool::No).then(|| Command::Spool {
            lease: landing.lease,
            from_version: landing.from,
            tokens: Box::new(landing.tokens.clone()),
        });
        if let Some(spool) = spool {
            landing.spool = Spool::Asked;
            self.order(spool);
        }
        self.timers.set(Timer::Land, cx.now.mono + pause);
        self.end_flight();
        let at = cx.now.unix + LONGEST_PAUSE;
        let reply = Reply::failed_until(Code::Unavailable, "the store takes no commits; the result is kept", at);
        for waiter in publishers {
            self.answer(waiter, reply.clone());
        }
        self.rest(&reply);
    }

    pub(super) fn on_spooled(&mut self, lease: LeaseId, durable: bool, _cx: &mut Cx<'_>) {
        if let Some(index) = self.unspool.iter().position(|waiting| *waiting == lease) {
            self.unspool.swap_remove(index);
            return self.order(Command::Unspool { lease });
        }
        let Some(landing) = self.landings.iter_mut().find(|landing| landing.lease == lease) else {
            return;
        };
        if durable {
            landing.spool = Spool::Durable;
            self.note(Note::Spooled { lease });
        } else {
            // Asked for again with the next commit that fails.
            landing.spool = Spool::No;
        }
    }

    /// Tries all that wait again.
    pub(super) fn land_again(&mut self, cx: &mut Cx<'_>) {
        self.land_those(Stage::Waiting, cx);
    }

    /// Judges the commits whose answer was lost.
    pub(super) fn landings_after_reading(&mut self, cx: &mut Cx<'_>) {
        self.land_those(Stage::Reading, cx);
    }

    fn land_those(&mut self, stage: Stage, cx: &mut Cx<'_>) {
        let all = std::mem::take(&mut self.landings);
        let (those, rest) = all.into_iter().partition(|landing| landing.stage == stage);
        self.landings = rest;
        for mut landing in those {
            landing.stage = Stage::Committing;
            self.land(landing, cx);
        }
    }

    pub(super) fn landings_without_reading(&mut self, cx: &mut Cx<'_>) {
        for index in 0..self.landings.len() {
            if self.landings[index].stage == Stage::Reading {
                self.keep(index, cx);
            }
        }
    }
}

/// The token set whose refresh token was sent under a lease.
fn redeemed_under(record: &GrantRecord, lease: LeaseId) -> Option<&TokenSet> {
    let claim = record.claim.as_ref().filter(|claim| claim.lease == lease);
    match claim.map(|claim| claim.purpose) {
        Some(Purpose::Alternate) => record.alternate.as_ref(),
        _ => record.tokens.as_ref(),
    }
}

fn is_its_commit(record: &GrantRecord, landing: &Landing) -> bool {
    record.version == landing.from.next() && is_committed(record, landing.lease, landing.tokens.refresh_token.as_ref())
}

/// Whether the newest version is the result of a lease: one lease may bring two results, if its holder redeemed twice.
pub(super) fn is_committed(record: &GrantRecord, lease: LeaseId, refresh_token: Option<&Secret>) -> bool {
    let standing = record.tokens.as_ref().and_then(|tokens| tokens.refresh_token.as_ref());
    record.committed_by == Some(lease) && (refresh_token.is_none() || refresh_token == standing)
}
