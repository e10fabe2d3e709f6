//! The requests that wait for somebody's word: sealed lists in the store, so that any node may answer for them.

use std::{net::IpAddr, sync::Arc};

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    audit::By,
    identity::IdentityError,
    store::{DeviceKind, Hash, Sealed, Store},
    vault::Vault,
};

/// The most requests that wait in one list.
const LONGEST: usize = 64;
/// How often a lost race with another change is tried again.
const MOST_TRIES: usize = 32;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// Hash of the device's code.
    pub(super) code: Hash,
    /// The code for people.
    pub(super) user_code: String,
    /// What the device calls itself.
    pub(super) name: String,
    /// What it says that it is.
    pub(super) kind: DeviceKind,
    /// Where the request came from.
    pub(super) address: Option<IpAddr>,
    /// When.
    pub(super) made_at: Unix,
    /// When it ends.
    pub(super) expires_at: Unix,
    /// What was said.
    pub(super) word: Word,
}

/// What was said about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// Nothing yet.
    Waiting,
    /// No.
    Denied,
    /// Yes.
    Approved(Approved),
}

/// A yes: all of the device that is to be enrolled, so that enrolling it twice is enrolling it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Approved {
    pub(super) device: DeviceId,
    pub(super) user: UserId,
    pub(super) redeemer: bool,
    pub(super) may_offer: bool,
    pub(super) priority: Option<u8>,
    pub(super) by: By,
    pub(super) at: Unix,
}

/// What a change makes of a list.
pub(super) enum Change<A> {
    /// It stays as it is.
    Keep(A),
    /// It is to be written.
    Write(A),
}

/// The lists.
pub(super) struct Lists {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
}

impl Lists {
    pub(super) const fn new(store: Arc<dyn Store>, vault: Arc<Vault>) -> Self {
        Self { store, vault }
    }

    /// The requests of a list that have not expired.
    pub(super) async fn read(&self, list: u8, now: Unix) -> Result<Vec<Request>, IdentityError> {
        let name = name(list);
        let sealed = self.store.shared(&name).await?;
        self.open(&name, sealed.as_ref(), now)
    }

    /// Changes a list: reads it, asks `change`, and writes it if it is still what was read; else once more.
    pub(super) async fn change<A>(
        &self,
        list: u8,
        now: Unix,
        change: impl Fn(&mut Vec<Request>) -> Change<A>,
    ) -> Result<A, IdentityError> {
        let name = name(list);
        let mut standing = self.store.shared(&name).await?;
        for _ in 0..MOST_TRIES {
            let mut requests = self.open(&name, standing.as_ref(), now)?;
            let answer = match change(&mut requests) {
                Change::Keep(answer) => return Ok(answer),
                Change::Write(answer) => answer,
            };
            let plain = serde_json::to_vec(&requests).map_err(|_| IdentityError::Crypto("write device codes"))?;
            let sealed = self.vault.seal(&name, &plain);
            let now_stands = self.store.share(&name, sealed.clone(), standing).await?;
            if now_stands == sealed {
                return Ok(answer);
            }
            standing = Some(now_stands);
        }
        Err(IdentityError::Crowded)
    }

    fn open(&self, name: &str, sealed: Option<&Sealed>, now: Unix) -> Result<Vec<Request>, IdentityError> {
        let Some(sealed) = sealed else {
            return Ok(Vec::new());
        };
        let plain = self.vault.open_sealed(name, sealed)?;
        let mut requests: Vec<Request> =
            serde_json::from_slice(&plain).map_err(|_| IdentityError::Corrupt("device codes"))?;
        requests.retain(|request| request.expires_at > now);
        Ok(requests)
    }
}

/// Whether one more has room in a list.
pub(super) const fn has_room(requests: &[Request]) -> bool {
    requests.len() < LONGEST
}

/// A list's name in the store; also what its seal is bound to.
fn name(list: u8) -> String {
    format!("device-codes/{list}")
}
