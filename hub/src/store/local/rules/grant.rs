//! Claims, commits, and how a grant fares.

use lockstep_engine::{
    record::{Claim, Health},
    time::Unix,
};
use lockstep_protocol::{DeviceId, LeaseId, Seq, UserId, Version, frame::Cause};

use super::{
    super::{
        super::{Answer, ClaimRow, Claimed, CommitRow, Committed, Sealed, SettleRow, StoredGrant},
        key::Key,
        row::{GrantRow, Retired, UserRow},
        rows::{Changes, Judged, Rows, unchanged},
    },
    At, may_take_over, put_grant,
};

fn get(rows: &dyn Rows, at: &At) -> Answer<Option<GrantRow>> {
    rows.row(&Key::grant(&at.0, &at.1))
}

/// The user's next seq, written down as taken: whoever has a grant is not deleted.
fn next_seq(rows: &dyn Rows, changes: &mut Changes, user: &UserId) -> Answer<Seq> {
    let key = Key::user(user);
    let seq = rows.row::<UserRow>(&key)?.unwrap_or_default().seq.next();
    changes.put(key, &UserRow { seq, deleted: false });
    Ok(seq)
}

/// Writes a claim into a record.
pub(super) fn take(record: &mut StoredGrant, claim: Claim) {
    record.fence = claim.fence;
    record.remember_lease(claim.lease);
    record.claim = Some(claim);
}

pub(in super::super) fn claim(rows: &dyn Rows, now: Unix, row: ClaimRow) -> Answer<Judged<Claimed>> {
    let at = (row.user, row.grant);
    let Some(old) = get(rows, &at)? else {
        return unchanged(Claimed::Gone);
    };
    let free = match &old.record.claim {
        None => true,
        Some(standing) => row.over == Some(standing.lease) && may_take_over(standing, &row.holder, now),
    };
    let moved = old.record.version != row.from_version || row.fence.is_some_and(|fence| fence != old.record.fence);
    if moved || old.record.health == Health::Deleted || !free {
        return unchanged(Claimed::Lost(Box::new(old.record)));
    }
    let mut new = old.clone();
    let claim = Claim {
        lease: row.lease,
        fence: old.record.fence + 1,
        holder: row.holder,
        purpose: row.purpose,
        taken_at: now,
        expires_at: Unix(now.0.saturating_add(row.ttl_ms)),
        for_device: row.for_device,
        handed_to: None,
    };
    take(&mut new.record, claim);
    new.record.doubt = row.doubt;
    let mut changes = Changes::default();
    put_grant(&mut changes, &at, Some(&old), &mut new);
    Ok(Judged {
        answer: Claimed::Won(Box::new(new.record)),
        changes,
    })
}

pub(in super::super) fn renew(
    rows: &dyn Rows,
    now: Unix,
    at: &At,
    lease: LeaseId,
    ttl_ms: u64,
) -> Answer<Judged<bool>> {
    change_claim(rows, at, lease, |record, mut claim| {
        claim.expires_at = Unix(now.0.saturating_add(ttl_ms));
        record.claim = Some(claim);
        true
    })
}

pub(in super::super) fn hand_out(
    rows: &dyn Rows,
    now: Unix,
    at: &At,
    lease: LeaseId,
    device: DeviceId,
) -> Answer<Judged<bool>> {
    change_claim(rows, at, lease, |record, mut claim| {
        let lives = now < claim.expires_at;
        if lives {
            claim.handed_to = Some(device);
            record.claim = Some(claim);
            record.remember_handed(lease);
        }
        lives
    })
}

fn change_claim(
    rows: &dyn Rows,
    at: &At,
    lease: LeaseId,
    change: impl FnOnce(&mut StoredGrant, Claim) -> bool,
) -> Answer<Judged<bool>> {
    let Some(old) = get(rows, at)? else {
        return unchanged(false);
    };
    let mut new = old.clone();
    let claim = old.record.claim.clone().filter(|claim| claim.lease == lease);
    if !claim.is_some_and(|claim| change(&mut new.record, claim)) {
        return unchanged(false);
    }
    let mut changes = Changes::default();
    put_grant(&mut changes, at, Some(&old), &mut new);
    Ok(Judged { answer: true, changes })
}

pub(in super::super) fn commit(rows: &dyn Rows, now: Unix, row: CommitRow) -> Answer<Judged<Committed>> {
    let at = (row.user.clone(), row.grant.clone());
    let old = get(rows, &at)?;
    if let (Some(old), Some(hash)) = (&old, row.unless_retired)
        && old.retired.has(hash)
    {
        return unchanged(Committed::Retired);
    }
    let current = old.as_ref().map_or(Version(0), |old| old.record.version);
    let refused = old.as_ref().is_some_and(|old| old.record.health == Health::Deleted) && row.cause != Cause::Login;
    if current != row.from_version || refused {
        return unchanged(Committed::Superseded(old.map(|old| Box::new(old.record))));
    }
    let mut changes = Changes::default();
    let seq = next_seq(rows, &mut changes, &at.0)?;
    let mut new = successor(old.as_ref(), row, seq, now);
    put_grant(&mut changes, &at, old.as_ref(), &mut new);
    Ok(Judged {
        answer: Committed::Done(Box::new(new.record)),
        changes,
    })
}

