//! Building the index from the database: rows come in revision order, the tree is built at once.
//!
//! Each distinct key is held once while rows arrive, with its newest record; what a row supersedes
//! goes straight into the history. At the end the keys are sorted and packed into full nodes.

use std::hash::{BuildHasher, RandomState};

use super::Index;
use super::keys::{Keys, common_prefix, size_class};
use super::node::{Kid, Shape, capacity_for, oldest_tombstone};
use super::record::{MAX_CHANGES_PER_REVISION, Record};

/// One row of the key bucket, decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) main: u64,
    pub(crate) sub: u64,
    pub(crate) create: u64,
    pub(crate) version: u64,
    pub(crate) len: u32,
    pub(crate) tombstone: bool,
}

/// Why a row cannot be indexed: the database is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRow;

struct Slot {
    key_at: u64,
    key_len: u32,
    record: Record,
}

/// An index under construction.
pub(crate) struct Builder {
    index: Index,
    keys: Vec<u8>,
    slots: Vec<Slot>,
    table: Table,
    last: (u64, u64),
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            index: Index::new(),
            keys: Vec::new(),
            slots: Vec::new(),
            table: Table::new(),
            last: (0, 0),
        }
    }

    /// Takes the next row; rows ascend by (main, sub). Returns the number of its key, the same for
    /// every row of that key, and whether it is new.
    pub(crate) fn push(&mut self, row: Row<'_>) -> Result<(usize, bool), BadRow> {
        let place = (row.main, row.sub);
        let fits = row.sub < u64::from(MAX_CHANGES_PER_REVISION);
        if !fits || row.create > row.main || (place <= self.last && !self.slots.is_empty()) {
            return Err(BadRow);
        }
        self.last = place;
        let sub = row.sub as u32;
        if row.tombstone {
            self.index.tombstones.push_back((row.main, sub));
        }
        let Self { slots, keys, table, .. } = self;
        let held = |n: u32| key_of(keys, &slots[n as usize]) == row.key;
        let found = table.find_or_insert(row.key, slots.len() as u32, held);
        // A tombstone whose put is compacted ends a generation of unknown birth.
        let create = if row.tombstone { row.main } else { row.create };
        let len = if row.tombstone { 0 } else { row.len };
        let mut record = Record::first(row.main, sub, create, len, row.tombstone);
        let Some(number) = found else {
            self.slots.push(Slot {
                key_at: self.keys.len() as u64,
                key_len: u32::try_from(row.key.len()).map_err(|_| BadRow)?,
                record,
            });
            self.keys.extend_from_slice(row.key);
            self.set_version(self.slots.len() - 1, &mut record, row, 0);
            return Ok((self.slots.len() - 1, true));
        };
        let number = number as usize;
        let old = self.slots[number].record;
        if row.tombstone && !old.is_tombstone() {
            record.create = old.create;
        }
        let old_version = self.index.tree.wide.version(row.key, &old);
        record.set_prev(self.index.tree.history.push(old, row.main));
        self.set_version(number, &mut record, row, old_version);
        Ok((number, false))
    }

    fn set_version(&mut self, number: usize, record: &mut Record, row: Row<'_>, old: u64) {
        if !row.tombstone {
            record.set_version(row.version);
            self.index.tree.wide.note(row.key, row.main, old, row.version);
        }
        self.slots[number].record = *record;
    }

    /// The key with this number.
    pub(crate) fn key(&self, number: usize) -> &[u8] {
        key_of(&self.keys, &self.slots[number])
    }

    /// Sorts the keys and builds the tree.
    pub(crate) fn finish(mut self) -> Index {
        self.table = Table::new();
        let mut order: Vec<(u64, u32)> = (0..self.slots.len() as u32).map(|n| (0, n)).collect();
        let (slots, keys) = (&self.slots, &self.keys);
        let key = |n: u32| key_of(keys, &slots[n as usize]);
        sort_by_key(&mut order, &key, 0);
        let sorted_key = |i: usize| key(order[i].1);
        let record = |i: usize| slots[order[i].1 as usize].record;
        self.index.tree.root = build(order.len(), self.index.shape, &sorted_key, &record);
        self.index
    }
}

fn key_of<'a>(keys: &'a [u8], slot: &Slot) -> &'a [u8] {
    &keys[slot.key_at as usize..][..slot.key_len as usize]
}

/// Hash of key -> number, open addressing. Never iterated, so the random hash changes no result;
/// it only keeps chosen keys from colliding.
struct Table {
    hasher: RandomState,
    /// High half: 32 bits of the hash; low half: number + 1, 0 if free.
    cells: Vec<u64>,
    used: usize,
}

impl Table {
    fn new() -> Self {
        Self { hasher: RandomState::new(), cells: vec![0; 1024], used: 0 }
    }

