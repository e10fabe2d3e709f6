//! What concerns the store as a whole.

use std::ops::ControlFlow;

use lockstep_engine::{
    record::{Doubt, Health},
    time::Unix,
};
use lockstep_protocol::Epoch;

use super::{
    super::{
        super::{Answer, Sealed, StoredGrant},
        key::Key,
        row::{self, GrantRow, NodeRow, ProbeRow, UserRow},
        rows::{Changes, Judged, Rows, unchanged},
    },
    put_grant,
};

pub(in super::super) fn probe(_: &dyn Rows, now: Unix) -> Answer<Judged<()>> {
    let mut changes = Changes::default();
    changes.put(Key::probe(), &ProbeRow { at: now });
    Ok(Judged { answer: (), changes })
}

pub(in super::super) fn start(rows: &dyn Rows, node: &str) -> Answer<Judged<u64>> {
    let key = Key::node(node);
    let incarnation = rows.row::<NodeRow>(&key)?.map_or(1, |row| row.incarnation + 1);
    let mut changes = Changes::default();
    changes.put(key, &NodeRow { incarnation });
    Ok(Judged {
        answer: incarnation,
        changes,
    })
}

pub(in super::super) fn share(
    rows: &dyn Rows,
    name: &str,
    value: Sealed,
    over: Option<&Sealed>,
) -> Answer<Judged<Sealed>> {
    let key = Key::shared(name);
    let stands = rows.row::<Sealed>(&key)?;
    if stands.as_ref() != over {
        return match stands {
            Some(stands) => unchanged(stands),
            // Compared with something that is not there any more: the caller's view is of another time.
            None => Ok(put_shared(key, value)),
        };
    }
    Ok(put_shared(key, value))
}

fn put_shared(key: Key, value: Sealed) -> Judged<Sealed> {
    let mut changes = Changes::default();
    changes.put(key, &value);
    Judged { answer: value, changes }
}

pub(in super::super) fn restored(rows: &dyn Rows, epoch: Epoch, reason: &str) -> Answer<Judged<()>> {
    let mut changes = Changes {
        epoch: Some(epoch),
        ..Changes::default()
    };
    let mut seq = UserRow::default().seq;
    let prefix = Key::users();
    rows.walk(prefix.as_slice(), prefix.as_slice(), &mut |key, bytes| {
        match Key::parse_user(key)? {
            // The user's own row comes before those of its grants.
            (_, None) => seq = row::decode::<UserRow>(key, bytes)?.seq,
            (user, Some(grant)) => {
                let old = row::decode::<GrantRow>(key, bytes)?;
                if old.record.health != Health::Deleted {
                    seq = seq.next();
                    changes.put(Key::user(&user), &UserRow { seq, deleted: false });
                    let record = doubtful(
                        StoredGrant {
                            seq,
                            ..old.record.clone()
                        },
                        reason,
                    );
                    let mut new = GrantRow {
                        record,
                        parked: false,
                        wake_at: None,
                        asleep: false,
                        ..old.clone()
                    };
                    put_grant(&mut changes, &(user, grant), Some(&old), &mut new);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Judged { answer: (), changes })
}

/// Its refresh token may have been used up in the time that is lost: no grace counts, and nothing is left of a claim. Of those
/// that are lost nothing is under way: a local store has one node, and it was stopped.
fn doubtful(record: StoredGrant, reason: &str) -> StoredGrant {
    StoredGrant {
        health: Health::Suspect,
        reason: Some(reason.to_owned()),
        retry_at: None,
        fence: record.fence + 1,
        claim: None,
        due_at: record.expires_at,
        doubt: Some(Doubt {
            since: Unix(0),
            late_until: None,
            last_try: false,
            conflict: false,
            dead: false,
            reason: reason.to_owned(),
        }),
        ..record
    }
}
