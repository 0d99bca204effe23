//! Nodes of the copy-on-write B+tree and the change of one key.
//!
//! Invariants: a node is changed only through `Arc::make_mut`, so one that a View shares is copied
//! and one that only the writer holds is changed in place; `live`, `last_life` and `min_tomb` of a
//! slot cover its whole subtree, `live` exactly, the other two conservatively.

use std::sync::Arc;

use super::history::History;
use super::keys::{Keys, common_prefix, size_class};
use super::record::Record;
use super::versions::WideVersions;

/// "No tombstone below": later than every revision.
pub(crate) const NEVER: u64 = u64::MAX;

/// How large nodes grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Records per leaf.
    pub(crate) leaf: usize,
    /// Children per branch.
    pub(crate) branch: usize,
    /// Bytes of keys beyond which a leaf of two keys or more splits.
    pub(crate) leaf_key_bytes: usize,
}

impl Shape {
    /// Measured best for 1M keys of 64 B: small copies per update, still 86-108 B per key.
    pub(crate) const STANDARD: Self = Self { leaf: 64, branch: 16, leaf_key_bytes: 48 << 10 };
}

/// The newest record of each of some keys. Records lie apart from keys: an update copies at most
/// 2 KiB of records and never a key.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) keys: Keys,
    pub(crate) records: Vec<Record>,
    pub(crate) live: u32,
    /// The last insert was at the end: a second one there splits off only itself, so ascending
    /// inserts fill leaves and descending ones do not leave single keys behind.
    pub(crate) last_at_end: bool,
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self { keys: self.keys.clone(), records: roomy(&self.records), ..*self }
    }
}

/// Children with the shortest keys that separate them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Branch {
    pub(crate) separators: Keys,
    pub(crate) kids: Vec<Kid>,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Leaf(Arc<Leaf>),
    Branch(Arc<Branch>),
}

/// A child slot with what is known about its subtree.
#[derive(Clone, Debug)]
pub(crate) struct Kid {
    pub(crate) node: Node,
    /// Keys that are not deleted.
    pub(crate) live: u64,
    /// Newest main revision at which a key was born or died: at or after it, the number of keys
    /// is `live`.
    pub(crate) last_life: u64,
    /// No tombstone is older than this.
    pub(crate) min_tomb: u64,
}

/// A copy with capacity up to the allocator's class.
fn roomy(records: &[Record]) -> Vec<Record> {
    let mut copy = Vec::with_capacity(capacity_for(records.len()));
    copy.extend_from_slice(records);
    copy
}

pub(crate) fn capacity_for(records: usize) -> usize {
    size_class(records * size_of::<Record>()) / size_of::<Record>()
}

pub(crate) fn count_live(records: &[Record]) -> u32 {
    records.iter().filter(|r| !r.is_tombstone()).count() as u32
}

pub(crate) fn oldest_tombstone(records: &[Record]) -> u64 {
    records.iter().filter(|r| r.is_tombstone()).map(|r| r.main).min().unwrap_or(NEVER)
}

/// The shortest key that is above all of `left` and not above `right`'s first.
fn separator(left: &Keys, right: &Keys) -> Vec<u8> {
    let last = left.key(left.len() - 1);
    let mut first = right.key(0);
    first.truncate(common_prefix(&last, &first) + 1);
    first
}

impl Branch {
    /// The child that covers `key`.
    pub(crate) fn child(&self, key: &[u8]) -> usize {
        match self.separators.search(key) {
            Ok(i) => i + 1,
            Err(i) => i,
        }
    }
}

impl Kid {
    pub(crate) fn leaf(keys: Keys, records: Vec<Record>, last_life: u64, min_tomb: u64) -> Self {
        let live = count_live(&records);
        let leaf = Leaf { keys, records, live, last_at_end: false };
        Self { node: Node::Leaf(Arc::new(leaf)), live: u64::from(live), last_life, min_tomb }
    }

    pub(crate) fn empty() -> Self {
        Self::leaf(Keys::default(), Vec::new(), 0, NEVER)
    }

    pub(crate) fn branch(separators: Keys, kids: Vec<Kid>) -> Self {
        debug_assert_eq!(separators.len() + 1, kids.len());
        let live = kids.iter().map(|k| k.live).sum();
        let last_life = kids.iter().map(|k| k.last_life).max().unwrap_or(0);
        let min_tomb = kids.iter().map(|k| k.min_tomb).min().unwrap_or(NEVER);
        Self {
            node: Node::Branch(Arc::new(Branch { separators, kids })),
            live,
            last_life,
            min_tomb,
        }
    }

