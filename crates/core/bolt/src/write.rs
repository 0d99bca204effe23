//! The write transaction: changes collected in memory, visible to itself.
//!
//! There is one by construction (it borrows the [`Db`] mutably; of suspended ones only one can be
//! committed). Nothing reaches the file before [`WriteTx::commit`]; dropping it rolls back. An
//! operation that fails leaves it as it was.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use env::{Access, MayBlock};

use crate::arena::Arena;
use crate::db::Db;
use crate::error::{Corruption, Flaw, ReadError, WriteError};
use crate::fence::FenceEdits;
use crate::freelist::Run;
use crate::node::{Body, Context, Link, Node, child_index};
use crate::page::{BUCKET, MAX_DEPTH, PageRef, Root, parse_bucket};
use crate::source::Source;
use crate::spill::inline_value;

/// Longest key, bytes.
pub const MAX_KEY_LEN: usize = 32_768;
/// Longest value, bytes.
pub const MAX_VALUE_LEN: usize = (1 << 31) - 2;
/// Fill of a page that is cut, for buckets where nothing else was set.
const DEFAULT_FILL: f64 = 0.5;
const MIN_FILL: f64 = 0.1;

/// Takes keys and values in turn until it breaks.
pub type Visitor<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// Changes to the database that become durable together, or not at all.
#[derive(Debug)]
pub struct WriteTx<'a> {
    pub(crate) db: &'a mut Db,
    pub(crate) arena: Arena,
    pub(crate) freed: Vec<Run>,
    /// The tree of bucket names.
    pub(crate) root: Link,
    /// Buckets used so far; few, so found by walking.
    pub(crate) open: Vec<OpenBucket>,
    pub(crate) fences: FenceEdits,
    /// What [`WriteTx::set_fill_percent`] was told.
    fills: Vec<(Box<[u8]>, f64)>,
}

/// A write transaction between [`WriteTx::suspend`] and [`Db::resume`]. Dropping it rolls back.
#[derive(Debug)]
pub struct SuspendedTx {
    /// The state it began on.
    source: Arc<Source>,
    base: u64,
    arena: Arena,
    freed: Vec<Run>,
    root: Link,
    open: Vec<OpenBucket>,
    fences: FenceEdits,
    fills: Vec<(Box<[u8]>, f64)>,
}

/// A top-level bucket in use.
#[derive(Debug)]
pub(crate) struct OpenBucket {
    pub name: Box<[u8]>,
    pub root: Link,
    pub sequence: u64,
    pub fill: f64,
    pub changed: bool,
}

impl<'a> WriteTx<'a> {
    pub(crate) fn new(db: &'a mut Db) -> Self {
        let root = Link::Page(db.meta.root);
        Self {
            db,
            arena: Arena::default(),
            freed: Vec::new(),
            root,
            open: Vec::new(),
            fences: FenceEdits::default(),
            fills: Vec::new(),
        }
    }

    /// Resumes a suspended transaction.
    ///
    /// # Panics
    /// If it was begun on another state: what it has loaded may have been written over since.
    pub(crate) fn resumed(db: &'a mut Db, suspended: SuspendedTx) -> Self {
        assert!(
            Arc::ptr_eq(&db.source, &suspended.source),
            "a suspended transaction belongs to its database"
        );
        assert_eq!(
            db.meta.txid, suspended.base,
            "a suspended transaction belongs to the state it began on"
        );
        let SuspendedTx { arena, freed, root, open, fences, fills, .. } = suspended;
        Self { db, arena, freed, root, open, fences, fills }
    }

    /// Puts the transaction aside, so that the database can be read and this thread can do other
    /// things before [`Db::resume`].
    #[must_use]
    pub fn suspend(self) -> SuspendedTx {
        let Self { db, arena, freed, root, open, fences, fills } = self;
        let (source, base) = (Arc::clone(&db.source), db.meta.txid);
        SuspendedTx { source, base, arena, freed, root, open, fences, fills }
    }

    /// The id this transaction will have.
    #[must_use]
    pub fn txid(&self) -> u64 {
        self.db.meta.txid + 1
    }

