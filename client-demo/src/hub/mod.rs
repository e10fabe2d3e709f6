//! The hub as a child process, and its admin API.

mod admin;
mod process;

pub(crate) use admin::direct;
pub use admin::{Admin, AdminError, DeviceView, Enrolled, GrantView, UserView};
pub use process::{HubError, HubProcess, HubSettings};
