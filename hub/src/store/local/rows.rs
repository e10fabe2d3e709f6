//! Rows as judges see them: to be read. What is to change is told, not done.

use std::ops::ControlFlow;

use lockstep_protocol::Epoch;

use super::{
    super::{Answer, Mark},
    key::Key,
    read,
    row::{self, MarkRow, Row},
};

/// Takes a key and its row, and says whether to go on.
pub(in crate::store) type Each<'a> = dyn FnMut(&[u8], &[u8]) -> Answer<ControlFlow<()>> + 'a;

/// Rows of one moment.
pub(in crate::store) trait Rows {
    /// Hands the row under `key` to `read`, if there is one.
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8]) -> Answer<()>) -> Answer<()>;

    /// Hands the rows whose keys begin with `prefix` and are not below `from` to `each`, in order, until it has enough.
    fn walk(&self, prefix: &[u8], from: &[u8], each: &mut Each<'_>) -> Answer<()>;
}

impl dyn Rows + '_ {
    /// The row under `key`, parsed.
    pub(in crate::store) fn row<T: Row>(&self, key: &Key) -> Answer<Option<T>> {
        let mut found = None;
        self.get(key.as_slice(), &mut |bytes| {
            found = Some(row::decode(key.as_slice(), bytes)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// What `read` makes of each key that begins with `prefix`.
    pub(super) fn keys<T>(&self, prefix: &Key, read: impl Fn(&[u8]) -> Answer<T>) -> Answer<Vec<T>> {
        let mut found = Vec::new();
        self.walk(prefix.as_slice(), prefix.as_slice(), &mut |key, _| {
            found.push(read(key)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

/// What a write changes: rows put (with bytes) and dropped (without).
#[derive(Default)]
pub(in crate::store) struct Changes {
    /// In order; a later change of a key counts.
    pub(in crate::store) rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// How many grants change: the commit number rises by that.
    pub(in crate::store) grants: u64,
    /// A new epoch.
    pub(in crate::store) epoch: Option<Epoch>,
}

impl Changes {
    pub(in crate::store) fn put<T: Row>(&mut self, key: Key, row: &T) {
        let row = row::encode(key.as_slice(), row);
        self.rows.push((key.into_vec(), Some(row)));
    }

    pub(super) fn drop(&mut self, key: Key) {
        self.rows.push((key.into_vec(), None));
    }

    /// Adds the store's new mark, if these changes move it.
    pub(in crate::store) fn move_mark(&mut self, rows: &dyn Rows) -> Answer<()> {
        if self.grants > 0 || self.epoch.is_some() {
            let mark = read::mark(rows)?;
            let mark = Mark {
                epoch: self.epoch.unwrap_or(mark.epoch),
                commits: mark.commits + self.grants,
            };
            self.put(Key::mark(), &MarkRow::from(mark));
        }
        Ok(())
    }
}

/// What comes of a write: its answer, and the changes that are to be applied with it.
pub(in crate::store) struct Judged<A> {
    pub(in crate::store) answer: A,
    pub(in crate::store) changes: Changes,
}

/// An answer that changes nothing.
pub(super) fn unchanged<A>(answer: A) -> Answer<Judged<A>> {
    Ok(Judged {
        answer,
        changes: Changes::default(),
    })
}
