//! The engine against a `BTreeMap` of `BTreeMap`s.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bolt::{Lookup, WriteError};
use common::*;
use env::mem::MemDisk;
use env::{Access, Entropy};

/// Checks what the fences answer against the model.
fn assert_fences(db: &bolt::Db, ops: &mut Ops, when: &str) {
    let tx = db.begin_read();
    let pairs = ops.model.get(REVISIONS).cloned().unwrap_or_default();
    let top = pairs
        .keys()
        .next_back()
        .map_or(5, |key| u64::from_be_bytes(key[..8].try_into().unwrap()) + 2);
    let mut revs = Vec::new();
    for _ in 0..30 {
        let (main, sub) = (ops.random.below(top), ops.random.below(4));
        revs.push((main, sub));
        for tombstone in [false, true] {
            let wanted = pairs.get(&revision(main, sub, tombstone));
            let found = tx.try_get(main, sub, tombstone).unwrap();
            match wanted {
                None => assert_eq!(found, Lookup::Absent, "{when}: {main}_{sub}"),
                Some(value) => {
                    assert_eq!(found, Lookup::Found(value.clone().into()), "{when}: {main}_{sub}");
                }
            }
            let blocking = tx.get_revision(&may(), main, sub, tombstone).unwrap();
            assert_eq!(blocking.as_deref(), wanted.map(|v| &v[..]));
        }
    }
    let mut seen = vec![0; revs.len()];
    tx.get_many(&may(), &revs, &mut |i, value| {
        seen[i] += 1;
        let (main, sub) = revs[i];
        let live = pairs.get(&revision(main, sub, false));
        let dead = pairs.get(&revision(main, sub, true));
        match value {
            None => assert!(live.is_none() && dead.is_none(), "{when}: {main}_{sub}"),
            Some(v) => {
                assert!([live, dead].into_iter().flatten().any(|w| w == v), "{when}: {main}_{sub}")
            }
        }
    })
    .unwrap();
    assert!(seen.iter().all(|n| *n == 1), "each position is reported once");
}

