//! `lockstep-hub devices …`.

use clap::Subcommand;
use lockstep_protocol::{DeviceId, GrantName, Secret, UnixSeconds, UserId};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Done,
    admin::AdminArgs,
    block_on,
    show::{self, from_now},
    users::Device,
};
use crate::store::DeviceKind;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List a user's devices
    List {
        /// Whose
        user: UserId,
    },
    /// Enrol a device; makes the user if new. The refresh token is shown this once
    Enrol {
        /// Whose
        user: UserId,
        #[command(flatten)]
        new: New,
    },
    /// Approve a device that shows a code (RFC 8628); makes the user if new
    Approve {
        /// The code that it shows
        code: String,
        /// Whose device it is to be
        #[arg(long)]
        user: UserId,
        #[command(flatten)]
        rights: Rights,
    },
    /// Refuse a device that shows a code
    Deny {
        /// The code that it shows
        code: String,
    },
    /// Revoke a device: its sessions end and its tokens stop working, within a second
    Revoke {
        /// Which
        device: DeviceId,
    },
    /// Show a device and its slaves
    Show {
        /// Which
        device: DeviceId,
    },
    /// End one slave refresh token of a device
    EndSlave {
        /// The device that holds it
        device: DeviceId,
        /// The slave's id, as `devices show` tells it
        slave: String,
    },
    /// Make a slave refresh token: what an unmodified OAuth client uses at the hub's token endpoint
    Slave {
        /// The device that will hold it
        device: DeviceId,
        /// The grant, as provider/account
        #[arg(value_name = "PROVIDER/ACCOUNT")]
        grant: GrantName,
    },
}

/// What is told of a new device.
#[derive(Debug, clap::Args, Serialize)]
struct New {
    /// What it is: desktop, web, cli, mobile, server or iot
    #[arg(long)]
    kind: DeviceKind,
    /// What people call it
    #[arg(long)]
    name: String,
    #[command(flatten)]
    #[serde(flatten)]
    rights: Rights,
}

/// What a device may do beyond holding tokens.
#[derive(Debug, clap::Args, Serialize)]
struct Rights {
    /// It may redeem, where a provider's refresher is "device"
    #[arg(long)]
    redeemer: bool,
    /// It may offer a fresh login
    #[arg(long)]
    may_offer: bool,
    /// Its weight in elections, if not that of its kind
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
}

/// A device with its slaves.
#[derive(Debug, Serialize, Deserialize)]
struct Whole {
    device_id: DeviceId,
    user: UserId,
    kind: String,
    name: String,
    redeemer: bool,
    may_offer: bool,
    enrolled_at: UnixSeconds,
    revoked_at: Option<UnixSeconds>,
    last_seen: Option<UnixSeconds>,
    slaves: Vec<OneSlave>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OneSlave {
    id: String,
    grant: GrantName,
    made_at: UnixSeconds,
}

#[derive(Debug, Serialize, Deserialize)]
struct Enrolled {
    device_id: DeviceId,
    device_refresh_token: Secret,
    access_token: Secret,
    expires_in: u64,
}

/// A yes to a device that shows a code.
#[derive(Debug, Serialize)]
struct Yes {
    user: UserId,
    #[serde(flatten)]
    rights: Rights,
}

/// What was approved.
#[derive(Debug, Serialize, Deserialize)]
struct Approved {
    user: UserId,
    name: String,
    kind: String,
    address: Option<std::net::IpAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Slave {
    refresh_token: Secret,
}

pub(super) fn run(args: Args) -> Done {
    let admin = args.admin.connect()?;
    let json = args.admin.json;
    block_on(async move {
        match args.action {
            Action::List { user } => {
                let devices = admin.user(&user).await?.devices;
                list(&devices, json)
            }
            Action::Enrol { user, new } => {
                let path = ["users", user.as_str(), "devices"];
                enrolled(&admin.send(Method::POST, &path, &new).await?, json)
            }
            Action::Approve { code, user, rights } => {
                let yes = Yes { user, rights };
                approved(&admin.send(Method::POST, &["device-codes", &code], &yes).await?, json)
            }
            Action::Deny { code } => admin.delete(&["device-codes", &code]).await,
            Action::Revoke { device } => admin.delete(&["devices", &device.to_string()]).await,
            Action::Show { device } => one(&admin.get(&["devices", &device.to_string()]).await?, json),
            Action::EndSlave { device, slave } => {
                admin.delete(&["devices", &device.to_string(), "slaves", &slave]).await
            }
            Action::Slave { device, grant } => {
                let device = device.to_string();
                let path = ["devices", &device, "grants", grant.provider(), grant.account()];
                let slave: Slave = admin.send(Method::POST, &path, &json!({})).await?;
                if json {
                    show::json(&slave)
                } else {
                    show::text(&format!("{}\n", slave.refresh_token.expose()))
                }
            }
        }
    })
}

fn one(device: &Whole, json: bool) -> Done {
    if json {
        return show::json(device);
    }
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let mut rows = vec![
        ["user".to_owned(), device.user.to_string()],
        ["kind".to_owned(), device.kind.clone()],
        ["name".to_owned(), device.name.clone()],
        ["redeemer".to_owned(), yes(device.redeemer)],
        ["may offer".to_owned(), yes(device.may_offer)],
        ["enrolled".to_owned(), from_now(Some(device.enrolled_at))],
        ["revoked".to_owned(), from_now(device.revoked_at)],
        ["seen".to_owned(), from_now(device.last_seen)],
    ];
    rows.extend(device.slaves.iter().map(|slave| {
        let made = from_now(Some(slave.made_at));
        [format!("slave {}", slave.id), format!("{}, made {made}", slave.grant)]
    }));
    show::table(["device", &device.device_id.to_string()], &rows)
}

fn approved(device: &Approved, json: bool) -> Done {
    if json {
        return show::json(device);
    }
    let from = device
        .address
        .map(|address| format!(", from {address}"))
        .unwrap_or_default();
    show::text(&format!(
        "approved for {}: {} ({}{from})\n",
        device.user, device.name, device.kind
    ))
}

fn enrolled(device: &Enrolled, json: bool) -> Done {
    if json {
        return show::json(device);
    }
    let rows = [[
        "device_refresh_token".to_owned(),
        device.device_refresh_token.expose().to_owned(),
    ]];
    show::table(["device_id", &device.device_id.to_string()], &rows)
}

fn list(devices: &[Device], json: bool) -> Done {
    if json {
        return show::json(&devices);
    }
    let rows: Vec<_> = devices
        .iter()
        .map(|device| {
            let behind: Vec<_> = device.behind.iter().map(GrantName::as_str).collect();
            [
                device.device_id.to_string(),
                device.kind.clone(),
                device.name.clone(),
                if device.redeemer { "yes" } else { "no" }.to_owned(),
                device
                    .transport
                    .clone()
                    .unwrap_or_else(|| if device.connected { "yes" } else { "no" }.into()),
                from_now(device.last_seen),
                device.acked.map_or("-".into(), |seq| seq.to_string()),
                behind.join(" "),
            ]
        })
        .collect();
    let heading = [
        "DEVICE",
        "KIND",
        "NAME",
        "REDEEMER",
        "CONNECTED",
        "SEEN",
        "ACKED",
        "BEHIND",
    ];
    show::table(heading, &rows)
}
