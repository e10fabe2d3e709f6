//! Preloading: when a grant that nobody uses right now is to be refreshed all the same, so that its user finds a fresh
//! token on arrival.

mod hours;

pub use hours::Hours;

use std::time::Duration;

use crate::{
    entropy::{Entropy, up_to},
    time::Unix,
};

/// Who used a grant within this long is taken to be there.
pub const IN_USE: Duration = Duration::from_secs(3600);

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// A token set, as far as preloading goes.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// When it was issued.
    pub refreshed_at: Unix,
    /// When its access token expires.
    pub expires_at: Unix,
    /// When its refresh token expires, if known: it is not left to.
    pub refresh_expires_at: Option<Unix>,
}

/// When to refresh a grant that nobody uses by the time it is due: shortly before its user is expected again, spread out
/// over `spread` (or over the token's life, if that is shorter) so that users who come together are not refreshed together.
///
/// None: when it is due, because the user is expected about then, or too little is known of the user.
pub fn wake_at(hours: &Hours, life: Life, lead: Duration, spread: Duration, entropy: &mut dyn Entropy) -> Option<Unix> {
    let span = life.expires_at.since(life.refreshed_at);
    let lead = lead.min(span / 2);
    let due = life.expires_at.minus(lead);
    if !hours.is_learned(life.refreshed_at) {
        return None;
    }
    let wake = match hours.next_expected(due) {
        Some(next) if next <= life.expires_at => return None,
        // On arrival at least `lead` is left.
        Some(next) => next.minus(lead + up_to(entropy, spread.min(span.saturating_sub(lead * 2)))),
        None => due + WEEK,
    };
    let last = life.refresh_expires_at.map_or(wake, |at| at.minus(lead.max(IN_USE)));
    Some(wake.min(last)).filter(|wake| *wake > due)
}

#[cfg(test)]
mod tests;
