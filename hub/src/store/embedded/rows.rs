//! Rows in redb: one table of bytes by bytes.

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::super::{
    Answer, StoreError,
    local::{Changes, Each, Rows},
};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

/// What redb could not do.
pub(super) fn trouble(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(why) => StoreError::Corrupt(why),
        other => StoreError::Refused(other.to_string()),
    }
}

/// Rows as they were committed last.
pub(super) struct Snapshot(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Snapshot {
    pub(super) fn of(db: &Database) -> Answer<Self> {
        let transaction = db.begin_read().map_err(trouble)?;
        transaction.open_table(ROWS).map(Self).map_err(trouble)
    }
}

impl Rows for Snapshot {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8]) -> Answer<()>) -> Answer<()> {
        get(&self.0, key, read)
    }

    fn walk(&self, prefix: &[u8], from: &[u8], each: &mut Each<'_>) -> Answer<()> {
        walk(&self.0, prefix, from, each)
    }
}

/// One transaction that is being written.
pub(super) struct Batch(WriteTransaction);

impl Batch {
    pub(super) fn begin(db: &Database) -> Answer<Self> {
        // Durability::Immediate, as every transaction of redb unless told otherwise.
        db.begin_write().map(Self).map_err(trouble)
    }

    pub(super) fn rows(&self) -> Answer<BatchRows<'_>> {
        self.0.open_table(ROWS).map(BatchRows).map_err(trouble)
    }

    /// After an error it may have happened or not.
    pub(super) fn commit(self) -> Answer<()> {
        self.0.commit().map_err(trouble)
    }

    pub(super) fn abort(self) -> Answer<()> {
        self.0.abort().map_err(trouble)
    }
}

/// Rows as the transaction has left them so far.
pub(super) struct BatchRows<'t>(Table<'t, &'static [u8], &'static [u8]>);

impl BatchRows<'_> {
    pub(super) fn apply(&mut self, changes: Changes) -> Answer<()> {
        for (key, row) in changes.rows {
            match row {
                Some(row) => drop(self.0.insert(&*key, &*row).map_err(trouble)?),
                None => drop(self.0.remove(&*key).map_err(trouble)?),
            }
        }
        Ok(())
    }
}

impl Rows for BatchRows<'_> {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8]) -> Answer<()>) -> Answer<()> {
        get(&self.0, key, read)
    }

    fn walk(&self, prefix: &[u8], from: &[u8], each: &mut Each<'_>) -> Answer<()> {
        walk(&self.0, prefix, from, each)
    }
}

type Bytes = &'static [u8];

fn get(table: &impl ReadableTable<Bytes, Bytes>, key: &[u8], read: &mut dyn FnMut(&[u8]) -> Answer<()>) -> Answer<()> {
    match table.get(key).map_err(trouble)? {
        Some(row) => read(row.value()),
        None => Ok(()),
    }
}

fn walk(table: &impl ReadableTable<Bytes, Bytes>, prefix: &[u8], from: &[u8], each: &mut Each<'_>) -> Answer<()> {
    for entry in table.range(from..).map_err(trouble)? {
        let (key, row) = entry.map_err(trouble)?;
        if !key.value().starts_with(prefix) || each(key.value(), row.value())?.is_break() {
            break;
        }
    }
    Ok(())
}
