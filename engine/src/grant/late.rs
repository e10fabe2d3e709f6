//! Results that come from elsewhere: a device publishes, a spool is found after a restart.

use lockstep_protocol::{Code, DeviceId, LeaseId, Version, frame::PublishedToken};

use super::{
    Command, Cx, Grant, Input, Reply, WaiterId,
    landing::{Landing, MOST_LANDINGS, Spool, Stage},
    outcome::{Issued, seconds_of_life, token_type},
    read::unknown_grant,
};
use crate::record::{Health, TokenSet};

impl Grant {
    pub(super) fn on_publish(&mut self, publish: Publish, cx: &mut Cx<'_>) {
        let Publish {
            waiter, lease, from, ..
        } = publish;
        let Some(record) = self.record() else {
            return self.answer(waiter, unknown_grant());
        };
        if record.health == Health::Deleted {
            return self.answer(waiter, Reply::failed(Code::Superseded, "the grant was deleted"));
        }
        let version = record.version;
        let current = version == from && record.leases.contains(&lease);
        let former = version == from.next() && record.former_leases.contains(&lease);
        if version == from.next() && record.committed_by == Some(lease) {
            return self.answer(waiter, Reply::Done(version));
        }
        if version > from && !former {
            return self.answer(waiter, Reply::failed(Code::Superseded, "a newer version is committed"));
        }
        if !current && !former {
            // Another node may have handed the lease out since the record was read.
            return match self.read_again_for(publish.into_input()) {
                None => {}
                Some(_) => self.answer(waiter, Reply::failed(Code::NotElected, "this lease was not handed out")),
            };
        }
        if publish.token.access_token.is_empty() || self.landings.len() >= MOST_LANDINGS {
            return self.answer(waiter, Reply::failed(Code::BadFrame, "the access token is empty"));
        }
        let tokens = self.published(from, *publish.token, cx);
        self.land(
            Landing {
                lease,
                from,
                tokens,
                issued_at: cx.now.unix,
                late: !self.flight.as_ref().is_some_and(|flight| flight.lease == Some(lease)),
                rejected_in_a_row: 0,
                publishers: vec![waiter],
                spool: Spool::No,
                stage: Stage::Committing,
                tries: 0,
            },
            cx,
        );
    }

    fn published(&self, from: Version, token: PublishedToken, cx: &Cx<'_>) -> TokenSet {
        let issued = Issued {
            access_token: token.access_token,
            refresh_token: token.refresh_token.filter(|token| !token.is_empty()),
            token_type: token_type(Some(&token.token_type)),
            scope: token.scope,
            expires_in: token.expires_in.filter(|seconds| *seconds > 0).map(seconds_of_life),
            refresh_expires_in: None,
        };
        self.complete(from, issued, cx.now.unix)
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
