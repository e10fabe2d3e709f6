//! How nodes tell each other that something changed. Facts trigger a read and are never the truth: a lost one costs
//! latency.

use lockstep_protocol::{GrantName, Seq, UserId};

/// Where facts go. What comes back in is told to the hub by the implementation.
pub trait Bus: Send + Sync + 'static {
    /// A user's seq moved on this node. Must not block.
    fn moved(&self, user: &UserId, seq: Seq);

    /// An election found no candidate here. Must not block.
    fn wanted(&self, user: &UserId, grant: &GrantName);

    /// Whether other nodes are alive that might have candidates.
    fn others_live(&self) -> bool;
}

/// One node by itself: there is nobody to tell.
pub struct Local;

impl Bus for Local {
    fn moved(&self, _: &UserId, _: Seq) {}

    fn wanted(&self, _: &UserId, _: &GrantName) {}

    fn others_live(&self) -> bool {
        false
    }
}
