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
use node::{Action, Change, Fill, Kid, Shape};
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

    /// Records a put; `fill` stores it once the version before is known, and returns the bytes.
    pub(crate) fn put<'a>(
        &'a mut self,
        key: &'a [u8],
        main: u64,
        sub: u32,
        fill: &'a mut Fill<'a>,
    ) {
        self.supersede(key, main, sub, Some(fill));
    }

    /// Records a deletion and returns the version deleted with its counter; `None`, and nothing
    /// copied, if the key is not there.
    pub(crate) fn delete(&mut self, key: &[u8], main: u64, sub: u32) -> Option<(Record, u64)> {
        let alive = *self.tree.root.newest(key).filter(|r| !r.is_tombstone())?;
        let version = self.tree.wide.version(key, &alive);
        self.supersede(key, main, sub, None);
        self.tombstones.push_back((main, sub));
        Some((alive, version))
    }

    fn supersede<'a>(
        &'a mut self,
        key: &'a [u8],
        main: u64,
        sub: u32,
        fill: Option<&'a mut Fill<'a>>,
    ) {
        let Snapshot { root, history, wide } = &mut self.tree;
        let action = Action::Supersede { history, wide, main, sub, fill };
        root.apply_at_root(&mut Change::new(self.shape, key, action));
    }

    /// Sets the newest record of a key whose history is in place.
    fn load(&mut self, key: &[u8], record: Record) {
        let change = &mut Change::new(self.shape, key, Action::Load(record));
        self.tree.root.apply_at_root(change);
    }
}
