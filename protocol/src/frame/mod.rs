//! The frames of `lockstep.v1`.

mod client;
mod hub;

pub use client::{
    Accept, Ack, ClientFrame, Failed, Hello, HelloDevice, Presence, PresenceState, Publish, PublishedToken, Refresh,
    RefreshReason, Renew,
};
pub use hub::{
    Cause, Done, Elected, ElectedLease, Error, Goaway, Health, HubFrame, Lease, ReconnectAfter, Redeem, RequestFormat,
    Resume, Status, Synced, Token, Welcome,
};
