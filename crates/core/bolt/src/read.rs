//! Read transactions: one state of the database, pinned until dropped.
//!
//! Beginning one touches memory only. Calls that take a [`MayBlock`] may wait for the disk;
//! [`ReadTx::try_get`] never does. Invariant: pages of the state are not written while it is held.

use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use env::{Access, MayBlock};

use crate::error::{Corruption, Flaw, ReadError};
use crate::fence::{FenceKey, FenceTree, Fences, Leaf, revision_key};
use crate::meta::Meta;
use crate::page::{BUCKET, Page, Root, parse_bucket};
use crate::scan::Scan;
use crate::source::Source;

/// One state of the database. Clones share the pin, which keeps the state's pages and the file.
#[derive(Clone, Debug)]
pub struct ReadTx {
    pub(crate) state: Arc<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub source: Arc<Source>,
    pub meta: Meta,
    pub fences: Fences,
    pub fenced_bucket: Option<&'static [u8]>,
    pub free_pages: u64,
    /// The root bucket's tree if it is one leaf, as in every etcd file; read at first use.
    pub root_leaf: OnceLock<Page>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.source.unpin(self.meta.txid);
    }
}

/// What a read that must not wait found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The value; it shares a page's memory, so copy what is kept for long.
    Found(Bytes),
    /// No such key.
    Absent,
    /// The page is not in memory: ask again with [`ReadTx::get_revision`] where blocking is
    /// allowed. That read also reports a bad device, which shows as `Cold` here.
    Cold,
}

impl ReadTx {
    pub(crate) fn new(state: State) -> Self {
        state.source.pin(state.meta.txid);
        Self { state: Arc::new(state) }
    }

    /// The transaction whose state this is.
    #[must_use]
    pub fn txid(&self) -> u64 {
        self.state.meta.txid
    }

