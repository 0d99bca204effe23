//! Commit: changed trees to pages, pages to the file, then the meta.
//!
//! Invariants: pages are durable before the meta that refers to them is written; a failure before
//! that undoes the allocations and changes nothing; a failed sync or meta write poisons the
//! database and is never retried (invariant 10).
//= bbolt 1.5.0: tx.go#Tx.Commit

use std::io::IoSlice;

use bytes::Bytes;
use env::{IoError, MayBlock};

use crate::error::{CommitError, Corruption, Flaw};
use crate::fence::{FenceEdits, FenceTree, Fences, Unfit};
use crate::freelist::Run;
use crate::meta::{META_PAGE_LEN, Meta, NO_FREELIST};
use crate::node::{Body, Context, Link, Node};
use crate::page::{BUCKET, BUCKET_HEADER, Page, u64_at};
use crate::spill::{Output, Spill, inline_value, paged_value};
use crate::write::WriteTx;

/// What the file grows by beyond what is needed, bytes.
//= etcd 3.7.1: its mapping is larger than bbolt's AllocSize from the start, so bbolt grows by that
const GROW_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes and buffers of one write at most.
const WRITE_BYTES: usize = 8 << 20;
const WRITE_BUFFERS: usize = 512;

/// A transaction that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its id; that of the state before if nothing was changed.
    pub txid: u64,
    /// Data pages written.
    pub pages: u64,
    /// Write calls for them.
    pub writes: u64,
    /// [`crate::Db::size_bytes`] now.
    pub size_bytes: u64,
}

/// A part of a commit that is done, for whoever measures them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It begins.
    Begun,
    /// Small pages are merged.
    Rebalanced,
    /// Changed pages are laid out in memory.
    Spilled,
    /// Everything is durable.
    Written,
}

/// A commit before anything is written.
struct Prepared {
    meta: Meta,
    freed: Vec<Run>,
    fences: Option<Fences>,
    allocated: Vec<Run>,
    buffers: Vec<(u64, Vec<u8>)>,
}

