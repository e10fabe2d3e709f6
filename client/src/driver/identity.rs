//! Where device access tokens come from.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use lockstep_protocol::{DeviceId, Secret};

use super::{http, net::Net};
use crate::machine::{Bought, NoAccess};

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

/// What a purchase brought: the token, and the credential to buy the next one with.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) access: Bought,
    pub(crate) next: Option<Secret>,
}

impl Credential {
    /// Gets an access token other than `refused`.
    pub(crate) async fn get(self, net: Net, device: DeviceId, refused: Option<Secret>) -> Result<Got, NoAccess> {
        match self {
            Self::Refresh(refresh_token) => {
                let bought = http::buy(&net, &device.to_string(), &refresh_token).await?;
                Ok(Got {
                    access: bought.access,
                    next: bought.next,
                })
            }
            Self::Source(source) => {
                let within = net.timing.connect + net.timing.answer;
                let answer = tokio::time::timeout(within, source()).await;
                let later = |reason| NoAccess::Later {
                    reason,
                    retry_after: None,
                };
                let access = answer
                    .map_err(|_| later("the access token source did not answer in time".into()))?
                    .map_err(later)?;
                if Some(&access.token) == refused.as_ref() {
                    return Err(NoAccess::Fixed);
                }
                Ok(Got {
                    access: Bought {
                        token: access.token,
                        good_for: access.expires_in,
                    },
                    next: None,
                })
            }
            Self::Fixed(token) if Some(&token) == refused.as_ref() => Err(NoAccess::Fixed),
            Self::Fixed(token) => Ok(Got {
                access: Bought { token, good_for: None },
                next: None,
            }),
        }
    }
}
