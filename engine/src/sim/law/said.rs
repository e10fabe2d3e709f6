//! What a machine says of itself never goes back (P3).

use lockstep_protocol::{Seq, Version};

use super::{Verdict, must};
use crate::record::GrantRecord;

/// What one node's machine has said of itself so far.
#[derive(Debug, Default)]
pub(crate) struct Said {
    revision: u64,
    version: Version,
    pushed: Option<Seq>,
}

impl Said {
    /// What a machine knows never goes back (P3).
    pub(crate) fn knows(&mut self, record: &GrantRecord) -> Verdict {
        let on = record.revision >= self.revision && record.version >= self.version;
        must(on, "P3 monotonic", || {
            format!("version {} after {}", record.version.0, self.version.0)
        })?;
        self.revision = record.revision;
        self.version = record.version;
        Ok(())
    }

    /// What it pushes rises.
    pub(crate) fn pushes(&mut self, record: &GrantRecord) -> Verdict {
        must(self.pushed < Some(record.seq), "P3 monotonic", || {
            format!("seq {} is pushed after {:?}", record.seq.0, self.pushed)
        })?;
        self.pushed = Some(record.seq);
        Ok(())
    }
}
