//! What a live device may say, and what it turns into.

use std::{sync::Arc, time::Duration};

use lockstep_engine::grant::{Ask, Asker, Input, ProviderReply, WaiterId};
use lockstep_protocol::{
    BadFrame, ClientFrame, Code, Epoch, GrantName, HubFrame, RequestId, Secret, encode,
    frame::{Error, Failed, Publish, Refresh},
    limits::fits,
};

use super::live::Live;
use crate::{clock, user::Waiter};

/// The answer to a text that is no frame.
pub(super) fn bad_frame(error: BadFrame) -> HubFrame {
    HubFrame::Error(Error {
        id: error.id,
        grant: None,
        code: Code::BadFrame,
        message: error.why,
        retry_at: None,
    })
}

fn refusal(id: Option<RequestId>, grant: Option<GrantName>, code: Code, message: &str) -> HubFrame {
    HubFrame::Error(Error {
        id,
        grant,
        code,
        message: message.to_owned(),
        retry_at: None,
    })
}

/// Turns away one frame of a device that asks too often.
pub(super) fn turn_away(live: &Live, frame: ClientFrame, come_back: Duration) {
    let (id, grant) = names(frame);
    live.session.say(&HubFrame::Error(Error {
        id,
        grant,
        code: Code::RateLimited,
        message: "this device asks too often".to_owned(),
        retry_at: Some((clock::unix() + come_back).seconds_up()),
    }));
}

/// Takes one frame of a live device.
pub(super) fn take(live: &Live, frame: ClientFrame) {
    match frame {
        // Decoded on the fast path of the session already.
        ClientFrame::Ack(ack) => drop(live.session.ack(ack.seq)),
        ClientFrame::Presence(presence) => live.session.set_presence(presence.state, clock::mono()),
        ClientFrame::Hello(_) => live
            .session
            .say(&refusal(None, None, Code::BadFrame, "hello was said already")),
        ClientFrame::Refresh(refresh) => take_refresh(live, refresh),
        ClientFrame::Accept(accept) => {
            let (device, session, lease) = (live.session.device, live.session.id, accept.lease);
            if live.knows(&accept.grant, None) && live.may_redeem(&accept.grant, None) {
                live.hub
                    .tell(&live.user, &accept.grant, Input::Accept { device, session, lease });
            }
        }
        ClientFrame::Renew(renew) => {
            let (device, session, lease) = (live.session.device, live.session.id, renew.lease);
            if live.knows(&renew.grant, None) && live.may_redeem(&renew.grant, None) {
                live.hub
                    .tell(&live.user, &renew.grant, Input::Renew { device, session, lease });
            }
        }
        ClientFrame::Publish(publish) => take_publish(live, publish),
        ClientFrame::Failed(failed) => take_failed(live, failed),
    }
}

/// What a frame that is turned away was about.
fn names(frame: ClientFrame) -> (Option<RequestId>, Option<GrantName>) {
    match frame {
        ClientFrame::Hello(_) | ClientFrame::Ack(_) | ClientFrame::Presence(_) => (None, None),
        ClientFrame::Accept(frame) => (None, Some(frame.grant)),
        ClientFrame::Renew(frame) => (None, Some(frame.grant)),
        ClientFrame::Refresh(frame) => (Some(frame.id), Some(frame.grant)),
        ClientFrame::Publish(frame) => (Some(frame.id), Some(frame.grant)),
        ClientFrame::Failed(frame) => (Some(frame.id), Some(frame.grant)),
    }
}

fn take_refresh(live: &Live, refresh: Refresh) {
    let Refresh {
        id,
        grant,
        rejected_version,
        reason,
    } = refresh;
    if !live.knows(&grant, Some(&id)) {
        return;
    }
    tracing::debug!(user = %live.user.id, %grant, device = %live.session.device, version = %rejected_version, ?reason, "refresh asked");
    let by = {
        let inner = live.user.lock();
        Asker::Device {
            device: live.session.device,
            acked: inner.board.entry(&grant).is_some_and(|e| live.session.acked() >= e.seq),
            connected: inner.connected(clock::mono()),
        }
    };
    live.ask(&grant, id, |waiter| {
        Input::Ask(Ask {
            waiter: Some(waiter),
            by,
            rejected: Some(rejected_version),
        })
    });
}

