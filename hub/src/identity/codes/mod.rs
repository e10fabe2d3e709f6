//! Enrolment without copying secrets: the device flow (RFC 8628).
//!
//! A device asks for two codes. One it shows to its user, the other it presents until somebody has said yes or no: the
//! operator, or the user with a device that is enrolled already. What waits lies sealed in the store ([`list`]), so any node
//! may take the request, the word and the question. Both codes are short-lived, and the device's works once.

mod code;
mod list;
mod pace;

use std::{net::IpAddr, sync::Arc, time::Duration};

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, Secret, UserId};
use serde::Serialize;
use uuid::Uuid;

use super::{Enrolled, Identity, IdentityError, NewDevice, enrol};
use crate::{
    audit::By,
    buckets::Buckets,
    clock,
    store::{DeviceKind, Store},
    vault::Vault,
};
use list::{Approved, Change, Lists, Request, Word};
use pace::Paces;

/// How often another code is drawn when its list is full, or somebody has it already.
const MOST_DRAWS: usize = 4;

/// What the device flow keeps on one node.
pub(super) struct Codes {
    lists: Lists,
    paces: Paces,
    /// Requests of one address.
    requests: Buckets<IpAddr>,
    /// Wrong codes and tokens of one address.
    guesses: Buckets<IpAddr>,
}

impl Codes {
    pub(super) fn new(store: Arc<dyn Store>, vault: Arc<Vault>, per_minute: u32) -> Self {
        let minute = Duration::from_secs(60);
        Self {
            lists: Lists::new(store, vault),
            paces: Paces::default(),
            requests: Buckets::new(per_minute, minute),
            guesses: Buckets::new(per_minute, minute),
        }
    }
}

/// What a device that asks says of itself.
#[derive(Debug, Clone)]
pub struct Asks {
    /// What it calls itself.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Where it asks from.
    pub address: Option<IpAddr>,
}

/// The two codes.
#[derive(Debug, Clone)]
pub struct Begun {
    /// For the device.
    pub device_code: Secret,
    /// For people, as it is shown to them.
    pub user_code: String,
    /// How long both are good.
    pub expires_in: Duration,
    /// How long the device is to wait between two asks.
    pub interval: Duration,
}

/// Why no codes were given.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// What the device says of itself will not do.
    #[error("{0}")]
    Invalid(String),
    /// This address asks too often.
    #[error("too many requests from this address")]
    TooOften(Duration),
    /// Too many wait.
    #[error("too many devices wait to be approved")]
    Full,
    /// The hub cannot do it now.
    #[error(transparent)]
    Failed(#[from] IdentityError),
}

/// Why a device code was not exchanged (RFC 8628 section 3.5).
#[derive(Debug, thiserror::Error)]
pub enum NotYet {
    /// Nobody has said a word.
    #[error("nobody has approved it yet")]
    Pending,
    /// The same, and the device asks too often.
    #[error("nobody has approved it yet; ask less often")]
    SlowDown,
    /// Somebody said no.
    #[error("denied")]
    Denied,
    /// Too late.
    #[error("the code has expired")]
    Expired,
    /// Never issued, or used.
    #[error("not a device code of this hub, or used before")]
    Unknown,
    /// The hub cannot do it now.
    #[error(transparent)]
    Failed(#[from] IdentityError),
}

/// Whose device it is to be, and what it may.
#[derive(Debug, Clone)]
pub struct Approval {
    /// Whose.
    pub user: UserId,
    /// Whether it may redeem.
    pub redeemer: bool,
    /// Whether it may offer a fresh login.
    pub may_offer: bool,
    /// Its weight in elections, if not that of its kind.
    pub priority: Option<u8>,
    /// Who says so.
    pub by: By,
}

/// A request that waits, as it is shown to whoever is to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The code for people.
    pub user_code: String,
    /// What the device calls itself.
    pub name: String,
    /// What it says that it is.
    pub kind: DeviceKind,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Seconds since.
    pub age: u64,
    /// Seconds until the codes expire.
    pub expires_in: u64,
}

impl Waiting {
    fn of(request: &Request, now: Unix) -> Self {
        Self {
            user_code: code::shown(&request.user_code),
            name: request.name.clone(),
            kind: request.kind,
            address: request.address,
            age: now.since(request.made_at).as_secs(),
            expires_in: request.expires_at.since(now).as_secs(),
        }
    }
}

/// A code as people typed it, as it is shown; none if it cannot be one.
pub(crate) fn spelled(text: &str) -> Option<String> {
    code::typed(text).map(|code| code::shown(&code))
}

impl Identity {
    /// Gives a device two codes.
    ///
    /// # Errors
    /// [`NotBegun`] says why not.
    pub async fn begin(&self, asks: Asks) -> Result<Begun, NotBegun> {
        let name = enrol::checked_name(&asks.name).map_err(|error| NotBegun::Invalid(error.to_string()))?;
        if let Some(address) = asks.address {
            let taken = self.codes.requests.take(address, clock::mono());
            taken.map_err(NotBegun::TooOften)?;
        }
        let now = clock::unix();
        let expires_at = now + self.settings.code_ttl;
        for _ in 0..MOST_DRAWS {
            let user_code = code::for_people()?;
            let list = code::list_of(&user_code);
            let device_code = code::issue(self.keys.mac(), list, expires_at)?;
            let request = Request {
                code: Vault::hash(&device_code),
                user_code: user_code.clone(),
                name: name.clone(),
                kind: asks.kind,
                address: asks.address,
                made_at: now,
                expires_at,
                word: Word::Waiting,
            };
            let added = self.codes.lists.change(list, now, |requests| {
                if !list::has_room(requests) || requests.iter().any(|other| other.user_code == user_code) {
                    return Change::Keep(false);
                }
                requests.push(request.clone());
                Change::Write(true)
            });
            if added.await? {
                return Ok(Begun {
                    device_code,
                    user_code: code::shown(&user_code),
                    expires_in: self.settings.code_ttl,
                    interval: self.settings.code_interval,
                });
            }
        }
        Err(NotBegun::Full)
    }

