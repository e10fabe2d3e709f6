//! Bringing home what waits in the spool.

use std::sync::Arc;

use lockstep_engine::grant::Input;

use super::Hub;
use crate::spool::SpoolError;

impl Hub {
    /// Brings home what this node redeemed and could not commit: at the start, before anybody can ask for anything and
    /// before what is due is looked for, so that each machine knows of its results before it could claim; and whenever
    /// something waits while the store takes writes. A machine that is bringing it home already hears nothing new in it.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub(super) async fn land_spool(self: &Arc<Self>) -> Result<(), SpoolError> {
        for spooled in self.spool.pending().await? {
            let landing = Input::FromSpool {
                lease: spooled.lease,
                from_version: spooled.from_version,
                tokens: Box::new(spooled.tokens),
            };
            // Not read from the store first: the machine does that, for as long as it takes.
            self.tell(&self.users.get(&spooled.user), &spooled.grant, landing);
        }
        Ok(())
    }
}
