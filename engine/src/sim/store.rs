//! A store with one grant in it: what every real store must do, in a page.

use std::collections::HashSet;

use lockstep_protocol::{DeviceId, LeaseId, Seq, Version, frame::Cause};

use crate::{
    grant::{CommitRequest, Verdict},
    record::{Claim, Doubt, GrantRecord, Health, Holder, Purpose, TokenSet},
    time::Unix,
};

/// The store of one grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) record: Option<GrantRecord>,
    pub(crate) retired: HashSet<String>,
}

/// A claim to be taken.
#[derive(Debug, Clone)]
pub(crate) struct ClaimRow {
    pub(crate) lease: LeaseId,
    pub(crate) holder: Holder,
    pub(crate) from_version: Version,
    pub(crate) over: Option<LeaseId>,
    pub(crate) fence: u64,
    pub(crate) ttl: std::time::Duration,
    pub(crate) purpose: Purpose,
    pub(crate) for_device: bool,
    pub(crate) doubt: Option<Doubt>,
}

/// What the scheduler is given.
#[derive(Debug, Clone)]
pub(crate) enum Due {
    Nothing,
    /// The record with a claim of its own.
    Claimed(Box<GrantRecord>),
    /// A claim stands that somebody left behind.
    Abandoned(Box<GrantRecord>),
}

/// What came of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Commit {
    Done,
    Superseded,
    Retired,
}

impl Store {
    pub(crate) fn read(&self) -> Option<Box<GrantRecord>> {
        self.record.clone().map(Box::new)
    }

    /// None: no such grant. Whether it was won.
    pub(crate) fn claim(&mut self, row: ClaimRow, now: Unix) -> Option<bool> {
        let record = self.record.as_mut()?;
        let may_replace = |claim: &Claim| row.over == Some(claim.lease) && may_take_over(claim, &row.holder, now);
        let free = record.claim.as_ref().is_none_or(may_replace);
        let moved = record.version != row.from_version || record.fence != row.fence;
        if moved || record.health == Health::Deleted || !free {
            return Some(false);
        }
        record.revision += 1;
        record.fence += 1;
        record.remember_lease(row.lease);
        record.doubt = row.doubt;
        record.claim = Some(Claim {
            lease: row.lease,
            fence: record.fence,
            holder: row.holder,
            purpose: row.purpose,
            taken_at: now,
            expires_at: now + row.ttl,
            for_device: row.for_device,
            handed_to: None,
        });
        Some(true)
    }

    pub(crate) fn renew(&mut self, lease: LeaseId, ttl: std::time::Duration, now: Unix) -> bool {
        let Some(record) = &mut self.record else {
            return false;
        };
        let Some(claim) = record.claim.as_mut().filter(|claim| claim.lease == lease) else {
            return false;
        };
        claim.expires_at = now + ttl;
        record.revision += 1;
        true
    }

    pub(crate) fn hand_out(&mut self, lease: LeaseId, device: DeviceId, now: Unix) -> bool {
        let Some(record) = &mut self.record else {
            return false;
        };
        let stands = |claim: &&mut Claim| claim.lease == lease && claim.expires_at > now;
        let Some(claim) = record.claim.as_mut().filter(stands) else {
            return false;
        };
        claim.handed_to = Some(device);
        record.remember_handed(lease);
        record.revision += 1;
        true
    }

    pub(crate) fn commit(&mut self, request: &CommitRequest) -> Commit {
        let Some(record) = &mut self.record else {
            if request.from_version != Version(0) {
                return Commit::Superseded;
            }
            self.record = Some(fresh(request));
            return Commit::Done;
        };
        let late_for_tombstone = record.health == Health::Deleted && request.lease.is_some();
        if record.version != request.from_version || late_for_tombstone {
            return Commit::Superseded;
        }
        let retired = &mut self.retired;
        if request
            .unless_retired
            .as_ref()
            .is_some_and(|token| retired.contains(token.expose()))
        {
            return Commit::Retired;
        }
        retired.extend(request.retire.iter().map(|token| token.expose().to_owned()));
        *record = GrantRecord {
            revision: record.revision + 1,
            version: record.version.next(),
            seq: record.seq.next(),
            fence: record.fence,
            former_leases: std::mem::take(&mut record.leases),
            ..fresh(request)
        };
        Commit::Done
    }

