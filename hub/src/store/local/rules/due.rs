//! What is due, and who uses what.

use std::{collections::HashSet, ops::ControlFlow};

use lockstep_engine::{
    record::{Claim, Doubt, Holder, Purpose},
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
    At, grant, put_grant,
};

/// The most entries of the index that one call looks at, so that a crowd of unused grants holds nobody up.
const MOST_LOOKED_AT: usize = 4096;

pub(in super::super) fn claim_due(rows: &dyn Rows, now: Unix, query: &DueQuery) -> Answer<Judged<Vec<Due>>> {
    let mut judged = Judged {
        answer: Vec::new(),
        changes: Changes::default(),
    };
    let mut leases = query.leases.iter().copied();
    let mut lease = leases.next();
    let mut looked_at = 0;
    let prefix = Key::due_at(&query.provider);
    rows.walk(prefix.as_slice(), prefix.as_slice(), &mut |key, _| {
        let (due, user, grant) = Key::parse_due(key, &prefix, &query.provider)?;
        let Some(free) = lease.filter(|_| due <= now && looked_at < MOST_LOOKED_AT) else {
            return Ok(ControlFlow::Break(()));
        };
        looked_at += 1;
        let at = (user, grant);
        if let Some(claimed) = look_at(rows, &mut judged.changes, &at, query, free, now)? {
            judged.answer.push(claimed);
            lease = leases.next();
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(judged)
}

/// Claims a grant that is due, parks it if nobody uses it, or leaves it alone.
fn look_at(
    rows: &dyn Rows,
    changes: &mut Changes,
    at: &At,
    query: &DueQuery,
    lease: LeaseId,
    now: Unix,
) -> Answer<Option<Due>> {
    let key = Key::grant(&at.0, &at.1);
    let old = rows.row::<GrantRow>(&key)?;
    let old = old.ok_or_else(|| super::super::key::corrupt(key.as_slice(), "due, but not there"))?;
    let mut new = old.clone();
    if old.used < query.used_since {
        new.parked = true;
        put_grant(changes, at, Some(&old), &new);
        return Ok(None);
    }
    if old
        .record
        .claim
        .as_ref()
        .is_some_and(|claim| !is_abandoned(claim, &query.holder, now))
    {
        return Ok(None);
    }
    if let Some(claim) = &old.record.claim {
        new.record.doubt = Some(doubt_after(claim, &query.holder, old.record.doubt.as_ref()));
    }
    let claim = Claim {
        lease,
        fence: old.record.fence + 1,
        holder: query.holder.clone(),
        purpose: Purpose::Redeem,
        taken_at: now,
        expires_at: Unix(now.0.saturating_add(query.ttl_ms)),
        handed_to: None,
    };
    grant::take(&mut new.record, claim);
    put_grant(changes, at, Some(&old), &new);
    Ok(Some(Due {
        user: at.0.clone(),
        grant: at.1.clone(),
        record: new.record,
    }))
}

/// A claim of this very run is never abandoned: its machine has it in hand, whether or not it has lapsed.
fn is_abandoned(claim: &Claim, holder: &Holder, now: Unix) -> bool {
    if claim.holder.node == holder.node {
        claim.holder.incarnation < holder.incarnation
    } else {
        claim.expires_at <= now
    }
}

/// A claim without outcome means unknown: whoever takes it over takes on the doubt.
fn doubt_after(claim: &Claim, holder: &Holder, doubt: Option<&Doubt>) -> Doubt {
    Doubt {
        since: doubt.map_or(claim.taken_at, |doubt| doubt.since),
        elsewhere: doubt.is_some_and(|doubt| doubt.elsewhere)
            || claim.handed_to.is_some()
            || claim.holder.node != holder.node,
        last_try: doubt.is_some_and(|doubt| doubt.last_try) || claim.purpose == Purpose::LastTry,
        reason: format!("a claim of node {} ended without an outcome", claim.holder.node),
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
            put_grant(&mut changes, &at, Some(&old), &new);
        }
    }
    Ok(Judged { answer: (), changes })
}
