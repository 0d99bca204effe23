//! The key index: where the newest version of each key is, and the history behind it.
//!
//! A copy-on-write B+tree of `Arc` nodes holds only the newest [`Record`] of each key; one
//! append-only [`History`] of superseded versions is both the past of all keys and the queue of
//! compaction. Publishing costs a few reference counts; readers never wait for the writer.
//!
//! Invariants: changes come in ascending (main, sub); a record's `prev` that lies before the
//! history's start means "compacted", so compaction never touches records it keeps.
//!
//! Never: reads values, knows leases, blocks. Read next: [`keys`], [`record`], [`history`],
//! [`node`], [`read`], [`sweep`], [`bulk`].

pub(crate) mod bulk;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod node;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod sweep;
pub(crate) mod versions;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use history::History;
use node::{Action, Change, Kid, Shape};
use read::Reader;
use record::Record;
use versions::WideVersions;

/// What readers of the index hold; cloning costs three reference counts.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    root: Kid,
    history: History,
    wide: WideVersions,
}

impl Snapshot {
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { root: &self.root, history: &self.history, wide: &self.wide }
    }
}

/// The writer's side of the index.
#[derive(Debug)]
pub(crate) struct Index {
    tree: Snapshot,
    /// Tombstones that the database still holds, ascending: the second queue of compaction.
    tombstones: VecDeque<(u64, u32)>,
    shape: Shape,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self::with_shape(Shape::STANDARD, 0)
    }

    fn with_shape(shape: Shape, history_start: u64) -> Self {
        let tree = Snapshot {
            root: Kid::empty(),
            history: History::starting_at(history_start),
            wide: WideVersions::default(),
        };
        Self { tree, tombstones: VecDeque::new(), shape }
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        self.tree.reader()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.tree.clone()
    }

    /// Records a put of `len` stored bytes.
    pub(crate) fn put(&mut self, key: &[u8], main: u64, sub: u32, len: u32) {
        self.change(key, main, sub, len, false);
    }

    /// Records a deletion; false, and nothing copied, if the key is not there.
    pub(crate) fn delete(&mut self, key: &[u8], main: u64, sub: u32) -> bool {
        if self.tree.root.newest(key).is_none_or(|r| r.is_tombstone()) {
            return false;
        }
        self.change(key, main, sub, 0, true);
        self.tombstones.push_back((main, sub));
        true
    }

    fn change(&mut self, key: &[u8], main: u64, sub: u32, len: u32, delete: bool) {
        let Snapshot { root, history, wide } = &mut self.tree;
        let action = Action::Supersede { history, wide, main, sub, len, delete };
        root.apply_at_root(&mut Change::new(self.shape, key, action));
    }

    /// Sets the newest record of a key whose history is in place.
    fn load(&mut self, key: &[u8], record: Record) {
        let change = &mut Change::new(self.shape, key, Action::Load(record));
        self.tree.root.apply_at_root(change);
    }
}
