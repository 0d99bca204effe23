//! Which intervals hold a key: a treap over the starts, each node with the greatest end below it.
//!
//! Priorities come from a counter through a mixing function, so that equal sequences of calls give
//! equal trees. Equal intervals share a node.

use std::cmp::Ordering;

use bytes::Bytes;

const NIL: u32 = u32::MAX;

/// An exclusive end of a range of keys; `None` is behind every key.
pub(crate) type End = Option<Bytes>;

fn cmp_ends(a: &End, b: &End) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, _) => Ordering::Greater,
        (_, None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

fn is_before(key: &[u8], end: &End) -> bool {
    end.as_ref().is_none_or(|end| key < &end[..])
}

#[derive(Debug)]
struct Node {
    start: Bytes,
    end: End,
    /// The greatest end in the subtree.
    reach: End,
    priority: u64,
    left: u32,
    right: u32,
    /// Ascending.
    members: Vec<u32>,
}

/// Intervals with their members.
#[derive(Debug)]
pub(crate) struct IntervalTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    counter: u64,
}

impl Default for IntervalTree {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NIL, counter: 0 }
    }
}

/// The finalizer of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl IntervalTree {
    fn at(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    fn at_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    fn order(&self, start: &[u8], end: &End, node: u32) -> Ordering {
        let node = self.at(node);
        start.cmp(&node.start[..]).then_with(|| cmp_ends(end, &node.end))
    }

    fn find(&self, start: &[u8], end: &End) -> Option<u32> {
        let mut node = self.root;
        while node != NIL {
            node = match self.order(start, end, node) {
                Ordering::Equal => return Some(node),
                Ordering::Less => self.at(node).left,
                Ordering::Greater => self.at(node).right,
            };
        }
        None
    }

    /// Adds a member to an interval.
    pub(crate) fn insert(&mut self, start: &Bytes, end: &End, member: u32) {
        if let Some(node) = self.find(start, end) {
            add_member(&mut self.at_mut(node).members, member);
            return;
        }
        self.counter += 1;
        let node = Node {
            start: start.clone(),
            end: end.clone(),
            reach: end.clone(),
            priority: mix(self.counter),
            left: NIL,
            right: NIL,
            members: vec![member],
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 intervals")
            }
        };
        self.root = self.link(self.root, at);
    }

    /// Removes a member from an interval.
    pub(crate) fn remove(&mut self, start: &[u8], end: &End, member: u32) {
        let Some(node) = self.find(start, end) else { return };
        remove_member(&mut self.at_mut(node).members, member);
        if self.at(node).members.is_empty() {
            self.root = self.unlink(self.root, start, end);
            let node_mut = self.at_mut(node);
            (node_mut.start, node_mut.end, node_mut.reach) = (Bytes::new(), None, None);
            self.free.push(node);
        }
    }

    /// Calls `found` with the members of every interval that holds `key`.
    pub(crate) fn stab(&self, key: &[u8], found: &mut impl FnMut(&[u32])) {
        self.stab_below(self.root, key, found);
    }

    fn stab_below(&self, node: u32, key: &[u8], found: &mut impl FnMut(&[u32])) {
        if node == NIL || !is_before(key, &self.at(node).reach) {
            return;
        }
        let here = self.at(node);
        self.stab_below(here.left, key, found);
        if &here.start[..] <= key {
            if is_before(key, &here.end) {
                found(&here.members);
            }
            self.stab_below(here.right, key, found);
        }
    }

    fn update(&mut self, node: u32) {
        let mut reach = &self.at(node).end;
        for child in [self.at(node).left, self.at(node).right] {
            if child != NIL && cmp_ends(&self.at(child).reach, reach).is_gt() {
                reach = &self.at(child).reach;
            }
        }
        let reach = reach.clone();
        self.at_mut(node).reach = reach;
    }

    fn link(&mut self, root: u32, new: u32) -> u32 {
        if root == NIL {
            return new;
        }
        let (start, end) = (self.at(new).start.clone(), self.at(new).end.clone());
        if self.at(new).priority > self.at(root).priority {
            let (left, right) = self.split(root, &start, &end);
            (self.at_mut(new).left, self.at_mut(new).right) = (left, right);
            self.update(new);
            return new;
        }
        if self.order(&start, &end, root).is_lt() {
            let left = self.link(self.at(root).left, new);
            self.at_mut(root).left = left;
        } else {
            let right = self.link(self.at(root).right, new);
            self.at_mut(root).right = right;
        }
        self.update(root);
        root
    }

    /// What is before an interval, and what is not.
    fn split(&mut self, root: u32, start: &[u8], end: &End) -> (u32, u32) {
        if root == NIL {
            return (NIL, NIL);
        }
        if self.order(start, end, root).is_gt() {
            let (left, right) = self.split(self.at(root).right, start, end);
            self.at_mut(root).right = left;
            self.update(root);
            (root, right)
        } else {
            let (left, right) = self.split(self.at(root).left, start, end);
            self.at_mut(root).left = right;
            self.update(root);
            (left, root)
        }
    }

    fn unlink(&mut self, root: u32, start: &[u8], end: &End) -> u32 {
        match self.order(start, end, root) {
            Ordering::Equal => return self.merge(self.at(root).left, self.at(root).right),
            Ordering::Less => {
                let left = self.unlink(self.at(root).left, start, end);
                self.at_mut(root).left = left;
            }
            Ordering::Greater => {
                let right = self.unlink(self.at(root).right, start, end);
                self.at_mut(root).right = right;
            }
        }
        self.update(root);
        root
    }

    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL || right == NIL {
            return if left == NIL { right } else { left };
        }
        if self.at(left).priority > self.at(right).priority {
            let merged = self.merge(self.at(left).right, right);
            self.at_mut(left).right = merged;
            self.update(left);
            left
        } else {
            let merged = self.merge(left, self.at(right).left);
            self.at_mut(right).left = merged;
            self.update(right);
            right
        }
    }
}

