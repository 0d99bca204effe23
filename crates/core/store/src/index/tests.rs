//! The index against a naive model: every key with the list of all its versions.

use std::collections::BTreeMap;

use env::{Entropy, SplitMix};

use super::bulk::{Builder, Row};
use super::history::History;
use super::node::{Kid, Node, Shape};
use super::read::Bounds;
use super::record::Record;
use super::sweep::Dead;
use super::{Index, Snapshot};

#[derive(Clone, Copy, Debug, PartialEq)]
struct Version {
    main: u64,
    sub: u32,
    tombstone: bool,
    create: u64,
    version: u64,
    len: u32,
}

type Model = BTreeMap<Vec<u8>, Vec<Version>>;

fn at(history: &[Version], rev: u64) -> Option<Version> {
    history.iter().rev().find(|v| v.main <= rev).filter(|v| !v.tombstone).copied()
}

struct World {
    random: SplitMix,
    index: Index,
    model: Model,
    rev: u64,
    compact: u64,
    keys: u64,
    long: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let shape = Shape {
            leaf: 4 + (seed % 13) as usize,
            branch: 4 + (seed % 5) as usize,
            leaf_key_bytes: 200 + (seed % 7) as usize * 500,
        };
        // Start the history so that positions wrap around 2^32 in mid-run.
        let index = Index::with_shape(shape, (1 << 32) - 300 - seed * 7);
        let keys = 20 + random.below(400);
        let long = seed.is_multiple_of(10);
        Self { random, index, model: Model::new(), rev: 1, compact: 0, keys, long }
    }

    fn key(&mut self) -> Vec<u8> {
        let kind = if self.random.below(3) == 0 { "pods" } else { "po" };
        let mut key = format!("/{kind}/{:x}", self.random.below(self.keys)).into_bytes();
        if self.random.below(20) == 0 {
            key.truncate(self.random.below(key.len() as u64) as usize);
        }
        if self.long && self.random.below(8) == 0 {
            key.resize(30_000 + self.random.below(5) as usize * 20_000, b'x');
        }
        key
    }

    /// One transaction of one to four changes, now and then twice of one key.
    fn change(&mut self) {
        let (main, mut sub) = (self.rev + 1, 0);
        for _ in 0..1 + self.random.below(4) {
            let key = self.key();
            let twice = 1 + u64::from(self.random.below(10) == 0);
            for _ in 0..twice {
                sub += u32::from(self.change_key(&key, main, sub));
            }
        }
        self.rev += u64::from(sub > 0);
    }

    fn change_key(&mut self, key: &[u8], main: u64, sub: u32) -> bool {
        let last = self.model.get(key).and_then(|h| h.last()).copied();
        let alive = last.filter(|v| !v.tombstone);
        let new = if self.random.below(3) == 0 {
            let deleted = self.index.delete(key, main, sub);
            let deleted = deleted.map(|(r, version)| (r.main, r.sub(), version));
            assert_eq!(deleted, alive.map(|v| (v.main, v.sub, v.version)));
            if alive.is_none() {
                return false;
            }
            Version { main, sub, tombstone: true, create: 0, version: 0, len: 0 }
        } else {
            let len = self.random.below(1 << 32) as u32;
            let before = alive.map(|v| (v.main, v.sub, v.version));
            self.index.put(key, main, sub, &mut |old| {
                assert_eq!(old.map(|(r, version)| (r.main, r.sub(), version)), before);
                len
            });
            let (create, version) = alive.map_or((main, 1), |v| (v.create, v.version + 1));
            Version { main, sub, tombstone: false, create, version, len }
        };
        self.model.entry(key.to_vec()).or_default().push(new);
        true
    }

    /// etcd's rule: the newest version at or below C stays, a tombstone only exactly at C, and so
    /// does every tombstone at C.
    fn compact(&mut self) {
        if self.rev <= self.compact {
            return;
        }
        self.compact += 1 + self.random.below(self.rev - self.compact);
        let horizon = self.compact;
        let mut got = Vec::new();
        loop {
            let budget = 1 + self.random.below(40) as usize;
            if self.index.compact_step(horizon, budget, |d| got.push(d)) {
                break;
            }
        }
        let mut want = Vec::new();
        self.model.retain(|_, history| {
            let newest = history.iter().rposition(|v| v.main <= horizon);
            let mut place = 0;
            history.retain(|v| {
                let superseded = newest.is_some_and(|n| place < n);
                let dead = if v.tombstone { v.main < horizon } else { superseded };
                place += 1;
                if dead {
                    want.push(Dead { main: v.main, sub: v.sub, tombstone: v.tombstone });
                }
                !dead
            });
            !history.is_empty()
        });
        got.sort_unstable();
        want.sort_unstable();
        assert_eq!(got, want);
        check_swept(&self.index.tree.root, horizon);
    }

    fn compare(&mut self, snapshot: &Snapshot, model: &Model, compact: u64, newest: u64) {
        check_order(&snapshot.root);
        let reader = snapshot.reader();
        let low = compact.max(1);
        let rev = match self.random.below(4) {
            0 => newest,
            _ => low + self.random.below(newest - low + 1),
        };
        let (a, b) = (self.key(), self.key());
        let (a, b) = match self.random.below(4) {
            0 => (None, None),
            1 => (Some(a), None),
            2 => (None, Some(b)),
            _ => (Some(a), Some(b)),
        };
        let inside =
            |k: &[u8]| a.as_deref().is_none_or(|a| k >= a) && b.as_deref().is_none_or(|b| k < b);
        let want: Vec<_> = model
            .iter()
            .filter(|(k, _)| inside(k))
            .filter_map(|(k, h)| Some((k.clone(), at(h, rev)?)))
            .collect();
        let bounds = Bounds { low: a.as_deref(), high: b.as_deref() };
        let mut got = Vec::new();
        reader.visit(bounds, rev, &mut |key, r| {
            let (main, sub, create, len) = (r.main, r.sub(), r.create, r.len);
            let version = reader.version(key, r);
            let tombstone = r.is_tombstone();
            got.push((key.to_vec(), Version { main, sub, tombstone, create, version, len }));
            true
        });
        assert_eq!(got, want);
        assert_eq!(reader.count(bounds, rev), want.len() as u64);
        for (key, history) in model.iter().take(20) {
            let found = reader.get(key, rev).map(|r| (r.main, r.sub()));
            assert_eq!(found, at(history, rev).map(|v| (v.main, v.sub)));
            let mut chain = Vec::new();
            reader.chain(key, |r| {
                chain.push((r.main, r.sub(), r.is_tombstone()));
                true
            });
            chain.retain(|v| v.0 > compact);
            let mut want: Vec<_> = history.iter().map(|v| (v.main, v.sub, v.tombstone)).collect();
            want.retain(|v| v.0 > compact);
            want.reverse();
            assert_eq!(chain, want);
        }
    }

    /// Feeds the model's versions to the builder, as recovery does with the key bucket.
    fn rebuild(&self) -> Index {
        let mut rows: Vec<_> = self
            .model
            .iter()
            .flat_map(|(key, history)| history.iter().map(move |v| (v.main, v.sub, key, v)))
            .collect();
        rows.sort_by_key(|r| (r.0, r.1));
        // All rows at once, or several windows; trees of several levels either way.
        let window = if self.rev.is_multiple_of(2) { usize::MAX } else { 1 + rows.len() / 3 };
        let index = Index::with_shape(self.index.shape, 0);
        let mut builder = Builder::over(index, window);
        for (main, sub, key, v) in rows {
            let (sub, tombstone) = (u64::from(sub), v.tombstone);
            let (create, version, len) = (v.create, v.version, v.len);
            builder.push(Row { key, main, sub, create, version, len, tombstone }).unwrap();
        }
        builder.finish()
    }
}

