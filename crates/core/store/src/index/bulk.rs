//! Building the index from the database, whose rows come in revision order.
//!
//! Rows are taken in windows, and the keys of a window are sorted. The first window makes the tree
//! from its leaves upwards; later ones (of more than a million rows) walk it once from left to
//! right to find and set the newest records, about a third of the cost of random inserts.
//! Superseded records enter the history in revision order. Memory beyond the index is one window.

use super::Index;
use super::keys::Keys;
use super::node::{Kid, Shape, capacity_for, separator};
use super::record::{MAX_CHANGES_PER_REVISION, Record};

/// Rows of a window: the more, the less is looked up in a tree; at 64 bytes each they and their
/// keys take about 130 MB while the window is open.
const WINDOW_ROWS: usize = 1 << 20;
/// Bytes of keys beyond which a window is closed early.
const WINDOW_KEY_BYTES: usize = 96 << 20;

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

/// A row of the window: its record as far as it is known alone.
struct Held {
    record: Record,
    version: u64,
    before: Before,
}

/// What a row of the window supersedes.
#[derive(Clone, Copy)]
enum Before {
    Nothing,
    /// What the tree held, by its place in a list.
    Tree(u32),
    /// Another row of the window.
    Row(u32),
}

/// The keys of a window, by the number of their row.
#[derive(Default)]
struct HeldKeys {
    bytes: Vec<u8>,
    /// Where each begins and its length. Apart from the records, so that sorting touches little.
    places: Vec<(u32, u32)>,
}

impl HeldKeys {
    fn push(&mut self, key: &[u8]) -> Result<(), BadRow> {
        let at = u32::try_from(self.bytes.len()).map_err(|_| BadRow)?;
        self.places.push((at, u32::try_from(key.len()).map_err(|_| BadRow)?));
        self.bytes.extend_from_slice(key);
        Ok(())
    }

    fn get(&self, n: u32) -> &[u8] {
        let (at, len) = self.places[n as usize];
        &self.bytes[at as usize..][..len as usize]
    }
}

/// An index under construction.
pub(crate) struct Builder {
    index: Index,
    keys: HeldKeys,
    rows: Vec<Held>,
    window_rows: usize,
    last: Option<(u64, u64)>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self::over(Index::new(), WINDOW_ROWS)
    }

    /// A builder of an index that is empty so far.
    pub(super) fn over(index: Index, window_rows: usize) -> Self {
        Self { index, keys: HeldKeys::default(), rows: Vec::new(), window_rows, last: None }
    }

    /// Takes the next row; rows ascend by (main, sub).
    pub(crate) fn push(&mut self, row: Row<'_>) -> Result<(), BadRow> {
        let place = (row.main, row.sub);
        let fits = row.sub < u64::from(MAX_CHANGES_PER_REVISION);
        if !fits || row.create > row.main || self.last.is_some_and(|last| place <= last) {
            return Err(BadRow);
        }
        self.last = Some(place);
        let sub = row.sub as u32;
        if row.tombstone {
            self.index.tombstones.push_back((row.main, sub));
        }
        // A tombstone whose put is compacted ends a generation of unknown birth.
        let create = if row.tombstone { row.main } else { row.create };
        let len = if row.tombstone { 0 } else { row.len };
        let record = Record::first(row.main, sub, create, len, row.tombstone);
        self.keys.push(row.key)?;
        self.rows.push(Held { record, version: row.version, before: Before::Nothing });
        if self.rows.len() >= self.window_rows || self.keys.bytes.len() >= WINDOW_KEY_BYTES {
            self.close_window();
        }
        Ok(())
    }

    /// The whole index.
    pub(crate) fn finish(mut self) -> Index {
        self.close_window();
        self.index
    }

    fn close_window(&mut self) {
        let Self { index, keys, rows, .. } = self;
        let mut order: Vec<(u64, u32)> = (0..rows.len() as u32).map(|n| (0, n)).collect();
        sort_by_key(&mut order, &|n| keys.get(n), 0);
        // Equal keys went through the sort together, so their cached bytes are equal.
        let same = |a: (u64, u32), b: (u64, u32)| a.0 == b.0 && keys.get(a.1) == keys.get(b.1);
        let is_first = index.tree.root.is_empty();
        let mut in_tree: Vec<Record> = Vec::new();
        let mut previous: Option<(u64, u32)> = None;
        for &at in &order {
            let before = match previous.filter(|&previous| same(previous, at)) {
                Some((_, row)) => Before::Row(row),
                None if is_first => Before::Nothing,
                None => match index.tree.root.newest(keys.get(at.1)) {
                    Some(record) => {
                        in_tree.push(*record);
                        Before::Tree(in_tree.len() as u32 - 1)
                    }
                    None => Before::Nothing,
                },
            };
            // Set already for most: a store would touch the row.
            if !matches!(before, Before::Nothing) {
                rows[at.1 as usize].before = before;
            }
            previous = Some(at);
        }
        for n in 0..rows.len() {
            let old = match rows[n].before {
                Before::Nothing => None,
                Before::Tree(place) => Some(in_tree[place as usize]),
                Before::Row(row) => Some(rows[row as usize].record),
            };
            let key = keys.get(n as u32);
            let (version, record) = (rows[n].version, &mut rows[n].record);
            let mut old_version = 0;
            if let Some(old) = old {
                old_version = index.tree.wide.version(key, &old);
                record.set_prev(index.tree.history.push(old, record.main));
                if record.is_tombstone() && !old.is_tombstone() {
                    record.create = old.create;
                }
            }
            if !record.is_tombstone() {
                record.set_version(version);
                index.tree.wide.note(key, record.main, old_version, version);
            }
        }
        // Of equal keys the last is the newest.
        let mut kept = 0;
        for i in 0..order.len() {
            if order.get(i + 1).is_none_or(|&next| !same(order[i], next)) {
                order[kept] = order[i];
                kept += 1;
            }
        }
        order.truncate(kept);
        if is_first {
            index.tree.root = plant(&order, keys, rows, index.shape);
        } else {
            for &(_, n) in &order {
                index.load(keys.get(n), rows[n as usize].record);
            }
        }
        *keys = HeldKeys::default();
        *rows = Vec::new();
    }
}