/// Adds to an ascending list.
pub(crate) fn add_member(members: &mut Vec<u32>, member: u32) {
    if let Err(at) = members.binary_search(&member) {
        members.insert(at, member);
    }
}

/// Removes from an ascending list.
pub(crate) fn remove_member(members: &mut Vec<u32>, member: u32) {
    if let Ok(at) = members.binary_search(&member) {
        members.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use env::{Entropy, SplitMix};

    #[test]
    fn stabbing_finds_what_a_linear_search_finds() {
        for seed in 0..40 {
            let mut random = SplitMix::new(seed);
            let mut tree = IntervalTree::default();
            let mut model: Vec<(Bytes, End, u32)> = Vec::new();
            let key = |random: &mut SplitMix| {
                let len = 1 + random.below(3);
                (0..len).map(|_| b'a' + random.below(4) as u8).collect::<Vec<u8>>()
            };
            for member in 0..300 {
                if random.below(3) == 0 && !model.is_empty() {
                    let (start, end, member) =
                        model.swap_remove(random.below(model.len() as u64) as usize);
                    tree.remove(&start, &end, member);
                } else {
                    let start = Bytes::from(key(&mut random));
                    let end = (random.below(5) > 0).then(|| {
                        let mut end = start.to_vec();
                        end.extend(key(&mut random));
                        Bytes::from(end)
                    });
                    tree.insert(&start, &end, member);
                    model.push((start, end, member));
                }
                let probe = key(&mut random);
                let mut found = Vec::new();
                tree.stab(&probe, &mut |members| found.extend_from_slice(members));
                found.sort_unstable();
                let mut want: Vec<u32> = model
                    .iter()
                    .filter(|(s, e, _)| s[..] <= probe[..] && is_before(&probe, e))
                    .map(|m| m.2)
                    .collect();
                want.sort_unstable();
                assert_eq!(found, want, "seed {seed}");
            }
            for (start, end, member) in model.drain(..) {
                tree.remove(&start, &end, member);
            }
            assert_eq!((tree.root, tree.free.len()), (NIL, tree.nodes.len()));
        }
    }
}