fn take_publish(live: &Live, publish: Publish) {
    let Publish {
        id,
        grant,
        lease,
        epoch,
        from_version,
        token,
    } = publish;
    let device = live.session.device;
    if !live.knows(&grant, Some(&id)) || !live.may_redeem(&grant, Some(&id)) || !live.same_epoch(epoch, &grant, &id) {
        return;
    }
    let is_long = |secret: &Secret| !fits(secret, token.scope.as_deref());
    if is_long(&token.access_token) || token.refresh_token.as_ref().is_some_and(is_long) {
        let why = "a token or its scope would not fit into a frame";
        return live.session.say(&refusal(Some(id), Some(grant), Code::TooLarge, why));
    }
    live.ask(&grant, id, |waiter| Input::Publish {
        waiter,
        device,
        lease,
        from_version,
        token: Box::new(token),
    });
}

fn take_failed(live: &Live, failed: Failed) {
    let reply = provider_reply(&failed);
    let Failed { id, grant, lease, .. } = failed;
    let device = live.session.device;
    if !live.knows(&grant, Some(&id)) || !live.may_redeem(&grant, Some(&id)) {
        return;
    }
    live.ask(&grant, id, |waiter| Input::Failed {
        waiter,
        device,
        lease,
        reply,
    });
}

/// What a device saw of its redeem, in the words of one who redeems here. The device passes on status and `error`; the
/// body is made of them.
fn provider_reply(failed: &Failed) -> ProviderReply {
    let detail = |otherwise: &str| {
        let said = failed.detail.clone().filter(|said| !said.trim().is_empty());
        said.unwrap_or_else(|| otherwise.to_owned())
    };
    match (failed.sent, failed.status) {
        (false, _) => ProviderReply::NotSent(detail("the device did not send it")),
        (true, None) => ProviderReply::Lost(detail("the device heard no answer")),
        (true, Some(status)) => ProviderReply::Answered {
            status,
            retry_after: None,
            body: failed.error.as_ref().map_or_else(
                || Secret::new(""),
                |error| Secret::new(encode(&serde_json::json!({ "error": error }))),
            ),
        },
    }
}

impl Live {
    fn knows(&self, grant: &GrantName, id: Option<&RequestId>) -> bool {
        let known = self.user.lock().knows(grant);
        if !known {
            let no = refusal(id.cloned(), Some(grant.clone()), Code::UnknownGrant, "no such grant");
            self.session.say(&no);
        }
        known
    }

    fn may_redeem(&self, grant: &GrantName, id: Option<&RequestId>) -> bool {
        if !self.session.redeemer {
            let why = "this device is not enrolled as a redeemer";
            self.session
                .say(&refusal(id.cloned(), Some(grant.clone()), Code::NotElected, why));
        }
        self.session.redeemer
    }

    fn same_epoch(&self, epoch: Epoch, grant: &GrantName, id: &RequestId) -> bool {
        let same = epoch == self.hub.epoch();
        if !same {
            let why = "the lease is of another epoch";
            self.session
                .say(&refusal(Some(id.clone()), Some(grant.clone()), Code::NotElected, why));
        }
        same
    }

    /// Makes a request that gets one answer.
    fn ask(&self, grant: &GrantName, id: RequestId, input: impl FnOnce(WaiterId) -> Input) {
        if !self.session.ask() {
            let why = "too many requests wait for their answers";
            self.session
                .say(&refusal(Some(id), Some(grant.clone()), Code::RateLimited, why));
            return;
        }
        let waiter = self.hub.next_waiter();
        let who = Waiter::Session {
            session: Arc::downgrade(&self.session),
            id,
        };
        self.user.lock().waiters.insert(waiter, (grant.clone(), who));
        self.hub.tell(&self.user, grant, input(waiter));
    }
}
