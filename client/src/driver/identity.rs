//! Where device access tokens come from.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lockstep_protocol::{DeviceId, Secret};

use super::{blocking, http, net::Net};
use crate::{
    cache::{Cache, Kept, Lock, PATIENCE, STEP},
    clock,
    machine::{Bought, NoAccess},
};

/// A kept access token with less than this left is not worth the trouble that it will soon make.
const WORTH_USING: Duration = Duration::from_secs(60);

/// A device access token that an application got from elsewhere.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// The token.
    pub token: Secret,
    /// How long it is good; none: not known, in which case it is used until the hub refuses it.
    pub expires_in: Option<Duration>,
}

/// What an access token source answers; the error is shown to people.
pub type SourceAnswer = Result<AccessToken, String>;
type Source = dyn Fn() -> Pin<Box<dyn Future<Output = SourceAnswer> + Send>> + Send + Sync;

/// How this client proves that it is the device.
#[derive(Clone)]
pub(crate) enum Credential {
    /// `lsd_…`: buys access tokens, and rotates.
    Refresh(Secret),
    /// Asked whenever a token is needed.
    Source(Arc<Source>),
    /// One token, and no other.
    Fixed(Secret),
}

impl Credential {
    pub(crate) fn source<S, F>(source: S) -> Self
    where
        S: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = SourceAnswer> + Send + 'static,
    {
        Self::Source(Arc::new(move || Box::pin(source())))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refresh(_) => "Refresh",
            Self::Source(_) => "Source",
            Self::Fixed(_) => "Fixed",
        })
    }
}

/// The device, its credential, and where the newest one is kept.
#[derive(Debug)]
pub(crate) struct Identity {
    device: DeviceId,
    credential: Credential,
    cache: Option<Cache>,
    /// The newest device refresh token; with a cache, the newest that is on disk.
    newest: Mutex<Option<Secret>>,
}

impl Identity {
    pub(crate) const fn new(device: DeviceId, credential: Credential, cache: Option<Cache>) -> Self {
        Self {
            device,
            credential,
            cache,
            newest: Mutex::new(None),
        }
    }

    /// Gets an access token other than `refused`.
    pub(crate) async fn buy(&self, net: &Net, refused: Option<Secret>) -> Result<Bought, NoAccess> {
        match (&self.credential, &self.cache) {
            (Credential::Refresh(given), Some(cache)) => self.buy_and_keep(net, given, cache, refused).await,
            (Credential::Refresh(given), None) => {
                let present = self.newest().unwrap_or_else(|| given.clone());
                let bought = http::buy(net, &self.device.to_string(), &present).await?;
                if let Some(next) = bought.next {
                    self.advance(next);
                }
                Ok(bought.access)
            }
            (Credential::Source(source), _) => ask(source, net, refused).await,
            (Credential::Fixed(token), _) if Some(token) == refused.as_ref() => Err(NoAccess::Fixed),
            (Credential::Fixed(token), _) => Ok(Bought {
                token: token.clone(),
                good_for: None,
            }),
        }
    }

    fn newest(&self) -> Option<Secret> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn advance(&self, next: Secret) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    /// Buys with what the file has, and keeps the result there, while no other process does the same.
    async fn buy_and_keep(
        &self,
        net: &Net,
        given: &Secret,
        cache: &Cache,
        refused: Option<Secret>,
    ) -> Result<Bought, NoAccess> {
        let unusable = |error: io::Error| later(format!("{}: {error}", cache.path().display()));
        let lock = locked(cache).await.map_err(unusable)?;
        let at_hand = cache.clone();
        let kept = blocking(move || at_hand.credential(clock::now()))
            .await
            .map_err(unusable)?;
        // A file that is removed under our feet must not throw us back to a token that is long retired.
        let kept = match kept {
            Some(kept) => {
                self.advance(kept.refresh_token.clone());
                kept
            }
            None => Kept {
                refresh_token: self.newest().unwrap_or_else(|| given.clone()),
                access: None,
            },
        };
        if let Some(access) = kept.access
            && Some(&access.token) != refused.as_ref()
            && access.good_for.is_some_and(|left| left > WORTH_USING)
        {
            return Ok(access);
        }
        let bought = http::buy(net, &self.device.to_string(), &kept.refresh_token).await?;
        let newest = bought.next.unwrap_or(kept.refresh_token);
        let (access, keeper, next) = (bought.access.clone(), cache.clone(), newest.clone());
        let written = blocking(move || {
            let written = keeper.keep_purchase(&newest, &access, clock::now());
            drop(lock);
            written
        });
        match written.await {
            Ok(()) => self.advance(next),
            // The old one is presented again next time: the hub answers the parent with the same newest.
            Err(error) => tracing::warn!(%error, "the new device refresh token could not be kept"),
        }
        Ok(bought.access)
    }
}

/// Waits for the file's lock, and holds up no thread meanwhile: who ends the program is not to wait for it too.
async fn locked(cache: &Cache) -> io::Result<Lock> {
    let start = clock::now().mono;
    loop {
        let at_hand = cache.clone();
        if let Some(lock) = blocking(move || at_hand.try_lock()).await? {
            return Ok(lock);
        }
        if clock::now().mono.since(start) >= PATIENCE {
            return Err(Lock::held_too_long());
        }
        tokio::time::sleep(STEP).await;
    }
}

fn later(reason: String) -> NoAccess {
    NoAccess::Later {
        reason,
        retry_after: None,
    }
}

async fn ask(source: &Arc<Source>, net: &Net, refused: Option<Secret>) -> Result<Bought, NoAccess> {
    let within = net.timing.connect + net.timing.answer;
    let access = tokio::time::timeout(within, source())
        .await
        .map_err(|_| later("the access token source did not answer in time".into()))?
        .map_err(later)?;
    if Some(&access.token) == refused.as_ref() {
        return Err(NoAccess::Fixed);
    }
    Ok(Bought {
        token: access.token,
        good_for: access.expires_in,
    })
}
