//! What the device holds: one register per grant, and how far it is.
//!
//! The rules of promise P3: within an epoch nothing goes back. Whatever arrives, over whichever transport and in
//! whichever order, is applied by the same three rules: not above the `seq` held → dropped, save a `status` of equal
//! `seq`; `refreshing` is a passing word; `reset` drops everything.

use std::{collections::BTreeMap, time::Duration};

use lockstep_protocol::{
    Cursor, DeviceId, Epoch, GrantName, Seq, UnixSeconds, Version,
    frame::{Health, Resume, Status, Token},
};

use crate::{
    clock::{HubClock, Mono, Now},
    state::{GrantState, GrantStatus, TokenLease},
};

/// The most grants that are held; a hub that sends more is not believed.
const MOST_GRANTS: usize = 4096;
/// How long a `refreshing` without `lease_expires_in` is believed.
const REFRESHING_LASTS: Duration = Duration::from_secs(60);

/// What came of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The state changed, for good.
    Changed,
    /// A passing word: shown, neither kept nor acked.
    Passing,
    /// Nothing new in it.
    Stale,
    /// Of another epoch: only a new `hello` can tell what is true.
    Foreign,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) seq: Seq,
    pub(crate) version: Version,
    pub(crate) health: Health,
    pub(crate) token: Option<Token>,
    /// The last durable status, as long as no token came after it.
    pub(crate) status: Option<Status>,
    pub(crate) refreshing: Option<Refreshing>,
    /// The version that a resource server refused.
    pub(crate) rejected: Option<Version>,
    /// The hub has said that asking for better than this version makes no sense before that time, and why.
    pub(crate) not_before: Option<NotBefore>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refreshing {
    pub(crate) by: Option<DeviceId>,
    pub(crate) until: Mono,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotBefore {
    pub(crate) version: Version,
    pub(crate) until: Mono,
    pub(crate) reason: String,
}

impl Register {
    pub(crate) fn new(seq: Seq, version: Version, health: Health) -> Self {
        Self {
            seq,
            version,
            health,
            token: None,
            status: None,
            refreshing: None,
            rejected: None,
            not_before: None,
        }
    }

    /// The token as long as nobody has said that it is dead: not this device, and not the hub.
    fn usable(&self) -> Option<&Token> {
        let token = self.token.as_ref()?;
        let dead = self.rejected.is_some_and(|rejected| rejected >= token.version)
            || token.version < self.version
            || self.health == Health::Deleted;
        (!dead).then_some(token)
    }
}

/// Everything held of the user's grants.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) clock: HubClock,
    cursor: Option<Cursor>,
    /// Highest seq applied: what an ack says.
    newest: Seq,
    /// Between `welcome` and `synced` frames come in any order, and none of them says "everything before me".
    syncing: bool,
    grants: BTreeMap<GrantName, Register>,
}

impl Held {
    pub(crate) const fn new(clock: HubClock) -> Self {
        Self {
            clock,
            cursor: None,
            newest: Seq(0),
            syncing: false,
            grants: BTreeMap::new(),
        }
    }

    /// As read from a disk cache.
    pub(crate) fn load(clock: HubClock, cursor: Cursor, grants: BTreeMap<GrantName, Register>) -> Self {
        Self {
            clock,
            cursor: Some(cursor),
            newest: cursor.seq,
            syncing: false,
            grants,
        }
    }

