//! The published state: immutable, shared by all threads, cheap to clone.

use bytes::Bytes;
use env::{Cached, MayBlock};
use types::{Index, Revision, Term};

use crate::body::{RangeBody, try_append_values};
use crate::error::{RangeError, ValueError};
use crate::index::Snapshot;
use crate::index::read::KeyParts;
use crate::index::record::Record;
use crate::kv::KeyValue;
use crate::plan::Planner;
use crate::range::{Entries, KeyRef, RangeQuery, Ranged, ValueRef, interval};
use crate::rev::{Rev, to_revision};
use crate::revlog::LogSnapshot;
use crate::values::{Lookup, Sources};

/// The store after one applied group. Cloning costs a few reference counts; holding one keeps its
/// index nodes, its part of the revision log, and its pages of the database.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) index: Snapshot,
    pub(crate) log: LogSnapshot,
    pub(crate) backend: Option<bolt::ReadTx>,
    pub(crate) backend_revision: u64,
    pub(crate) revision: u64,
    pub(crate) compact: i64,
    pub(crate) applied: (Index, Term),
}

impl View {
    /// Index of the last entry in this state.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        self.applied.0
    }

    /// Term of that entry.
    #[must_use]
    pub fn applied_term(&self) -> Term {
        self.applied.1
    }

    /// Main revision of the last change; 1 in an empty store.
    #[must_use]
    pub fn revision(&self) -> Revision {
        to_revision(self.revision)
    }

    /// Oldest revision that can be read; -1 before the first compaction.
    #[must_use]
    pub fn compact_revision(&self) -> Revision {
        Revision(self.compact)
    }

    /// The database behind this state, if there is one.
    #[must_use]
    pub fn backend(&self) -> Option<&bolt::ReadTx> {
        self.backend.as_ref()
    }

    /// Main revision up to which [`View::backend`] holds every change.
    #[must_use]
    pub fn backend_revision(&self) -> Revision {
        to_revision(self.backend_revision)
    }

    pub(crate) fn sources(&self) -> Sources<'_> {
        Sources { log: &self.log, backend: self.backend.as_ref() }
    }

    fn planner(&self) -> Planner<'_> {
        let (revision, compact) = (self.revision, self.compact);
        Planner { reader: self.index.reader(), revision, compact, hold: false }
    }

    /// The version of a key at a revision; 0 or less is the current one.
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub fn get(&self, key: &[u8], revision: i64) -> Result<Option<KeyRef>, RangeError> {
        self.planner().get(key, revision)
    }

    /// Plans the answer to a range, from the index alone: about 20 ns per key listed, so ask
    /// [`View::count`] first and plan long lists, and any order but that of keys, on the pool.
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub fn range(&self, query: &RangeQuery<'_>) -> Result<Ranged, RangeError> {
        self.planner().plan(query)
    }

    /// Keys in the query's interval at its revision.
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub fn count(&self, query: &RangeQuery<'_>) -> Result<u64, RangeError> {
        self.planner().count(query)
    }

    /// Visits the keys of an interval (by the rules of [`RangeQuery::range_end`]) at a revision in
    /// byte order, until `visit` says false.
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub fn scan(
        &self,
        key: &[u8],
        range_end: &[u8],
        revision: i64,
        visit: &mut dyn FnMut(KeyParts<'_>, KeyRef) -> bool,
    ) -> Result<(), RangeError> {
        let planner = self.planner();
        let rev = planner.read_at(revision)?;
        let reader = planner.reader;
        match interval(key, range_end) {
            None => {
                let parts = KeyParts::whole(key);
                if let Some(record) = reader.get(key, rev) {
                    visit(parts, KeyRef::of(&reader, parts, &record));
                }
            }
            Some(bounds) => {
                reader.visit(bounds, rev, &mut |parts, record| {
                    visit(parts, KeyRef::of(&reader, parts, record))
                });
            }
        }
        Ok(())
    }

    /// The stored `KeyValue` of a put, without waiting for the disk.
    ///
    /// # Errors
    /// The database is damaged.
    pub fn try_value(&self, rev: Rev) -> Result<Lookup, ValueError> {
        match rev.place() {
            Some((main, sub)) => self.sources().try_value(main, sub),
            None => Ok(Lookup::Absent),
        }
    }

    /// The stored `KeyValue` of a put; `None` if there is no such put or it was compacted.
    ///
    /// # Errors
    /// The database is damaged or its disk failed.
    pub fn value(&self, may: &MayBlock, rev: Rev) -> Result<Option<Bytes>, ValueError> {
        match rev.place() {
            Some((main, sub)) => self.sources().value(may, main, sub),
            None => Ok(None),
        }
    }

    /// Reads many values, those in the database sorted by page. Calls `each` once per reference
    /// with its position, in any order.
    ///
    /// # Errors
    /// The database is damaged or its disk failed.
    pub fn values(
        &self,
        may: &MayBlock,
        refs: &[ValueRef],
        each: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), ValueError> {
        self.sources().values(may, refs.iter(), each)
    }

    /// Finishes a plan whose order or size depends on values. Plans that do not come back as they
    /// are.
    ///
    /// # Errors
    /// A value was compacted since the plan, or the database's.
    pub fn resolve(&self, may: &MayBlock, ranged: Ranged) -> Result<Ranged, ValueError> {
        crate::by_value::resolve(self.sources(), may, ranged)
    }

    /// The body of a planned response.
    ///
    /// # Panics
    /// If the plan [`Ranged::needs_values`].
    #[must_use]
    pub fn body(&self, ranged: Ranged) -> RangeBody {
        RangeBody::new(self.index.clone(), ranged)
    }

    /// Renders a whole response of values in memory, if it is at most `max_bytes` and nothing must
    /// be waited for: the fast path of small reads. False if not; `out` is then as before.
    ///
    /// # Errors
    /// A value was compacted since the plan, or the database is damaged.
    pub fn try_render(
        &self,
        ranged: &Ranged,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, ValueError> {
        let (Entries::Refs(refs), false) = (&ranged.entries, ranged.needs_values()) else {
            return Ok(false);
        };
        if ranged.body_bytes > max_bytes as u64 {
            return Ok(false);
        }
        let bytes = ranged.body_bytes as usize;
        Ok(try_append_values(self.sources(), refs, bytes, out)? == Cached::Hit)
    }

    /// The versions of a key from the newest back, tombstones too, until `visit` says false or the
    /// rest is compacted. The second argument tells a tombstone.
    pub fn key_chain(&self, key: &[u8], mut visit: impl FnMut(KeyRef, bool) -> bool) {
        let reader = self.index.reader();
        reader.chain(key, |record: &Record| {
            let seen = KeyRef::of(&reader, KeyParts::whole(key), record);
            visit(seen, record.is_tombstone())
        });
    }

    /// What `key` was before main revision `before`: the `prev_kv` of an event at it. `None` if it
    /// did not exist then or that state is compacted.
    ///
    /// //= etcd 3.7.1: server/storage/mvcc/watchable_store.go#newWatchBatch
    #[must_use]
    pub fn prev(&self, key: &[u8], before: Revision) -> Option<KeyRef> {
        match before.0.checked_sub(1) {
            Some(revision) if revision > 0 => self.get(key, revision).ok().flatten(),
            _ => None,
        }
    }
}

/// Appends the `KeyValue` of a DELETE event: the key and the revision at which it went.
pub fn encode_deleted(key: &[u8], main: Revision, out: &mut Vec<u8>) {
    KeyValue { key, main: main.0, ..KeyValue::default() }.encode(out);
}
