//! The store in memory: for tests and for trying things out. Nothing survives the process.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lockstep_engine::time::Unix;

use super::{
    Answer, Mark, Store,
    local::{Backend, Changes, Each, Judged, Key, Local, MarkRow, Rows},
};
use crate::clock;

/// A new and empty store, timed by the system's clock.
pub fn memory() -> Arc<dyn Store> {
    memory_with_clock(clock::unix)
}

/// A new and empty store, timed by `clock`: for tests that must not wait.
pub fn memory_with_clock(clock: impl Fn() -> Unix + Send + Sync + 'static) -> Arc<dyn Store> {
    let mut first = Changes::default();
    first.put(
        Key::mark(),
        &MarkRow::from(Mark {
            epoch: super::fresh_epoch(),
            commits: 0,
        }),
    );
    let mut tree = Tree::default();
    tree.apply(first);
    Arc::new(Local(Memory {
        clock: Box::new(clock),
        tree: Mutex::new(tree),
    }))
}

struct Memory {
    clock: Box<dyn Fn() -> Unix + Send + Sync>,
    tree: Mutex<Tree>,
}

#[derive(Default)]
struct Tree(BTreeMap<Vec<u8>, Vec<u8>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Tree> {
        // Changes are applied whole or not at all, so what a panicking thread left behind is sound.
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_now<A>(&self, judge: impl FnOnce(&dyn Rows, Unix) -> Answer<Judged<A>>) -> Answer<A> {
        let mut tree = self.lock();
        let Judged { answer, mut changes } = judge(&*tree, (self.clock)())?;
        changes.move_mark(&*tree)?;
        tree.apply(changes);
        Ok(answer)
    }
}

impl Backend for Memory {
    fn clock(&self) -> Unix {
        (self.clock)()
    }

    fn read<A>(&self, read: impl FnOnce(&dyn Rows) -> Answer<A>) -> Answer<A> {
        read(&*self.lock())
    }

    async fn write<A: Send + 'static>(
        &self,
        judge: impl FnOnce(&dyn Rows, Unix) -> Answer<Judged<A>> + Send + 'static,
    ) -> Answer<A> {
        self.write_now(judge)
    }

    fn later(&self, judge: impl FnOnce(&dyn Rows, Unix) -> Answer<Judged<()>> + Send + 'static) -> Answer<()> {
        self.write_now(judge)
    }
}

impl Tree {
    fn apply(&mut self, changes: Changes) {
        for (key, row) in changes.rows {
            match row {
                Some(row) => self.0.insert(key, row),
                None => self.0.remove(&key),
            };
        }
    }
}

impl Rows for Tree {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8]) -> Answer<()>) -> Answer<()> {
        self.0.get(key).map_or(Ok(()), |row| read(row))
    }

    fn walk(&self, prefix: &[u8], from: &[u8], each: &mut Each<'_>) -> Answer<()> {
        for (key, row) in self.0.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if !key.starts_with(prefix) || each(key, row)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::store::suite::{Made, conformance};

    async fn make() -> Made {
        Made {
            store: super::memory(),
            _keep: Box::new(()),
        }
    }

    conformance!(make);
}
