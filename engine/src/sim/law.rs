//! The judge: what must be true after every step, told in the words of the design's promises. It keeps books of its own
//! and asks the engine nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use lockstep_protocol::{LeaseId, Version, frame::Cause};

mod results;
mod said;

use results::Held;
pub(crate) use said::Said;

use super::{bench::START, script::Millis};
use crate::{
    grant::CommitRequest,
    policy::Policy,
    record::{GrantRecord, Health, TokenSet},
    time::Unix,
};

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which, by its number in the design, and what of it.
    pub(crate) promise: &'static str,
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.detail)
    }
}

/// What the judge says.
pub(crate) type Verdict = Result<(), Violation>;

/// Finds a promise broken unless `holds`.
pub(crate) fn must(holds: bool, promise: &'static str, detail: impl FnOnce() -> String) -> Verdict {
    if holds {
        return Ok(());
    }
    Err(Violation {
        promise,
        detail: detail(),
    })
}

/// Who sends a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    /// A node, in one of its lives.
    Node(usize, u64),
    Device(usize),
}

/// The rows of the design's table of outcomes, as the one who sent it saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    Committed,
    NotProcessed,
    Unknown,
    Conflict,
    Misconfigured,
    Refused,
}

/// One redeem.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) lease: LeaseId,
    pub(crate) token: String,
    pub(crate) from: Version,
    pub(crate) by: By,
    /// When whoever sent it stops waiting.
    pub(crate) deadline: Millis,
    pub(crate) sent: Option<Millis>,
    /// Whether its outcome is known to a node, or whoever sent it is dead and all its connections with it.
    pub(crate) over: bool,
    pub(crate) row: Option<Row>,
    /// It was sent because nothing was left to lose.
    last_try: bool,
}

impl Attempt {
    pub(crate) fn new(lease: LeaseId, token: String, from: Version, by: By, deadline: Millis) -> Self {
        Self {
            lease,
            token,
            from,
            by,
            deadline,
            sent: None,
            over: false,
            row: None,
            last_try: false,
        }
    }

    /// Whether the provider may have processed it, as far as anybody can know.
    fn is_in_doubt(&self) -> bool {
        let row = self.row.unwrap_or(Row::Unknown);
        self.sent.is_some() && matches!(row, Row::Unknown | Row::Committed | Row::Conflict)
    }
}

/// That a lease was held: a write that the store took.
#[derive(Debug, Clone, Copy)]
struct Proof {
    version: Version,
    holder: (usize, u64),
    /// Its holder died, or another judged it: then it is a claim without outcome, whatever its holder heard.
    orphaned: bool,
    /// When the claim was written.
    taken: Millis,
    /// When the newest write that shows it was asked for, and when it was done.
    asked: Millis,
    done: Millis,
}

/// The books.
#[derive(Debug)]
pub(crate) struct Law {
    policy: Policy,
    /// How far any node's clock may be off in this run, in milliseconds.
    skew: u64,
    pub(crate) attempts: Vec<Attempt>,
    proofs: BTreeMap<LeaseId, Proof>,
    /// All that was ever committed, by version.
    history: BTreeMap<Version, (TokenSet, Cause)>,
    /// Refresh tokens whose successor is committed, or that were deleted, and since when.
    retired: BTreeMap<String, Millis>,
    /// Those of them that a commit replaced: no login brings them back.
    used_up: BTreeSet<String>,
    kept: BTreeSet<(Version, String)>,
    deleted: BTreeSet<Version>,
    results: Vec<Held>,
    /// Devices that acked a version and reported it; whether one alone is enough.
    witnesses: BTreeMap<Version, (BTreeSet<usize>, bool)>,
}

impl Law {
    pub(crate) fn new(policy: Policy, skew: u64) -> Self {
        Self {
            policy,
            skew,
            attempts: Vec::new(),
            proofs: BTreeMap::new(),
            history: BTreeMap::new(),
            retired: BTreeMap::new(),
            used_up: BTreeSet::new(),
            kept: BTreeSet::new(),
            deleted: BTreeSet::new(),
            results: Vec::new(),
            witnesses: BTreeMap::new(),
        }
    }

    // What the store did.

    pub(crate) fn claimed(
        &mut self,
        lease: LeaseId,
        version: Version,
        holder: (usize, u64),
        asked: Millis,
        now: Millis,
    ) {
        let proof = Proof {
            version,
            holder,
            orphaned: false,
            taken: now,
            asked,
            done: now,
        };
        self.proofs.insert(lease, proof);
    }

    /// A node puts an end to a claim.
    pub(crate) fn judged(&mut self, lease: LeaseId, by: (usize, u64)) {
        if let Some(proof) = self.proofs.get_mut(&lease) {
            proof.orphaned |= proof.holder != by;
        }
    }

    pub(crate) fn renewed(&mut self, lease: LeaseId, asked: Millis, now: Millis) {
        if let Some(proof) = self.proofs.get_mut(&lease) {
            proof.asked = proof.asked.max(asked);
            proof.done = now;
        }
    }

