//! Fences: where each leaf of the bucket of revisions begins, in memory.
//!
//! A fence is the separator of a leaf in the branch above it, 16 bytes. The set is persistent:
//! chunks behind `Arc`s, of which a commit replaces those it touched, so a reader keeps the set of
//! its state. Invariant: fences ascend strictly and name exactly the leaves of the state's tree.
//! Measured in `readpath`: one comparison walk in memory and one page read per point read.

use std::sync::Arc;

use crate::page::Page;

/// Fences per chunk at most.
const CHUNK: usize = 128;
/// Bytes of a revision key: main, `_`, sub.
const LIVE_LEN: usize = 17;
const SUB_LIMIT: u64 = 1 << 31;

/// A revision's key as two numbers that order as its bytes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FenceKey {
    pub main: u64,
    /// `sub << 1 | tombstone`
    sub: u32,
}

impl FenceKey {
    /// Before every revision: the fence of a tree that is one leaf.
    pub(crate) const MIN: Self = Self { main: 0, sub: 0 };

    pub(crate) fn new(main: u64, sub: u64, tombstone: bool) -> Option<Self> {
        (sub < SUB_LIMIT).then(|| Self { main, sub: (sub as u32) << 1 | u32::from(tombstone) })
    }

    /// `None` if the bytes are no revision key, or its sub is 2^31 or more.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let tombstone = match key.len() {
            LIVE_LEN => false,
            18 if key[LIVE_LEN] == b't' => true,
            _ => return None,
        };
        if key[8] != b'_' {
            return None;
        }
        let be = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().expect("eight bytes"));
        Self::new(be(0), be(9), tombstone)
    }
}

/// The key bytes of a revision and how many of them count.
pub(crate) fn revision_key(main: u64, sub: u64, tombstone: bool) -> ([u8; 18], usize) {
    let mut key = *b"\0\0\0\0\0\0\0\0_\0\0\0\0\0\0\0\0t";
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[9..17].copy_from_slice(&sub.to_be_bytes());
    (key, LIVE_LEN + usize::from(tombstone))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fence {
    main: u64,
    sub: u32,
    page: u32,
}

impl Fence {
    fn key(&self) -> FenceKey {
        FenceKey { main: self.main, sub: self.sub }
    }
}

const _: () = assert!(size_of::<Fence>() == 16, "a fence is 16 bytes");

/// A leaf as the fences know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub key: FenceKey,
    pub page: u64,
    pub overflow: u32,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Chunk {
    fences: Vec<Fence>,
    /// (index, overflow) of leaves longer than a page, ascending.
    long: Vec<(u8, u32)>,
}

const _: () = assert!(CHUNK <= 256, "an index in a chunk fits u8");

impl Chunk {
    fn leaf(&self, i: usize) -> Leaf {
        let overflow = match self.long.binary_search_by_key(&i, |(at, _)| usize::from(*at)) {
            Ok(at) => self.long[at].1,
            Err(_) => 0,
        };
        let fence = self.fences[i];
        Leaf { key: fence.key(), page: u64::from(fence.page), overflow }
    }

    fn leaves(&self) -> impl Iterator<Item = Leaf> {
        (0..self.fences.len()).map(|i| self.leaf(i))
    }
}

/// What is known in memory about the fenced bucket of one state.
#[derive(Clone, Debug, Default)]
pub(crate) enum Fences {
    /// No bucket is fenced, it has other keys, or numbers that do not fit: use the tree.
    #[default]
    Unknown,
    /// The bucket does not exist.
    Missing,
    /// The bucket lies in its parent's page, kept here whole.
    Inline(Page),
    Tree(FenceTree),
}

#[derive(Clone, Debug)]
pub(crate) struct FenceTree {
    slots: Arc<[Slot]>,
}

/// A chunk and where it begins, so that the search for a chunk touches no chunk.
#[derive(Clone, Debug)]
struct Slot {
    first: FenceKey,
    chunk: Arc<Chunk>,
}

/// Where [`FenceTree::locate_near`] found the key before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Near {
    chunk: usize,
    fence: usize,
}