    pub(crate) const fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.cursor.map(|cursor| cursor.epoch)
    }

    pub(crate) const fn newest(&self) -> Seq {
        self.newest
    }

    pub(crate) fn get(&self, grant: &GrantName) -> Option<&Register> {
        self.grants.get(grant)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&GrantName, &Register)> {
        self.grants.iter()
    }

    /// A `welcome`, or the head of a poll's answer. Gives the grants that were dropped.
    pub(crate) fn begin(&mut self, epoch: Epoch, resume: Resume) -> Vec<GrantName> {
        self.syncing = true;
        if resume != Resume::Reset && self.epoch().is_none_or(|held| held == epoch) && self.cursor.is_some() {
            return Vec::new();
        }
        self.cursor = Some(Cursor { epoch, seq: Seq(0) });
        self.newest = Seq(0);
        std::mem::take(&mut self.grants).into_keys().collect()
    }

    /// `synced`, or the end of a poll's answer: everything up to `cursor` is held now.
    pub(crate) fn synced(&mut self, cursor: Cursor) -> Applied {
        if self.epoch() != Some(cursor.epoch) {
            return Applied::Foreign;
        }
        self.syncing = false;
        self.advance(cursor);
        self.newest = self.newest.max(cursor.seq);
        Applied::Changed
    }

    /// The connection broke: what came since `welcome` is kept, but nothing says how far that reaches.
    pub(crate) const fn broke_off(&mut self) {
        self.syncing = false;
    }

    fn advance(&mut self, cursor: Cursor) {
        if self.cursor.is_none_or(|held| held.seq < cursor.seq) {
            self.cursor = Some(cursor);
        }
    }

    fn register(&mut self, grant: &GrantName, seq: Seq, version: Version, health: Health) -> Option<&mut Register> {
        if self.grants.len() >= MOST_GRANTS && !self.grants.contains_key(grant) {
            return None;
        }
        Some(
            self.grants
                .entry(grant.clone())
                .or_insert_with(|| Register::new(seq, version, health)),
        )
    }

    pub(crate) fn token(&mut self, token: &Token) -> Applied {
        if self.epoch() != Some(token.cursor.epoch) {
            return Applied::Foreign;
        }
        let applied = self.fetched(token);
        // Also when it is held already, from elsewhere: everything before it has come.
        self.passed(token.seq, token.cursor);
        applied
    }

    /// A token that was asked for by itself: it says nothing about what came before it.
    pub(crate) fn fetched(&mut self, token: &Token) -> Applied {
        if self.epoch() != Some(token.cursor.epoch) {
            return Applied::Foreign;
        }
        if self
            .get(&token.grant)
            .is_some_and(|held| token.seq <= held.seq || token.version < held.version)
        {
            return Applied::Stale;
        }
        let Some(register) = self.register(&token.grant, token.seq, token.version, Health::Ok) else {
            return Applied::Stale;
        };
        *register = Register {
            rejected: register.rejected.filter(|rejected| *rejected >= token.version),
            token: Some(token.clone()),
            ..Register::new(token.seq, token.version, Health::Ok)
        };
        Applied::Changed
    }

    pub(crate) fn status(&mut self, status: Status, now: Now) -> Applied {
        if self.epoch() != Some(status.cursor.epoch) {
            return Applied::Foreign;
        }
        if self
            .get(&status.grant)
            .is_some_and(|held| status.seq < held.seq || status.version < held.version)
        {
            return Applied::Stale;
        }
        if status.health == Health::Refreshing {
            return self.refreshing(&status, now);
        }
        let (seq, cursor) = (status.seq, status.cursor);
        let Some(register) = self.register(&status.grant, status.seq, status.version, status.health) else {
            return Applied::Stale;
        };
        if register.seq == status.seq && register.status.as_ref() == Some(&status) {
            self.passed(seq, cursor);
            return Applied::Stale;
        }
        register.seq = status.seq;
        register.version = status.version;
        register.health = status.health;
        register.refreshing = None;
        if status.health == Health::Deleted || register.token.as_ref().is_some_and(|t| t.version < status.version) {
            register.token = None;
        }
        register.status = (status.health != Health::Ok).then_some(status);
        self.passed(seq, cursor);
        Applied::Changed
    }

    fn refreshing(&mut self, status: &Status, now: Now) -> Applied {
        let lasts = status.lease_expires_in.map_or(REFRESHING_LASTS, Duration::from_secs);
        // A grant that was never heard of gets a register of seq 0: the passing word must not stand in for the state.
        let Some(register) = self.register(&status.grant, Seq(0), status.version, Health::Refreshing) else {
            return Applied::Stale;
        };
        register.refreshing = Some(Refreshing {
            by: status.refreshing_by,
            until: now.mono + lasts,
        });
        Applied::Passing
    }

    fn passed(&mut self, seq: Seq, cursor: Cursor) {
        self.newest = self.newest.max(seq);
        if !self.syncing {
            self.advance(cursor);
        }
    }

    /// A resource server refused `version`. False when that is not what is held.
    pub(crate) fn reject(&mut self, grant: &GrantName, version: Version) -> bool {
        match self.grants.get_mut(grant) {
            Some(register) if register.version == version => register.rejected.replace(version) != Some(version),
            _ => false,
        }
    }

    /// Whether a resource server refused this version.
    pub(crate) fn is_rejected(&self, grant: &GrantName, version: Version) -> bool {
        self.get(grant)
            .is_some_and(|r| r.rejected.is_some_and(|rejected| rejected >= version))
    }

    /// The hub said when asking again makes sense.
    pub(crate) fn not_before(&mut self, grant: &GrantName, not_before: NotBefore) {
        if let Some(register) = self.grants.get_mut(grant) {
            register.not_before = Some(not_before);
        }
    }

    /// Ends the passing words whose time is over; gives the grants that look different now.
    pub(crate) fn lapse(&mut self, now: Now) -> Vec<GrantName> {
        let mut changed = Vec::new();
        for (grant, register) in &mut self.grants {
            if register.refreshing.is_some_and(|r| r.until <= now.mono) {
                register.refreshing = None;
                changed.push(grant.clone());
            }
        }
        changed
    }

    pub(crate) fn next_lapse(&self) -> Option<Mono> {
        self.grants.values().filter_map(|r| Some(r.refreshing?.until)).min()
    }

    /// The token of a grant that may still be used, whatever its expiry.
    pub(crate) fn lease(&self, grant: &GrantName) -> Option<TokenLease> {
        self.get(grant)?.usable().map(|token| self.lease_of(token))
    }

    pub(crate) fn lease_of(&self, token: &Token) -> TokenLease {
        TokenLease {
            grant: token.grant.clone(),
            version: token.version,
            access_token: token.access_token.clone(),
            token_type: token.token_type.clone(),
            scope: token.scope.clone(),
            expires_at: token.expires_at,
            refreshed_at: token.refreshed_at,
            cause: token.cause,
            clock: self.clock,
        }
    }

    /// The state of a grant as applications see it.
    pub(crate) fn state(&self, grant: &GrantName) -> GrantState {
        let Some(register) = self.get(grant) else {
            return GrantState::Unknown;
        };
        let token = self.lease(grant);
        if register.seq == Seq(0) && register.token.is_none() && register.refreshing.is_none() {
            return GrantState::Unknown;
        }
        match (register.refreshing, &register.status, token) {
            (None, None, Some(lease)) => GrantState::Token(lease),
            (Some(refreshing), status, token) => GrantState::Status(GrantStatus {
                health: Health::Refreshing,
                refreshing_by: refreshing.by,
                ..words(register, status.as_ref(), token)
            }),
            (None, status, token) => GrantState::Status(words(register, status.as_ref(), token)),
        }
    }
}

fn words(register: &Register, status: Option<&Status>, token: Option<TokenLease>) -> GrantStatus {
    GrantStatus {
        version: register.version,
        health: register.health,
        token,
        refreshing_by: None,
        reason: status.and_then(|s| s.reason.clone()),
        retry_at: status.and_then(|s| s.retry_at),
        login_url: status.and_then(|s| s.login_url.clone()),
    }
}

/// When a status says to expect better, as seconds of the hub's clock.
pub(crate) fn retry_at(register: &Register) -> Option<UnixSeconds> {
    register.status.as_ref().and_then(|status| status.retry_at)
}