    pub(crate) fn committed(&mut self, request: &CommitRequest, before: Option<&GrantRecord>, now: Millis) -> Verdict {
        let version = request.from_version.next();
        let new = request.tokens.refresh_token.as_ref().map(|token| token.expose());
        let returns = request.lease.is_none() && new.is_some_and(|token| self.used_up.contains(token));
        let old = before.and_then(|record| record.tokens.as_ref()?.refresh_token.clone());
        let old = old
            .map(|token| token.expose().to_owned())
            .filter(|old| Some(old.as_str()) != new);
        let used = self.attempts.iter().filter(|a| Some(a.lease) == request.lease);
        let used: Vec<_> = used
            .map(|a| a.token.clone())
            .filter(|token| Some(token.as_str()) != new)
            .collect();
        for token in used.into_iter().chain(old.clone()) {
            self.retired.entry(token).or_insert(now);
        }
        self.used_up.extend(old);
        // A deleted grant may be logged in with what it had.
        if let Some(token) = new {
            self.retired.remove(token);
        }
        self.history.insert(version, (request.tokens.clone(), request.cause));
        must(!returns, "P3 an older login", || {
            format!("version {} is a login with a token that was used up", version.0)
        })
    }

    /// Whether a refresh token was replaced by a commit.
    pub(crate) fn is_used_up(&self, token: Option<&str>) -> bool {
        token.is_some_and(|token| self.used_up.contains(token))
    }

    pub(crate) fn kept(&mut self, version: Version, tokens: &TokenSet) {
        self.kept.insert((version, access_of(tokens)));
    }

    pub(crate) fn deleted(&mut self, before: &GrantRecord, now: Millis) {
        self.deleted.insert(before.version);
        let tokens = before.tokens.iter().chain(&before.alternate);
        for token in tokens.filter_map(|tokens| tokens.refresh_token.as_ref()) {
            self.retired.entry(token.expose().to_owned()).or_insert(now);
        }
    }

    /// A grant is given up: somebody must have said no, or nobody knows what happened, or there is no refresh token.
    pub(crate) fn gave_up(&self, record: &GrantRecord) -> Verdict {
        let of_it = self.attempts.iter().filter(|a| a.from == record.version);
        let no = of_it.filter(|a| a.is_in_doubt() || a.row == Some(Row::Refused)).count();
        let unsent = |lease: &LeaseId| !self.attempts.iter().any(|a| a.lease == *lease && a.sent.is_some());
        let mut claims = self.proofs.iter().filter(|(_, proof)| proof.version == record.version);
        let unknown = claims.any(|(lease, proof)| proof.orphaned || unsent(lease));
        let refreshable = record.tokens.as_ref().is_some_and(|t| t.refresh_token.is_some());
        must(no > 0 || unknown || !refreshable, "P8 true reason", || {
            format!(
                "version {} is given up ({}), and no redeem of it failed for good",
                record.version.0,
                record.reason.as_deref().unwrap_or("no reason")
            )
        })
    }

    // What is sent.

    /// The refresh token of an attempt leaves. `clock`: what the sender's clock says.
    pub(crate) fn sends(&mut self, id: usize, record: Option<&GrantRecord>, clock: Unix, now: Millis) -> Verdict {
        let attempt = self.attempts[id].clone();
        self.single_flight(&attempt, now)?;
        self.under_a_lease(&attempt, now)?;
        let last_try = self.replay(&attempt, record, clock, now)?;
        let attempt = &mut self.attempts[id];
        attempt.sent = Some(now);
        attempt.last_try = last_try;
        Ok(())
    }

    fn single_flight(&self, attempt: &Attempt, now: Millis) -> Verdict {
        let flying = |other: &&Attempt| {
            other.from == attempt.from && other.sent.is_some() && !other.over && now < other.deadline
        };
        match self.attempts.iter().find(flying) {
            None => Ok(()),
            Some(other) => must(false, "P1 single flight", || {
                format!(
                    "{:?} sends {} for version {} while {:?} has {} in flight",
                    attempt.by, attempt.token, attempt.from.0, other.by, other.token
                )
            }),
        }
    }

    fn under_a_lease(&self, attempt: &Attempt, now: Millis) -> Verdict {
        let Some(proof) = self.proofs.get(&attempt.lease) else {
            return must(false, "P1 claim first", || {
                format!("{} is sent under a lease that was never written", attempt.token)
            });
        };
        // A device counts from when it was told.
        let within = if matches!(attempt.by, By::Node(..)) {
            5_000
        } else {
            10_000
        };
        must(now <= proof.asked + within, "P1 send in time", || {
            format!(
                "{} is sent {} ms after its lease was shown",
                attempt.token,
                now - proof.asked
            )
        })?;
        let lease = millis(self.policy.lease);
        must(attempt.deadline <= proof.asked + lease, "P1 deadline in lease", || {
            format!("{} may be on its way after its lease", attempt.token)
        })?;
        let retired = self.retired.get(&attempt.token).is_some_and(|at| *at < proof.done);
        must(!retired, "P1 never after its successor", || {
            format!("{} is sent after its successor was committed", attempt.token)
        })
    }

