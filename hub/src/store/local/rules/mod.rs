//! The rules of each write, judged on rows of one moment.

pub(super) mod device;
pub(super) mod due;
pub(super) mod grant;
pub(super) mod node;

use lockstep_engine::{
    record::{Claim, Holder},
    time::Unix,
};
use lockstep_protocol::{GrantName, UserId};

use super::{key::Key, row::GrantRow, rows::Changes};

/// Which grant.
type At = (UserId, GrantName);

/// Whether `holder` may take over a claim that stands: it has lapsed, or is of the same node and not of a later run.
fn may_take_over(claim: &Claim, holder: &Holder, now: Unix) -> bool {
    claim.expires_at <= now || (claim.holder.node == holder.node && claim.holder.incarnation <= holder.incarnation)
}

/// Puts a grant's row after a change of its record, one revision on.
fn put_grant(changes: &mut Changes, at: &At, old: Option<&GrantRow>, new: &mut GrantRow) {
    new.record.revision += 1;
    place_grant(changes, at, old, new);
    changes.grants += 1;
}

/// Puts a grant's row, and its entry in the index of what is due where it belongs.
fn place_grant(changes: &mut Changes, (user, grant): &At, old: Option<&GrantRow>, new: &GrantRow) {
    let (was, is) = (old.and_then(GrantRow::due), new.due());
    if was != is {
        if let Some((due, _)) = was {
            changes.drop(Key::due(due, user, grant));
        }
        if let Some((due, entry)) = is {
            changes.put(Key::due(due, user, grant), &entry);
        }
    }
    changes.put(Key::grant(user, grant), new);
}