/// Compaction leaves no older tombstone in the tree, and no lower bound that would send it there.
fn check_swept(kid: &Kid, horizon: u64) {
    assert!(kid.min_tomb >= horizon);
    match &kid.node {
        Node::Leaf(leaf) => {
            assert!(leaf.records.iter().all(|r| !r.is_tombstone() || r.main >= horizon));
        }
        Node::Branch(branch) => branch.kids.iter().for_each(|kid| check_swept(kid, horizon)),
    }
}

fn check_order(kid: &Kid) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    match &kid.node {
        Node::Leaf(leaf) => {
            assert!(leaf.keys.ascend());
            assert_eq!(leaf.keys.len(), leaf.records.len());
            let live = leaf.records.iter().filter(|r| !r.is_tombstone()).count() as u64;
            assert_eq!((kid.live, u64::from(leaf.live)), (live, live));
            let n = leaf.keys.len();
            ((n > 0).then(|| leaf.keys.key(0)), (n > 0).then(|| leaf.keys.key(n - 1)))
        }
        Node::Branch(branch) => {
            assert!(branch.separators.ascend());
            assert_eq!(branch.separators.len() + 1, branch.kids.len());
            assert_eq!(kid.live, branch.kids.iter().map(|k| k.live).sum::<u64>());
            let spans: Vec<_> = branch.kids.iter().map(check_order).collect();
            for i in 1..spans.len() {
                let separator = branch.separators.key(i - 1);
                assert!(spans[i - 1].1.as_ref().is_none_or(|last| *last < separator));
                assert!(spans[i].0.as_ref().is_none_or(|first| *first >= separator));
            }
            (spans[0].0.clone(), spans[spans.len() - 1].1.clone())
        }
    }
}

