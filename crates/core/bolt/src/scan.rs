//! Ordered scans that read windows of leaves.
//!
//! A scan walks the branches above its range; of the leaves below one branch it reads the next
//! window together, sorted by place. Windows grow from one leaf to [`WINDOW`], so a scan for one
//! key costs one leaf. Invariants: keys ascend or the scan fails; it visits no more pages than the
//! state has, so damaged links cannot make it endless; memory is bounded by the window and the
//! longest leaf.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;
use env::{Access, MayBlock};

use crate::error::{Corruption, Flaw, ReadError};
use crate::page::{MAX_DEPTH, Page, Root};
use crate::read::ReadTx;

/// Leaves of a window at most.
const WINDOW: usize = 64;

/// A key and its value, borrowed.
pub type Pair<'p> = (&'p [u8], &'p [u8]);

/// Keys and values of one bucket, ascending. Also an iterator of owned pairs that share the pages'
/// memory; [`Scan::next_ref`] borrows instead and is cheaper.
#[derive(Debug)]
pub struct Scan<'a> {
    tx: ReadTx,
    may: &'a MayBlock,
    access: Access,
    start: Option<(Vec<u8>, bool)>,
    end: Option<(Vec<u8>, bool)>,
    progress: Progress,
    /// Branches on the way to the current leaf, and what comes next in each.
    path: Vec<Frame>,
    window: VecDeque<Page>,
    window_len: usize,
    leaf: Option<Cursor>,
    last_key: Option<Bytes>,
    /// Pages that may still be visited.
    budget: u64,
}

#[derive(Debug)]
enum Progress {
    Fresh(Root),
    Running,
    Done,
    Failed(ReadError),
}

#[derive(Debug)]
struct Frame {
    page: Page,
    next: usize,
    /// The children are known to be leaves.
    over_leaves: bool,
}

#[derive(Debug)]
struct Cursor {
    page: Page,
    next: usize,
    end: usize,
}

/// An element of a leaf.
#[derive(Debug)]
pub(crate) struct Entry {
    pub flags: u32,
    pub key: Bytes,
}

impl<'a> Scan<'a> {
    pub(crate) fn over(
        tx: ReadTx,
        may: &'a MayBlock,
        root: Option<Root>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        access: Access,
    ) -> Self {
        let bound = |bound: Bound<&[u8]>| match bound {
            Bound::Unbounded => None,
            Bound::Included(key) => Some((key.to_vec(), true)),
            Bound::Excluded(key) => Some((key.to_vec(), false)),
        };
        let budget = tx.state.meta.hwm;
        Self {
            tx,
            may,
            access,
            start: bound(range.0),
            end: bound(range.1),
            progress: root.map_or(Progress::Done, Progress::Fresh),
            path: Vec::new(),
            window: VecDeque::new(),
            window_len: 1,
            leaf: None,
            last_key: None,
            budget,
        }
    }

    pub(crate) fn failed(tx: ReadTx, may: &'a MayBlock, error: ReadError) -> Self {
        let nothing = (Bound::Unbounded, Bound::Unbounded);
        let mut scan = Self::over(tx, may, None, nothing, Access::Scan);
        scan.progress = Progress::Failed(error);
        scan
    }

