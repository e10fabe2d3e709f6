//! Devices that speak the protocol themselves.

mod follower;
mod poller;
mod session;

pub use follower::{Follower, Seen, all_reach, assert_lawful};
pub use session::{Event, Session, upgrade};

/// What enrolment gave a device.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Whose device it is.
    pub user: String,
    /// Its id.
    pub id: String,
    /// Its refresh token (`lsd_…`).
    pub refresh_token: String,
    /// Its first access token.
    pub access_token: String,
}

impl Enrolled {
    /// Its `hello`, with a cursor if it holds one.
    pub fn hello(&self, cursor: Option<&str>) -> serde_json::Value {
        let mut hello = serde_json::json!({
            "type": "hello",
            "token": self.access_token,
            "device": {"id": self.id, "app": "test/1"},
            "state": "active",
        });
        if let Some(cursor) = cursor {
            hello["cursor"] = cursor.into();
        }
        hello
    }
}
