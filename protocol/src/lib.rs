//! The wire protocol `lockstep.v1`: what hub and clients say to each other.
//!
//! Types only: no I/O, no async, no clock. A frame is one JSON object in one WebSocket text message, tagged by `type`.
//! Times on the wire are Unix seconds (RFC 7519 NumericDate), durations are seconds, numbers are below 2^53, and
//! unknown fields are ignored.

pub mod close;
pub mod code;
pub mod codec;
pub mod frame;
pub mod http;
pub mod ids;
pub mod limits;
pub mod name;
pub mod number;
pub mod schema;
pub mod secret;
mod strict;
pub mod version;

pub use close::Close;
pub use code::Code;
pub use codec::{BadFrame, decode_client, decode_hub, encode};
pub use frame::{ClientFrame, HubFrame};
pub use ids::{Cursor, DeviceId, Epoch, LeaseId, RequestId, SessionId};
pub use name::{GrantName, NameError, UserId};
pub use number::{Seq, UnixSeconds, Version};
pub use secret::Secret;
