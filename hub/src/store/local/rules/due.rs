//! What is due, and who uses what.

use std::{
    collections::{BTreeMap, HashSet},
    iter::{Copied, Peekable},
    ops::ControlFlow,
    slice,
};

use lockstep_engine::{
    preload::Hours,
    record::{Claim, Health, Holder, Purpose},
    time::Unix,
};
use lockstep_protocol::{GrantName, LeaseId, UserId};

use super::{
    super::{
        super::{Answer, Due, DueQuery, LONGEST_LEASE_MS},
        key::{Key, corrupt},
        row::{self, DueEntry, GrantRow},
        rows::{Changes, Judged, Rows},
    },
    At, grant, place_grant, put_grant,
};

/// The most entries of the index that one call looks at, so that a crowd of unused grants holds nobody up.
const MOST_LOOKED_AT: usize = 4096;

pub(in super::super) fn claim_due(rows: &dyn Rows, now: Unix, query: &DueQuery) -> Answer<Judged<Vec<Due>>> {
    let mut round = Round {
        rows,
        now,
        query,
        leases: query.leases.iter().copied().peekable(),
        abandoned: 0,
        looked_at: 0,
        judged: Judged {
            answer: Vec::new(),
            changes: Changes::default(),
        },
    };
    let prefix = Key::due_at(&query.provider);
    rows.walk(prefix.as_slice(), prefix.as_slice(), &mut |key, bytes| {
        let (due, user, grant) = Key::parse_due(key, &prefix, &query.provider)?;
        round.look_at(due, row::decode(key, bytes)?, (user, grant))
    })?;
    Ok(round.judged)
}

/// One walk along the index of what is due.
struct Round<'a> {
    rows: &'a dyn Rows,
    now: Unix,
    query: &'a DueQuery,
    leases: Peekable<Copied<slice::Iter<'a, LeaseId>>>,
    abandoned: usize,
    looked_at: usize,
    judged: Judged<Vec<Due>>,
}

impl Round<'_> {
    fn look_at(&mut self, due: Unix, entry: DueEntry, at: At) -> Answer<ControlFlow<()>> {
        let ahead = due.0.saturating_sub(self.now.0);
        let Some(lease) = self.leases.peek().copied() else {
            return Ok(ControlFlow::Break(()));
        };
        // Claims of former incarnations stand no further ahead.
        if ahead > LONGEST_LEASE_MS || self.looked_at >= MOST_LOOKED_AT {
            return Ok(ControlFlow::Break(()));
        }
        self.looked_at += 1;
        let place = Key::due(due, &at.0, &at.1);
        let done = match entry.holder {
            None if ahead == 0 => self.claim_or_leave(at, lease),
            Some(holder) if self.is_abandoned(&holder, ahead) => self.give_back(at),
            Some(_) if !self.query.lost.is_empty() => self.find_again(at),
            _ => Ok(()),
        };
        if let Err(error) = done {
            // One grant that cannot be read must not keep the provider's others from being refreshed.
            tracing::error!(%error, "a grant is due that cannot be read; it is not looked at again");
            self.judged.changes.drop(place);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn is_abandoned(&self, holder: &Holder, ahead: u64) -> bool {
        if holder.node == self.query.holder.node {
            holder.incarnation < self.query.holder.incarnation
        } else {
            ahead == 0
        }
    }

    fn claim_or_leave(&mut self, at: At, lease: LeaseId) -> Answer<()> {
        let old = self.row(&at)?;
        let mut new = old.clone();
        new.parked = old.used < self.query.used_since;
        new.asleep = old.used < self.query.in_use_since && old.wake_at.is_some_and(|wake| wake > self.now);
        if new.parked || new.asleep {
            place_grant(&mut self.judged.changes, &at, Some(&old), &new);
            return Ok(());
        }
        new.rouse();
        grant::take(&mut new.record, ahead(&old, self.query, lease, self.now));
        put_grant(&mut self.judged.changes, &at, Some(&old), &mut new);
        self.leases.next();
        let (user, grant) = at;
        self.judged.answer.push(Due {
            user,
            grant,
            claimed: true,
            record: new.record,
        });
        Ok(())
    }

    fn give_back(&mut self, at: At) -> Answer<()> {
        if self.abandoned < self.query.leases.len() {
            self.abandoned += 1;
            let record = self.row(&at)?.record;
            let (user, grant) = at;
            self.judged.answer.push(Due {
                user,
                grant,
                claimed: false,
                record,
            });
        }
        Ok(())
    }

    /// It was claimed before, and the answer was lost.
    fn find_again(&mut self, at: At) -> Answer<()> {
        let record = self.row(&at)?.record;
        let claim = record.claim.as_ref();
        if claim.is_some_and(|claim| self.query.lost.contains(&claim.lease)) {
            self.leases.next();
            let (user, grant) = at;
            self.judged.answer.push(Due {
                user,
                grant,
                claimed: true,
                record,
            });
        }
        Ok(())
    }

    fn row(&self, at: &At) -> Answer<GrantRow> {
        let key = Key::grant(&at.0, &at.1);
        self.rows
            .row(&key)?
            .ok_or_else(|| corrupt(key.as_slice(), "due, but not there"))
    }
}

fn ahead(row: &GrantRow, query: &DueQuery, lease: LeaseId, now: Unix) -> Claim {
    Claim {
        lease,
        fence: row.record.fence + 1,
        holder: query.holder.clone(),
        purpose: Purpose::Redeem,
        taken_at: now,
        expires_at: Unix(now.0.saturating_add(query.ttl_ms)),
        for_device: false,
        handed_to: None,
    }
}

pub(in super::super) fn used(rows: &dyn Rows, uses: Vec<(UserId, GrantName, Unix)>) -> Answer<Judged<()>> {
    let mut changes = Changes::default();
    let mut done = HashSet::new();
    let mut users = BTreeMap::new();
    let mut newest_first = uses;
    newest_first.sort_by_key(|(.., at)| std::cmp::Reverse(*at));
    for (user, grant, used) in newest_first {
        let at = (user, grant);
        let Some(old) = rows.row::<GrantRow>(&Key::grant(&at.0, &at.1))? else {
            continue;
        };
        if old.record.health != Health::Deleted {
            users.entry(at.0.clone()).or_insert(used);
        }
        if old.used < used && done.insert(at.clone()) {
            let mut new = GrantRow { used, ..old.clone() };
            new.rouse();
            place_grant(&mut changes, &at, Some(&old), &new);
        }
    }
    for (user, used) in users {
        learn(rows, &mut changes, &user, used)?;
    }
    Ok(Judged { answer: (), changes })
}

/// Written once an hour for each user, not with each use.
fn learn(rows: &dyn Rows, changes: &mut Changes, user: &UserId, at: Unix) -> Answer<()> {
    let key = Key::hours(user);
    let (hours, is_news) = match rows.row::<Hours>(&key)? {
        None => (Hours::new(at), true),
        Some(mut hours) => {
            let is_news = hours.learn(at);
            (hours, is_news)
        }
    };
    if is_news {
        changes.put(key, &hours);
    }
    Ok(())
}
