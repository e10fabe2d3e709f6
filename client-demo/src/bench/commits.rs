//! Durable commits: the hub's, and those of a bare store as the floor.

use std::{
    io,
    time::{Duration, Instant},
};

use redb::{Database, Durability, TableDefinition};

use super::phases::BenchError;

/// Commits that wait at a time.
pub(super) const WAITING: u64 = 64;
/// Bytes of a record: about a sealed token set of 1 KB, with its row.
const RECORD: usize = 2048;
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

/// Records per second that bare redb makes durable, [`WAITING`] in each transaction.
pub(super) fn bare_redb(span: Duration) -> Result<f64, BenchError> {
    let run = || -> Result<f64, redb::Error> {
        let dir = tempfile::tempdir().map_err(|e| redb::Error::Io(io::Error::other(e)))?;
        let store = Database::create(dir.path().join("floor.redb"))?;
        let record = [0x5a; RECORD];
        let (started, mut written) = (Instant::now(), 0_u64);
        while started.elapsed() < span {
            let mut transaction = store.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut table = transaction.open_table(RECORDS)?;
                for _ in 0..WAITING {
                    // As with grants, the same keys are written again and again.
                    table.insert(written % 10_000, record.as_slice())?;
                    written += 1;
                }
            }
            transaction.commit()?;
        }
        Ok(written as f64 / started.elapsed().as_secs_f64())
    };
    run().map_err(|error| BenchError::Store(error.to_string()))
}
