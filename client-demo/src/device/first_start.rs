//! How a device comes to be, when no device file knows it yet.

use lockstep_client::{Builder, EnrolError, Enrolled, Secret};
use serde::Deserialize;

use crate::hub::{Admin, AdminError};

/// What the first start is given.
#[derive(Debug)]
pub enum FirstStart {
    /// A device refresh token that an operator handed over.
    Token(Secret),
    /// The admin API: the device enrols itself, which only a demonstration may do.
    Admin(Box<NewDevice>),
}

/// A device to be enrolled through the admin API.
#[derive(Debug)]
pub struct NewDevice {
    /// The admin API.
    pub admin: Admin,
    /// Whose device it is.
    pub user: String,
    /// What it is.
    pub kind: String,
    /// What people call it.
    pub name: String,
    /// Whether it may redeem.
    pub redeemer: bool,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum FirstStartError {
    /// The hub did not take the token.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The admin API did not enrol it.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The device file cannot be written.
    #[error(transparent)]
    File(#[from] lockstep_client::Error),
}

impl FirstStart {
    /// Enrols the device at the hub of `builder`.
    ///
    /// # Errors
    /// When the hub cannot be reached, or does not want it.
    pub async fn enrol(self, builder: &Builder) -> Result<Enrolled, FirstStartError> {
        match self {
            Self::Token(token) => Ok(builder.adopt(&token).await?),
            Self::Admin(new) => {
                let enrolled = new
                    .admin
                    .enrol_as(&new.user, &new.kind, &new.name, new.redeemer)
                    .await?;
                Ok(Enrolled::new(enrolled.device_id, enrolled.device_refresh_token))
            }
        }
    }
}

/// The device refresh token in a text: alone, or in what `lockstep-hub devices enrol --json` prints.
pub fn token_in(text: &str) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Printed {
        device_refresh_token: Secret,
    }
    let text = text.trim();
    if text.starts_with('{') {
        return serde_json::from_str::<Printed>(text)
            .ok()
            .map(|printed| printed.device_refresh_token);
    }
    (!text.is_empty() && !text.contains(char::is_whitespace)).then(|| Secret::new(text))
}