    /// Whether it was kept.
    pub(crate) fn keep_alternate(&mut self, tokens: TokenSet, from: Version) -> bool {
        let fits =
            |r: &&mut GrantRecord| r.version == from.next() && r.health != Health::Deleted && r.alternate.is_none();
        let Some(record) = self.record.as_mut().filter(fits) else {
            return false;
        };
        record.alternate = Some(tokens);
        record.revision += 1;
        true
    }

    /// Whether it counted.
    pub(crate) fn settle(
        &mut self,
        by: &Holder,
        lease: LeaseId,
        (version, fence): (Version, u64),
        verdict: Verdict,
        now: Unix,
    ) -> bool {
        let Some(record) = self.record.as_mut() else {
            return false;
        };
        let may_end = |claim: &Claim| claim.lease == lease && may_take_over(claim, by, now);
        let moved = record.version != version || record.fence != fence;
        if moved || record.health == Health::Deleted || !record.claim.as_ref().is_none_or(may_end) {
            return false;
        }
        record.revision += 1;
        record.fence += 1;
        record.claim = None;
        if verdict.tell {
            record.seq = record.seq.next();
        }
        record.health = verdict.health;
        record.reason = verdict.reason;
        record.retry_at = verdict.retry_at;
        record.due_at = verdict.due_at;
        record.doubt = verdict.doubt;
        if verdict.drop_alternate {
            record.alternate = None;
        }
        true
    }

    /// What the scheduler asks for: claims the grant if it is due, or gives it back if its claim was abandoned.
    pub(crate) fn claim_due(&mut self, holder: Holder, lease: LeaseId, ttl: std::time::Duration, now: Unix) -> Due {
        let Some(record) = &self.record else {
            return Due::Nothing;
        };
        let due = record.due_at.is_some_and(|at| at <= now);
        match &record.claim {
            Some(claim) if claim.holder.node == holder.node && claim.holder.incarnation < holder.incarnation => {
                Due::Abandoned(Box::new(record.clone()))
            }
            Some(claim) if claim.holder.node != holder.node && claim.expires_at <= now => {
                Due::Abandoned(Box::new(record.clone()))
            }
            None if due => {
                let row = ClaimRow {
                    lease,
                    holder,
                    from_version: record.version,
                    over: None,
                    fence: record.fence,
                    ttl,
                    purpose: Purpose::Redeem,
                    for_device: false,
                    doubt: record.doubt.clone(),
                };
                match (self.claim(row, now), self.read()) {
                    (Some(true), Some(record)) => Due::Claimed(record),
                    _ => Due::Nothing,
                }
            }
            _ => Due::Nothing,
        }
    }

    pub(crate) fn delete(&mut self) {
        if let Some(record) = self.record.as_mut().filter(|record| record.health != Health::Deleted) {
            *record = GrantRecord {
                revision: record.revision + 1,
                seq: record.seq.next(),
                health: Health::Deleted,
                reason: None,
                retry_at: None,
                tokens: None,
                leases: Vec::new(),
                former_leases: Vec::new(),
                expires_at: None,
                due_at: None,
                claim: None,
                doubt: None,
                alternate: None,
                ..record.clone()
            };
        }
    }
}

/// Whether `by` may put an end to a claim: it has lapsed, or is of this run or a former one of the same node.
fn may_take_over(claim: &Claim, by: &Holder, now: Unix) -> bool {
    claim.expires_at <= now || (claim.holder.node == by.node && claim.holder.incarnation <= by.incarnation)
}

fn fresh(request: &CommitRequest) -> GrantRecord {
    GrantRecord {
        revision: 1,
        version: request.from_version.next(),
        seq: Seq(1),
        health: Health::Ok,
        reason: None,
        retry_at: None,
        expires_at: request.tokens.expires_at,
        tokens: Some(request.tokens.clone()),
        refreshed_at: request.refreshed_at,
        cause: if request.lease.is_none() {
            Cause::Login
        } else {
            request.cause
        },
        due_at: request.due_at,
        claim: None,
        fence: 0,
        leases: Vec::new(),
        former_leases: Vec::new(),
        committed_by: request.lease,
        doubt: None,
        alternate: None,
        rejected_in_a_row: request.rejected_in_a_row,
    }
}
