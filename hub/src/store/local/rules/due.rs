//! What is due, and who uses what.

use std::{collections::HashSet, ops::ControlFlow};

use lockstep_engine::{
    record::{Claim, Purpose},
    time::Unix,
};
use lockstep_protocol::{GrantName, LeaseId, UserId};

use super::{
    super::{
        super::{Answer, Due, DueQuery},
        key::Key,
        row::GrantRow,
        rows::{Changes, Judged, Rows},
    },
    At, grant, place_grant, put_grant,
};

/// The most entries of the index that one call looks at, so that a crowd of unused grants holds nobody up.
const MOST_LOOKED_AT: usize = 4096;

pub(in super::super) fn claim_due(rows: &dyn Rows, now: Unix, query: &DueQuery) -> Answer<Judged<Vec<Due>>> {
    let mut judged = Judged {
        answer: Vec::new(),
        changes: Changes::default(),
    };
    let mut leases = query.leases.iter().copied().peekable();
    let (mut abandoned, mut looked_at) = (0, 0);
    let prefix = Key::due_at(&query.provider);
    rows.walk(prefix.as_slice(), prefix.as_slice(), &mut |key, _| {
        let (due, user, grant) = Key::parse_due(key, &prefix, &query.provider)?;
        let Some(lease) = leases.peek().filter(|_| due <= now && looked_at < MOST_LOOKED_AT) else {
            return Ok(ControlFlow::Break(()));
        };
        looked_at += 1;
        match look_at(rows, &mut judged.changes, (user, grant), query, *lease, now)? {
            Some(found) if found.claimed => {
                leases.next();
                judged.answer.push(found);
            }
            Some(found) if abandoned < query.leases.len() => {
                abandoned += 1;
                judged.answer.push(found);
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(judged)
}

/// Claims a grant that is due, finds its claim abandoned, parks it if nobody uses it, or leaves it alone.
fn look_at(
    rows: &dyn Rows,
    changes: &mut Changes,
    at: At,
    query: &DueQuery,
    lease: LeaseId,
    now: Unix,
) -> Answer<Option<Due>> {
    let key = Key::grant(&at.0, &at.1);
    let old = rows.row::<GrantRow>(&key)?;
    let old = old.ok_or_else(|| super::super::key::corrupt(key.as_slice(), "due, but not there"))?;
    let mut new = old.clone();
    let claimed = match &old.record.claim {
        Some(claim) if claim.holder == query.holder => return Ok(None),
        Some(_) => false,
        None if old.used < query.used_since => {
            new.parked = true;
            place_grant(changes, &at, Some(&old), &new);
            return Ok(None);
        }
        None => {
            grant::take(&mut new.record, ahead(&old, query, lease, now));
            put_grant(changes, &at, Some(&old), &mut new);
            true
        }
    };
    let (user, grant) = at;
    Ok(Some(Due {
        user,
        grant,
        claimed,
        record: new.record,
    }))
}

fn ahead(row: &GrantRow, query: &DueQuery, lease: LeaseId, now: Unix) -> Claim {
    Claim {
        lease,
        fence: row.record.fence + 1,
        holder: query.holder.clone(),
        purpose: Purpose::Redeem,
        taken_at: now,
        expires_at: Unix(now.0.saturating_add(query.ttl_ms)),
        handed_to: None,
    }
}

pub(in super::super) fn used(rows: &dyn Rows, uses: Vec<(UserId, GrantName, Unix)>) -> Answer<Judged<()>> {
    let mut changes = Changes::default();
    let mut done = HashSet::new();
    let mut newest_first = uses;
    newest_first.sort_by_key(|(.., at)| std::cmp::Reverse(*at));
    for (user, grant, used) in newest_first {
        let at = (user, grant);
        let Some(old) = rows.row::<GrantRow>(&Key::grant(&at.0, &at.1))? else {
            continue;
        };
        if old.used < used && done.insert(at.clone()) {
            let new = GrantRow {
                used,
                parked: false,
                ..old.clone()
            };
            place_grant(&mut changes, &at, Some(&old), &new);
        }
    }
    Ok(Judged { answer: (), changes })
}