impl WriteTx<'_> {
    /// Makes the transaction durable. Without changes nothing is written.
    ///
    /// # Errors
    /// See [`CommitError`]; only after [`CommitError::Unknown`] the database is of no use.
    pub fn commit(self, may: &MayBlock) -> Result<Committed, CommitError> {
        self.commit_told(may, &mut |_| {})
    }

    /// As [`WriteTx::commit`], and tells of each stage as it is reached; of none without changes.
    ///
    /// # Errors
    /// As [`WriteTx::commit`].
    pub fn commit_told(
        mut self,
        may: &MayBlock,
        told: &mut dyn FnMut(Stage),
    ) -> Result<Committed, CommitError> {
        if self.db.poisoned {
            return Err(CommitError::Poisoned);
        }
        let dirty_root = matches!(&self.root, Link::Node(node) if node_is_dirty(node));
        if !dirty_root && self.open.iter().all(|bucket| !bucket.changed) {
            let (txid, size_bytes) = (self.db.meta.txid, self.db.size_bytes());
            return Ok(Committed { txid, pages: 0, writes: 0, size_bytes });
        }
        told(Stage::Begun);
        self.rebalance(may)?;
        told(Stage::Rebalanced);
        let mut prepared = self.prepare(may)?;
        told(Stage::Spilled);
        let pages = prepared.allocated.iter().map(|run| run.len).sum();
        let writes = match self.write_pages(may, &mut prepared) {
            Ok(writes) => writes,
            Err(error) => {
                self.undo(&prepared.allocated);
                return Err(CommitError::RolledBack(error));
            }
        };
        if let Err(error) = self.write_meta(may, &prepared.meta) {
            self.db.poisoned = true;
            return Err(CommitError::Unknown(error));
        }
        told(Stage::Written);
        let Prepared { meta, freed, fences, allocated, .. } = prepared;
        let db = self.db;
        db.freelist.allocated(meta.txid, allocated);
        db.freelist.free(meta.txid, freed);
        db.stored_freelist = None;
        db.meta = meta;
        if let Some(fences) = fences {
            db.fences = fences;
        }
        Ok(Committed { txid: meta.txid, pages, writes, size_bytes: db.size_bytes() })
    }

    fn undo(&mut self, allocated: &[Run]) {
        let old_hwm = self.db.meta.hwm;
        for run in allocated.iter().filter(|run| run.page < old_hwm) {
            self.db.freelist.add(*run);
        }
    }

    /// Rebalances every changed tree, the root's last. Every read comes before the first
    /// allocation, so that a failure has nothing to undo.
    fn rebalance(&mut self, may: &MayBlock) -> Result<(), CommitError> {
        let page_size = self.db.source.page_size;
        let hwm = self.db.meta.hwm;
        for i in 0..self.open.len() {
            let Self { db, arena, freed, open, fences, .. } = self;
            let bucket = &mut open[i];
            if !bucket.changed {
                continue;
            }
            let edits = (db.options.fenced_bucket == Some(&*bucket.name)).then_some(fences);
            let threshold = (page_size as f64 * bucket.fill) as usize / 2;
            let mut cx = Context { source: &db.source, may, arena, hwm, freed };
            bucket.root.rebalance(&mut cx, threshold, edits)?;
        }
        for i in 0..self.open.len() {
            if self.open[i].changed {
                let Self { db, arena, freed, open, root, .. } = self;
                let mut cx = Context { source: &db.source, may, arena, hwm, freed };
                root.leaf(&mut cx, &open[i].name)?;
            }
        }
        let Self { db, arena, freed, root, .. } = self;
        let mut cx = Context { source: &db.source, may, arena, hwm, freed };
        root.rebalance(&mut cx, page_size / 4, None)?;
        Ok(())
    }

    /// Spills every changed tree, in memory.
    fn prepare(&mut self, may: &MayBlock) -> Result<Prepared, CommitError> {
        let page_size = self.db.source.page_size;
        let hwm = self.db.meta.hwm;
        let Self { db, arena, freed, root, open, fences, .. } = self;
        let mut meta = db.meta;
        let mut out = Output {
            freelist: &mut db.freelist,
            page_size,
            hwm,
            allocated: Vec::new(),
            buffers: Vec::new(),
        };
        let (mut new_fences, mut damage) = (None, None);
        let mut cx = Context { source: &db.source, may, arena, hwm, freed };
        for bucket in open.iter_mut().filter(|bucket| bucket.changed) {
            let fenced = db.options.fenced_bucket == Some(&*bucket.name);
            let tree = std::mem::replace(&mut bucket.root, Link::Page(0));
            let inline = match &tree {
                Link::Node(node) => inline_value(cx.arena, node, bucket.sequence, page_size),
                Link::Page(_) => None,
            };
            let value = match (inline, tree) {
                (Some(value), Link::Node(node)) => {
                    cx.freed.extend(node.from);
                    value
                }
                (_, tree) => {
                    let full = (page_size as f64 * bucket.fill) as usize;
                    let fences = fenced.then_some(&mut *fences);
                    let (arena, freed) = (&*cx.arena, &mut *cx.freed);
                    let root = Spill { arena, out: &mut out, freed, full, fences }.tree(tree);
                    paged_value(root, bucket.sequence).to_vec()
                }
            };
            if fenced {
                match edited(&db.fences, std::mem::take(fences), &value) {
                    Ok(fences) => new_fences = Some(fences),
                    Err(Unfit::PageId) => new_fences = Some(Fences::Unknown),
                    Err(Unfit::Mismatch) => {
                        damage = Some(Corruption::new(u64_at(&value, 0), Flaw::Order));
                    }
                }
            }
            let leaf = root.leaf(&mut cx, &bucket.name).expect("loaded above");
            leaf.put(cx.arena, &bucket.name, &value, BUCKET);
        }
        if new_fences.is_none() && fences.clear {
            new_fences = Some(Fences::Missing);
        }
        let (arena, freed) = (&*cx.arena, &mut *cx.freed);
        let root = std::mem::replace(root, Link::Page(0));
        meta.root =
            Spill { arena, out: &mut out, freed, full: page_size / 2, fences: None }.tree(root);
        let Output { hwm, allocated, buffers, .. } = out;
        (meta.hwm, meta.freelist) = (hwm, NO_FREELIST);
        meta.txid += 1;
        let mut freed = std::mem::take(&mut self.freed);
        freed.extend(self.db.stored_freelist);
        let twice = self.db.freelist.conflict(&freed, &allocated);
        if let Some(corruption) = damage.or(twice.map(|page| Corruption::new(page, Flaw::Twice))) {
            self.undo(&allocated);
            return Err(CommitError::Corrupt(corruption));
        }
        Ok(Prepared { meta, freed, fences: new_fences, allocated, buffers })
    }

    /// Grows the file and writes the data pages; returns the number of writes.
    fn write_pages(&mut self, may: &MayBlock, prepared: &mut Prepared) -> Result<u64, IoError> {
        let db = &mut *self.db;
        let page_size = db.source.page_size;
        let need = (prepared.meta.hwm + 1) * page_size as u64;
        if need > db.file_len {
            db.source.file.set_len(may, need + GROW_BYTES)?;
            db.file_len = need + GROW_BYTES;
        }
        let buffers = &mut prepared.buffers;
        buffers.sort_unstable_by_key(|(page, _)| *page);
        let mut writes = 0;
        let mut rest = &buffers[..];
        while let Some((first, buffer)) = rest.first() {
            let mut len = buffer.len();
            let mut n = 1;
            while let Some((page, more)) = rest.get(n)
                && *page == first + (len / page_size) as u64
                && n < WRITE_BUFFERS
                && len + more.len() <= WRITE_BYTES
            {
                len += more.len();
                n += 1;
            }
            let slices: Vec<IoSlice<'_>> = rest[..n].iter().map(|(_, b)| IoSlice::new(b)).collect();
            db.source.file.write_vectored_at(may, &slices, db.source.offset(*first))?;
            writes += 1;
            rest = &rest[n..];
        }
        Ok(writes)
    }

    /// Makes the data pages durable, then the meta that makes them the state.
    fn write_meta(&mut self, may: &MayBlock, meta: &Meta) -> Result<(), IoError> {
        let source = &self.db.source;
        source.file.sync_data(may)?;
        let mut page = vec![0; source.page_size.max(META_PAGE_LEN)];
        let id = meta.txid % 2;
        meta.write(id, &mut page);
        source.file.write_at(may, &page, source.offset(id))?;
        source.file.sync_data(may)
    }
}

fn node_is_dirty(node: &Node) -> bool {
    node.dirty
        || match &node.body {
            Body::Leaf(_) => false,
            Body::Branch(items) => items
                .iter()
                .any(|item| matches!(&item.link, Link::Node(node) if node_is_dirty(node))),
        }
}

/// The fenced bucket's fences after the commit; `value` is its new element.
fn edited(old: &Fences, edits: FenceEdits, value: &[u8]) -> Result<Fences, Unfit> {
    if u64_at(value, 0) == 0 {
        let bytes = Bytes::copy_from_slice(&value[BUCKET_HEADER..]);
        return Page::parse_inline(bytes, 0).map(Fences::Inline).map_err(|_| Unfit::Mismatch);
    }
    if edits.broken {
        return Ok(Fences::Unknown);
    }
    match old {
        Fences::Tree(tree) => tree.edited(edits).map(Fences::Tree),
        Fences::Missing | Fences::Inline(_) => FenceTree::build(edits.sorted()).map(Fences::Tree),
        Fences::Unknown => Ok(Fences::Unknown),
    }
}