fn run(seed: u64, page_size: u32, rounds: usize) {
    let disk = MemDisk::new();
    let mut db = try_open(&disk, page_size).unwrap();
    let mut ops = Ops::new(seed);
    let mut readers: Vec<(bolt::ReadTx, Model)> = Vec::new();
    for round in 0..rounds {
        let when = format!("seed {seed}, page size {page_size}, round {round}");
        let before = ops.model.clone();
        let batch = ops.transaction();
        let mut tx = db.begin_write();
        // A transaction may be put aside anywhere; meanwhile readers see the state before.
        let (first, rest) = batch.split_at(ops.random.below(batch.len() as u64 + 1) as usize);
        perform(&mut tx, first).unwrap();
        if ops.random.below(2) == 0 {
            let suspended = tx.suspend();
            assert_same(
                &db.begin_read(),
                &before,
                &format!("{when}: beside a suspended transaction"),
            );
            if ops.random.below(4) == 0 {
                readers.pop();
            }
            tx = db.resume(suspended);
        }
        perform(&mut tx, rest).unwrap();
        for (name, pairs) in &ops.model {
            let n = ops.random.below(pairs.len() as u64 + 1) as usize;
            if let Some((key, value)) = pairs.iter().nth(n) {
                assert_eq!(tx.get(&may(), name, key).unwrap().as_deref(), Some(&value[..]));
            }
            let mut seen = BTreeMap::new();
            tx.scan(&may(), name, everything(), &mut |k, v| {
                seen.insert(k.to_vec(), v.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
            assert!(seen == *pairs, "{when}: a transaction sees its own writes");
        }
        if ops.random.below(8) == 0 {
            drop(tx);
            ops.model = before;
        } else {
            tx.commit(&may()).unwrap();
        }
        assert_eq!(db.check(&may()).unwrap(), [], "{when}");
        let tx = db.begin_read();
        assert_same(&tx, &ops.model, &when);
        assert_fences(&db, &mut ops, &when);
        if ops.random.below(4) == 0 {
            readers.push((tx, ops.model.clone()));
        } else {
            drop(tx);
        }
        if readers.len() > 4 {
            let i = ops.random.below(5) as usize;
            let (tx, model) = readers.swap_remove(i);
            assert_same(&tx, &model, &format!("{when}: reader of {}", tx.txid()));
        }
        if ops.random.below(10) == 0 {
            readers.clear();
            drop(db);
            db = try_open(&disk, 4096).unwrap();
            assert_eq!(db.page_size(), page_size, "an existing file keeps its page size");
            assert_same(&db.begin_read(), &ops.model, &format!("{when}: reopened"));
            assert_fences(&db, &mut ops, &format!("{when}: reopened"));
        }
    }
}

#[test]
fn random_transactions_match_the_model() {
    for seed in 0..6 {
        run(seed, 4096, 60);
    }
}

#[test]
#[should_panic(expected = "the state it began on")]
fn a_suspended_transaction_is_refused_once_something_else_was_committed() {
    let mut db = open(&MemDisk::new());
    let suspended = db.begin_write().suspend();
    let mut tx = db.begin_write();
    tx.create_bucket(&may(), b"b").unwrap();
    tx.commit(&may()).unwrap();
    let _ = db.resume(suspended);
}

#[test]
#[should_panic(expected = "belongs to its database")]
fn a_suspended_transaction_is_refused_by_another_database() {
    let suspended = open(&MemDisk::new()).begin_write().suspend();
    let _ = open(&MemDisk::new()).resume(suspended);
}

#[test]
fn other_page_sizes_match_the_model() {
    for page_size in [1024, 16_384, 65_536] {
        run(100 + u64::from(page_size), page_size, 40);
    }
}

#[test]
fn scans_honour_every_kind_of_bound() {
    let disk = MemDisk::new();
    let mut db = open(&disk);
    let mut tx = db.begin_write();
    tx.create_bucket(&may(), b"b").unwrap();
    let keys: Vec<Vec<u8>> = (0..3_000).map(|i| format!("{:05}", i * 2).into_bytes()).collect();
    for key in &keys {
        tx.put(&may(), b"b", key, &[7; 40]).unwrap();
    }
    tx.commit(&may()).unwrap();
    let tx = db.begin_read();
    let mut random = env::SplitMix::new(3);
    for _ in 0..400 {
        let mut bound = || {
            let key = format!("{:05}", random.below(6_100)).into_bytes();
            match random.below(3) {
                0 => Bound::Included(key),
                1 => Bound::Excluded(key),
                _ => Bound::Unbounded,
            }
        };
        let (from, to) = (bound(), bound());
        let borrowed = |b: &Bound<Vec<u8>>| b.as_ref().map(|k| k.clone());
        let inside = |k: &&Vec<u8>| {
            (match &from {
                Bound::Included(f) => *k >= f,
                Bound::Excluded(f) => *k > f,
                Bound::Unbounded => true,
            }) && match &to {
                Bound::Included(t) => *k <= t,
                Bound::Excluded(t) => *k < t,
                Bound::Unbounded => true,
            }
        };
        let (f, t) = (borrowed(&from), borrowed(&to));
        let range = (f.as_ref().map(|k| &k[..]), t.as_ref().map(|k| &k[..]));
        let token = may();
        let found = tx.scan(&token, b"b", range, Access::Scan);
        let found: Vec<Vec<u8>> = found.map(|pair| pair.unwrap().0.to_vec()).collect();
        let wanted: Vec<Vec<u8>> = keys.iter().filter(inside).cloned().collect();
        assert!(found == wanted, "{from:?} {to:?}: {} keys, not {}", found.len(), wanted.len());
    }
}

#[test]
fn wrong_arguments_are_refused_and_change_nothing() {
    let disk = MemDisk::new();
    let mut db = open(&disk);
    let mut tx = db.begin_write();
    assert_eq!(tx.put(&may(), b"b", b"k", b"v"), Err(WriteError::NoBucket));
    assert_eq!(tx.delete(&may(), b"b", b"k"), Err(WriteError::NoBucket));
    assert_eq!(tx.delete_bucket(&may(), b"b"), Err(WriteError::NoBucket));
    assert_eq!(tx.create_bucket(&may(), b""), Err(WriteError::EmptyKey));
    tx.create_bucket(&may(), b"b").unwrap();
    assert_eq!(tx.put(&may(), b"b", b"", b"v"), Err(WriteError::EmptyKey));
    assert_eq!(tx.put(&may(), b"b", &[1; 32_769], b"v"), Err(WriteError::LongKey));
    tx.put(&may(), b"b", &[1; 32_768], b"v").unwrap();
    assert_eq!(tx.get(&may(), b"b", b"absent").unwrap(), None);
    tx.commit(&may()).unwrap();
    let again = db.begin_write().commit(&may()).unwrap();
    assert_eq!((again.txid, again.pages), (2, 0), "a commit without changes writes nothing");
    assert_eq!(db.check(&may()).unwrap(), []);
}

#[test]
fn a_new_file_has_the_sizes_that_etcd_shows() {
    let disk = MemDisk::new();
    let mut db = open(&disk);
    assert_eq!(bytes_of(&disk).len(), 16_384);
    let mut tx = db.begin_write();
    for name in [&b"alarm"[..], b"auth", b"cluster", b"key", b"meta"] {
        tx.create_bucket(&may(), name).unwrap();
    }
    tx.commit(&may()).unwrap();
    assert_eq!(db.size_bytes(), 20_480);
    assert_eq!(bytes_of(&disk).len(), 16_801_792);
}

#[test]
fn a_second_open_is_told_to_wait() {
    let disk = MemDisk::new();
    let db = open(&disk);
    assert_eq!(try_open(&disk, 4096).unwrap_err(), bolt::OpenError::Locked);
    let reader = db.begin_read();
    drop(db);
    assert_eq!(try_open(&disk, 4096).unwrap_err(), bolt::OpenError::Locked);
    drop(reader);
    try_open(&disk, 4096).unwrap();
}

#[test]
fn an_old_reader_holds_back_only_the_pages_it_sees() {
    let disk = MemDisk::new();
    let mut db = open(&disk);
    let commit = |db: &mut bolt::Db, n: u64| {
        let mut tx = db.begin_write();
        tx.create_bucket(&may(), b"b").unwrap();
        for i in 0..200 {
            tx.put(&may(), b"b", &(i * 7 % 200u64).to_be_bytes(), &n.to_be_bytes().repeat(20))
                .unwrap();
        }
        tx.commit(&may()).unwrap();
    };
    commit(&mut db, 0);
    let reader = db.begin_read();
    let before = content(&reader);
    for n in 1..4 {
        commit(&mut db, n);
    }
    let size = db.size_bytes();
    for n in 4..40 {
        commit(&mut db, n);
    }
    assert_eq!(db.size_bytes(), size, "pages born and freed after the reader are used again");
    assert_eq!(content(&reader), before);
    assert_eq!(db.check(&may()).unwrap(), []);
}

#[test]
fn a_fenced_bucket_with_other_keys_is_served_from_its_tree() {
    for seed in 0..3 {
        let disk = MemDisk::new();
        let options = bolt::Options { page_size: 1024, fenced_bucket: Some(b"zz") };
        let path = std::path::Path::new(DB);
        let open =
            || bolt::Db::open(std::sync::Arc::new(disk.clone()), path, &may(), options).unwrap();
        let mut db = open();
        let mut ops = Ops::new(40 + seed);
        for round in 0..40 {
            let batch = ops.transaction();
            let mut tx = db.begin_write();
            perform(&mut tx, &batch).unwrap();
            tx.commit(&may()).unwrap();
            let when = format!("seed {seed}, round {round}");
            if round % 8 == 7 {
                drop(db);
                db = open();
            }
            assert_eq!(db.check(&may()).unwrap(), [], "{when}");
            let tx = db.begin_read();
            assert_same(&tx, &ops.model, &when);
            for (key, value) in ops.model.get(&b"zz"[..]).into_iter().flatten().step_by(9) {
                let found = tx.get(&may(), b"zz", key).unwrap();
                assert_eq!(found.as_deref(), Some(&value[..]), "{when}");
            }
        }
    }
}

#[test]
fn revisions_that_no_fence_can_hold_are_found() {
    let disk = MemDisk::new();
    let mut db = open(&disk);
    for round in 0..2 {
        let mut tx = db.begin_write();
        tx.create_bucket(&may(), REVISIONS).unwrap();
        for main in 0..400u64 {
            // In the first round only inside leaves, then also as separators.
            let sub = if main % 16 == 5 || round == 1 { u64::from(u32::MAX) } else { 0 };
            let key = revision(main, sub, false);
            tx.put(&may(), REVISIONS, &key, &main.to_be_bytes().repeat(9)).unwrap();
        }
        tx.commit(&may()).unwrap();
        let tx = db.begin_read();
        let revs: Vec<(u64, u64)> = (0..400).map(|m| (m, u64::from(u32::MAX))).collect();
        tx.get_many(&may(), &revs, &mut |i, value| {
            assert_eq!(value.is_some(), i % 16 == 5 || round == 1, "main {i}");
        })
        .unwrap();
        for (main, sub) in revs {
            assert_eq!(tx.try_get(main, sub, false).unwrap(), Lookup::Cold);
            let found = tx.get_revision(&may(), main, sub, false).unwrap();
            assert_eq!(found.is_some(), main % 16 == 5 || round == 1);
        }
        drop(tx);
        drop(db);
        db = open(&disk);
        assert_eq!(db.check(&may()).unwrap(), []);
    }
}

#[test]
fn readers_on_other_threads_see_one_state_each_while_commits_go_on() {
    fn travels<T: Send + Sync + Clone + 'static>(_: &T) {}
    let disk = MemDisk::new();
    let mut db = open(&disk);
    let (send, receive) = std::sync::mpsc::sync_channel::<(bolt::ReadTx, u64)>(4);
    let reader = std::thread::spawn(move || {
        let may = may();
        let mut seen = 0;
        for (tx, round) in receive {
            // Each commit writes its number into every key.
            for bucket in [REVISIONS, b"b"] {
                for pair in tx.scan(&may, bucket, everything(), Access::Scan) {
                    assert_eq!(pair.unwrap().1[..8], round.to_be_bytes());
                    seen += 1;
                }
            }
            for main in (0..300).step_by(7) {
                match tx.try_get(main, 0, false).unwrap() {
                    Lookup::Found(value) => assert_eq!(value[..8], round.to_be_bytes()),
                    other => panic!("{other:?}"),
                }
            }
        }
        seen
    });
    for round in 0..40u64 {
        let mut tx = db.begin_write();
        for bucket in [REVISIONS, b"b"] {
            tx.create_bucket(&may(), bucket).unwrap();
            for main in 0..300 {
                let value = round.to_be_bytes().repeat(1 + (main as usize + round as usize) % 60);
                tx.put(&may(), bucket, &revision(main, 0, false), &value).unwrap();
            }
        }
        tx.commit(&may()).unwrap();
        let tx = db.begin_read();
        travels(&tx);
        send.send((tx, round)).unwrap();
    }
    drop(send);
    assert_eq!(reader.join().unwrap(), 40 * 600);
    assert_eq!(db.check(&may()).unwrap(), []);
    assert!(db.size_bytes() < 3_000_000, "old pages are used again: {}", db.size_bytes());
}
