//! Building the index from the database, whose rows come in revision order.
//!
//! Rows are taken in windows. Within one, keys are sorted, so that finding and setting the newest
//! records walks the tree once from left to right (about a third of the cost of random inserts);
//! superseded records enter the history in revision order. Memory beyond the index is one window.

use super::Index;
use super::record::{MAX_CHANGES_PER_REVISION, Record};

/// Rows of a window.
const WINDOW_ROWS: usize = 128 << 10;
/// Bytes of keys beyond which a window is closed early.
const WINDOW_KEY_BYTES: usize = 16 << 20;

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
    key_at: usize,
    key_len: usize,
    record: Record,
    version: u64,
    before: Before,
}

/// What a row of the window supersedes.
#[derive(Clone, Copy)]
enum Before {
    Nothing,
    /// What the tree holds.
    Tree(Record),
    /// Another row of the window.
    Row(u32),
}

/// An index under construction.
pub(crate) struct Builder {
    index: Index,
    keys: Vec<u8>,
    rows: Vec<Held>,
    window_rows: usize,
    last: Option<(u64, u64)>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self::with_window(WINDOW_ROWS)
    }

    pub(super) fn with_window(window_rows: usize) -> Self {
        Self { index: Index::new(), keys: Vec::new(), rows: Vec::new(), window_rows, last: None }
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
        let (key_at, key_len) = (self.keys.len(), row.key.len());
        self.keys.extend_from_slice(row.key);
        let (version, before) = (row.version, Before::Nothing);
        self.rows.push(Held { key_at, key_len, record, version, before });
        if self.rows.len() >= self.window_rows || self.keys.len() >= WINDOW_KEY_BYTES {
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
        let keys_of = |rows: &[Held], n: u32| {
            let row = &rows[n as usize];
            row.key_at..row.key_at + row.key_len
        };
        let mut order: Vec<(u64, u32)> = (0..rows.len() as u32).map(|n| (0, n)).collect();
        sort_by_key(&mut order, &|n| &keys[keys_of(rows, n)], 0);
        let mut previous: Option<u32> = None;
        for &(_, n) in &order {
            let key = &keys[keys_of(rows, n)];
            let same = previous.filter(|&p| keys[keys_of(rows, p)] == *key);
            let in_tree = || index.tree.root.newest(key).copied();
            rows[n as usize].before = match same {
                Some(row) => Before::Row(row),
                None => in_tree().map_or(Before::Nothing, Before::Tree),
            };
            previous = Some(n);
        }
        for n in 0..rows.len() {
            let key = &keys[keys_of(rows, n as u32)];
            let old = match rows[n].before {
                Before::Nothing => None,
                Before::Tree(record) => Some(record),
                Before::Row(row) => Some(rows[row as usize].record),
            };
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
        for (i, &(_, n)) in order.iter().enumerate() {
            let key = &keys[keys_of(rows, n)];
            let next = order.get(i + 1);
            if next.is_none_or(|&(_, next)| keys[keys_of(rows, next)] != *key) {
                index.load(key, rows[n as usize].record);
            }
        }
        keys.clear();
        rows.clear();
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

/// Sorts by key, equal keys by number. Caching string sort: by eight cached bytes, runs of equals by the next eight (Sinha and Zobel's
/// idea of caching key bytes). A depth-first recursion of at most key length / 8, cut where a
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