    /// Makes an empty bucket; one that exists is left as it is.
    ///
    /// # Errors
    /// [`WriteError::EmptyKey`], [`WriteError::LongKey`], [`WriteError::Incompatible`], or what
    /// reading pages gives.
    pub fn create_bucket(&mut self, may: &MayBlock, name: &[u8]) -> Result<(), WriteError> {
        check_key(name)?;
        if self.bucket(may, name)?.is_some() {
            return Ok(());
        }
        let (mut cx, root) = self.context(may);
        let node = Node::empty_leaf();
        let value = inline_value(cx.arena, &node, 0, usize::MAX).expect("an empty leaf is small");
        root.leaf(&mut cx, name)?.put(cx.arena, name, &value, BUCKET);
        self.open.push(OpenBucket {
            name: name.into(),
            root: Link::Node(Box::new(node)),
            sequence: 0,
            fill: self.fill(name),
            changed: true,
        });
        Ok(())
    }

    /// Removes a bucket and all that is in it.
    ///
    /// # Errors
    /// [`WriteError::NoBucket`], [`WriteError::Incompatible`], or what reading pages gives.
    pub fn delete_bucket(&mut self, may: &MayBlock, name: &[u8]) -> Result<(), WriteError> {
        let Some(i) = self.bucket(may, name)? else { return Err(WriteError::NoBucket) };
        let mut gone = Vec::new();
        let source = &self.db.source;
        free_link(source, may, &self.open[i].root, &self.arena, self.db.meta.hwm, &mut gone)?;
        let (mut cx, root) = self.context(may);
        let leaf = root.leaf(&mut cx, name)?;
        if let Some((at, _)) = leaf.find(cx.arena, name) {
            leaf.remove(at);
        }
        self.freed.extend(gone);
        self.open.swap_remove(i);
        if self.db.options.fenced_bucket == Some(name) {
            self.fences = FenceEdits { clear: true, ..FenceEdits::default() };
        }
        Ok(())
    }

    /// How full pages of this bucket are made when they are cut, 0.1 to 1.0 (0.5 if not set), for
    /// this transaction. Sequential inserts want 0.9.
    pub fn set_fill_percent(&mut self, name: &[u8], fill: f64) {
        let fill = fill.clamp(MIN_FILL, 1.0);
        self.fills.retain(|(of, _)| **of != *name);
        self.fills.push((name.into(), fill));
        if let Some(bucket) = self.open.iter_mut().find(|bucket| *bucket.name == *name) {
            bucket.fill = fill;
        }
    }

    fn fill(&self, name: &[u8]) -> f64 {
        self.fills.iter().find(|(of, _)| **of == *name).map_or(DEFAULT_FILL, |(_, fill)| *fill)
    }

    /// Stores a value.
    ///
    /// # Errors
    /// [`WriteError::NoBucket`], the limits of keys and values, [`WriteError::Incompatible`] if
    /// the key names a nested bucket, or what reading pages gives.
    pub fn put(
        &mut self,
        may: &MayBlock,
        bucket: &[u8],
        key: &[u8],
        value: &[u8],
    ) -> Result<(), WriteError> {
        check_key(key)?;
        if value.len() > MAX_VALUE_LEN {
            return Err(WriteError::LongValue);
        }
        let Some(i) = self.bucket(may, bucket)? else { return Err(WriteError::NoBucket) };
        let (mut cx, open) = self.bucket_context(may, i);
        let leaf = open.root.leaf(&mut cx, key)?;
        if leaf.find(cx.arena, key).is_some_and(|(_, item)| item.flags & BUCKET != 0) {
            return Err(WriteError::Incompatible);
        }
        leaf.put(cx.arena, key, value, 0);
        open.changed = true;
        Ok(())
    }

    /// Removes a key; a missing one is no error.
    ///
    /// # Errors
    /// [`WriteError::NoBucket`], [`WriteError::Incompatible`] if the key names a nested bucket, or
    /// what reading pages gives.
    pub fn delete(&mut self, may: &MayBlock, bucket: &[u8], key: &[u8]) -> Result<(), WriteError> {
        let Some(i) = self.bucket(may, bucket)? else { return Err(WriteError::NoBucket) };
        let (mut cx, open) = self.bucket_context(may, i);
        let leaf = open.root.leaf(&mut cx, key)?;
        match leaf.find(cx.arena, key) {
            None => Ok(()),
            Some((_, item)) if item.flags & BUCKET != 0 => Err(WriteError::Incompatible),
            Some((at, _)) => {
                leaf.remove(at);
                open.changed = true;
                Ok(())
            }
        }
    }