    /// Exchanges a device code for an enrolment, once.
    ///
    /// # Errors
    /// [`NotYet`] says why not.
    pub async fn redeem_code(&self, presented: &Secret) -> Result<(Enrolled, UserId), NotYet> {
        let genuine = code::read(self.keys.mac(), presented).ok_or(NotYet::Unknown)?;
        let now = clock::unix();
        if now >= genuine.expires_at {
            return Err(NotYet::Expired);
        }
        let hash = Vault::hash(presented);
        let requests = self.codes.lists.read(genuine.list, now).await?;
        let request = requests.into_iter().find(|request| request.code == hash);
        let request = request.ok_or(NotYet::Unknown)?;
        match &request.word {
            Word::Approved(approved) if !self.is_withdrawn(approved) => {
                self.enrol_approved(genuine.list, &request, approved).await
            }
            Word::Approved(_) | Word::Denied => Err(NotYet::Denied),
            Word::Waiting
                if self
                    .codes
                    .paces
                    .in_time(hash, self.settings.code_interval, clock::mono()) =>
            {
                Err(NotYet::Pending)
            }
            Word::Waiting => Err(NotYet::SlowDown),
        }
    }

    /// The word of a device that was revoked since counts no more.
    fn is_withdrawn(&self, approved: &Approved) -> bool {
        matches!(approved.by, By::Device(device) if self.is_revoked(device))
    }

    /// Enrols first and takes the code out after, so that a crash between the two burns no code; of several who come with
    /// the same code, the one that takes it out is answered.
    async fn enrol_approved(
        &self,
        list: u8,
        request: &Request,
        approved: &Approved,
    ) -> Result<(Enrolled, UserId), NotYet> {
        let new = NewDevice {
            kind: request.kind,
            name: request.name.clone(),
            redeemer: approved.redeemer,
            may_offer: approved.may_offer,
            priority: approved.priority,
        };
        let (device, refresh_token) = self.row(approved.device, &approved.user, new, approved.at);
        self.store.enrol(device.clone()).await.map_err(IdentityError::from)?;
        let taken = self.codes.lists.change(list, clock::unix(), |requests| {
            let before = requests.len();
            requests.retain(|other| other.code != request.code);
            if requests.len() == before {
                Change::Keep(false)
            } else {
                Change::Write(true)
            }
        });
        if !taken.await? {
            return Err(NotYet::Unknown);
        }
        self.codes.paces.forget(request.code);
        let user = device.user.clone();
        Ok((self.enrolled(&device, refresh_token, approved.by)?, user))
    }

    /// What waits under a code for people.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn waiting(&self, typed: &str) -> Result<Option<Waiting>, IdentityError> {
        let Some(code) = code::typed(typed) else {
            return Ok(None);
        };
        let now = clock::unix();
        let requests = self.codes.lists.read(code::list_of(&code), now).await?;
        let request = requests
            .iter()
            .find(|request| request.user_code == code && request.word == Word::Waiting);
        Ok(request.map(|request| Waiting::of(request, now)))
    }

    /// Says yes to what waits under a code for people. None: nothing does.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn approve(&self, typed: &str, approval: Approval) -> Result<Option<Waiting>, IdentityError> {
        let approved = Approved {
            device: DeviceId(Uuid::new_v4()),
            user: approval.user,
            redeemer: approval.redeemer,
            may_offer: approval.may_offer,
            priority: approval.priority,
            by: approval.by,
            at: clock::unix(),
        };
        self.say(typed, &Word::Approved(approved)).await
    }

    /// Says no to what waits under a code for people. None: nothing does.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn deny(&self, typed: &str) -> Result<Option<Waiting>, IdentityError> {
        self.say(typed, &Word::Denied).await
    }

    /// The first word counts.
    async fn say(&self, typed: &str, word: &Word) -> Result<Option<Waiting>, IdentityError> {
        let Some(code) = code::typed(typed) else {
            return Ok(None);
        };
        let now = clock::unix();
        let said = self.codes.lists.change(code::list_of(&code), now, |requests| {
            let request = requests
                .iter_mut()
                .find(|request| request.user_code == code && request.word == Word::Waiting);
            let Some(request) = request else {
                return Change::Keep(None);
            };
            let waiting = Waiting::of(request, now);
            request.word = word.clone();
            Change::Write(Some(waiting))
        });
        said.await
    }

    /// Whether an address may guess once more.
    ///
    /// # Errors
    /// When to come again.
    pub(super) fn may_guess(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        address.map_or(Ok(()), |address| self.codes.guesses.look(&address, clock::mono()))
    }

    /// An address guessed wrong.
    pub(super) fn guessed_wrong(&self, address: Option<IpAddr>) {
        if let Some(address) = address {
            // What it answers is for the next guess.
            let _ = self.codes.guesses.take(address, clock::mono());
        }
    }

    /// Forgets who has been quiet. For the sweep.
    pub fn tidy(&self) {
        let now = clock::mono();
        self.codes.requests.tidy(now);
        self.codes.guesses.tidy(now);
        self.codes.paces.tidy(self.settings.code_ttl, now);
    }
}