#[test]
fn index_and_held_snapshots_match_the_model_through_changes_and_compactions() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        let mut held: Vec<(Snapshot, Model, u64, u64)> = Vec::new();
        for _ in 0..if world.long { 300 } else { 1_500 } {
            world.change();
            if world.random.below(50) == 0 {
                let state = (world.index.snapshot(), world.model.clone());
                held.push((state.0, state.1, world.compact, world.rev));
                if held.len() > 3 {
                    held.remove(0);
                }
            }
            if world.random.below(200) == 0 {
                world.compact();
            }
            if world.random.below(20) == 0 {
                let now = (world.index.snapshot(), world.model.clone());
                let (compact, rev) = (world.compact, world.rev);
                world.compare(&now.0, &now.1, compact, rev);
                for (snapshot, model, compact, rev) in &held {
                    world.compare(snapshot, model, *compact, *rev);
                }
            }
        }
    }
}

#[test]
fn an_index_built_in_bulk_goes_on_like_the_one_it_replaces() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        for round in 0..3 {
            for _ in 0..if world.long { 60 } else { 400 } {
                world.change();
            }
            if round == 1 {
                world.compact();
            }
            world.index = world.rebuild();
            for _ in 0..10 {
                let now = (world.index.snapshot(), world.model.clone());
                let (compact, rev) = (world.compact, world.rev);
                world.compare(&now.0, &now.1, compact, rev);
            }
            world.compact();
        }
    }
}

#[test]
fn versions_beyond_32_bits_are_exact() {
    let mut builder = Builder::new();
    let row = |main, version| Row {
        key: b"hot",
        main,
        sub: 0,
        create: 2,
        version,
        len: 9,
        tombstone: false,
    };
    let wrap = 1 << 32;
    builder.push(row(5, wrap - 2)).unwrap();
    builder.push(row(6, wrap - 1)).unwrap();
    let mut index = builder.finish();
    for main in 7..10 {
        index.put(b"hot", main, 0, &mut |_| 9);
    }
    let version = |index: &Index, rev| {
        let reader = index.reader();
        let record = reader.get(b"hot", rev).unwrap();
        reader.version(super::read::KeyParts::whole(b"hot"), &record)
    };
    let got: Vec<u64> = (5..10).map(|rev| version(&index, rev)).collect();
    assert_eq!(got, [wrap - 2, wrap - 1, wrap, wrap + 1, wrap + 2]);
    assert!(index.delete(b"hot", 10, 0).is_some());
    index.put(b"hot", 11, 0, &mut |_| 9);
    assert_eq!(version(&index, 11), 1);
    assert_eq!(version(&index, 9), wrap + 2);
}

#[test]
fn a_key_with_a_long_history_is_read_at_each_of_its_revisions() {
    let mut index = Index::new();
    for main in 2..20_000 {
        index.put(b"hot", main, 0, &mut |_| main as u32);
    }
    let reader = index.reader();
    for rev in (2..20_000).step_by(37) {
        assert_eq!(reader.get(b"hot", rev).unwrap().len, rev as u32);
    }
    assert!(reader.get(b"hot", 1).is_none());
}

#[test]
fn damaged_rows_are_refused() {
    let row = Row { key: b"k", main: 5, sub: 1, create: 2, version: 1, len: 9, tombstone: false };
    let mut builder = Builder::new();
    builder.push(row).unwrap();
    assert!(builder.push(row).is_err(), "the same place twice");
    assert!(builder.push(Row { sub: 0, ..row }).is_err(), "out of order");
    assert!(builder.push(Row { main: 6, create: 7, ..row }).is_err(), "created later");
    assert!(builder.push(Row { main: 6, sub: 1 << 29, ..row }).is_err(), "too many changes");
}

#[test]
fn a_link_to_a_compacted_version_never_meets_another_one_at_the_same_low_bits() {
    let mut history = History::starting_at(1 << 32);
    let mut old = Record::first(7, 0, 7, 9, false);
    old.set_prev(3);
    for main in 100..110 {
        history.push(Record::first(main, 0, main, 9, false), main + 50);
    }
    assert!(history.before(&old).is_none(), "position 3 was compacted; 2^32 + 3 is another key's");
    let mut new = Record::first(153, 0, 103, 9, false);
    new.set_prev(3);
    assert_eq!(history.before(&new).map(|e| e.record.main), Some(103));
}
