//! Compaction of the index, in slices.
//!
//! At compact revision C a stored version is dead if a change at or below C superseded it, and a
//! tombstone if it is older than C; one exactly at C stays, as in etcd
//! (//= etcd 3.7.1: server/storage/mvcc/key_index.go#compact). Three queues hold the work: the
//! history's front, the tombstones' front, and the tree below slots whose `min_tomb` is older than
//! C. Records that stay are never fixed up.

use std::sync::Arc;

use super::Index;
use super::keys::Keys;
use super::node::{Branch, Kid, Leaf, NEVER, Node, Shape, oldest_tombstone};
use super::record::Record;

/// A stored version that compaction removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dead {
    pub(crate) main: u64,
    pub(crate) sub: u32,
    pub(crate) tombstone: bool,
}

impl Index {
    /// Does up to about `budget` units of compaction at `horizon` and hands out what died.
    /// True when nothing is left to do at that revision.
    pub(crate) fn compact_step(
        &mut self,
        horizon: u64,
        budget: usize,
        mut dead: impl FnMut(Dead),
    ) -> bool {
        let mut left = budget;
        let history = &mut self.tree.history;
        let mut at = history.start();
        while left > 0 && at < history.end() {
            let entry = history.entry(at);
            if entry.by > horizon {
                break;
            }
            // A superseded tombstone is in the tombstones' queue too, and only that removes it.
            if !entry.record.is_tombstone() {
                let Record { main, .. } = entry.record;
                dead(Dead { main, sub: entry.record.sub(), tombstone: false });
            }
            at += 1;
            left -= 1;
        }
        history.trim(at);
        while left > 0 {
            match self.tombstones.front() {
                Some(&(main, sub)) if main < horizon => {
                    dead(Dead { main, sub, tombstone: true });
                    self.tombstones.pop_front();
                    left -= 1;
                }
                _ => break,
            }
        }
        while left > 0 && self.tree.root.min_tomb < horizon {
            let mut sweep = Sweep { horizon, shape: self.shape, left };
            sweep.below(&mut self.tree.root);
            left = sweep.left;
            flatten_root(&mut self.tree.root);
        }
        left > 0
    }
}

fn flatten_root(root: &mut Kid) {
    while let Node::Branch(branch) = &root.node {
        match branch.kids.as_slice() {
            [] => *root = Kid::empty(),
            [only] => *root = only.clone(),
            _ => break,
        }
    }
}

struct Sweep {
    horizon: u64,
    shape: Shape,
    left: usize,
}

impl Sweep {
    fn spend(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
    }

    /// Removes tombstones older than the horizon below `kid`, as far as the budget goes, and
    /// leaves its `min_tomb` true.
    fn below(&mut self, kid: &mut Kid) {
        self.spend(1);
        match &mut kid.node {
            Node::Leaf(leaf) => {
                self.leaf(leaf);
                kid.min_tomb = oldest_tombstone(&leaf.records);
            }
            Node::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                self.branch(branch);
                kid.min_tomb = branch.kids.iter().map(|k| k.min_tomb).min().unwrap_or(NEVER);
            }
        }
    }

    fn leaf(&mut self, leaf: &mut Arc<Leaf>) {
        let horizon = self.horizon;
        let is_dead = |r: &Record| r.is_tombstone() && r.main < horizon;
        let removed = leaf.records.iter().filter(|r| is_dead(r)).count();
        if removed == 0 {
            return; // `min_tomb` was only a lower bound; nothing is copied
        }
        self.spend(removed);
        let leaf = Arc::make_mut(leaf);
        leaf.keys = leaf.keys.retain(|i| !is_dead(&leaf.records[i]));
        leaf.records.retain(|r| !is_dead(r));
        if leaf.records.capacity() > leaf.records.len() * 3 / 2 {
            leaf.records.shrink_to_fit();
        }
    }

    fn branch(&mut self, branch: &mut Branch) {
        let mut i = 0;
        while i < branch.kids.len() && self.left > 0 {
            if branch.kids[i].min_tomb < self.horizon {
                self.below(&mut branch.kids[i]);
                if is_empty(&branch.kids[i]) {
                    branch.kids.remove(i);
                    if !branch.separators.is_empty() {
                        branch.separators.remove(i.saturating_sub(1));
                    }
                    continue;
                }
                if i > 0 && merge(branch, i - 1, self.shape) {
                    continue; // the next one slid into this place
                }
            }
            i += 1;
        }
    }
}

fn is_empty(kid: &Kid) -> bool {
    match &kid.node {
        Node::Leaf(leaf) => leaf.records.is_empty(),
        Node::Branch(branch) => branch.kids.is_empty(),
    }
}

/// Merges child `i + 1` into child `i` if it is small and both fit with room to grow.
fn merge(branch: &mut Branch, i: usize, shape: Shape) -> bool {
    let (left, right) = branch.kids.split_at_mut(i + 1);
    let (left, right) = (&mut left[i], &right[0]);
    match (&mut left.node, &right.node) {
        (Node::Leaf(a), Node::Leaf(b)) => {
            let (m, n) = (a.records.len(), b.records.len());
            let bytes = a.keys.size_bytes() + b.keys.size_bytes();
            if n >= shape.leaf / 3 || m + n > shape.leaf * 3 / 4 || bytes > shape.leaf_key_bytes / 2
            {
                return false;
            }
            let a = Arc::make_mut(a);
            a.keys = a.keys.concat(None, &b.keys);
            a.records.extend_from_slice(&b.records);
            a.live += b.live;
            a.last_at_end = false;
        }
        (Node::Branch(a), Node::Branch(b)) => {
            let (m, n) = (a.kids.len(), b.kids.len());
            if n >= shape.branch / 3 || m + n > shape.branch * 3 / 4 {
                return false;
            }
            let between = branch.separators.key(i);
            let a = Arc::make_mut(a);
            a.separators = a.separators.concat(Some(&between), &b.separators);
            a.kids.extend_from_slice(&b.kids);
        }
        _ => unreachable!("all leaves have the same depth"),
    }
    left.live += right.live;
    left.last_life = left.last_life.max(right.last_life);
    left.min_tomb = left.min_tomb.min(right.min_tomb);
    branch.kids.remove(i + 1);
    branch.separators.remove(i);
    true
}

impl Keys {
    /// Whether the tree's order holds within one node (tests).
    #[cfg(test)]
    pub(crate) fn ascend(&self) -> bool {
        (1..self.len()).all(|i| self.key(i - 1) < self.key(i))
    }
}
