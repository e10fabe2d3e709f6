//! Bringing home what waits in the spool.

use std::sync::Arc;

use lockstep_engine::grant::Input;

use super::Hub;

impl Hub {
    /// Brings home what this node redeemed and could not commit: at the start, before it claims anything for those
    /// grants, and whenever something waits while the store takes writes. A machine that is bringing it home already
    /// hears nothing new in it.
    pub(super) async fn land_spool(self: &Arc<Self>) {
        let pending = match self.spool.pending().await {
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(%error, "the spool cannot be read");
                return;
            }
        };
        for spooled in pending {
            match self.user(&spooled.user).await {
                Ok(user) => self.tell(
                    &user,
                    &spooled.grant,
                    Input::FromSpool {
                        lease: spooled.lease,
                        from_version: spooled.from_version,
                        tokens: Box::new(spooled.tokens),
                    },
                ),
                Err(error) => {
                    tracing::error!(user = %spooled.user, %error, "spooled results wait for the store");
                    return;
                }
            }
        }
    }
}
