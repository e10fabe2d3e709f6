//! When an alert begins, rises and ends. Sans-io: counts and the time come in, changes go out.

use std::{collections::VecDeque, time::Duration};

use lockstep_engine::time::Mono;

use crate::config::Alerts;

/// A restart of Redis is no alert.
const CLUSTER_DOWN_SECONDS: f64 = 10.0;

/// What has been counted since the hub started, and what is the case now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Redeems that ended.
    pub redeems: u64,
    /// Those that were committed.
    pub committed: u64,
    /// Those that ended in a conflict.
    pub conflicts: u64,
    /// Waits for a lease that timed out.
    pub lease_wait_timeouts: u64,
    /// Providers that refuse the hub itself, now.
    pub misconfigured: u64,
    /// Whether the store does not do what it is told, now.
    pub store_unavailable: bool,
    /// Whether lock and bus between nodes do not work, now.
    pub cluster_unavailable: bool,
}

/// The built-in alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alert {
    /// Too large a share of redeems ends in a conflict: somebody else redeems the hub's refresh tokens.
    ConflictRate,
    /// Too many waits for another's lease time out.
    LeaseWaitTimeouts,
    /// A provider refuses the hub itself.
    ProviderMisconfigured,
    /// The store does not do what it is told.
    StoreUnavailable,
    /// Lock and bus between nodes have not worked for a while.
    ClusterUnavailable,
}

impl Alert {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ConflictRate,
        Self::LeaseWaitTimeouts,
        Self::ProviderMisconfigured,
        Self::StoreUnavailable,
        Self::ClusterUnavailable,
    ];

    /// Its name in logs, metrics and webhooks.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConflictRate => "conflict_rate",
            Self::LeaseWaitTimeouts => "lease_wait_timeouts",
            Self::ProviderMisconfigured => "provider_misconfigured",
            Self::StoreUnavailable => "store_unavailable",
            Self::ClusterUnavailable => "cluster_unavailable",
        }
    }

    /// What it means, for whoever is woken by it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::ConflictRate => "refresh tokens are redeemed by somebody else than the hub",
            Self::LeaseWaitTimeouts => "redeems take so long that those who wait for them give up",
            Self::ProviderMisconfigured => "a provider refuses the hub itself: its settings are wrong",
            Self::StoreUnavailable => "the store does not do what it is told: nothing is redeemed",
            Self::ClusterUnavailable => "nodes do not hear of each other: slower, but not wrong",
        }
    }
}

/// An alert that began, rose or ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Which.
    pub alert: Alert,
    /// 0: it ended. 1: it began. 2 and 3: it rose.
    pub level: u8,
    /// The value that made it so.
    pub value: f64,
    /// What the value is held against.
    pub threshold: f64,
}

/// Shares of the redeems in the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratios {
    /// Of those committed; 1 if there were none at all.
    pub success: f64,
    /// Of those that ended in a conflict; 0 if there were none at all.
    pub conflict: f64,
}

/// Judges the counts.
#[derive(Debug)]
pub struct Rules {
    settings: Alerts,
    redeems: Window,
    minute: Window,
    cluster_down_since: Option<Mono>,
    states: [State; Alert::ALL.len()],
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    level: u8,
    calm_since: Option<Mono>,
}

impl Rules {
    /// Calm, with nothing counted yet.
    pub fn new(settings: Alerts) -> Self {
        Self {
            redeems: Window::new(settings.conflict_rate_window),
            minute: Window::new(Duration::from_secs(60)),
            cluster_down_since: None,
            states: Default::default(),
            settings,
        }
    }

