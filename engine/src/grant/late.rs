//! Results that come from elsewhere: a device publishes, a spool is found after a restart.

use lockstep_protocol::{Code, DeviceId, LeaseId, Version, frame::PublishedToken};

use super::{
    Command, Cx, Grant, Input, Reply, WaiterId,
    broken::Broken,
    flight,
    landing::{Landing, MOST_LANDINGS, Spool, Stage, is_committed},
    outcome::{Issued, seconds_of_life, token_type},
    read::unknown_grant,
};
use crate::record::{Health, TokenSet};

impl Grant {
    pub(super) fn on_publish(&mut self, publish: Publish, cx: &mut Cx<'_>) {
        let (waiter, lease, from) = (publish.waiter, publish.lease, publish.from);
        if let Some(landing) = self.landings.iter_mut().find(|landing| landing.lease == lease) {
            return landing.publishers.push(waiter);
        }
        let Some(record) = self.record() else {
            return self.answer(waiter, unknown_grant());
        };
        let version = record.version;
        if record.health == Health::Deleted {
            return self.answer(waiter, Reply::failed(Code::Superseded, "the grant was deleted"));
        }
        if version == from.next() && is_committed(record, lease, publish.token.refresh_token.as_ref()) {
            return self.answer(waiter, Reply::Done(version));
        }
        if self.is_only_offered(lease) {
            let why = "accept comes first: nothing was handed out under this lease yet";
            return self.answer(waiter, Reply::failed(Code::NotElected, why));
        }
        let is_current = version == from && record.leases.contains(&lease);
        let is_former = version == from.next() && record.former_leases.contains(&lease);
        if version > from && !is_former {
            return self.answer(waiter, Reply::failed(Code::Superseded, "a newer version is committed"));
        }
        if !is_current && !is_former {
            // Another node may have handed the lease out since the record was read.
            if self.read_again_for(publish.into_input()).is_some() {
                self.answer(waiter, Reply::failed(Code::NotElected, "this lease was not handed out"));
            }
            return;
        }
        if publish.token.access_token.is_empty() {
            return self.answer(waiter, Reply::failed(Code::BadFrame, "the access token is empty"));
        }
        if self.landings.len() >= MOST_LANDINGS {
            return self.answer(
                waiter,
                Reply::failed(Code::Unavailable, "too many results wait for the store"),
            );
        }
        self.land_published(publish, cx);
    }

    fn land_published(&mut self, publish: Publish, cx: &mut Cx<'_>) {
        let lease = publish.lease;
        let flight = self.flight.as_ref().filter(|flight| flight.lease == Some(lease));
        let (late, rejected) = (flight.is_none(), flight.is_some_and(|flight| flight.rejected));
        if late && self.is_broken(Broken::RefuseLate) {
            return self.answer(publish.waiter, Reply::failed(Code::NotElected, "too late"));
        }
        if !late {
            self.in_stage(flight::Stage::Landing);
            self.timers.stop_flight();
        }
        let row = self.record().map_or(0, |record| record.rejected_in_a_row);
        let tokens = self.published(lease, publish.from, *publish.token, cx);
        self.land(
            Landing {
                lease,
                from: publish.from,
                tokens,
                issued_at: cx.now.unix,
                late,
                rejected_in_a_row: if rejected { row.saturating_add(1) } else { 0 },
                publishers: vec![publish.waiter],
                spool: Spool::No,
                stage: Stage::Committing,
                tries: 0,
            },
            cx,
        );
    }

    fn published(&self, lease: LeaseId, from: Version, token: PublishedToken, cx: &Cx<'_>) -> TokenSet {
        let issued = Issued {
            access_token: token.access_token,
            refresh_token: token.refresh_token.filter(|token| !token.is_empty()),
            token_type: token_type(Some(&token.token_type)),
            scope: token.scope,
            expires_in: token.expires_in.filter(|seconds| *seconds > 0).map(seconds_of_life),
            refresh_expires_in: None,
        };
        self.complete(lease, from, issued, cx.now.unix)
    }

    pub(super) fn on_from_spool(&mut self, lease: LeaseId, from: Version, tokens: TokenSet, cx: &mut Cx<'_>) {
        if self.record().is_none() {
            return self.order(Command::Unspool { lease });
        }
        if self.landings.iter().any(|landing| landing.lease == lease) {
            return;
        }
        self.land(
            Landing {
                lease,
                from,
                tokens,
                issued_at: cx.now.unix,
                late: true,
                rejected_in_a_row: 0,
                publishers: Vec::new(),
                spool: Spool::Durable,
                stage: Stage::Committing,
                tries: 0,
            },
            cx,
        );
    }
}

/// A device's `publish`.
pub(super) struct Publish {
    pub(super) waiter: WaiterId,
    pub(super) device: DeviceId,
    pub(super) lease: LeaseId,
    pub(super) from: Version,
    pub(super) token: Box<PublishedToken>,
}

impl Publish {
    fn into_input(self) -> Input {
        Input::Publish {
            waiter: self.waiter,
            device: self.device,
            lease: self.lease,
            from_version: self.from,
            token: self.token,
        }
    }
}
