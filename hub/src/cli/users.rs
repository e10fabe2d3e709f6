//! `lockstep-hub users …`, and what an operator is told of a user.

use clap::Subcommand;
use lockstep_protocol::{DeviceId, GrantName, Seq, UnixSeconds, UserId, Version};
use serde::{Deserialize, Serialize};

use super::{
    Done,
    admin::{Admin, AdminArgs},
    block_on,
    outcome::Outcome,
    show,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all that the hub knows of a user, as JSON
    Show {
        /// The user
        user: UserId,
    },
    /// Delete a user: all grants, and every device is revoked
    Delete {
        /// The user
        user: UserId,
    },
}

pub(super) fn run(args: Args) -> Done {
    let admin = args.admin.connect()?;
    block_on(async move {
        match args.action {
            Action::Show { user } => show::json(&admin.get::<serde_json::Value>(&["users", user.as_str()]).await?),
            Action::Delete { user } => admin.delete(&["users", user.as_str()]).await,
        }
    })
}

/// A user, as the admin API tells.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) grants: Vec<Grant>,
    pub(super) devices: Vec<Device>,
}

/// A grant.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) grant: GrantName,
    pub(super) version: Version,
    pub(super) seq: Seq,
    pub(super) health: String,
    pub(super) reason: Option<String>,
    pub(super) retry_at: Option<UnixSeconds>,
    pub(super) expires_at: Option<UnixSeconds>,
    pub(super) refreshed_at: Option<UnixSeconds>,
}

/// A device.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Device {
    pub(super) device_id: DeviceId,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) redeemer: bool,
    pub(super) connected: bool,
    pub(super) transport: Option<String>,
    pub(super) last_seen: Option<UnixSeconds>,
    pub(super) acked: Option<Seq>,
    pub(super) behind: Vec<GrantName>,
}

impl Admin {
    /// What the hub knows of a user.
    pub(super) async fn user(&self, user: &UserId) -> Result<User, Outcome> {
        self.get(&["users", user.as_str()]).await
    }
}