    /// The newest record of `key`, a tombstone too.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<&Record> {
        let mut node = &self.node;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.keys.search(key).ok().map(|i| &leaf.records[i]),
                Node::Branch(branch) => node = &branch.kids[branch.child(key)].node,
            }
        }
    }

    fn account(&mut self, change: &Change<'_>) {
        self.live = self.live.wrapping_add_signed(change.births);
        if change.births != 0 {
            self.last_life = change.main;
        }
        if change.births < 0 {
            self.min_tomb = self.min_tomb.min(change.main);
        }
    }

    /// Applies `change` below this slot, which is the root, growing the tree if it splits.
    pub(crate) fn apply_at_root(&mut self, change: &mut Change<'_>) {
        let split = change.apply(&mut self.node);
        self.account(change);
        if let Some((separator, mut right)) = split {
            let mut left = self.clone();
            left.live -= right.live;
            right.min_tomb = left.min_tomb;
            *self = Self::branch(Keys::from_sorted(1, |_| &separator), vec![left, right]);
        }
    }
}

/// One change of one key on its way down the tree.
pub(crate) struct Change<'a> {
    pub(crate) history: &'a mut History,
    pub(crate) wide: &'a mut WideVersions,
    pub(crate) shape: Shape,
    pub(crate) key: &'a [u8],
    pub(crate) main: u64,
    pub(crate) sub: u32,
    pub(crate) len: u32,
    pub(crate) delete: bool,
    /// +1 if the key came to life, -1 if it died.
    pub(crate) births: i64,
}

type Split = Option<(Vec<u8>, Kid)>;

impl Change<'_> {
    fn apply(&mut self, node: &mut Node) -> Split {
        match node {
            Node::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                match leaf.keys.search(self.key) {
                    Ok(i) => {
                        self.supersede(leaf, i);
                        None
                    }
                    Err(i) => self.insert(leaf, i),
                }
            }
            Node::Branch(branch) => {
                let i = branch.child(self.key);
                let branch = Arc::make_mut(branch);
                let kid = &mut branch.kids[i];
                let split = self.apply(&mut kid.node);
                kid.account(self);
                let (separator, mut right) = split?;
                kid.live -= right.live;
                right.min_tomb = kid.min_tomb; // a lower bound will do
                branch.kids.insert(i + 1, right);
                branch.separators.insert(i, &separator);
                split_branch(branch, i, self.shape)
            }
        }
    }

    /// Pushes the current version of key `i` into the history and replaces it.
    fn supersede(&mut self, leaf: &mut Leaf, i: usize) {
        let old = leaf.records[i];
        assert!((old.main, old.sub()) < (self.main, self.sub), "changes come in order");
        let create = if old.is_tombstone() && !self.delete { self.main } else { old.create };
        let mut new = Record::first(self.main, self.sub, create, self.len, self.delete);
        new.set_prev(self.history.push(old, self.main));
        if self.delete {
            assert!(!old.is_tombstone(), "only live keys are deleted");
            new.version = 0;
            leaf.live -= 1;
            self.births = -1;
        } else if old.is_tombstone() {
            leaf.live += 1;
            self.births = 1;
        } else {
            let version = self.wide.version(self.key, &old);
            new.set_version(version + 1);
            self.wide.note(self.key, self.main, version, version + 1);
        }
        leaf.records[i] = new;
    }

    fn insert(&mut self, leaf: &mut Leaf, i: usize) -> Split {
        assert!(!self.delete, "only live keys are deleted");
        let n = leaf.records.len();
        if leaf.records.capacity() == n {
            leaf.records.reserve_exact(capacity_for(n + 1) - n);
        }
        leaf.records.insert(i, Record::first(self.main, self.sub, self.main, self.len, false));
        leaf.keys.insert(i, self.key);
        leaf.live += 1;
        self.births = 1;
        let at_end = i == n;
        let too_big = n + 1 > self.shape.leaf
            || (n > 0 && leaf.keys.size_bytes() > self.shape.leaf_key_bytes);
        if !too_big {
            leaf.last_at_end = at_end;
            return None;
        }
        let cut = if at_end && leaf.last_at_end { n } else { n.div_ceil(2).max(1) };
        let right_keys = leaf.keys.slice(cut, n + 1);
        let right_records = roomy(&leaf.records[cut..]);
        leaf.keys = leaf.keys.slice(0, cut);
        leaf.records = roomy(&leaf.records[..cut]);
        leaf.live = count_live(&leaf.records);
        leaf.last_at_end = false;
        let separator = separator(&leaf.keys, &right_keys);
        let mut right = Kid::leaf(right_keys, right_records, self.main, NEVER);
        if let Node::Leaf(leaf) = &mut right.node {
            Arc::make_mut(leaf).last_at_end = at_end;
        }
        Some((separator, right))
    }
}

/// Splits a branch that grew beyond its size; `grew` is the child that split.
fn split_branch(branch: &mut Branch, grew: usize, shape: Shape) -> Split {
    let n = branch.kids.len();
    if n <= shape.branch {
        return None;
    }
    // Growth at the end leaves a full node behind.
    let cut = if grew + 2 == n { n - 2 } else { n / 2 };
    let right_kids = branch.kids.split_off(cut);
    branch.kids.shrink_to_fit();
    let separator = branch.separators.key(cut - 1);
    let right_separators = branch.separators.slice(cut, n - 1);
    branch.separators = branch.separators.slice(0, cut - 1);
    Some((separator, Kid::branch(right_separators, right_kids)))
}
