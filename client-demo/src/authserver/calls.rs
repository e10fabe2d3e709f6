//! What was asked of the token endpoint: the witness of every test.

use std::{collections::VecDeque, net::SocketAddr};

use serde::Serialize;

/// Calls remembered; older ones are forgotten and show in [`Stats::forgotten`].
const MOST_CALLS: usize = 500_000;

/// One call of the token endpoint.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// Its number, from 1, in order of arrival.
    pub n: u64,
    /// When it arrived, in Unix milliseconds.
    pub time_ms: u64,
    /// `grant_type` of the request, if it got so far.
    pub grant_type: Option<String>,
    /// The family of the refresh token or code.
    pub grant: Option<String>,
    /// The generation of the refresh token.
    pub generation: Option<u32>,
    /// Whether the server issued (and, for a refresh, rotated).
    pub committed: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// The fault that was played, if any.
    pub fault: Option<&'static str>,
    /// The status of the answer; none while pending, or when the connection was dropped.
    pub status: Option<u16>,
    /// Who called.
    pub client: SocketAddr,
    /// Its `User-Agent`.
    pub user_agent: Option<String>,
    /// Its `client_id`.
    pub client_id: Option<String>,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not decided yet, or decided by a fault before the rules were asked.
    Undecided,
    /// A refresh token was redeemed for a new pair.
    Rotated,
    /// A used refresh token within its grace brought another new pair.
    Grace,
    /// A used refresh token within its grace brought the same pair again.
    GraceIdentical,
    /// A used refresh token came again: the family is revoked.
    Reuse,
    /// The family had been revoked before.
    Revoked,
    /// Not a refresh token or code of this server.
    Unknown,
    /// An authorization code brought the first pair.
    Code,
    /// An authorization code came twice, late, or with the wrong verifier or redirect.
    CodeRefused,
    /// The client is not the one, or did not authenticate.
    ClientRefused,
    /// The request was malformed.
    BadRequest,
}

/// Counts since the start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// Token calls of any kind.
    pub calls: u64,
    /// Refreshes that brought a new pair, those within grace not counted.
    pub rotations: u64,
    /// Used refresh tokens that were forgiven.
    pub graces: u64,
    /// Used refresh tokens that were not: each revoked a family.
    pub reuses: u64,
    /// Refreshes refused with `invalid_grant`, for whatever reason.
    pub invalid_grants: u64,
    /// Calls on which a fault was played.
    pub faults: u64,
    /// Families ever made.
    pub families: usize,
    /// Families revoked.
    pub revoked_families: usize,
    /// The most calls that presented one and the same refresh token.
    pub most_redeems_of_one_generation: u32,
    /// Calls no longer listed.
    pub forgotten: u64,
}

/// The list of calls, bounded.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    list: VecDeque<Call>,
    forgotten: u64,
    stats: Stats,
}

impl Calls {
    /// Notes a call at its arrival and gives its number.
    pub(crate) fn arrive(&mut self, mut call: Call) -> u64 {
        if self.list.len() == MOST_CALLS {
            self.list.pop_front();
            self.forgotten += 1;
        }
        self.stats.calls += 1;
        self.stats.faults += u64::from(call.fault.is_some());
        call.n = self.stats.calls;
        self.list.push_back(call);
        self.stats.calls
    }

    /// Notes what the rules said.
    pub(crate) fn decided(&mut self, n: u64, outcome: Outcome, grant: Option<String>) {
        let committed = matches!(outcome, Outcome::Rotated | Outcome::Grace | Outcome::Code);
        match outcome {
            Outcome::Rotated => self.stats.rotations += 1,
            Outcome::Grace | Outcome::GraceIdentical => self.stats.graces += 1,
            Outcome::Reuse => {
                self.stats.reuses += 1;
                self.stats.invalid_grants += 1;
            }
            Outcome::Revoked | Outcome::Unknown => self.stats.invalid_grants += 1,
            _ => {}
        }
        if let Some(call) = self.at(n) {
            call.outcome = outcome;
            call.committed = committed;
            call.grant = call.grant.take().or(grant);
        }
    }

    /// Notes what was answered.
    pub(crate) fn answered(&mut self, n: u64, status: u16) {
        if let Some(call) = self.at(n) {
            call.status = Some(status);
        }
    }

    pub(crate) fn after(&self, n: u64) -> Vec<Call> {
        self.list.iter().filter(|call| call.n > n).cloned().collect()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            forgotten: self.forgotten,
            ..self.stats.clone()
        }
    }

    fn at(&mut self, n: u64) -> Option<&mut Call> {
        let index = n.checked_sub(self.forgotten + 1)?;
        self.list.get_mut(usize::try_from(index).ok()?)
    }
}
