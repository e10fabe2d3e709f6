//! Between sealed rows and open records, and from records to what devices see.

use lockstep_engine::{grant::Trouble, record::GrantRecord, time::Now};
use lockstep_protocol::{GrantName, UserId};

use crate::{
    app::Hub,
    store::StoredGrant,
    user::{Face, Inner, Shown},
};

impl Hub {
    /// Opens a row.
    ///
    /// # Errors
    /// [`Trouble::Refused`] when it cannot be opened with the keys at hand; named in the log.
    pub fn open_record(&self, user: &UserId, grant: &GrantName, row: StoredGrant) -> Result<Box<GrantRecord>, Trouble> {
        self.vault.open_record(user, grant, row).map(Box::new).map_err(|error| {
            tracing::error!(%user, %grant, %error, "a stored token set cannot be opened");
            Trouble::Refused(error.to_string())
        })
    }

    fn login_url(&self, grant: &GrantName) -> Option<String> {
        self.providers
            .get(grant.provider())?
            .settings()
            .login_url
            .as_ref()
            .map(ToString::to_string)
    }

    pub(super) fn show(&self, inner: &mut Inner, grant: &GrantName, record: Box<GrantRecord>, now: Now) -> Shown {
        let face = Face {
            epoch: self.epoch(),
            now,
            login_url: &|grant| self.login_url(grant),
        };
        inner.show(grant, record, &face)
    }

    /// Shows a consistent read of a whole user.
    pub fn show_all(
        &self,
        inner: &mut Inner,
        seq: lockstep_protocol::Seq,
        records: &[(GrantName, GrantRecord)],
        now: Now,
    ) -> Shown {
        let face = Face {
            epoch: self.epoch(),
            now,
            login_url: &|grant| self.login_url(grant),
        };
        inner.show_all(seq, records, &face)
    }

    /// Shows no token past its expiry.
    pub fn bury(&self, inner: &mut Inner, now: Now) {
        let face = Face {
            epoch: self.epoch(),
            now,
            login_url: &|grant| self.login_url(grant),
        };
        inner.bury(&face);
    }
}
