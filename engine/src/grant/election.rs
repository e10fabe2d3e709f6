//! Who of the connected devices redeems. Pure.

use std::time::Duration;

use lockstep_protocol::DeviceId;

use super::Candidate;
use crate::{entropy::Entropy, time::Mono};

/// How recently a device was in use, in classes: within a class other things decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Recency {
    Longer,
    Minutes,
    Now,
}

/// In use within this: now.
const NOW: Duration = Duration::from_secs(60);
/// In use within this: minutes ago.
const MINUTES: Duration = Duration::from_secs(3600);

fn recency(candidate: &Candidate, now: Mono) -> Recency {
    match candidate.last_active.map(|at| now.since(at)) {
        Some(ago) if ago <= NOW => Recency::Now,
        Some(ago) if ago <= MINUTES => Recency::Minutes,
        _ => Recency::Longer,
    }
}

/// The best candidate that was not passed over: most recently active first, then the weightiest, then by lot.
pub(super) fn elect(
    candidates: &[Candidate],
    passed_over: &[DeviceId],
    now: Mono,
    entropy: &mut dyn Entropy,
) -> Option<Candidate> {
    let eligible = candidates
        .iter()
        .filter(|candidate| !passed_over.contains(&candidate.device));
    let ranked = eligible.map(|candidate| (recency(candidate, now), candidate.priority, entropy.bits(), candidate));
    let best = ranked.max_by_key(|(recency, priority, lot, _)| (*recency, *priority, *lot));
    best.map(|(.., candidate)| candidate.clone())
}