/// Makes a tree of sorted, different keys from its leaves upwards. Nodes are as full as they may
/// be, their neighbours equally so.
fn plant(order: &[(u64, u32)], keys: &HeldKeys, rows: &[Held], shape: Shape) -> Kid {
    // Each node with what separates it from the one before.
    let mut level: Vec<(Vec<u8>, Kid)> = Vec::with_capacity(order.len() / shape.leaf + 1);
    let mut rest = order;
    let mut before: Option<u32> = None;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(shape.leaf).take_while(|(_, n)| {
            let is_first = bytes == 0;
            bytes += keys.get(*n).len() + 4;
            is_first || bytes <= shape.leaf_key_bytes
        });
        let (leaf, others) = rest.split_at(fits.count().max(1));
        let separator = before.map(|last| separator(keys.get(last), keys.get(leaf[0].1)));
        let mut records = Vec::with_capacity(capacity_for(leaf.len()));
        records.extend(leaf.iter().map(|(_, n)| rows[*n as usize].record));
        let keys = Keys::from_sorted(leaf.len(), |i| keys.get(leaf[i].1));
        level.push((separator.unwrap_or_default(), Kid::loaded_leaf(keys, records)));
        before = leaf.last().map(|(_, n)| *n);
        rest = others;
    }
    while level.len() > 1 {
        let per_branch = level.len().div_ceil(level.len().div_ceil(shape.branch));
        let mut nodes = level.into_iter();
        let mut above = Vec::new();
        loop {
            let (mut separators, mut kids) = (Vec::new(), Vec::with_capacity(per_branch));
            for (separator, kid) in nodes.by_ref().take(per_branch) {
                separators.push(separator);
                kids.push(kid);
            }
            if kids.is_empty() {
                break;
            }
            let separator = separators.remove(0);
            let separators = Keys::from_sorted(separators.len(), |i| &separators[i]);
            above.push((separator, Kid::branch(separators, kids)));
        }
        level = above;
    }
    level.pop().map_or_else(Kid::empty, |(_, root)| root)
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

/// Sorts by key, equal keys by number; they end with equal cached bytes. Caching string sort: by
/// eight cached bytes, runs of equals by the next eight (Sinha and Zobel's idea of caching key bytes). A depth-first recursion of at most key length / 8, cut where a
/// key of a run ends, as cached zeroes and absent bytes look alike.
fn sort_by_key<'a>(order: &mut [(u64, u32)], key: &impl Fn(u32) -> &'a [u8], mut depth: usize) {
    loop {
        if order.len() <= SMALL_RUN || order.iter().any(|&(_, n)| key(n).len() <= depth) {
            order.sort_unstable_by(|a, b| key(a.1).cmp(key(b.1)).then(a.1.cmp(&b.1)));
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