    /// A key's value as this transaction sees it; `None` if key or bucket do not exist.
    ///
    /// # Errors
    /// What reading pages gives.
    pub fn get(
        &mut self,
        may: &MayBlock,
        bucket: &[u8],
        key: &[u8],
    ) -> Result<Option<Bytes>, WriteError> {
        let mut found = None;
        let range = (Bound::Included(key), Bound::Included(key));
        self.scan(may, bucket, range, &mut |_, value| {
            found = Some(Bytes::copy_from_slice(value));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Gives the keys and values of a bucket in `range`, as this transaction sees them, to `each`,
    /// ascending, until it breaks. A missing bucket is empty; a nested one has an empty value.
    ///
    /// # Errors
    /// What reading pages gives.
    pub fn scan(
        &mut self,
        may: &MayBlock,
        bucket: &[u8],
        range: (Bound<&[u8]>, Bound<&[u8]>),
        each: &mut Visitor<'_>,
    ) -> Result<(), WriteError> {
        let Some(i) = self.bucket(may, bucket)? else { return Ok(()) };
        let source = &self.db.source;
        let mut walk = Walk {
            source,
            may,
            arena: &self.arena,
            hwm: self.db.meta.hwm,
            budget: self.db.meta.hwm,
            range,
            each,
        };
        walk.link(&self.open[i].root, MAX_DEPTH).map(|_| ()).map_err(WriteError::from)
    }

    fn context<'t>(&'t mut self, may: &'t MayBlock) -> (Context<'t>, &'t mut Link) {
        let Self { db, arena, freed, root, .. } = self;
        (Context { source: &db.source, may, arena, hwm: db.meta.hwm, freed }, root)
    }

    fn bucket_context<'t>(
        &'t mut self,
        may: &'t MayBlock,
        i: usize,
    ) -> (Context<'t>, &'t mut OpenBucket) {
        let Self { db, arena, freed, open, .. } = self;
        (Context { source: &db.source, may, arena, hwm: db.meta.hwm, freed }, &mut open[i])
    }

    /// The place of a bucket in `open`, opened if it exists.
    fn bucket(&mut self, may: &MayBlock, name: &[u8]) -> Result<Option<usize>, WriteError> {
        if self.db.poisoned {
            return Err(WriteError::Poisoned);
        }
        if let Some(i) = self.open.iter().position(|b| *b.name == *name) {
            return Ok(Some(i));
        }
        let (mut cx, root) = self.context(may);
        let leaf = root.leaf(&mut cx, name)?;
        let within = leaf.from.map_or(0, |run| run.page);
        let Some((_, item)) = leaf.find(cx.arena, name) else { return Ok(None) };
        if item.flags & BUCKET == 0 {
            return Err(WriteError::Incompatible);
        }
        let value = Bytes::copy_from_slice(cx.arena.value(item.span));
        let (root, sequence) = parse_bucket(&value, within, cx.hwm)?;
        let root = match root {
            Root::Page(page) => Link::Page(page),
            Root::Inline(page) => Link::Node(Box::new(Node::load(&page, None, cx.arena))),
        };
        self.open.push(OpenBucket {
            name: name.into(),
            root,
            sequence,
            fill: self.fill(name),
            changed: false,
        });
        Ok(Some(self.open.len() - 1))
    }
}

fn check_key(key: &[u8]) -> Result<(), WriteError> {
    match key.len() {
        0 => Err(WriteError::EmptyKey),
        1..=MAX_KEY_LEN => Ok(()),
        _ => Err(WriteError::LongKey),
    }
}

/// Collects every page of a tree, nested buckets included.
fn free_link(
    source: &Source,
    may: &MayBlock,
    link: &Link,
    arena: &Arena,
    hwm: u64,
    gone: &mut Vec<Run>,
) -> Result<(), ReadError> {
    match link {
        Link::Page(page) => free_page(source, may, *page, hwm, gone, 0),
        Link::Node(node) => {
            gone.extend(node.from);
            match &node.body {
                Body::Branch(items) => {
                    for item in items {
                        free_link(source, may, &item.link, arena, hwm, gone)?;
                    }
                }
                Body::Leaf(items) => {
                    for item in items.iter().filter(|item| item.flags & BUCKET != 0) {
                        let value = Bytes::copy_from_slice(arena.value(item.span));
                        if let Root::Page(page) = parse_bucket(&value, 0, hwm)?.0 {
                            free_page(source, may, page, hwm, gone, 0)?;
                        }
                    }
                }
            }
            Ok(())
        }
    }
}

fn free_page(
    source: &Source,
    may: &MayBlock,
    id: u64,
    hwm: u64,
    gone: &mut Vec<Run>,
    depth: usize,
) -> Result<(), ReadError> {
    // More pages than there are, or a path longer than any: the links are damaged.
    if depth > MAX_DEPTH || gone.len() as u64 > hwm {
        return Err(Corruption::new(id, Flaw::Depth).into());
    }
    let page = source.page(may, id, hwm, Access::Scan)?;
    gone.push(Run { page: id, len: u64::from(page.overflow()) + 1 });
    let view = page.view();
    for i in 0..view.count() {
        if !view.is_leaf() {
            free_page(source, may, view.child(i), hwm, gone, depth + 1)?;
        } else if view.flags(i) & BUCKET != 0
            && let Root::Page(root) = parse_bucket(&page.value_bytes(i), id, hwm)?.0
        {
            free_page(source, may, root, hwm, gone, depth + 1)?;
        }
    }
    Ok(())
}

/// An ordered walk over loaded nodes and pages.
struct Walk<'w> {
    source: &'w Source,
    may: &'w MayBlock,
    arena: &'w Arena,
    hwm: u64,
    budget: u64,
    range: (Bound<&'w [u8]>, Bound<&'w [u8]>),
    each: &'w mut Visitor<'w>,
}