    /// A refresh token that may be used up is sent again only within the grace of the first such redeem, or once when
    /// nothing is left to lose. Returns whether this is that one time.
    fn replay(
        &self,
        attempt: &Attempt,
        record: Option<&GrantRecord>,
        clock: Unix,
        now: Millis,
    ) -> Result<bool, Violation> {
        let same = |other: &&Attempt| {
            // One that never rotates is good for every version.
            other.token == attempt.token && other.from == attempt.from && other.is_in_doubt()
        };
        let doubtful: Vec<_> = self.attempts.iter().filter(same).collect();
        let taken = doubtful
            .iter()
            .filter_map(|other| Some(self.proofs.get(&other.lease)?.taken))
            .min();
        let Some(since) = taken else {
            return Ok(false);
        };
        if now <= since + millis(self.policy.grace) + self.skew {
            return Ok(false);
        }
        let lost = self.nothing_to_lose(attempt.from, record, clock);
        must(lost, "P1 no replay in doubt", || {
            format!(
                "{} may be used up since {since}, and is sent again although the access token may be good",
                attempt.token
            )
        })?;
        let tried = doubtful.iter().any(|other| other.last_try);
        must(!tried, "P1 one last try", || {
            format!("{} had its last try", attempt.token)
        })?;
        Ok(true)
    }

    fn nothing_to_lose(&self, version: Version, record: Option<&GrantRecord>, clock: Unix) -> bool {
        let Some((tokens, _)) = self.history.get(&version) else {
            return true;
        };
        let skew = std::time::Duration::from_millis(self.skew);
        let expired = tokens.expires_at.is_some_and(|at| at <= clock + skew);
        let dead = record.is_some_and(|r| r.version == version && r.doubt.as_ref().is_some_and(|d| d.dead));
        let witnesses = self.witnesses.get(&version);
        let found = witnesses.is_some_and(|(devices, alone)| devices.len() >= if *alone { 1 } else { 2 });
        tokens.access_token.is_none() || expired || dead || found
    }

    pub(crate) fn witness(&mut self, version: Version, device: usize, alone: bool) {
        let (devices, one) = self.witnesses.entry(version).or_default();
        devices.insert(device);
        *one |= alone;
    }

    /// A device is given a refresh token: its name must be in the claim already.
    pub(crate) fn hands(record: Option<&GrantRecord>, lease: LeaseId, device: lockstep_protocol::DeviceId) -> Verdict {
        let claim = record.and_then(|record| record.claim.as_ref());
        let written = claim.is_none_or(|claim| claim.lease != lease || claim.handed_to == Some(device));
        must(written, "P1 hand-over is durable first", || {
            format!("lease {} is handed to a device that is not written down", lease.0)
        })
    }

    // What is shown.

    /// A record goes to devices: it must be what the store holds or held (P2).
    pub(crate) fn shows(&self, record: &GrantRecord, newest: Option<&GrantRecord>) -> Verdict {
        let durable = newest.is_some_and(|newest| newest.seq >= record.seq && newest.version >= record.version);
        let of_version = self.history.get(&record.version);
        let same = record
            .tokens
            .as_ref()
            .is_none_or(|tokens| of_version.is_some_and(|(durable, _)| durable == tokens));
        must(durable && same, "P2 persist before push", || {
            format!("version {} is shown and is not durable", record.version.0)
        })
    }

    /// A token goes to a device: the hub must not know that it is dead (P8).
    pub(crate) fn serves(record: &GrantRecord, clock: Unix) -> Verdict {
        let well = matches!(record.health, Health::Ok | Health::Suspect);
        let dead = record.doubt.as_ref().is_some_and(|doubt| doubt.dead);
        let tokens = record.tokens.as_ref();
        let expired = tokens.and_then(|t| t.expires_at).is_some_and(|at| at <= clock);
        must(well && !dead && !expired, "P8 no dead token", || {
            format!("version {} is dead and sent all the same", record.version.0)
        })
    }

    /// One who waits is told that a version is good now.
    pub(crate) fn done(&self, version: Version, beyond: Option<Version>) -> Verdict {
        let known = self.history.contains_key(&version);
        let newer = beyond.is_none_or(|beyond| version > beyond);
        must(known && newer, "P8 done is done", || {
            format!("done with version {}, wanted above {beyond:?}", version.0)
        })
    }
}

fn access_of(tokens: &TokenSet) -> String {
    tokens
        .access_token
        .as_ref()
        .map_or(String::new(), |token| token.expose().to_owned())
}

pub(crate) fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A node's clock, off by `skew`.
pub(crate) fn clock_of(now: Millis, skew: i64) -> Unix {
    Unix((START + now).saturating_add_signed(skew))
}