    /// etcd's database size: high-water mark times page size, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.state.meta.hwm * self.state.source.page_size as u64
    }

    /// etcd's size in use: [`ReadTx::size_bytes`] less the pages that were free, in bytes.
    #[must_use]
    pub fn size_in_use_bytes(&self) -> u64 {
        (self.state.meta.hwm - self.state.free_pages) * self.state.source.page_size as u64
    }

    /// Transactions of the database that are open, this one among them; clones count as one.
    #[must_use]
    pub fn open_readers(&self) -> usize {
        self.state.source.pin_count()
    }

    /// Names of the top-level buckets, ascending.
    ///
    /// # Errors
    /// A damaged page or a failed disk.
    pub fn buckets(&self, may: &MayBlock) -> Result<Vec<Bytes>, ReadError> {
        let mut names = Vec::new();
        let everything = (Bound::Unbounded, Bound::Unbounded);
        let root = Root::Page(self.state.meta.root);
        let mut scan = Scan::over(self.clone(), may, Some(root), everything, Access::Scan);
        while let Some(entry) = scan.next_entry()? {
            if entry.flags & BUCKET != 0 {
                names.push(entry.key);
            }
        }
        Ok(names)
    }

    /// The value of a key; `None` if key or bucket do not exist. It shares a page's memory.
    ///
    /// # Errors
    /// A damaged page or a failed disk.
    pub fn get(
        &self,
        may: &MayBlock,
        bucket: &[u8],
        key: &[u8],
    ) -> Result<Option<Bytes>, ReadError> {
        if self.state.fenced_bucket == Some(bucket)
            && let Some(fence_key) = FenceKey::parse(key)
        {
            match &self.state.fences {
                Fences::Missing => return Ok(None),
                Fences::Inline(page) => return Ok(find(page, key, None)),
                Fences::Tree(tree) => {
                    let Some(leaf) = tree.locate(fence_key) else { return Ok(None) };
                    let page = self.leaf(may, leaf, Access::Point)?;
                    return Ok(find(&page, key, guess(leaf, fence_key)));
                }
                Fences::Unknown => {}
            }
        }
        let page = match self.bucket_root(may, bucket)? {
            None => return Ok(None),
            Some(Root::Inline(page)) => page,
            Some(Root::Page(root)) => {
                self.state.source.find_leaf(may, root, key, self.state.meta.hwm)?
            }
        };
        Ok(find(&page, key, None))
    }

    /// The keys and values of a bucket in `range`, ascending; none if the bucket does not exist.
    /// A nested bucket shows as a key with an empty value.
    pub fn scan<'a>(
        &self,
        may: &'a MayBlock,
        bucket: &[u8],
        range: (Bound<&[u8]>, Bound<&[u8]>),
        access: Access,
    ) -> Scan<'a> {
        match self.bucket_root(may, bucket) {
            Ok(root) => Scan::over(self.clone(), may, root, range, access),
            Err(error) => Scan::failed(self.clone(), may, error),
        }
    }

    /// The value of a revision in the fenced bucket, if no disk has to be waited for.
    ///
    /// # Errors
    /// A damaged page, or a file that ends too early.
    pub fn try_get(&self, main: u64, sub: u64, tombstone: bool) -> Result<Lookup, ReadError> {
        let found = |value: Option<Bytes>| value.map_or(Lookup::Absent, Lookup::Found);
        let (bytes, len) = revision_key(main, sub, tombstone);
        let key = &bytes[..len];
        match &self.state.fences {
            Fences::Unknown => Ok(Lookup::Cold),
            Fences::Missing => Ok(Lookup::Absent),
            Fences::Inline(page) => Ok(found(find(page, key, None))),
            Fences::Tree(tree) => {
                // A sub that fences cannot hold is looked for in the tree.
                let Some(fence_key) = FenceKey::new(main, sub, tombstone) else {
                    return Ok(Lookup::Cold);
                };
                let Some(leaf) = tree.locate(fence_key) else { return Ok(Lookup::Absent) };
                let hwm = self.state.meta.hwm;
                let page = match self.state.source.try_page(leaf.page, leaf.overflow, hwm)? {
                    None => return Ok(Lookup::Cold),
                    Some(page) => expect_leaf(page)?,
                };
                Ok(found(find(&page, key, guess(leaf, fence_key))))
            }
        }
    }

    /// [`ReadTx::try_get`] where waiting is allowed: what to do after [`Lookup::Cold`].
    ///
    /// # Errors
    /// A damaged page or a failed disk.
    pub fn get_revision(
        &self,
        may: &MayBlock,
        main: u64,
        sub: u64,
        tombstone: bool,
    ) -> Result<Option<Bytes>, ReadError> {
        let Some(bucket) = self.state.fenced_bucket else { return Ok(None) };
        let (key, len) = revision_key(main, sub, tombstone);
        self.get(may, bucket, &key[..len])
    }

    pub(crate) fn fence_tree(&self) -> Option<&FenceTree> {
        match &self.state.fences {
            Fences::Tree(tree) => Some(tree),
            _ => None,
        }
    }

    fn leaf(&self, may: &MayBlock, leaf: Leaf, access: Access) -> Result<Page, ReadError> {
        let (source, hwm) = (&self.state.source, self.state.meta.hwm);
        expect_leaf(source.page_of_len(may, leaf.page, leaf.overflow, hwm, access)?)
    }

    /// Where a top-level bucket's keys are.
    pub(crate) fn bucket_root(
        &self,
        may: &MayBlock,
        name: &[u8],
    ) -> Result<Option<Root>, ReadError> {
        let State { source, meta, root_leaf, .. } = &*self.state;
        let found;
        let page = match root_leaf.get() {
            Some(page) => page,
            None => {
                found = source.find_leaf(may, meta.root, name, meta.hwm)?;
                if found.id() == meta.root { root_leaf.get_or_init(|| found) } else { &found }
            }
        };
        let (i, equal) = page.view().lower_bound(name);
        if !equal || page.view().flags(i) & BUCKET == 0 {
            return Ok(None);
        }
        Ok(Some(parse_bucket(&page.value_bytes(i), page.id(), meta.hwm)?.0))
    }
}

fn expect_leaf(page: Page) -> Result<Page, ReadError> {
    if page.view().is_leaf() {
        Ok(page)
    } else {
        Err(Corruption::new(page.id(), Flaw::Type).into())
    }
}

/// The slot a revision has if those of its leaf follow each other without gaps; right for nearly
/// all before a compaction, for most after.
fn guess(leaf: Leaf, key: FenceKey) -> Option<usize> {
    usize::try_from(key.main.checked_sub(leaf.key.main)?).ok()
}

/// The value of `key` in a leaf; the slot `guess` is tried before the search.
fn find(page: &Page, key: &[u8], guess: Option<usize>) -> Option<Bytes> {
    let view = page.view();
    let at = match guess {
        Some(i) if i < view.count() && view.key(i) == key => i,
        _ => match view.lower_bound(key) {
            (i, true) => i,
            (_, false) => return None,
        },
    };
    if view.flags(at) & BUCKET != 0 {
        return None;
    }
    Some(page.value_bytes(at))
}
