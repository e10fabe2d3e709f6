//! Taking in what other nodes tell.

use std::{cmp::Ordering, sync::Arc};

use lockstep_engine::{
    grant::{Ask, Asker, Input},
    time::Unix,
};
use lockstep_protocol::{Close, DeviceId, GrantName, Seq, SessionId, UserId};
use tokio::sync::mpsc;

use super::Hub;
use crate::{
    clock,
    cluster::{Fact, Heard},
};

/// Takes in facts until the hub is gone.
pub(super) async fn listen(hub: Arc<Hub>, mut heard: mpsc::Receiver<Heard>) {
    while let Some(heard) = heard.recv().await {
        match heard {
            Heard::Fact(Fact::Moved { user, seq }) => moved(&hub, &user, seq),
            Heard::Fact(Fact::Wanted { user, grant }) => wanted(&hub, &user, &grant),
            Heard::Fact(Fact::Revoked { device, user, at }) => hub.identity.learn_revoked(device, user, at).await,
            Heard::Fact(Fact::Arrived {
                user,
                device,
                session,
                at,
            }) => arrived(&hub, &user, device, session, at),
            Heard::Fact(Fact::Alive | Fact::Leaving) => {}
            Heard::Gap => hub.look_at_all().await,
        }
    }
}

fn moved(hub: &Arc<Hub>, user: &UserId, seq: Seq) {
    if let Some(user) = hub.users.resident(user)
        && user.board().seq < seq
    {
        hub.reload(&user);
    }
}

fn wanted(hub: &Arc<Hub>, user: &UserId, grant: &GrantName) {
    let Some(user) = hub.users.resident(user) else { return };
    if !user.lock().candidates(clock::mono()).is_empty() {
        let ask = Ask {
            waiter: None,
            by: Asker::Node,
            rejected: None,
        };
        hub.tell(&user, grant, Input::Ask(ask));
    }
}

/// The newer session of a device is the living one; of two that began at once, every node chooses the same.
fn arrived(hub: &Hub, user: &UserId, device: DeviceId, session: SessionId, at: Unix) {
    let Some(user) = hub.users.resident(user) else { return };
    for here in user.lock().sessions.iter().filter(|here| here.device == device) {
        if (here.began, here.id).cmp(&(at, session)) == Ordering::Less {
            here.link.close(Close::Replaced);
        }
    }
}
