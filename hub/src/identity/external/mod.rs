//! External identity: the JWTs of an identity provider that users have already stand for them and their devices.
//!
//! Nothing is looked up per request: the provider's keys are held in memory ([`keys`]), and so is which devices are
//! enrolled. A device that is seen for the first time is enrolled there and then, so that it is listed and can be revoked
//! like any other. The algorithms are pinned to those with a public key; neither `none` nor a shared secret is one.

mod keys;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use dashmap::DashMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, Secret, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;
use uuid::Uuid;

use super::{Denied, Identity, NewDevice, Principal, enrol, token};
use crate::{
    audit::By,
    clock,
    store::{Device, DeviceKind},
};
use keys::KeySet;
pub use keys::Unusable;

/// Longer tokens are refused before anything is decoded.
const LONGEST: usize = 16 * 1024;
/// The most devices that one user may have by being seen.
const MOST_DEVICES: usize = 4096;
/// The most enrolled devices remembered; above it all are forgotten, and read again as they come.
const MOST_KNOWN: usize = 100_000;

/// An identity provider, and how to read its tokens.
#[derive(Debug, Clone)]
pub struct ExternalSettings {
    /// Where its keys are (RFC 7517).
    pub jwks_url: Url,
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// What it signs with.
    pub algorithms: BTreeSet<SignedWith>,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim that names the device.
    pub device_claim: String,
    /// The least time between two fetches of its keys, whoever asks: made-up tokens must not turn into a flood of requests.
    pub fetch_gap: Duration,
}

/// A signature algorithm with a public key (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names of the standard")]
pub enum SignedWith {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl SignedWith {
    /// The one of a header, if it has a public key.
    const fn of(algorithm: Algorithm) -> Option<Self> {
        Some(match algorithm {
            Algorithm::RS256 => Self::RS256,
            Algorithm::RS384 => Self::RS384,
            Algorithm::RS512 => Self::RS512,
            Algorithm::PS256 => Self::PS256,
            Algorithm::PS384 => Self::PS384,
            Algorithm::PS512 => Self::PS512,
            Algorithm::ES256 => Self::ES256,
            Algorithm::ES384 => Self::ES384,
            Algorithm::EdDSA => Self::EdDSA,
            _ => return None,
        })
    }
}

/// What an identity provider's token says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Says {
    user: UserId,
    /// What names the device, if the token does.
    device: Option<String>,
    /// The application that it was issued to.
    app: Option<String>,
    scope: String,
    kind: Option<DeviceKind>,
    expires_at: Unix,
}

/// The claims whose shape is fixed.
#[derive(Deserialize)]
struct Fixed {
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    scope: Option<String>,
    kind: Option<String>,
    azp: Option<String>,
    client_id: Option<String>,
}

/// A device that is enrolled, as far as a request has to know.
#[derive(Debug, Clone)]
struct Known {
    user: UserId,
    kind: DeviceKind,
    priority: Option<u8>,
}

/// An identity provider, as one node knows it.
pub(super) struct External {
    settings: ExternalSettings,
    skew: Duration,
    keys: KeySet,
    known: DashMap<DeviceId, Known>,
}

impl External {
    pub(super) fn new(settings: ExternalSettings, skew: Duration) -> Result<Self, Unusable> {
        Ok(Self {
            keys: KeySet::new(settings.jwks_url.clone(), settings.fetch_gap)?,
            settings,
            skew,
            known: DashMap::new(),
        })
    }

    /// Keeps the keys fresh, until the hub stops.
    pub(super) fn keep_keys(self: &Arc<Self>) {
        let external = Arc::clone(self);
        tokio::spawn(async move { external.keys.run().await });
    }

    /// Forgets what is remembered of a device: it was revoked.
    pub(super) fn forget(&self, device: DeviceId) {
        self.known.remove(&device);
    }

    /// Checks a token. A key that is not known may be new: then the keys are fetched, unless that was a moment ago.
    async fn check(&self, token: &Secret, now: Unix) -> Result<Says, Denied> {
        match self.check_now(token, now) {
            Err(Denied::UnknownKey) if self.keys.fetched_anew().await => self.check_now(token, now),
            answer => answer,
        }
    }

