//! The device access token: bought when it is needed and the one at hand will not do.
//!
//! It is bought lazily. A session outlives its token, so a device that stays connected buys none; a poller buys one
//! shortly before the old one expires.

use std::time::Duration;

use lockstep_protocol::Secret;

use super::{
    Entropy,
    backoff::Backoff,
    io::{Bought, Command},
};
use crate::{
    clock::{Mono, Now},
    timing::Timing,
};

/// A token with less than this left, or less than a fifth of its life, is replaced before it is used.
const MARGIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Have {
    token: Secret,
    /// From when on another one is bought first; none: nobody said when it expires.
    replace_at: Option<Mono>,
}

#[derive(Debug)]
pub(crate) struct Access {
    have: Option<Have>,
    buying: bool,
    /// None could be had: whoever wants one waits until then, be it for a connection or for an answer over HTTP.
    rests_until: Option<Mono>,
    backoff: Backoff,
    /// The token that the hub refused, so that a cache does not give it again.
    refused: Option<Secret>,
}

impl Access {
    pub(crate) const fn new(timing: &Timing) -> Self {
        Self {
            have: None,
            buying: false,
            rests_until: None,
            backoff: Backoff::new(timing.backoff_first, timing.backoff_most),
            refused: None,
        }
    }

    /// A token, if one is at hand; else one is on order, unless none could be had a moment ago.
    pub(crate) fn get(&mut self, now: Now, out: &mut Vec<Command>) -> Option<Secret> {
        let good = self
            .have
            .as_ref()
            .filter(|have| have.replace_at.is_none_or(|at| at > now.mono));
        if let Some(have) = good {
            return Some(have.token.clone());
        }
        if !self.buying && !self.is_resting() {
            self.buying = true;
            out.push(Command::Buy {
                refused: self.refused.clone(),
            });
        }
        None
    }

    pub(crate) fn bought(&mut self, bought: Bought, now: Now) {
        self.buying = false;
        self.backoff.reset();
        let replace_at = bought.good_for.map(|life| {
            let margin = MARGIN.min(life / 5);
            now.mono + life.saturating_sub(margin)
        });
        self.have = Some(Have {
            token: bought.token,
            replace_at,
        });
    }

    pub(crate) const fn not_bought(&mut self) {
        self.buying = false;
    }

    /// None could be had for the moment. Gives how long nobody asks again.
    pub(crate) fn rest(&mut self, least: Option<Duration>, now: Now, entropy: &mut dyn Entropy) -> Duration {
        let wait = self.backoff.next(entropy).max(least.unwrap_or_default());
        self.rests_until = Some(now.mono + wait);
        wait
    }

    pub(crate) const fn is_resting(&self) -> bool {
        self.rests_until.is_some()
    }

    pub(crate) const fn is_buying(&self) -> bool {
        self.buying
    }

    /// Ends a rest whose time is over.
    pub(crate) fn settle(&mut self, now: Now) {
        self.rests_until.take_if(|until| *until <= now.mono);
    }

    /// Whatever stood in the way may be gone.
    pub(crate) const fn rested(&mut self) {
        self.rests_until = None;
        self.backoff.reset();
    }

    pub(crate) const fn next_timeout(&self) -> Option<Mono> {
        self.rests_until
    }

    /// The hub refused the token (4401). True: a fresh one is worth a try. False: a fresh one was refused too.
    pub(crate) fn refused(&mut self) -> bool {
        let first = self.refused.is_none();
        self.refused = self.have.take().map(|have| have.token).or(self.refused.take());
        first
    }

    /// The hub took the token.
    pub(crate) fn accepted(&mut self) {
        self.refused = None;
    }
}
