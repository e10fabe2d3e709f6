//! What becomes of results: nothing that a provider issued and somebody received is lost without a trace (P5).

use std::collections::BTreeSet;

use lockstep_protocol::{Code, Version, frame::Cause};

use super::{By, Law, Verdict, access_of, must};
use crate::{
    grant::Reply,
    record::{GrantRecord, Health, TokenSet},
    sim::script::Millis,
};

/// A token set that a provider issued and somebody received.
#[derive(Debug, Clone)]
pub(super) struct Held {
    access: String,
    refresh: Option<String>,
    from: Version,
    by: By,
    at: Millis,
    /// It was lost with the node that held it, before that could make it durable.
    excused: bool,
}

impl Law {
    /// Somebody received what a provider issued.
    pub(crate) fn holds(&mut self, id: usize, access: &str, refresh: Option<&str>, at: Millis) {
        let attempt = &self.attempts[id];
        self.results.push(Held {
            access: access.to_owned(),
            refresh: refresh.map(str::to_owned),
            from: attempt.from,
            by: attempt.by,
            at,
            excused: false,
        });
    }

    /// A node dies. What it heard and did not make durable is lost, and nobody is to blame.
    pub(crate) fn dies(&mut self, node: usize, life: u64, spooled: &BTreeSet<String>) {
        let by = By::Node(node, life);
        for held in self.results.iter_mut().filter(|held| held.by == by) {
            held.excused |= !spooled.contains(&held.access);
        }
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.by == by) {
            attempt.over = true;
        }
        for proof in self.proofs.values_mut().filter(|proof| proof.holder == (node, life)) {
            proof.orphaned = true;
        }
    }

    /// At the end: nothing that was received before `until` is nowhere.
    pub(crate) fn nothing_wasted(&self, until: Millis) -> Verdict {
        for held in self.results.iter().filter(|held| !held.excused && held.at < until) {
            let is_past = self.history.contains_key(&held.from.next().next());
            self.is_accounted_for(held, is_past)?;
        }
        Ok(())
    }

    /// A device hears what became of what it published.
    pub(crate) fn published(
        &self,
        access: &str,
        from: Version,
        reply: &Reply,
        record: Option<&GrantRecord>,
    ) -> Verdict {
        let Reply::Failed { code, .. } = reply else {
            return Ok(());
        };
        let newest = record.map_or(Version(0), |record| record.version);
        let deleted = record.is_none_or(|record| record.health == Health::Deleted);
        let refused = matches!(code, Code::NotElected | Code::Superseded);
        let honest = !refused || deleted || newest > from;
        must(honest, "P5 a late result is taken", || {
            format!(
                "{access} is refused ({code:?}) although version {} is the newest",
                from.0
            )
        })?;
        let second = *code == Code::Superseded && newest == from.next() && !deleted;
        match self.results.iter().find(|held| held.access == access) {
            Some(held) if second => self.is_accounted_for(held, false),
            _ => Ok(()),
        }
    }

    /// Whether a result is committed, kept as the alternate, or of no use to anybody.
    fn is_accounted_for(&self, held: &Held, is_past: bool) -> Verdict {
        let next = held.from.next();
        let is_it = |tokens: &TokenSet| access_of(tokens) == held.access;
        let committed = self.history.values().any(|(tokens, _)| is_it(tokens));
        let deleted = self.deleted.contains(&held.from) || self.deleted.contains(&next);
        let overtaken = self.history.get(&next).is_some_and(|(tokens, cause)| {
            let current = tokens.refresh_token.as_ref().map(|token| token.expose());
            let no_news = held.refresh.is_none() || held.refresh.as_deref() == current;
            let has_alternate = self.kept.iter().any(|(version, _)| *version == next);
            *cause == Cause::Login || no_news || has_alternate
        });
        must(
            committed || deleted || overtaken || is_past,
            "P5 nothing wasted",
            || format!("{} was received by {:?} and is nowhere", held.access, held.by),
        )
    }
}