    /// The number under which `key` is held, or `None` after entering it as `number`.
    fn find_or_insert(
        &mut self,
        key: &[u8],
        number: u32,
        held: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        if self.used * 3 >= self.cells.len() * 2 {
            self.grow();
        }
        let hash = self.hasher.hash_one(key) >> 32;
        let mask = self.cells.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let cell = self.cells[at];
            if cell == 0 {
                self.cells[at] = hash << 32 | u64::from(number + 1);
                self.used += 1;
                return None;
            }
            if cell >> 32 == hash && held(cell as u32 - 1) {
                return Some(cell as u32 - 1);
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let mask = self.cells.len() * 2 - 1;
        let mut cells = vec![0; mask + 1];
        for &cell in self.cells.iter().filter(|&&c| c != 0) {
            let mut at = (cell >> 32) as usize & mask;
            while cells[at] != 0 {
                at = (at + 1) & mask;
            }
            cells[at] = cell;
        }
        self.cells = cells;
    }
}

/// Eight bytes of `key` from `depth` on as a number that orders like them.
fn eight_bytes(key: &[u8], depth: usize) -> u64 {
    let mut bytes = [0; 8];
    let rest = key.get(depth..).unwrap_or_default();
    let n = rest.len().min(8);
    bytes[..n].copy_from_slice(&rest[..n]);
    u64::from_be_bytes(bytes)
}

/// Below this many, comparing whole keys beats another round of cached bytes.
const SMALL_RUN: usize = 24;

/// Caching string sort: by eight cached bytes, runs of equals by the next eight (Sinha and Zobel's
/// idea of caching key bytes). A depth-first recursion of at most key length / 8, cut where a
/// key of a run ends, as cached zeroes and absent bytes look alike.
fn sort_by_key<'a>(order: &mut [(u64, u32)], key: &impl Fn(u32) -> &'a [u8], mut depth: usize) {
    loop {
        if order.len() <= SMALL_RUN || order.iter().any(|&(_, n)| key(n).len() <= depth) {
            order.sort_unstable_by(|a, b| key(a.1).cmp(key(b.1)));
            return;
        }
        let first = eight_bytes(key(order[0].1), depth);
        let mut same = true;
        for (cached, n) in order.iter_mut() {
            *cached = eight_bytes(key(*n), depth);
            same &= *cached == first;
        }
        if !same {
            break;
        }
        depth += 8; // a shared prefix costs no recursion
    }
    order.sort_unstable_by_key(|&(cached, _)| cached);
    for run in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|run| run.len() > 1) {
        sort_by_key(run, key, depth + 8);
    }
}

/// Builds a tree of full nodes from keys that ascend strictly.
fn build<'a>(
    n: usize,
    shape: Shape,
    key: &impl Fn(usize) -> &'a [u8],
    record: &impl Fn(usize) -> Record,
) -> Kid {
    let (mut kids, mut separators) = (Vec::new(), Vec::new());
    let mut from = 0;
    while from < n {
        let to = leaf_end(from, n, shape, key);
        let keys = Keys::from_sorted(to - from, |i| key(from + i));
        let records: Vec<Record> = (from..to).map(record).collect();
        let born_or_died = |r: &Record| if r.is_tombstone() { r.main } else { r.create };
        let last_life = records.iter().map(born_or_died).max().unwrap_or(0);
        let min_tomb = oldest_tombstone(&records);
        if from > 0 {
            let (before, first) = (key(from - 1), key(from));
            separators.push(&first[..common_prefix(before, first) + 1]);
        }
        kids.push(Kid::leaf(keys, records, last_life, min_tomb));
        from = to;
    }
    while kids.len() > 1 {
        let (mut parents, mut between) = (Vec::new(), Vec::new());
        let (total, groups) = (kids.len(), kids.len().div_ceil(shape.branch));
        let mut rest = kids.into_iter();
        let mut at = 0;
        for group in 0..groups {
            let size = total * (group + 1) / groups - at;
            if at > 0 {
                between.push(separators[at - 1]);
            }
            let keys = Keys::from_sorted(size - 1, |i| separators[at + i]);
            parents.push(Kid::branch(keys, rest.by_ref().take(size).collect()));
            at += size;
        }
        (kids, separators) = (parents, between);
    }
    kids.pop().unwrap_or_else(Kid::empty)
}

/// Where the leaf that starts at `from` ends: at the size whose two buffers waste least of their
/// allocation classes, looking at the last 30 % of a full leaf.
fn leaf_end<'a>(from: usize, n: usize, shape: Shape, key: &impl Fn(usize) -> &'a [u8]) -> usize {
    let full = (from + shape.leaf).min(n);
    let mut lengths = Vec::with_capacity(shape.leaf);
    let mut bytes = 0;
    for i in from..full {
        bytes += key(i).len();
        if bytes > shape.leaf_key_bytes * 2 / 3 && i > from {
            return i;
        }
        lengths.push(bytes);
    }
    if full == n || full - from < shape.leaf {
        return full;
    }
    let least = from + (shape.leaf * 7 / 10).max(1);
    let waste_at = |to: usize| {
        let m = to - from;
        let shared = common_prefix(key(from), key(to - 1));
        let key_bytes = lengths[m - 1] - shared * m + shared + 4 * m;
        let record_bytes = capacity_for(m) * size_of::<Record>();
        (size_class(key_bytes + 16) + record_bytes + 170) * 1024 / m
    };
    (least..=full).rev().min_by_key(|&to| waste_at(to)).unwrap_or(full)
}
