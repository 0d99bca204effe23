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

/// The shortest key that is above `last` and not above `first`.
pub(crate) fn separator(last: &[u8], first: &[u8]) -> Vec<u8> {
    first[..first.len().min(common_prefix(last, first) + 1)].to_vec()
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
    /// A leaf of which nothing is known about births and deaths.
    fn leaf(keys: Keys, records: Vec<Record>) -> Self {
        let live = count_live(&records);
        let leaf = Leaf { keys, records, live, last_at_end: false };
        let node = Node::Leaf(Arc::new(leaf));
        Self { node, live: u64::from(live), last_life: 0, min_tomb: NEVER }
    }

    pub(crate) fn empty() -> Self {
        Self::leaf(Keys::default(), Vec::new())
    }

    /// A leaf of records whose history is in place.
    pub(crate) fn loaded_leaf(keys: Keys, records: Vec<Record>) -> Self {
        let life = |r: &Record| if r.is_tombstone() { r.main } else { r.create };
        let last_life = records.iter().map(life).max().unwrap_or(0);
        let min_tomb = oldest_tombstone(&records);
        Self { last_life, min_tomb, ..Self::leaf(keys, records) }
    }

    /// Whether there is no key at all below.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.node, Node::Leaf(leaf) if leaf.records.is_empty())
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
        self.last_life = self.last_life.max(change.life);
        self.min_tomb = self.min_tomb.min(change.tombstone);
    }

    /// Takes off what went to `right`, the new sibling, which knows its `live` only.
    fn share_with(&mut self, right: &mut Kid) {
        self.live -= right.live;
        right.last_life = self.last_life;
        right.min_tomb = self.min_tomb;
    }

    /// Applies `change` below this slot, which is the root, growing the tree if it splits.
    pub(crate) fn apply_at_root(&mut self, change: &mut Change<'_>) {
        let split = change.apply(&mut self.node);
        self.account(change);
        if let Some((separator, mut right)) = split {
            let mut left = self.clone();
            left.share_with(&mut right);
            *self = Self::branch(Keys::from_sorted(1, |_| &separator), vec![left, right]);
        }
    }
}

/// Stores a put: gets the version alive before, with its counter, and returns the bytes stored.
pub(crate) type Fill<'f> = dyn FnMut(Option<(Record, u64)>) -> u32 + 'f;

/// What happens to a key.
pub(crate) enum Action<'a> {
    /// A put (which `fill` stores once the version before is known) or a deletion supersedes what
    /// there is.
    Supersede {
        history: &'a mut History,
        wide: &'a mut WideVersions,
        main: u64,
        sub: u32,
        fill: Option<&'a mut Fill<'a>>,
    },
    /// The newest record is known; the history has been taken care of.
    Load(Record),
}

/// One change of one key on its way down the tree.
pub(crate) struct Change<'a> {
    shape: Shape,
    key: &'a [u8],
    action: Action<'a>,
    /// +1 if the key came to life, -1 if it died.
    births: i64,
    /// When the key was last born or died, as far as this change tells.
    life: u64,
    /// The tombstone this change leaves, or [`NEVER`].
    tombstone: u64,
}

type Split = Option<(Vec<u8>, Kid)>;

impl<'a> Change<'a> {
    pub(crate) fn new(shape: Shape, key: &'a [u8], action: Action<'a>) -> Self {
        Self { shape, key, action, births: 0, life: 0, tombstone: NEVER }
    }

    fn apply(&mut self, node: &mut Node) -> Split {
        match node {
            Node::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                match leaf.keys.search(self.key) {
                    Ok(i) => {
                        let old = leaf.records[i];
                        leaf.records[i] = self.record(leaf, Some(old));
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
                kid.share_with(&mut right);
                branch.kids.insert(i + 1, right);
                branch.separators.insert(i, &separator);
                split_branch(branch, i, self.shape)
            }
        }
    }

    /// The key's new record; accounts for it in the leaf and in this change.
    fn record(&mut self, leaf: &mut Leaf, old: Option<Record>) -> Record {
        let new = match &mut self.action {
            Action::Load(record) => *record,
            Action::Supersede { history, wide, main, sub, fill } => {
                let (main, tombstone) = (*main, fill.is_none());
                let alive = old.filter(|old| !old.is_tombstone());
                let alive = alive.map(|old| (old, wide.version(self.key, &old)));
                assert!(alive.is_some() || !tombstone, "only live keys are deleted");
                let len = fill.as_mut().map_or(0, |fill| fill(alive));
                let create = alive.map_or(main, |(old, _)| old.create);
                let mut new = Record::first(main, *sub, create, len, tombstone);
                if let Some(old) = old {
                    assert!((old.main, old.sub()) < (main, *sub), "changes come in order");
                    new.set_prev(history.push(old, main));
                }
                if let (Some((_, version)), false) = (alive, tombstone) {
                    new.set_version(version + 1);
                    wide.note(self.key, main, version, version + 1);
                }
                new
            }
        };
        let was_alive = old.is_some_and(|old| !old.is_tombstone());
        self.births = i64::from(!new.is_tombstone()) - i64::from(was_alive);
        leaf.live = leaf.live.wrapping_add_signed(self.births as i32);
        if new.is_tombstone() {
            (self.life, self.tombstone) = (new.main, new.main);
        } else if self.births != 0 || matches!(self.action, Action::Load(_)) {
            self.life = new.create;
        }
        new
    }

    fn insert(&mut self, leaf: &mut Leaf, i: usize) -> Split {
        let n = leaf.records.len();
        if leaf.records.capacity() == n {
            leaf.records.reserve_exact(capacity_for(n + 1) - n);
        }
        let record = self.record(leaf, None);
        leaf.records.insert(i, record);
        leaf.keys.insert(i, self.key);
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
        let separator = separator(&leaf.keys.key(cut - 1), &right_keys.key(0));
        let mut right = Kid::leaf(right_keys, right_records);
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