    /// The next key and value, borrowed until the next call.
    ///
    /// # Errors
    /// A damaged page or a failed disk; the scan has ended then.
    pub fn next_ref(&mut self) -> Result<Option<Pair<'_>>, ReadError> {
        if !self.settle()? {
            return Ok(None);
        }
        let Some(cursor) = &mut self.leaf else { return Ok(None) };
        let i = cursor.next;
        cursor.next += 1;
        let view = cursor.page.view();
        let value = if view.flags(i) & crate::page::BUCKET == 0 { view.value(i) } else { &[] };
        Ok(Some((view.key(i), value)))
    }

    /// The next element with its flags, for walking bucket names.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        if !self.settle()? {
            return Ok(None);
        }
        let Some(cursor) = &mut self.leaf else { return Ok(None) };
        let i = cursor.next;
        cursor.next += 1;
        Ok(Some(Entry { flags: cursor.page.view().flags(i), key: cursor.page.key_bytes(i) }))
    }

    /// Moves to a leaf with an element that is wanted; false at the end.
    fn settle(&mut self) -> Result<bool, ReadError> {
        if self.leaf.as_ref().is_some_and(|c| c.next < c.end) {
            return Ok(true);
        }
        match self.advance() {
            Ok(more) => Ok(more),
            Err(error) => {
                self.leaf = None;
                self.progress = Progress::Done;
                Err(error)
            }
        }
    }

    fn advance(&mut self) -> Result<bool, ReadError> {
        loop {
            if let Some(cursor) = self.leaf.take() {
                if cursor.next < cursor.end {
                    self.leaf = Some(cursor);
                    return Ok(true);
                }
                if cursor.end < cursor.page.view().count() {
                    self.progress = Progress::Done;
                }
            }
            match std::mem::replace(&mut self.progress, Progress::Running) {
                Progress::Failed(error) => return Err(error),
                Progress::Done => {
                    self.progress = Progress::Done;
                    return Ok(false);
                }
                Progress::Fresh(Root::Inline(page)) => {
                    self.progress = Progress::Done;
                    self.enter(page)?;
                    continue;
                }
                Progress::Fresh(Root::Page(root)) => {
                    self.visit(root, 1)?;
                    let page = self.page(root)?;
                    self.descend(page)?;
                    continue;
                }
                Progress::Running => {}
            }
            if let Some(page) = self.window.pop_front() {
                self.enter(page)?;
            } else if !self.refill()? {
                self.progress = Progress::Done;
            }
        }
    }

    fn page(&self, id: u64) -> Result<Page, ReadError> {
        let state = &self.tx.state;
        state.source.page(self.may, id, state.meta.hwm, self.access)
    }

    fn visit(&mut self, id: u64, pages: u64) -> Result<(), ReadError> {
        self.budget = match self.budget.checked_sub(pages) {
            Some(left) => left,
            None => return Err(Corruption::new(id, Flaw::Twice).into()),
        };
        Ok(())
    }

    /// Goes down from `page` to a leaf, towards the start of the range if that is not reached yet.
    fn descend(&mut self, mut page: Page) -> Result<(), ReadError> {
        while !page.view().is_leaf() {
            if self.path.len() >= MAX_DEPTH {
                return Err(Corruption::new(page.id(), Flaw::Depth).into());
            }
            let i = self.start.as_ref().map_or(0, |(key, _)| page.view().child_index(key));
            let child = page.view().child(i);
            self.path.push(Frame { page, next: i + 1, over_leaves: false });
            self.visit(child, 1)?;
            page = self.page(child)?;
        }
        if let Some(parent) = self.path.last_mut() {
            parent.over_leaves = true;
        }
        self.enter(page)
    }

    /// Makes `page` the current leaf.
    fn enter(&mut self, page: Page) -> Result<(), ReadError> {
        let view = page.view();
        if !view.is_leaf() {
            return Err(Corruption::new(page.id(), Flaw::Type).into());
        }
        if view.count() > 0 {
            if self.last_key.as_ref().is_some_and(|last| last[..] >= *view.key(0)) {
                return Err(Corruption::new(page.id(), Flaw::Order).into());
            }
            for i in 1..view.count() {
                if view.key(i - 1) >= view.key(i) {
                    return Err(Corruption::new(page.id(), Flaw::Order).into());
                }
            }
            self.last_key = Some(page.key_bytes(view.count() - 1));
        }
        let cut = |bound: &Option<(Vec<u8>, bool)>, otherwise: usize, past: bool| match bound {
            None => otherwise,
            Some((key, included)) => {
                let (i, equal) = view.lower_bound(key);
                i + usize::from(equal && *included == past)
            }
        };
        let next = cut(&self.start, 0, false);
        let end = cut(&self.end, view.count(), true);
        if next < view.count() {
            self.start = None;
        }
        self.leaf = Some(Cursor { next: next.min(end), end, page });
        Ok(())
    }

    /// Reads the next window of leaves; false at the end of the tree.
    fn refill(&mut self) -> Result<bool, ReadError> {
        while self.path.last().is_some_and(|f| f.next == f.page.view().count()) {
            self.path.pop();
        }
        let Some(frame) = self.path.last_mut() else { return Ok(false) };
        let view = frame.page.view();
        let wanted = |i: usize| match &self.end {
            None => true,
            Some((key, included)) => {
                view.key(i) < &key[..] || (*included && view.key(i) == &key[..])
            }
        };
        if !wanted(frame.next) {
            return Ok(false);
        }
        if !frame.over_leaves {
            let child = view.child(frame.next);
            frame.next += 1;
            self.visit(child, 1)?;
            let page = self.page(child)?;
            self.descend(page)?;
            return Ok(true);
        }
        let mut ids = Vec::with_capacity(self.window_len);
        while ids.len() < self.window_len && frame.next < view.count() && wanted(frame.next) {
            ids.push(view.child(frame.next));
            frame.next += 1;
        }
        self.window_len = (self.window_len * 4).min(WINDOW);
        self.visit(ids[0], ids.len() as u64)?;
        let state = &self.tx.state;
        let pages = state.source.pages(self.may, &ids, state.meta.hwm, self.access)?;
        self.window.extend(pages);
        Ok(true)
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<(Bytes, Bytes), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.settle() {
            Err(error) => Some(Err(error)),
            Ok(false) => None,
            Ok(true) => {
                let cursor = self.leaf.as_mut()?;
                let i = cursor.next;
                cursor.next += 1;
                let bucket = cursor.page.view().flags(i) & crate::page::BUCKET != 0;
                let value = if bucket { Bytes::new() } else { cursor.page.value_bytes(i) };
                Some(Ok((cursor.page.key_bytes(i), value)))
            }
        }
    }
}
