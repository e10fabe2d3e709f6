//! The disk cache.

use lockstep_protocol::{Cursor, GrantName};

use crate::{
    clock::{HubClock, Now, Unix},
    machine::Register,
};

/// What is worth keeping across restarts.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) cursor: Option<Cursor>,
    pub(crate) skew_ms: i64,
    /// Until when WebSockets are taken to be blocked here.
    pub(crate) blocked_until: Option<Unix>,
    pub(crate) grants: Vec<(GrantName, Register)>,
    pub(crate) clock: HubClock,
    pub(crate) taken: Now,
}