impl Walk<'_> {
    fn link(&mut self, link: &Link, depth: usize) -> Result<ControlFlow<()>, ReadError> {
        let node = match link {
            Link::Page(id) => return self.page(*id, depth),
            Link::Node(node) => node,
        };
        match &node.body {
            Body::Leaf(items) => {
                for item in items {
                    let (key, value) = (self.arena.key(item.span), self.arena.value(item.span));
                    if self.item(key, value, item.flags).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Body::Branch(items) => {
                let first = match self.range.0 {
                    Bound::Included(key) | Bound::Excluded(key) => {
                        child_index(self.arena, items, key)
                    }
                    Bound::Unbounded => 0,
                };
                for (i, item) in items.iter().enumerate().skip(first) {
                    if (i > first && self.is_past(self.arena.key(item.key)))
                        || self.link(&item.link, depth)?.is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn page(&mut self, id: u64, depth: usize) -> Result<ControlFlow<()>, ReadError> {
        self.budget = self.budget.saturating_sub(1);
        if depth == 0 || self.budget == 0 {
            return Err(Corruption::new(id, Flaw::Depth).into());
        }
        let page = self.source.page(self.may, id, self.hwm, Access::Point)?;
        let view = page.view();
        let first = match self.range.0 {
            Bound::Included(key) | Bound::Excluded(key) if view.is_leaf() => {
                view.lower_bound(key).0
            }
            Bound::Included(key) | Bound::Excluded(key) => view.child_index(key),
            Bound::Unbounded => 0,
        };
        for i in first..view.count() {
            let stop = if view.is_leaf() {
                self.element(view, i)
            } else if i > first && self.is_past(view.key(i)) {
                ControlFlow::Break(())
            } else {
                self.page(view.child(i), depth - 1)?
            };
            if stop.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn element(&mut self, view: PageRef<'_>, i: usize) -> ControlFlow<()> {
        self.item(view.key(i), view.value(i), view.flags(i))
    }

    fn item(&mut self, key: &[u8], value: &[u8], flags: u32) -> ControlFlow<()> {
        let before = match self.range.0 {
            Bound::Included(start) => key < start,
            Bound::Excluded(start) => key <= start,
            Bound::Unbounded => false,
        };
        if before {
            return ControlFlow::Continue(());
        }
        if self.is_past(key) {
            return ControlFlow::Break(());
        }
        (self.each)(key, if flags & BUCKET == 0 { value } else { &[] })
    }

    fn is_past(&self, key: &[u8]) -> bool {
        match self.range.1 {
            Bound::Included(end) => key > end,
            Bound::Excluded(end) => key >= end,
            Bound::Unbounded => false,
        }
    }
}