    fn check_now(&self, token: &Secret, now: Unix) -> Result<Says, Denied> {
        if token.len() > LONGEST {
            return Err(Denied::Malformed);
        }
        let header = jsonwebtoken::decode_header(token.expose()).map_err(|_| Denied::Malformed)?;
        let algorithm = SignedWith::of(header.alg).filter(|algorithm| self.settings.algorithms.contains(algorithm));
        if algorithm.is_none() || header.crit.is_some() {
            return Err(Denied::WrongKind);
        }
        let key = self
            .keys
            .find(header.kid.as_deref(), header.alg)
            .ok_or(Denied::UnknownKey)?;
        self.read(token, header.alg, &key, now)
    }

    fn read(&self, token: &Secret, algorithm: Algorithm, key: &DecodingKey, now: Unix) -> Result<Says, Denied> {
        let mut rules = Validation::new(algorithm);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        rules.set_issuer(&[&self.settings.issuer]);
        rules.set_audience(&[&self.settings.audience]);
        // By the hub's own clock, below.
        rules.validate_exp = false;
        rules.validate_nbf = false;
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token.expose(), key, &rules).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            match error.kind() {
                ErrorKind::InvalidIssuer => Denied::WrongIssuer,
                ErrorKind::InvalidAudience => Denied::WrongAudience,
                ErrorKind::InvalidSignature => Denied::BadSignature,
                _ => Denied::Malformed,
            }
        })?;
        let claims = claims.claims;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let (user, device) = (text(&self.settings.user_claim), text(&self.settings.device_claim));
        let fixed: Fixed = serde_json::from_value(Value::Object(claims)).map_err(|_| Denied::Malformed)?;
        let expires_at = self.within_lifetime(&fixed, now)?;
        Ok(Says {
            user: user.and_then(|user| user.parse().ok()).ok_or(Denied::NoUser)?,
            device,
            app: fixed.client_id.or(fixed.azp),
            scope: fixed.scope.unwrap_or_default(),
            kind: fixed.kind.and_then(|kind| kind.parse().ok()),
            expires_at,
        })
    }

    fn within_lifetime(&self, claims: &Fixed, now: Unix) -> Result<Unix, Denied> {
        let expires_at = moment(claims.exp);
        if now >= expires_at + self.skew {
            return Err(Denied::Expired);
        }
        let starts = [claims.nbf, claims.iat].into_iter().flatten().map(moment);
        if starts.max().is_some_and(|starts| starts > now + self.skew) {
            return Err(Denied::NotYet);
        }
        Ok(expires_at)
    }
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as casts of floats saturate, and that is what is wanted"
)]
fn moment(seconds: f64) -> Unix {
    Unix((seconds * 1000.0) as u64)
}