    /// Takes the counts of now. To be called about once a second.
    pub fn tick(&mut self, now: Mono, counts: Counts) -> (Vec<Change>, Ratios) {
        let redeems = self.redeems.take(now, counts);
        let minute = self.minute.take(now, counts);
        let enough = redeems.redeems >= u64::from(self.settings.conflict_rate_min_redeems);
        let ratios = Ratios {
            success: ratio(redeems.committed, redeems.redeems).unwrap_or(1.0),
            conflict: ratio(redeems.conflicts, redeems.redeems).unwrap_or(0.0),
        };
        self.cluster_down_since = counts
            .cluster_unavailable
            .then(|| self.cluster_down_since.unwrap_or(now));
        let cluster_down = self
            .cluster_down_since
            .map_or(0.0, |since| now.since(since).as_secs_f64());
        let timeouts = f64::from(self.settings.lease_wait_timeouts_per_minute);
        let values = [
            (
                if enough { ratios.conflict } else { 0.0 },
                [self.settings.conflict_rate; 3],
            ),
            (
                float(minute.lease_wait_timeouts),
                [timeouts, timeouts * 2.0, timeouts * 4.0],
            ),
            (float(counts.misconfigured), [0.0; 3]),
            (f64::from(u8::from(counts.store_unavailable)), [0.0; 3]),
            (cluster_down, [CLUSTER_DOWN_SECONDS; 3]),
        ];
        let calm = self.settings.calm;
        let changes = Alert::ALL.into_iter().zip(&mut self.states).zip(values);
        let changes = changes.filter_map(|((alert, state), (value, thresholds))| {
            let level = state.judge(now, value, thresholds, calm)?;
            let threshold = thresholds[usize::from(level.saturating_sub(1))];
            Some(Change {
                alert,
                level,
                value,
                threshold,
            })
        });
        (changes.collect(), ratios)
    }

    #[cfg(test)]
    pub(super) fn samples(&self) -> usize {
        self.redeems.samples.len() + self.minute.samples.len()
    }

    /// The level of an alert: 0 calm, 1 active, 2 and 3 escalated.
    pub fn level(&self, alert: Alert) -> u8 {
        self.states[alert as usize].level
    }
}

impl State {
    /// The new level, if it changes. An alert begins and rises at once; it ends when the value has been at half the
    /// threshold or less for a while, so that a value that plays about the threshold wakes nobody twice.
    fn judge(&mut self, now: Mono, value: f64, thresholds: [f64; 3], calm: Duration) -> Option<u8> {
        let over = match thresholds {
            // Rules without escalation have the same threshold three times.
            [first, second, _] if first >= second => u8::from(value > first),
            [first, second, third] => [first, second, third].iter().map(|t| u8::from(value > *t)).sum(),
        };
        if over > self.level {
            *self = Self {
                level: over,
                calm_since: None,
            };
            return Some(over);
        }
        if self.level == 0 {
            return None;
        }
        if value > thresholds[0] / 2.0 {
            self.calm_since = None;
            return None;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.since(since) < calm {
            return None;
        }
        *self = Self::default();
        Some(0)
    }
}

/// How much was counted within a span.
#[derive(Debug)]
struct Window {
    span: Duration,
    samples: VecDeque<(Mono, Counts)>,
}

/// How finely a window moves.
const STEPS: u32 = 300;

impl Window {
    fn new(span: Duration) -> Self {
        Self {
            span,
            samples: VecDeque::new(),
        }
    }

    /// Takes a sample, and tells what was counted since the window began.
    fn take(&mut self, now: Mono, counts: Counts) -> Counts {
        // One sample from before the window stays: counting starts from it.
        while self.samples.get(1).is_some_and(|(at, _)| now.since(*at) >= self.span) {
            self.samples.pop_front();
        }
        let is_due = self
            .samples
            .back()
            .is_none_or(|(at, _)| now.since(*at) >= self.span / STEPS);
        if is_due {
            self.samples.push_back((now, counts));
        }
        let from = self.samples.front().map_or(counts, |(_, counts)| *counts);
        Counts {
            redeems: counts.redeems - from.redeems,
            committed: counts.committed - from.committed,
            conflicts: counts.conflicts - from.conflicts,
            lease_wait_timeouts: counts.lease_wait_timeouts - from.lease_wait_timeouts,
            ..counts
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts within a window are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| float(part) / float(whole))
}