fn successor(old: Option<&GrantRow>, row: CommitRow, seq: Seq, now: Unix) -> GrantRow {
    let mut retired = old.map_or_else(Retired::default, |old| old.retired.clone());
    if let Some(hash) = row.retire {
        retired.add(hash);
    }
    let used = old.map_or(Unix(0), |old| old.used);
    GrantRow {
        // Whoever logs in is there.
        used: if row.cause == Cause::Login || old.is_none() {
            used.max(now)
        } else {
            used
        },
        parked: false,
        wake_at: row.wake_at,
        asleep: false,
        retired,
        record: StoredGrant {
            revision: old.map_or(0, |old| old.record.revision),
            version: row.from_version.next(),
            seq,
            health: Health::Ok,
            reason: None,
            retry_at: None,
            tokens: Some(row.tokens),
            expires_at: row.expires_at,
            refreshed_at: row.refreshed_at,
            cause: row.cause,
            due_at: row.due_at,
            claim: None,
            fence: old.map_or(0, |old| old.record.fence),
            leases: Vec::new(),
            former_leases: old.map_or_else(Vec::new, |old| old.record.leases.clone()),
            committed_by: row.lease,
            doubt: None,
            alternate: None,
            rejected_in_a_row: row.rejected_in_a_row,
        },
    }
}

pub(in super::super) fn keep_alternate(
    rows: &dyn Rows,
    at: &At,
    version: Version,
    tokens: Sealed,
) -> Answer<Judged<()>> {
    let Some(old) = get(rows, at)? else {
        return unchanged(());
    };
    let record = &old.record;
    if record.version != version || record.health == Health::Deleted || record.alternate.is_some() {
        return unchanged(());
    }
    let mut new = old.clone();
    new.record.alternate = Some(tokens);
    let mut changes = Changes::default();
    put_grant(&mut changes, at, Some(&old), &mut new);
    Ok(Judged { answer: (), changes })
}

pub(in super::super) fn settle(rows: &dyn Rows, now: Unix, row: SettleRow) -> Answer<Judged<Option<StoredGrant>>> {
    let at = (row.user, row.grant);
    let Some(old) = get(rows, &at)? else {
        return unchanged(None);
    };
    let (record, verdict) = (&old.record, row.verdict);
    let may_end = |claim: &Claim| claim.lease == row.lease && may_take_over(claim, &row.holder, now);
    let moved = record.version != row.version || row.fence.is_some_and(|fence| fence != record.fence);
    if moved || record.health == Health::Deleted || !record.claim.as_ref().is_none_or(may_end) {
        return unchanged(Some(old.record));
    }
    let mut changes = Changes::default();
    let mut new = old.clone();
    if verdict.tell {
        new.record.seq = next_seq(rows, &mut changes, &at.0)?;
    }
    new.record.health = verdict.health;
    new.record.reason = verdict.reason;
    new.record.retry_at = verdict.retry_at;
    new.record.due_at = verdict.due_at;
    new.record.doubt = verdict.doubt;
    new.record.claim = None;
    new.record.fence += 1;
    if verdict.drop_alternate {
        new.record.alternate = None;
    }
    new.rouse();
    put_grant(&mut changes, &at, Some(&old), &mut new);
    Ok(Judged {
        answer: Some(new.record),
        changes,
    })
}

pub(in super::super) fn delete(rows: &dyn Rows, at: &At) -> Answer<Judged<Option<StoredGrant>>> {
    let Some(old) = get(rows, at)? else {
        return unchanged(None);
    };
    if old.record.health == Health::Deleted {
        return unchanged(Some(old.record));
    }
    let mut changes = Changes::default();
    let seq = next_seq(rows, &mut changes, &at.0)?;
    let new = bury(rows, &mut changes, at, &old, seq)?;
    Ok(Judged {
        answer: Some(new.record),
        changes,
    })
}

/// Makes a grant a tombstone and drops its slaves.
pub(super) fn bury(rows: &dyn Rows, changes: &mut Changes, at: &At, old: &GrantRow, seq: Seq) -> Answer<GrantRow> {
    let record = StoredGrant {
        seq,
        health: Health::Deleted,
        reason: None,
        retry_at: None,
        tokens: None,
        expires_at: None,
        due_at: None,
        claim: None,
        leases: Vec::new(),
        former_leases: Vec::new(),
        doubt: None,
        alternate: None,
        ..old.record.clone()
    };
    // Retired tokens stay known: a grant made anew must not be logged in with one of them.
    let mut new = GrantRow { record, ..old.clone() };
    put_grant(changes, at, Some(old), &mut new);
    for hash in rows.keys(&Key::grant_slaves(&at.0, &at.1), Key::last_hash)? {
        super::device::forget_slave(rows, changes, hash)?;
    }
    Ok(new)
}

pub(in super::super) fn reseal(
    rows: &dyn Rows,
    at: &At,
    over: &StoredGrant,
    with: StoredGrant,
) -> Answer<Judged<bool>> {
    let Some(old) = get(rows, at)? else {
        return unchanged(false);
    };
    let same = |record: &StoredGrant| {
        record.version == over.version && record.tokens == over.tokens && record.alternate == over.alternate
    };
    if !same(&old.record) {
        return unchanged(false);
    }
    let mut new = old.clone();
    new.record.tokens = with.tokens;
    new.record.alternate = with.alternate;
    let mut changes = Changes::default();
    put_grant(&mut changes, at, Some(&old), &mut new);
    Ok(Judged { answer: true, changes })
}