/// Leaves that are tried one by one.
const NEAR: usize = 4;

/// Why there are no fences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// A page id does not fit.
    PageId,
    /// They would not ascend, or the edits are of another tree: the file is damaged.
    Mismatch,
}

impl FenceTree {
    /// The set of these leaves.
    pub(crate) fn build(leaves: impl IntoIterator<Item = Leaf>) -> Result<Self, Unfit> {
        let mut builder = Builder::default();
        for leaf in leaves {
            builder.push(leaf)?;
        }
        Ok(builder.finish())
    }

    /// The leaf where `key` belongs; `None` only if there are no leaves.
    pub(crate) fn locate(&self, key: FenceKey) -> Option<Leaf> {
        let after = self.slots.partition_point(|s| s.first <= key);
        let chunk = &self.slots.get(after.saturating_sub(1))?.chunk;
        let after = chunk.fences.partition_point(|f| f.key() <= key);
        Some(chunk.leaf(after.saturating_sub(1)))
    }

    /// As [`FenceTree::locate`], for keys that mostly ascend: if `key` belongs where `near` points or
    /// into one of the next leaves, it is found with few comparisons.
    pub(crate) fn locate_near(&self, key: FenceKey, near: &mut Near) -> Option<Leaf> {
        if self.slots.get(near.chunk + 1).is_none_or(|s| key < s.first)
            && let Some(Slot { chunk, .. }) = self.slots.get(near.chunk)
            && chunk.fences.get(near.fence).is_some_and(|f| f.key() <= key)
        {
            let ahead = &chunk.fences[near.fence + 1..];
            let (close, far) = ahead.split_at(ahead.len().min(NEAR));
            let passed = close.iter().take_while(|f| f.key() <= key).count();
            near.fence += passed;
            if passed == NEAR {
                near.fence += far.partition_point(|f| f.key() <= key);
            }
            return Some(chunk.leaf(near.fence));
        }
        let after = self.slots.partition_point(|s| s.first <= key);
        near.chunk = after.saturating_sub(1);
        let chunk = &self.slots.get(near.chunk)?.chunk;
        let after = chunk.fences.partition_point(|f| f.key() <= key);
        near.fence = after.saturating_sub(1);
        Some(chunk.leaf(near.fence))
    }

    #[cfg(test)]
    pub(crate) fn leaves(&self) -> impl Iterator<Item = Leaf> {
        self.slots.iter().flat_map(|s| s.chunk.leaves())
    }

    /// The set after a commit; untouched chunks are shared.
    pub(crate) fn edited(&self, mut edits: FenceEdits) -> Result<Self, Unfit> {
        let (clear, mut removed) = (edits.clear, std::mem::take(&mut edits.removed));
        let added = edits.sorted();
        if clear {
            return Self::build(added);
        }
        removed.sort_unstable();
        let (mut removed, mut added) = (removed.as_slice(), added.as_slice());
        let mut builder = Builder::default();
        for (i, Slot { chunk, .. }) in self.slots.iter().enumerate() {
            let end = self.slots.get(i + 1).map(|next| next.first);
            let before_end = |key: FenceKey| end.is_none_or(|end| key < end);
            let gone = removed.partition_point(|key| before_end(*key));
            let new = added.partition_point(|leaf| before_end(leaf.key));
            if gone == 0 && new == 0 {
                builder.share(chunk)?;
                continue;
            }
            let mut went = 0;
            let mut come = added[..new].iter().copied().peekable();
            for old in chunk.leaves() {
                if removed[..gone].get(went) == Some(&old.key) {
                    went += 1;
                    continue;
                }
                while let Some(leaf) = come.next_if(|leaf| leaf.key < old.key) {
                    builder.push(leaf)?;
                }
                builder.push(old)?;
            }
            for leaf in come {
                builder.push(leaf)?;
            }
            if went != gone {
                return Err(Unfit::Mismatch);
            }
            (removed, added) = (&removed[gone..], &added[new..]);
        }
        if !removed.is_empty() {
            return Err(Unfit::Mismatch);
        }
        for leaf in added {
            builder.push(*leaf)?;
        }
        Ok(builder.finish())
    }
}

