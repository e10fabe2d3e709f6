//! Who is speaking: devices, their tokens, slaves.
//!
//! Start at [`Identity`]: it checks device access tokens without a look-up, exchanges device refresh tokens, enrols and
//! revokes devices. What is around it: [`token`] (the JWT), [`device_token`] (the `lsd_` token), [`revocations`] (who
//! must be refused although the token is good), [`codes`] (enrolment without copying secrets), [`external`] (the
//! tokens of an identity provider), [`grants`] (the seam to the grants that the drop-in endpoint serves).

mod codes;
pub mod device_token;
mod enrol;
mod error;
mod external;
pub mod grants;
mod http;
mod keys;
mod presented;
mod principal;
mod revocations;
mod rotate;
mod settings;
pub mod token;

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, Secret, UserId};

pub(crate) use codes::spelled as code_as_typed;
pub use codes::{Approval, Asks, Begun, NotBegun, NotYet, Waiting};
pub use enrol::{Enrolled, NewDevice};
pub use error::{Denied, IdentityError, RequestError};
pub use external::{ExternalSettings, SignedWith, Unusable};
pub use grants::{GrantTrouble, Grants};
pub(crate) use http::parameters_can_be_read;
pub use http::{AdminCheck, DEVICE_PAGE, admin_routes, routes};
pub use principal::Principal;
pub use rotate::{Exchanged, Refused};
pub use settings::{IdentitySettings, Issuer};

use crate::{audit::Audit, store::Store, vault::Vault};
use codes::Codes;
use external::External;
use keys::Keys;
use presented::Presented;
use revocations::Revocations;

/// Told once for each device that this node learns to be revoked, and whose it was if that is known.
pub type OnRevoked = Box<dyn Fn(Option<UserId>, DeviceId) + Send + Sync>;

/// Device identity of one node. All nodes share keys, so a token that one signs, all accept.
pub struct Identity {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    settings: IdentitySettings,
    keys: Keys,
    revocations: Revocations,
    codes: Codes,
    /// The identity provider whose tokens count too.
    external: Option<Arc<External>>,
    on_revoked: RwLock<Vec<Arc<OnRevoked>>>,
    audit: OnceLock<Audit>,
}

impl Identity {
    /// Under which name the store holds the shared keys.
    pub const KEYS: &str = keys::NAME;

    /// Loads the shared keys, or makes them, and loads who was revoked within one token lifetime.
    ///
    /// # Errors
    /// When the store cannot be read, or what it holds cannot be opened.
    pub async fn start(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        settings: IdentitySettings,
    ) -> Result<Arc<Self>, IdentityError> {
        let keys = Keys::load_or_make(&*store, &vault).await?;
        let codes = Codes::new(Arc::clone(&store), Arc::clone(&vault), settings.codes_per_minute);
        let external = match settings.external.clone() {
            Some(external) => Some(Arc::new(External::new(external, settings.clock_skew)?)),
            None => None,
        };
        let identity = Arc::new(Self {
            store,
            vault,
            settings,
            keys,
            revocations: Revocations::default(),
            codes,
            external,
            on_revoked: RwLock::default(),
            audit: OnceLock::new(),
        });
        identity.reload_revocations().await?;
        if let Some(external) = &identity.external {
            external.keep_keys();
        }
        Ok(identity)
    }

    /// Who holds this device access token. No look-up: signature, lifetime and the revocation list in memory.
    ///
    /// # Errors
    /// [`Denied`] says why, for the log; the one who asks is told nothing but that it is not authenticated.
    pub fn authenticate(&self, token: &Secret, now: Unix) -> Result<Principal, Denied> {
        let principal = token::check(&self.keys, &self.settings, token, now)?;
        if self.is_revoked(principal.device) {
            return Err(Denied::Revoked);
        }
        Ok(principal)
    }

    /// Whether a device was revoked within the last token lifetime (an older one has no good token left).
    pub fn is_revoked(&self, device: DeviceId) -> bool {
        self.revocations.contains(device)
    }

    /// Registers what is to happen when a device is revoked. Called on whichever thread learns of it: do not block.
    pub fn on_revoked(&self, callback: OnRevoked) {
        self.on_revoked
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::new(callback));
    }

    /// From now on enrolments and revocations are taken down here. Once; until then they are not.
    pub fn audit_to(&self, audit: Audit) {
        // Only the first counts: one history.
        let _ = self.audit.set(audit);
    }

    fn audit(&self) -> &Audit {
        const OFF: &Audit = &Audit::off();
        self.audit.get().unwrap_or(OFF)
    }

    fn tell_revoked(&self, user: Option<&UserId>, device: DeviceId) {
        if let Some(external) = &self.external {
            external.forget(device);
        }
        let callbacks = self.on_revoked.read().unwrap_or_else(PoisonError::into_inner).clone();
        for callback in callbacks {
            callback(user.cloned(), device);
        }
    }
}
