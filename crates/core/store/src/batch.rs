//! What one applied group changed, frozen: the unit that readers, watchers and the committer share.
//!
//! Values lie encoded one behind another in one buffer; a row says where. Handing out a value is a
//! slice of that buffer, never a copy.
//!
//! Invariants: rows ascend by (main, sub) and hold whole main revisions; a batch never changes.

use std::ops::Range;

use bytes::Bytes;
use types::{Index, Revision, Term};

use crate::bucket::{Bucket, Op, meta};
use crate::index::sweep::Dead;
use crate::kv::{BadKeyValue, KeyValue};
use crate::rev::{Rev, to_revision};

/// One change of a key within a buffer of encoded values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) main: u64,
    pub(crate) sub: u32,
    pub(crate) tombstone: bool,
    pub(crate) len: u32,
    pub(crate) offset: usize,
}

impl Row {
    fn span(&self) -> Range<usize> {
        self.offset..self.offset + self.len as usize
    }
}

/// Finds the row of a change; a put and a tombstone never share a place. Where each revision has
/// one change, its distance from the first is its place.
fn find(rows: &[Row], main: u64, sub: u32) -> Option<&Row> {
    let distance = main.checked_sub(rows.first()?.main)?;
    if let Some(row) = usize::try_from(distance).ok().and_then(|i| rows.get(i))
        && (row.main, row.sub) == (main, sub)
    {
        return Some(row);
    }
    rows.binary_search_by_key(&(main, sub), |r| (r.main, r.sub)).ok().map(|i| &rows[i])
}

/// The group that is being applied.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    values: Vec<u8>,
    rows: Vec<Row>,
    pub(crate) dead: Vec<Dead>,
    pub(crate) ops: Vec<Op>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.dead.is_empty() && self.ops.is_empty()
    }

    /// Appends a change and returns the bytes of its value.
    pub(crate) fn push(&mut self, main: u64, sub: u32, tombstone: bool, kv: &KeyValue<'_>) -> u32 {
        let offset = self.values.len();
        kv.encode(&mut self.values);
        let len = u32::try_from(self.values.len() - offset)
            .expect("a request, and so a value, is below 4 GiB");
        self.rows.push(Row { main, sub, tombstone, len, offset });
        len
    }

    /// A copy of a value of this group.
    pub(crate) fn value(&self, main: u64, sub: u32) -> Option<Bytes> {
        let row = find(&self.rows, main, sub)?;
        Some(Bytes::copy_from_slice(&self.values[row.span()]))
    }

    /// Freezes the group and leaves this empty, with its room for the next.
    pub(crate) fn freeze(
        &mut self,
        number: u64,
        revision: u64,
        position: (Index, Term),
        conf_state: Option<Bytes>,
    ) -> Batch {
        // Small groups are copied to their exact size so that the room stays; a large one moves.
        let values = if self.values.len() <= KEPT_ROOM_BYTES {
            let copy = Bytes::copy_from_slice(&self.values);
            self.values.clear();
            self.values.shrink_to(KEPT_ROOM_BYTES);
            copy
        } else {
            Bytes::from(std::mem::take(&mut self.values).into_boxed_slice())
        };
        let rows = self.rows.as_slice().into();
        self.rows.clear();
        self.rows.shrink_to(KEPT_ROOM_BYTES / size_of::<Row>());
        let batch = Batch {
            number,
            revision,
            index: position.0,
            term: position.1,
            conf_state,
            values,
            rows,
            dead: std::mem::take(&mut self.dead).into(),
            ops: std::mem::take(&mut self.ops).into(),
        };
        assert!(batch.rows.last().is_none_or(|r| r.main <= revision));
        batch
    }
}

/// Room that the group under construction keeps for the next one, per buffer.
const KEPT_ROOM_BYTES: usize = 256 << 10;

/// An applied group: changes of keys, other operations, and the log position it ends at.
#[derive(Debug)]
pub struct Batch {
    number: u64,
    revision: u64,
    index: Index,
    term: Term,
    conf_state: Option<Bytes>,
    values: Bytes,
    rows: Box<[Row]>,
    dead: Box<[Dead]>,
    ops: Box<[Op]>,
}

impl Batch {
    /// Batches are numbered from 1 in the order they were sealed.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The store's revision after this batch.
    #[must_use]
    pub fn revision(&self) -> Revision {
        to_revision(self.revision)
    }

    /// Index of the last entry applied.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.index
    }

    /// Term of that entry.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// `raftpb.ConfState` as JSON, if this batch changed it.
    #[must_use]
    pub fn conf_state(&self) -> Option<&Bytes> {
        self.conf_state.as_ref()
    }

    /// Memory held.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.values.len()
            + size_of_val(&*self.rows)
            + size_of_val(&*self.dead)
            + self.ops.iter().map(Op::size_bytes).sum::<usize>()
    }

    /// Operations on the database that this batch stands for.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.rows.len() + self.dead.len() + self.ops.len()
    }

    /// The changes of keys in order.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.rows.iter().map(|row| Event { values: &self.values, row: *row })
    }

    /// Operations other than changes of keys.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Whether a compaction was accepted in this group.
    #[must_use]
    pub fn schedules_compaction(&self) -> bool {
        self.sets(meta::SCHEDULED_COMPACT)
    }

    /// Whether this group removes what a compaction must, but not the last of it.
    #[must_use]
    pub fn removes_a_part(&self) -> bool {
        !self.dead.is_empty() && !self.sets(meta::FINISHED_COMPACT)
    }

    fn sets(&self, key: &[u8]) -> bool {
        self.ops.iter().any(|op| op.bucket == Bucket::Meta && op.key == key)
    }

    pub(crate) fn revision_raw(&self) -> u64 {
        self.revision
    }

    pub(crate) fn first_main(&self) -> Option<u64> {
        self.rows.first().map(|r| r.main)
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn dead(&self) -> &[Dead] {
        &self.dead
    }

    pub(crate) fn slice(&self, row: &Row) -> &[u8] {
        &self.values[row.span()]
    }

    pub(crate) fn event(&self, i: usize) -> Option<Event<'_>> {
        Some(Event { values: &self.values, row: *self.rows.get(i)? })
    }

    pub(crate) fn value(&self, main: u64, sub: u32) -> Option<Bytes> {
        find(&self.rows, main, sub).map(|row| self.values.slice(row.span()))
    }
}

/// One change of a key, borrowed from the batch that holds it.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    values: &'a Bytes,
    row: Row,
}

impl<'a> Event<'a> {
    /// Where the change stands.
    #[must_use]
    pub fn rev(&self) -> Rev {
        Rev::new(self.row.main, self.row.sub)
    }

    /// Whether the key was deleted.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.row.tombstone
    }

    /// The stored `KeyValue`. That of a tombstone has only the key: a watch response adds the
    /// revision.
    #[must_use]
    pub fn stored(&self) -> &'a [u8] {
        &self.values[self.row.span()]
    }

    /// The same bytes as a shared slice of the batch.
    #[must_use]
    pub fn stored_bytes(&self) -> Bytes {
        self.values.slice(self.row.span())
    }

    /// The fields of the stored `KeyValue`.
    ///
    /// # Errors
    /// Never for a batch that this process encoded.
    pub fn fields(&self) -> Result<KeyValue<'a>, BadKeyValue> {
        KeyValue::parse(self.stored())
    }
}
