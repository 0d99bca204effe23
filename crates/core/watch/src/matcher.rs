//! An index that finds the watchers of a key.
//!
//! Single keys are in a hash map, ranges in an interval tree. Watchers are plain numbers here
//! ("members"); the order in which they are found never depends on a hash.

use bytes::Bytes;
use env::{HashSeed, KeyMap};

use crate::interval::{End, IntervalTree, add_member, remove_member};

/// The keys that a watcher wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// One key.
    One(Bytes),
    /// The keys from `start` up to, not including, `end`; `None` for no end.
    Range {
        /// First key.
        start: Bytes,
        /// End of the range, exclusive; `None` for no end.
        end: Option<Bytes>,
    },
}

impl Keys {
    /// The keys of a watch request: an empty key means the smallest, an empty end a single key,
    /// an end of one zero byte no end. `None` if the range is empty.
    //= etcd 3.7.1: server/etcdserver/api/v3rpc/watch.go#recvLoop
    #[must_use]
    pub fn of_request(key: Bytes, range_end: Bytes) -> Option<Self> {
        let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key };
        match &range_end[..] {
            [] => Some(Keys::One(key)),
            [0] => Some(Keys::Range { start: key, end: None }),
            end if key[..] >= *end => None,
            _ => Some(Keys::Range { start: key, end: Some(range_end) }),
        }
    }

    /// Whether `key` is one of them.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Keys::One(one) => one == key,
            Keys::Range { start, end } => {
                &start[..] <= key && end.as_ref().is_none_or(|end| key < &end[..])
            }
        }
    }
}

/// An index from keys to the members that want them.
#[derive(Debug)]
pub struct Matcher {
    /// Never iterated.
    single: KeyMap<Bytes, Vec<u32>>,
    ranges: IntervalTree,
    ranged: usize,
}

impl Matcher {
    /// An empty index; `seed` is for the hash map of single keys.
    #[must_use]
    pub fn new(seed: HashSeed) -> Self {
        Self { single: KeyMap::with_hasher(seed), ranges: IntervalTree::default(), ranged: 0 }
    }

    /// Adds a member.
    pub fn insert(&mut self, keys: &Keys, member: u32) {
        match keys {
            Keys::One(key) => match self.single.get_mut(key) {
                Some(members) => add_member(members, member),
                None => {
                    self.single.insert(key.clone(), vec![member]);
                }
            },
            Keys::Range { start, end } => {
                self.ranged += 1;
                self.ranges.insert(start, end, member);
            }
        }
    }

    /// Removes a member that was added with the same keys.
    pub fn remove(&mut self, keys: &Keys, member: u32) {
        match keys {
            Keys::One(key) => {
                let Some(members) = self.single.get_mut(key) else { return };
                remove_member(members, member);
                if members.is_empty() {
                    self.single.remove(key);
                    if self.single.is_empty() {
                        self.single = KeyMap::with_hasher(*self.single.hasher()); // a burst leaves no memory behind
                    }
                }
            }
            Keys::Range { start, end } => {
                self.ranged -= 1;
                self.ranges.remove(start, end as &End, member);
            }
        }
    }

    /// Appends the members that want `key`.
    pub fn find(&self, key: &[u8], found: &mut Vec<u32>) {
        if let Some(members) = self.single.get(key) {
            found.extend_from_slice(members);
        }
        if self.ranged > 0 {
            self.ranges.stab(key, &mut |members| found.extend_from_slice(members));
        }
    }
}
