//! The hub as a child process, and its admin API.

mod admin;
mod process;

pub use admin::{Admin, AdminError, DeviceView, Enrolled, UserView};
pub use process::{HubError, HubProcess, HubSettings};