/// The id of a device that is named by something that is no UUID: always the same for the same user and name.
fn id_of(issuer: &str, user: &UserId, name: &str) -> DeviceId {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"lockstep external device v1\0");
    for part in [issuer, user.as_str(), name] {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    DeviceId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

impl Identity {
    /// Who holds this token, be it the hub's own or an identity provider's. `named` is how the device calls itself, which
    /// counts where the token does not say.
    ///
    /// # Errors
    /// [`Denied`], as of [`Identity::authenticate`].
    pub async fn recognise(&self, token: &Secret, named: Option<DeviceId>, now: Unix) -> Result<Principal, Denied> {
        match (self.authenticate(token, now), &self.external) {
            // Not one of ours by its looks; anything else about one of ours is final.
            (Err(Denied::WrongKind | Denied::UnknownKey | Denied::Malformed), Some(external)) => {
                let says = external.check(token, now).await?;
                self.stranger(external, says, named).await
            }
            (answer, _) => answer,
        }
    }

    /// Whose token this is, for somebody who needs no device of its own: to approve one, or to ask about one.
    ///
    /// # Errors
    /// [`Denied`], as of [`Identity::authenticate`].
    pub(super) async fn vouched(&self, token: &Secret, now: Unix) -> Result<(UserId, By), Denied> {
        match (self.authenticate(token, now), &self.external) {
            (Err(Denied::WrongKind | Denied::UnknownKey | Denied::Malformed), Some(external)) => {
                Ok((external.check(token, now).await?.user, By::IdentityProvider))
            }
            (answer, _) => answer.map(|who| (who.user, By::Device(who.device))),
        }
    }

    async fn stranger(&self, external: &External, says: Says, named: Option<DeviceId>) -> Result<Principal, Denied> {
        let issuer = &external.settings.issuer;
        // What the token says goes first; then how the device calls itself; an application's name is that of many devices,
        // and is the last resort.
        let device = match (&says.device, named) {
            (Some(name), _) => Uuid::parse_str(name).map_or_else(|_| id_of(issuer, &says.user, name), DeviceId),
            (None, Some(id)) => id,
            (None, None) => id_of(issuer, &says.user, says.app.as_deref().unwrap_or_default()),
        };
        if self.is_revoked(device) {
            return Err(Denied::Revoked);
        }
        let remembered = external.known.get(&device).map(|known| known.clone());
        let known = match remembered {
            Some(known) => known,
            None => self.admit(external, device, &says).await?,
        };
        if known.user != says.user {
            return Err(Denied::AnothersDevice);
        }
        let has = |word: &str| says.scope.split(' ').any(|held| held == word);
        Ok(Principal {
            priority: known.priority.unwrap_or_else(|| self.settings.priority_of(known.kind)),
            redeemer: has(token::REDEEM),
            may_offer: has(token::OFFER),
            expires_at: says.expires_at,
            user: says.user,
            device,
            kind: known.kind,
            is_external: true,
        })
    }

    /// A device that this node does not know: enrolled elsewhere, or never before.
    async fn admit(&self, external: &External, id: DeviceId, says: &Says) -> Result<Known, Denied> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!(device = %id, %error, "a device of the identity provider cannot be looked up");
            Denied::Unavailable
        };
        let row = self.store.device(id).await.map_err(|error| failed(&error))?;
        let row = match row {
            Some(row) => row,
            None => self.enrol_seen(id, says).await?,
        };
        if row.revoked_at.is_some() {
            return Err(Denied::Revoked);
        }
        let known = Known {
            user: row.user,
            kind: row.kind,
            priority: row.priority,
        };
        if external.known.len() >= MOST_KNOWN {
            external.known.clear();
        }
        external.known.insert(id, known.clone());
        // Revoked while we looked: whoever revoked it has told before, or sees it in the list now.
        if self.is_revoked(id) {
            external.forget(id);
            return Err(Denied::Revoked);
        }
        Ok(known)
    }

    async fn enrol_seen(&self, id: DeviceId, says: &Says) -> Result<Device, Denied> {
        let failed = |error: crate::store::StoreError| {
            tracing::warn!(device = %id, %error, "a device of the identity provider cannot be enrolled");
            Denied::Unavailable
        };
        if self.store.devices(&says.user).await.map_err(failed)?.len() >= MOST_DEVICES {
            tracing::warn!(user = %says.user, "too many devices: no more are enrolled by being seen");
            return Err(Denied::TooMany);
        }
        let has = |word: &str| says.scope.split(' ').any(|held| held == word);
        let name = says.app.as_deref().unwrap_or("of the identity provider");
        let new = NewDevice {
            kind: says.kind.unwrap_or(DeviceKind::Web),
            name: enrol::checked_name(name).unwrap_or_else(|_| "of the identity provider".into()),
            redeemer: has(token::REDEEM),
            may_offer: has(token::OFFER),
            priority: None,
        };
        let (device, unused) = self.row(id, &says.user, new, clock::unix());
        // Its device refresh token is given to nobody.
        drop(unused);
        match self.store.enrol(device.clone()).await {
            Ok(()) => {
                self.note_enrolled(&device, By::IdentityProvider);
                Ok(device)
            }
            // Another node, or another request, saw it first.
            Err(error) => match self.store.device(id).await {
                Ok(Some(row)) => Ok(row),
                _ => Err(failed(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