/// Collects ascending leaves into chunks.
#[derive(Default)]
struct Builder {
    done: Vec<Slot>,
    open: Chunk,
    last: Option<FenceKey>,
}

impl Builder {
    fn follow(&mut self, first: FenceKey, last: Option<FenceKey>) -> Result<(), Unfit> {
        if self.last.is_some_and(|last| last >= first) {
            return Err(Unfit::Mismatch);
        }
        self.last = last;
        Ok(())
    }

    fn push(&mut self, leaf: Leaf) -> Result<(), Unfit> {
        self.follow(leaf.key, Some(leaf.key))?;
        let page = u32::try_from(leaf.page).map_err(|_| Unfit::PageId)?;
        if self.open.fences.len() == CHUNK {
            self.close();
        }
        if leaf.overflow > 0 {
            self.open.long.push((self.open.fences.len() as u8, leaf.overflow));
        }
        self.open.fences.push(Fence { main: leaf.key.main, sub: leaf.key.sub, page });
        Ok(())
    }

    /// Takes a whole chunk as it is, unless that would leave a small one before it.
    fn share(&mut self, chunk: &Arc<Chunk>) -> Result<(), Unfit> {
        let open = self.open.fences.len();
        if open > 0 && open < CHUNK / 4 {
            // Two halves rather than a full chunk and a rest, which would spoil the next one too.
            let total = open + chunk.fences.len();
            let half = if total > CHUNK { total / 2 } else { total };
            for leaf in chunk.leaves() {
                if self.open.fences.len() == half {
                    self.close();
                }
                self.push(leaf)?;
            }
            if total > CHUNK {
                self.close();
            }
            return Ok(());
        }
        self.close();
        let first = chunk.fences[0].key();
        self.follow(first, chunk.fences.last().map(Fence::key))?;
        self.done.push(Slot { first, chunk: Arc::clone(chunk) });
        Ok(())
    }

    fn close(&mut self) {
        if !self.open.fences.is_empty() {
            let mut chunk = std::mem::take(&mut self.open);
            chunk.fences.shrink_to_fit();
            self.done.push(Slot { first: chunk.fences[0].key(), chunk: Arc::new(chunk) });
        }
    }

    fn finish(mut self) -> FenceTree {
        self.close();
        FenceTree { slots: self.done.into() }
    }
}

/// What a commit changes in the fenced bucket's leaves.
#[derive(Debug, Default)]
pub(crate) struct FenceEdits {
    /// All old leaves are gone.
    pub clear: bool,
    /// Separators of the old leaves that are gone.
    pub removed: Vec<FenceKey>,
    pub added: Vec<Leaf>,
    /// A key that is no revision was seen: the bucket is not fenced any more.
    pub broken: bool,
}

impl FenceEdits {
    pub(crate) fn remove(&mut self, separator: &[u8]) {
        match FenceKey::parse(separator) {
            Some(key) => self.removed.push(key),
            None => self.broken = true,
        }
    }

    /// The new leaves, ascending.
    pub(crate) fn sorted(mut self) -> Vec<Leaf> {
        self.added.sort_unstable_by_key(|leaf| leaf.key);
        self.added
    }

