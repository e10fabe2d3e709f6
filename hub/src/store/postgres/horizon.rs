//! How far the store was seen to have come: what a server must hold before it is spoken to.
//!
//! A server that was restored or failed over cuts its connections. Whoever connects anew looks first: what is behind the
//! horizon, or of another lifetime, is left alone until the hub has judged it. So no claim is taken, and no refresh token
//! sent, on the word of a store that has forgotten who used it.

use parking_lot::Mutex;

use super::super::Mark;

/// How far the store was seen to have come; nothing yet: whatever comes first is believed.
#[derive(Default)]
pub(super) struct Horizon(Mutex<Option<Mark>>);

impl Horizon {
    /// Whether a server at `mark` holds everything that was seen.
    pub(super) fn allows(&self, mark: Mark) -> bool {
        let seen = *self.0.lock();
        seen.is_none_or(|seen| mark.epoch == seen.epoch && !mark.is_behind(seen))
    }

    /// The store was seen at `mark`. What it lost, and that it has another lifetime, is for the hub to judge.
    pub(super) fn saw(&self, mark: Mark) {
        let mut seen = self.0.lock();
        if seen.is_none_or(|seen| mark.epoch == seen.epoch && mark.commits > seen.commits) {
            *seen = Some(mark);
        }
    }

    /// The hub follows the store to `mark`, wherever that is.
    pub(super) fn follow(&self, mark: Mark) {
        *self.0.lock() = Some(mark);
    }
}

#[cfg(test)]
mod tests {
    use lockstep_protocol::Epoch;

    use super::*;

    #[test]
    fn what_is_behind_or_of_another_life_is_left_alone_until_it_is_followed() {
        let at = |epoch, commits| Mark {
            epoch: Epoch(epoch),
            commits,
        };
        let horizon = Horizon::default();
        assert!(horizon.allows(at(1, 5)));
        horizon.saw(at(1, 5));
        assert!(horizon.allows(at(1, 5)) && horizon.allows(at(1, 6)));
        assert!(!horizon.allows(at(1, 4)) && !horizon.allows(at(2, 9)));
        horizon.saw(at(1, 3));
        horizon.saw(at(2, 9));
        assert!(
            !horizon.allows(at(1, 4)) && !horizon.allows(at(2, 9)),
            "seeing is not following"
        );
        horizon.follow(at(2, 9));
        assert!(horizon.allows(at(2, 9)) && !horizon.allows(at(1, 6)));
    }
}
