//! Who waits for an answer.

use std::sync::{Arc, Weak};

use lockstep_engine::{grant::Reply, time::Mono};
use lockstep_protocol::{
    GrantName, HubFrame, RequestId, encode,
    frame::{Done, Error},
};
use tokio::sync::oneshot;

use super::Board;
use crate::{session::Session, transport::text};

/// Who waits for the answer to one request.
pub enum Waiter {
    /// A session, for its request `id`.
    Session {
        /// Which session; gone with its connection.
        session: Weak<Session>,
        /// The request.
        id: RequestId,
    },
    /// An HTTP call.
    Call(oneshot::Sender<Reply>),
}

impl Waiter {
    /// Whether it is one of this session's requests.
    pub fn is_of(&self, of: &Arc<Session>) -> bool {
        matches!(self, Self::Session { session, .. } if session.as_ptr() == Arc::as_ptr(of))
    }

    /// Gives the answer, and to a session what stands on the board before it. Whoever is gone misses it.
    pub fn answer(self, board: &Board, grant: &GrantName, reply: Reply, now: Mono) {
        match self {
            Self::Session { session, id } => {
                if let Some(session) = session.upgrade() {
                    let message = text::framed(&encode(&frame(id, grant.clone(), reply)));
                    session.link.answer(board, &message, now);
                    session.answered();
                }
            }
            Self::Call(call) => drop(call.send(reply)),
        }
    }
}

fn frame(id: RequestId, grant: GrantName, reply: Reply) -> HubFrame {
    use lockstep_protocol::Code;
    let (code, message, retry_at) = match reply {
        Reply::Done(version) => return HubFrame::Done(Done { id, grant, version }),
        Reply::Deleted => (Code::UnknownGrant, "the grant was deleted".to_owned(), None),
        Reply::Retired => (
            Code::Superseded,
            "this refresh token was used up before".to_owned(),
            None,
        ),
        Reply::Failed {
            code,
            message,
            retry_at,
        } => (code, message, retry_at),
    };
    HubFrame::Error(Error {
        id: Some(id),
        grant: Some(grant),
        code,
        message,
        retry_at: retry_at.map(lockstep_engine::time::Unix::seconds_up),
    })
}
