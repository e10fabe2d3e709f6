//! A claim ends without a result: the verdict is written, then those who wait are told.

use std::time::Duration;

use lockstep_protocol::{Code, LeaseId};

use super::{
    Command, Cx, Grant, Note, Reply, Trouble, Verdict,
    ending::Ending,
    flight::{Flight, Stage},
    plan::Case,
    schedule::Timer,
    view,
};
use crate::{
    entropy::lease_id,
    record::{GrantRecord, Health},
    time::Unix,
};

/// The longest pause before a verdict is written again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Grant {
    /// Whether the record does not say yet what the case says.
    pub(super) fn must_settle(&self, case: &Case) -> bool {
        let Some(record) = self.record() else {
            return false;
        };
        let stale_doubt = case.doubt.is_some() && record.doubt != case.doubt;
        let stale_alternate = case.drop_alternate && record.alternate.is_some();
        case.over.is_some() || stale_doubt || stale_alternate
    }

    /// Nothing is to be done, and the claim judged, if any, is ended.
    pub(super) fn stand_still(&mut self, case: &Case, reply: &Reply, cx: &mut Cx<'_>) {
        let Some(record) = self.record().filter(|_| case.over.is_some()) else {
            return self.rest(reply);
        };
        let in_doubt = case.doubt.is_some();
        let verdict = Verdict {
            tell: in_doubt && record.health != Health::Suspect,
            health: if in_doubt { Health::Suspect } else { record.health },
            reason: record.reason.clone(),
            retry_at: record.retry_at,
            due_at: record.due_at,
            doubt: case.doubt.clone(),
            drop_alternate: case.drop_alternate,
        };
        self.settle(case.over, verdict, Some(reply.clone()), cx);
    }

    /// The outcome is in doubt. `quietly`: the doubt will be over before it is worth telling.
    pub(super) fn settle_doubt(
        &mut self,
        case: Case,
        due_at: Option<Unix>,
        quietly: bool,
        reply: Reply,
        cx: &mut Cx<'_>,
    ) {
        let Some(record) = self.record() else {
            return;
        };
        let reason = case.doubt.as_ref().map(|doubt| doubt.reason.clone());
        let health = if quietly { record.health } else { Health::Suspect };
        let dead = case.doubt.as_ref().is_some_and(|doubt| doubt.dead);
        let was_dead = record.doubt.as_ref().is_some_and(|doubt| doubt.dead);
        let verdict = Verdict {
            tell: !quietly && (record.health != health || record.reason != reason || dead != was_dead),
            health,
            reason: if quietly { record.reason.clone() } else { reason.clone() },
            retry_at: None,
            due_at,
            doubt: case.doubt,
            drop_alternate: case.drop_alternate,
        };
        if !quietly && record.health != Health::Suspect {
            self.note(Note::Suspect {
                reason: reason.unwrap_or_default(),
            });
        }
        self.settle(case.over, verdict, (!quietly).then_some(reply), cx);
    }

    /// All is tried: somebody must log in again.
    pub(super) fn give_up(&mut self, case: Case, reason: String, cx: &mut Cx<'_>) {
        let verdict = Verdict {
            tell: true,
            health: Health::ReauthRequired,
            reason: Some(reason.clone()),
            retry_at: None,
            due_at: None,
            doubt: case.doubt,
            drop_alternate: case.drop_alternate,
        };
        self.note(Note::ReauthRequired { reason: reason.clone() });
        let reply = Reply::failed(Code::ReauthRequired, reason);
        self.settle(case.over, verdict, Some(reply), cx);
    }

    /// Not processed, and to be tried again at `at`.
    pub(super) fn settle_later(&mut self, reason: &str, at: Unix, due_at: Option<Unix>, cx: &mut Cx<'_>) {
        let Some(record) = self.record() else {
            return;
        };
        // Under a claim of the flight's own, or over one that this judges.
        let own = self.flight.as_ref().and_then(|flight| flight.lease);
        let case = self
            .view(record, cx.now)
            .case()
            .filter(|_| own.is_none())
            .unwrap_or(Case {
                over: own,
                doubt: record.doubt.clone(),
                drop_alternate: false,
            });
        let verdict = Verdict {
            // A redeem ahead of expiry that has to wait is no news to devices with a good token.
            tell: !view::is_servable(record, cx.now.unix),
            health: record.health,
            reason: Some(reason.to_owned()),
            retry_at: Some(at),
            due_at,
            doubt: case.doubt,
            drop_alternate: case.drop_alternate,
        };
        let reply = Reply::failed_until(Code::Unavailable, reason, at);
        self.settle(case.over, verdict, Some(reply), cx);
    }

    fn settle(&mut self, over: Option<LeaseId>, verdict: Verdict, reply: Option<Reply>, cx: &mut Cx<'_>) {
        let version = self.newest();
        let fence = self.record().map_or(0, |record| record.fence);
        let lease = over.unwrap_or_else(|| lease_id(cx.entropy));
        self.end_flight();
        let ending = Ending {
            version,
            fence,
            verdict: verdict.clone(),
            reply,
            tries: 0,
            is_unknown: false,
        };
        self.flight = Some(Flight {
            lease: Some(lease),
            ..Flight::new(version, cx.now.mono, Stage::Settling(Box::new(ending)))
        });
        self.order(Command::Settle {
            lease,
            version,
            fence,
            verdict: Box::new(verdict),
        });
    }

    /// Whether the store did not take a verdict yet that it was given.
    pub(super) fn is_settling_again(&self) -> bool {
        let stage = self.flight.as_ref().map(|flight| &flight.stage);
        matches!(stage, Some(Stage::Settling(ending)) if ending.tries > 0)
    }

    pub(super) fn settle_again(&mut self) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        let (Stage::Settling(ending), Some(lease)) = (&mut flight.stage, flight.lease) else {
            return;
        };
        ending.is_unknown = false;
        let (version, fence, verdict) = (ending.version, ending.fence, Box::new(ending.verdict.clone()));
        self.order(Command::Settle {
            lease,
            version,
            fence,
            verdict,
        });
    }

    pub(super) fn on_settled(
        &mut self,
        lease: LeaseId,
        answer: Result<Option<Box<GrantRecord>>, Trouble>,
        cx: &mut Cx<'_>,
    ) {
        let current = self.flight.as_mut().filter(|flight| flight.lease == Some(lease));
        let ending = match current.map(|flight| &mut flight.stage) {
            Some(Stage::Settling(ending)) => ending,
            _ => {
                if let Ok(Some(record)) = answer {
                    self.absorb(record, cx);
                }
                return;
            }
        };
        let reply = ending.reply.take();
        match answer {
            Ok(record) => {
                let counts = record.as_ref().is_none_or(|record| ending.is_in(record));
                self.end_flight();
                match record {
                    Some(record) => self.absorb(record, cx),
                    None => self.known.record = None,
                }
                match reply {
                    // Something else was written since: what there is to do is judged anew.
                    _ if !counts => return self.brakes.lost_race(cx.now.mono),
                    Some(reply) => self.rest(&reply),
                    None => {}
                }
                self.ended.clear();
            }
            Err(trouble) => {
                ending.tries += 1;
                ending.is_unknown = matches!(trouble, Trouble::Unknown(_));
                let pause = (Duration::from_millis(250) * 2_u32.pow(ending.tries.min(8))).min(LONGEST_PAUSE);
                if ending.is_unknown {
                    self.load();
                } else {
                    self.timers.set(Timer::Settle, cx.now.mono + pause);
                }
                if let Some(reply) = reply {
                    self.rest(&reply);
                }
            }
        }
    }
}