    /// `first` is `None` for the empty leaf of an empty bucket.
    pub(crate) fn add(&mut self, first: Option<&[u8]>, page: u64, overflow: u32) {
        match first.map_or(Some(FenceKey::MIN), FenceKey::parse) {
            Some(key) => self.added.push(Leaf { key, page, overflow }),
            None => self.broken = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use env::{Entropy, SplitMix};
    use std::collections::BTreeMap;

    fn key(main: u64) -> FenceKey {
        FenceKey::new(main, 0, false).unwrap()
    }

    fn leaf(main: u64, page: u64) -> Leaf {
        Leaf {
            key: key(main),
            page,
            overflow: if page.is_multiple_of(7) { page as u32 % 5 } else { 0 },
        }
    }

    #[test]
    fn keys_order_as_their_bytes_do() {
        let mut keys = Vec::new();
        for (main, sub) in [(1, 0), (1, 1), (1, 300), (2, 0), (256, 0), (u64::MAX, 7)] {
            for tombstone in [false, true] {
                let (bytes, len) = revision_key(main, sub, tombstone);
                let parsed = FenceKey::parse(&bytes[..len]).unwrap();
                assert_eq!(Some(parsed), FenceKey::new(main, sub, tombstone));
                keys.push((bytes[..len].to_vec(), parsed));
            }
        }
        let mut by_bytes = keys.clone();
        by_bytes.sort();
        keys.sort_by_key(|k| k.1);
        assert_eq!(keys, by_bytes);
        assert_eq!(FenceKey::parse(b"12345678-12345678"), None);
        assert_eq!(FenceKey::parse(b"short"), None);
        assert_eq!(FenceKey::new(1, 1 << 31, false), None);
    }

    #[test]
    fn a_search_near_the_last_one_finds_what_any_search_does() {
        let leaves = (1..2_000).map(|i| leaf(i * 10, i + 2));
        let tree = FenceTree::build(leaves).unwrap();
        let mut random = SplitMix::new(3);
        let (mut near, mut at) = (Near::default(), 0_u64);
        for _ in 0..20_000 {
            at = match random.below(20) {
                0 => random.below(21_000),
                1 => at.saturating_sub(random.below(30)),
                2 => at + random.below(3_000),
                _ => at + random.below(30),
            } % 21_000;
            assert_eq!(tree.locate_near(key(at), &mut near), tree.locate(key(at)), "key {at}");
        }
        let empty = FenceTree::build([]).unwrap();
        assert_eq!(empty.locate_near(key(1), &mut near), None);
    }

    #[test]
    fn edits_give_what_a_rebuild_would_and_share_the_rest() {
        let mut model: BTreeMap<u64, u64> = (0..5_000).map(|i| (i * 10, i + 2)).collect();
        let build = |model: &BTreeMap<u64, u64>| {
            FenceTree::build(model.iter().map(|(m, p)| leaf(*m, *p))).unwrap()
        };
        let mut tree = build(&model);
        let mut random = SplitMix::new(5);
        let mut page = 10_000;
        for round in 0..300 {
            let mut edits = FenceEdits::default();
            let near = random.below(50_000);
            for _ in 0..random.below(40) {
                let at =
                    if round % 2 == 0 { random.below(50_000) } else { near + random.below(500) };
                page += 1;
                let (bytes, len) = revision_key(at, 0, false);
                if let Some(old) = model.insert(at, page) {
                    if !edits.added.iter().any(|l| l.page == old) {
                        edits.remove(&bytes[..len]);
                    } else {
                        edits.added.retain(|l| l.page != old);
                    }
                }
                edits.added.push(leaf(at, page));
            }
            let few = edits.added.len() < 5;
            let next = tree.edited(edits).unwrap();
            assert!(next.leaves().eq(build(&model).leaves()), "round {round}");
            if few && round % 2 == 1 {
                let shared = |s: &&Slot| tree.slots.iter().any(|t| Arc::ptr_eq(&s.chunk, &t.chunk));
                let fresh = next.slots.iter().filter(|s| !shared(s)).count();
                assert!(fresh < 8, "{fresh} chunks copied for a small edit");
            }
            tree = next;
            for _ in 0..20 {
                let probe = random.below(50_010);
                let expect = model.range(..=probe).next_back().or(model.first_key_value());
                let found = tree.locate(key(probe)).unwrap();
                assert_eq!((found.key.main, found.page), expect.map(|(k, p)| (*k, *p)).unwrap());
            }
        }
    }
}
