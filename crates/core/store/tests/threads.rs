//! Readers on other threads while the writer goes on: every View is whole and does not change.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::may;
use store::{KeyValue, RangeQuery, Rev, Step, Store, View};
use types::{LeaseId, Revision, Term};

const KEYS: u64 = 64;
const GROUPS: u64 = 4_000;

/// Each transaction adds 1 to one key and takes 1 from another, so all values sum to zero.
fn sum_at(view: &View, revision: i64) -> i64 {
    let mut refs = Vec::new();
    view.scan(b"\0", b"\0", revision, &mut |_, version| {
        refs.push(version.rev);
        true
    })
    .unwrap();
    refs.into_iter()
        .map(|rev| {
            let stored = view.value(&may(), rev).unwrap().expect("a View has its values");
            let value = KeyValue::parse(&stored).unwrap().value;
            i64::from_le_bytes(value.try_into().unwrap())
        })
        .sum()
}

fn read(slot: &Mutex<View>, stop: &AtomicBool, seed: u64) -> u64 {
    let (mut views, mut last) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let view = slot.lock().unwrap().clone();
        let now = view.revision().0;
        assert!(now >= last, "published revisions rise");
        last = now;
        let oldest = view.compact_revision().0.max(1);
        let past =
            oldest + (seed.wrapping_mul(now as u64 + views) % (now - oldest + 1) as u64) as i64;
        assert_eq!(sum_at(&view, 0), 0);
        assert_eq!(sum_at(&view, past), 0);
        if let Some(tail) = view.tail(Rev::first_of(Revision(past.max(view.tail_start().0)))) {
            let mains: Vec<_> = tail.map(|event| event.rev()).collect();
            assert!(mains.is_sorted());
            assert!(mains.last().is_none_or(|rev| rev.main.0 == now));
        }
        views += 1;
    }
    views
}

#[test]
fn views_stay_whole_under_a_running_writer() {
    let mut store = Store::empty();
    let mut db = common::fresh(&env::mem::MemDisk::new());
    let slot = Arc::new(Mutex::new(store.publish()));
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (1..4)
        .map(|seed| {
            let (slot, stop) = (Arc::clone(&slot), Arc::clone(&stop));
            std::thread::spawn(move || read(&slot, &stop, seed * 7_919))
        })
        .collect();
    let mut values = [0i64; KEYS as usize];
    let mut sealed = Vec::new();
    for group in 0..GROUPS {
        for n in 0..3 {
            let (a, b) = (group * 3 + n, group * 5 + n * 11 + 1);
            let (a, b) = ((a % KEYS) as usize, (b % KEYS) as usize);
            if a == b {
                continue;
            }
            values[a] += 1;
            values[b] -= 1;
            let mut txn = store.begin();
            for i in [a, b] {
                let key = format!("key-{i}");
                txn.put(key.as_bytes(), &values[i].to_le_bytes(), LeaseId(0));
            }
            txn.end();
        }
        if group % 500 == 499 {
            store.compact(Revision(store.revision().0 - 100)).unwrap();
        }
        if store.is_compacting() {
            let _: Step = store.compaction_step(50);
        }
        sealed.push(store.seal(store.applied_index().next(), Term(1), None));
        if group % 40 == 39 {
            let read = common::commit(&mut db, &sealed).unwrap();
            drop(store.committed(sealed.last().unwrap(), read));
            sealed.clear();
        }
        let view = store.publish();
        let old = std::mem::replace(&mut *slot.lock().unwrap(), view);
        drop(old);
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 10);
    }
    let view = store.publish();
    assert_eq!(view.count(&RangeQuery::between(b"\0", b"\0")), Ok(KEYS));
}
