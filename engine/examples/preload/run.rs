//! One grant for each person, refreshed by the rules.

use std::time::Duration;

use lockstep_engine::{
    entropy::up_to,
    preload::{self, Hours, IN_USE, Life},
    time::Unix,
};

use crate::{
    Chance,
    people::{self, DAY, HOUR, MINUTE, Visits},
};

/// Weeks that count.
pub(crate) const WEEKS: i64 = 4;
/// Weeks before that, in which habits are learned.
const LEARNING: i64 = 2;
const LEAD: Duration = Duration::from_secs(300);
const LIFE: Duration = Duration::from_secs(3600);
const SPREAD: Duration = Duration::from_secs(3600);
/// A Thursday: weeks are counted from 1970-01-01.
const BEGINNING: u64 = 3_000 * 7 * 24 * 3_600_000;

/// How a hub is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    OnDemand,
    Always,
    Preload,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::OnDemand, Self::Always, Self::Preload];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on demand",
            Self::Always => "always",
            Self::Preload => "preload",
        }
    }
}

/// What came of a month.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) redeems: usize,
    /// How often somebody came.
    pub(crate) visits: usize,
    /// How often a fresh token was there already.
    fresh: usize,
    by_minute: Vec<usize>,
}

impl Figures {
    /// The most redeems in so many minutes.
    pub(crate) fn peak(&self, minutes: usize) -> usize {
        self.by_minute
            .windows(minutes)
            .map(|window| window.iter().sum())
            .max()
            .unwrap_or(0)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of visits are far below 2^52")]
    pub(crate) fn fresh_share(&self) -> f64 {
        self.fresh as f64 / self.visits.max(1) as f64
    }

    fn redeemed(&mut self, minute: i64) {
        if let Some(nth) = counted(minute) {
            self.redeems += 1;
            if let Some(count) = self.by_minute.get_mut(nth) {
                *count += 1;
            }
        }
    }

    fn visited(&mut self, minute: i64, fresh: bool) {
        if counted(minute).is_some() {
            self.visits += 1;
            self.fresh += usize::from(fresh);
        }
    }
}

/// Which of the minutes that count this is.
fn counted(minute: i64) -> Option<usize> {
    usize::try_from(minute - LEARNING * 7 * DAY).ok()
}

/// Lets a month pass for so many people.
pub(crate) fn month(way: Way, users: u64, seed: u64) -> Figures {
    let days = (LEARNING + WEEKS) * 7;
    let mut figures = Figures {
        by_minute: vec![0; usize::try_from(WEEKS * 7 * DAY).unwrap_or(0)],
        ..Figures::default()
    };
    for user in 0..users {
        let visits = people::visits(&mut Chance(seed ^ user.wrapping_mul(0xd6e8_feb8_6659_fd93)), days);
        let mut grant = Grant {
            way,
            chance: Chance(!seed ^ user.wrapping_mul(0xa076_1d64_78bd_642f)),
            hours: None,
            used: i64::MIN,
            expires: i64::MIN,
            look: i64::MAX,
            wake: None,
        };
        grant.live(&visits, days * DAY, &mut figures);
    }
    figures
}

/// One person's grant. Times are minutes since the beginning.
struct Grant {
    way: Way,
    chance: Chance,
    hours: Option<Hours>,
    used: i64,
    expires: i64,
    /// When the scheduler looks at it next.
    look: i64,
    wake: Option<i64>,
}

impl Grant {
    fn live(&mut self, visits: &Visits, end: i64, figures: &mut Figures) {
        for (nth, (from, to)) in visits.iter().enumerate() {
            self.arrive(*from, figures);
            while self.look < *to {
                self.used = self.look;
                self.look_at(figures);
            }
            self.used = *to;
            self.learn(*from, *to);
            let next = visits.get(nth + 1).map_or(end, |(from, _)| *from);
            while self.look < next {
                self.look_at(figures);
            }
        }
    }

    fn arrive(&mut self, minute: i64, figures: &mut Figures) {
        let fresh = self.expires > minute;
        figures.visited(minute, fresh);
        self.used = minute;
        self.learn(minute, minute);
        if !fresh {
            self.redeem(minute, figures);
        }
        // Whoever comes wakes what sleeps.
        self.look = self.look.min((self.expires - minutes(LEAD)).max(minute));
    }

    fn learn(&mut self, from: i64, to: i64) {
        let mut minute = from;
        while minute <= to {
            self.hours
                .get_or_insert_with(|| Hours::new(unix(minute)))
                .learn(unix(minute));
            minute += if to - minute < HOUR { (to - minute).max(1) } else { HOUR };
        }
    }

    fn look_at(&mut self, figures: &mut Figures) {
        let now = self.look;
        let in_use = now - self.used < minutes(IN_USE);
        match (self.way, self.wake) {
            (Way::OnDemand, _) if !in_use => self.look = i64::MAX,
            (Way::Preload, Some(wake)) if !in_use && wake > now => self.look = wake,
            _ => self.redeem(now, figures),
        }
    }

    fn redeem(&mut self, now: i64, figures: &mut Figures) {
        figures.redeemed(now);
        self.expires = now + minutes(LIFE);
        self.look = self.expires - minutes(LEAD) + minutes(up_to(&mut self.chance, LEAD / 10));
        let life = Life {
            refreshed_at: unix(now),
            expires_at: unix(self.expires),
            refresh_expires_at: None,
        };
        let wake = self
            .hours
            .as_ref()
            .and_then(|hours| preload::wake_at(hours, life, LEAD, SPREAD, &mut self.chance));
        self.wake = wake.map(|at| i64::try_from((at.0 - BEGINNING) / MINUTE).unwrap_or(i64::MAX));
    }
}

fn minutes(span: Duration) -> i64 {
    i64::try_from(span.as_secs() / 60).unwrap_or(i64::MAX)
}

fn unix(minute: i64) -> Unix {
    Unix(BEGINNING.saturating_add_signed(minute.saturating_mul(MINUTE.cast_signed())))
}
