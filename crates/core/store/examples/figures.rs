//! Prints what the index and its Views cost at a million keys of 64 B. Run with `--release`.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an example of core, not core: it reads files, clocks and oracles"
)]

use std::hint::black_box;
use std::time::Instant;

use env::{Entropy, SplitMix};
use store::{RangeQuery, Store, View};
use types::{LeaseId, Term};

const KEYS: u64 = 1_000_000;

fn key(n: u64) -> Vec<u8> {
    let mut random = SplitMix::new(n);
    let (a, b) = (random.next_u64(), random.next_u64());
    format!("/registry/pods/ns-{:03}/pod-{a:016x}{b:016x}{:06x}", n % 100, a & 0xff_ffff).into()
}

/// Anonymous memory of this process, bytes; 0 where the system does not tell.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Runs `work` `times` times and prints nanoseconds of each.
fn time(name: &str, times: u64, mut work: impl FnMut(u64)) {
    let start = Instant::now();
    (0..times).for_each(&mut work);
    println!("{name:<44} {:>10.0} ns", start.elapsed().as_nanos() as f64 / times as f64);
}

fn publish(store: &mut Store) -> View {
    store.seal(store.applied_index().next(), Term(1), None);
    store.publish()
}

fn main() {
    let mut store = Store::empty();
    let before = memory_bytes();
    let keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
    println!("keys themselves: {} B per key", (memory_bytes() - before) / KEYS);
    let value = [7; 100];
    let before = memory_bytes();
    time("put of a new key, a group per 1,000", KEYS, |i| {
        let mut txn = store.begin();
        txn.put(&keys[i as usize], &value, LeaseId(0));
        txn.end();
        if i % 1_000 == 999 {
            publish(&mut store);
        }
    });
    let log = store.uncommitted_bytes() as u64;
    println!("index: {} B per key", (memory_bytes() - before - log) / KEYS);
    let past = store.revision().0;
    let mut random = SplitMix::new(1);
    for group in [1, 16, 256] {
        let mut view = publish(&mut store);
        time(&format!("update, a View per {group}"), 100_000, |i| {
            let mut txn = store.begin();
            txn.put(&keys[random.below(KEYS) as usize], &value, LeaseId(0));
            txn.end();
            if i % group == 0 {
                view = publish(&mut store);
            }
        });
    }
    let view = publish(&mut store);
    for (when, revision) in [("now", 0), ("300k updates ago", past)] {
        time(&format!("get, {when}"), 300_000, |_| {
            black_box(view.get(&keys[random.below(KEYS) as usize], revision).unwrap());
        });
        time(&format!("plan of a range, limit 500, {when}"), 3_000, |_| {
            let key = &keys[random.below(KEYS) as usize];
            let query = RangeQuery { revision, limit: 500, ..RangeQuery::between(key, b"\0") };
            black_box(view.range(&query).unwrap());
        });
        for (what, low, high) in [
            ("all", &b"\0"[..], &b"\0"[..]),
            ("a prefix of 10k", b"/registry/pods/ns-042/", b"/registry/pods/ns-0420"),
        ] {
            let query = RangeQuery { revision, ..RangeQuery::between(low, high) };
            time(&format!("count of {what}, {when}"), 1_000, |_| {
                black_box(view.count(black_box(&query)).unwrap());
            });
        }
    }
    let query = RangeQuery { limit: 500, ..RangeQuery::between(b"/registry/pods/ns-04", b"\0") };
    let ranged = view.range(&query).unwrap();
    let mut out = Vec::new();
    time("body of 500 values from memory", 1_000, |_| {
        out.clear();
        assert!(view.try_render(&ranged, 1 << 30, &mut out).unwrap());
    });
}
