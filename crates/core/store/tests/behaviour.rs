//! Behaviours with a name: quirks of etcd, limits, refusals.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{commit, elements, fresh, may, render};
use env::mem::MemDisk;
use store::{
    Bucket, CompactError, KeyValue, Lookup, Op, Piece, RangeError, RangeQuery, RecoverError, Rev,
    Step, Store, UNCOMMITTED_LIMIT_BYTES, WATCH_TAIL_BYTES, meta,
};
use types::{Index, LeaseId, Revision, SubRevision, Term};

const NO_LEASE: LeaseId = LeaseId(0);
const EVERYTHING: (&[u8], &[u8]) = (b"\0", b"\0");

fn put(store: &mut Store, key: &[u8], value: &[u8]) {
    let mut txn = store.begin();
    txn.put(key, value, NO_LEASE);
    txn.end();
}

fn seal(store: &mut Store) -> Arc<store::Batch> {
    let index = store.applied_index().next();
    store.seal(index, Term(1), None)
}

/// Seals, commits and installs the result.
fn flush(store: &mut Store, db: &mut bolt::Db) {
    let batch = seal(store);
    let read = commit(db, &[Arc::clone(&batch)]).unwrap();
    drop(store.committed(&batch, read));
}

fn value_of(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    let view = store.publish();
    let found = view.get(key, 0).unwrap()?;
    let stored = view.value(&may(), found.rev).unwrap().unwrap();
    Some(KeyValue::parse(&stored).unwrap().value.to_vec())
}

fn rows(db: &bolt::Db, bucket: Bucket) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let (read, may) = (db.begin_read(), may());
    let scan = read.scan(&may, bucket.name(), all, env::Access::Scan);
    scan.map(|row| row.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

#[test]
fn a_put_after_a_delete_of_everything_survives_compaction_at_its_revision() {
    // D12: etcd loses this write.
    let mut db = fresh(&MemDisk::new());
    let mut store = Store::empty();
    put(&mut store, b"a", b"old");
    let mut txn = store.begin();
    assert_eq!(txn.delete_range(b"a", b"\0").len(), 1);
    assert_eq!(txn.put(b"a", b"new", NO_LEASE), None);
    assert_eq!(txn.get(b"a").unwrap().rev, Rev { main: Revision(3), sub: SubRevision(1) });
    assert_eq!(txn.end(), Revision(3));
    store.compact(Revision(3)).unwrap();
    while store.compaction_step(1) == Step::More {}
    flush(&mut store, &mut db);
    let recovered = Store::recover(&may(), db.begin_read()).unwrap();
    for store in [store, recovered] {
        assert_eq!(value_of(&store, b"a").as_deref(), Some(&b"new"[..]));
        let kept = store.publish().get(b"a", 3).unwrap().unwrap();
        assert_eq!((kept.create, kept.version), (Revision(3), 1));
    }
    assert_eq!(rows(&db, Bucket::Key).len(), 2, "the tombstone at the revision stays, too");
}

#[test]
fn a_put_and_a_delete_of_its_key_in_one_transaction_are_two_events_of_one_revision() {
    let mut store = Store::empty();
    let mut txn = store.begin();
    txn.put(b"k", b"v", NO_LEASE);
    let deleted = txn.delete_range(b"k", b"\0");
    assert_eq!(deleted[0].prev.rev, Rev::first_of(Revision(2)));
    txn.end();
    let view = {
        seal(&mut store);
        store.publish()
    };
    let events: Vec<_> = view
        .tail(Rev::first_of(Revision(2)))
        .unwrap()
        .map(|e| (e.rev().main.0, e.rev().sub.0, e.is_tombstone()))
        .collect();
    assert_eq!(events, [(2, 0, false), (2, 1, true)]);
    assert_eq!(view.get(b"k", 0), Ok(None));
    let mut chain = Vec::new();
    view.key_chain(b"k", |version, tombstone| {
        chain.push((version.rev.sub.0, tombstone));
        true
    });
    assert_eq!(chain, [(1, true), (0, false)]);
}

#[test]
fn revisions_rise_only_with_changes() {
    let mut store = Store::empty();
    assert_eq!((store.revision(), store.compact_revision()), (Revision(1), Revision(-1)));
    let mut txn = store.begin();
    assert_eq!(txn.revision(), Revision(2));
    assert!(txn.delete_range(b"none", b"\0").is_empty());
    assert!(!txn.has_changed());
    assert_eq!(txn.end(), Revision(1));
    put(&mut store, b"k", b"same");
    put(&mut store, b"k", b"same");
    assert_eq!(store.revision(), Revision(3));
    seal(&mut store);
    let found = store.publish().get(b"k", 0).unwrap().unwrap();
    assert_eq!((found.create, found.rev.main, found.version), (Revision(2), Revision(3), 2));
}

#[test]
fn ranges_refuse_the_future_and_the_compacted_past() {
    let mut store = Store::empty();
    for _ in 0..5 {
        put(&mut store, b"k", b"v");
    }
    store.compact(Revision(4)).unwrap();
    seal(&mut store);
    let view = store.publish();
    let at =
        |revision| view.range(&RangeQuery { revision, ..RangeQuery::key(b"k") }).map(|r| r.len());
    assert_eq!(at(7), Err(RangeError::FutureRevision));
    assert_eq!(at(3), Err(RangeError::Compacted));
    assert_eq!((at(4), at(6), at(0), at(-5)), (Ok(1), Ok(1), Ok(1), Ok(1)));
}

#[test]
fn compactions_are_refused_as_in_etcd() {
    let mut store = Store::empty();
    assert_eq!(store.compact(Revision(-1)), Err(CompactError::Compacted));
    assert_eq!(store.compact(Revision(2)), Err(CompactError::FutureRevision));
    let first = store.compact(Revision(0)).unwrap();
    assert_eq!((first.previous, first.previous_finished), (Revision(-1), true));
    assert_eq!(store.compact(Revision(0)), Err(CompactError::Compacted));
    let second = store.compact(Revision(1)).unwrap();
    assert_eq!((second.previous, second.previous_finished), (Revision(0), false));
    assert!(store.is_compacting());
    assert_eq!(store.compaction_step(10), Step::Done);
    assert!(!store.is_compacting());
}

#[test]
fn long_lists_come_in_pieces_with_or_without_values() {
    let disk = MemDisk::new();
    let mut db = fresh(&disk);
    let mut store = Store::empty();
    let key = |i: u32| format!("/list/{i:06}").into_bytes();
    for i in 0..9_000 {
        put(&mut store, &key(i), &[b'v'; 40]);
        if i == 5_000 {
            flush(&mut store, &mut db);
        }
    }
    seal(&mut store);
    let view = store.publish();
    for cold in [false, true] {
        disk.set_cold(cold);
        for (limit, keys_only, want) in [(0, false, 9_000), (7_000, false, 7_000), (0, true, 9_000)]
        {
            let query =
                RangeQuery { limit, keys_only, ..RangeQuery::between(b"/list/", b"/list0") };
            let ranged = view.range(&query).unwrap();
            assert!(ranged.refs().is_none(), "places of a long list are not held");
            assert_eq!((ranged.count, ranged.len(), ranged.more), (9_000, want, want < 9_000));
            let mut body = view.body(ranged.clone());
            let (mut pieces, mut out) = (0, Vec::new());
            while body.next_blocking(&may(), &view, 10_000, &mut out).unwrap() == Piece::More {
                assert!(out.len() < 10_000 + 200, "a piece overshoots by one element at most");
                pieces += 1;
                out.clear();
            }
            assert!(pieces > 20);
            let all = render(&view, &view, ranged, 3_000);
            assert_eq!(all.len() as u64, want);
            for (i, element) in all.iter().enumerate() {
                let kv = KeyValue::parse(element).unwrap();
                assert_eq!(kv.key, key(i as u32));
                assert_eq!(kv.value.len(), if keys_only { 0 } else { 40 });
            }
        }
    }
}

#[test]
fn a_list_fails_only_once_compaction_has_removed_what_it_still_needs() {
    let mut db = fresh(&MemDisk::new());
    let mut store = Store::empty();
    let key = |i: u32| format!("/{i:05}").into_bytes();
    for i in 0..6_000 {
        put(&mut store, &key(i), &[b'v'; 1_500]);
    }
    flush(&mut store, &mut db);
    let view = store.publish();
    let mut body = view.body(view.range(&RangeQuery::between(b"/", b"0")).unwrap());
    for i in 0..6_000 {
        put(&mut store, &key(i), &[b'w'; 1_500]);
    }
    store.compact(store.revision()).unwrap();
    flush(&mut store, &mut db);
    let mut out = Vec::new();
    assert_eq!(body.next(&store.publish(), 5_000, &mut out), Ok(Piece::More));
    while store.compaction_step(1_000) == Step::More {}
    flush(&mut store, &mut db);
    assert_eq!(
        body.next_blocking(&may(), &store.publish(), 1 << 30, &mut out),
        Err(store::ValueError::Compacted)
    );
    // The View it began with still has everything.
    let mut body = view.body(view.range(&RangeQuery::between(b"/", b"0")).unwrap());
    assert_eq!(body.next_blocking(&may(), &view, 1 << 30, &mut out), Ok(Piece::Done));
}

#[test]
fn keys_of_the_largest_request_work() {
    let mut db = fresh(&MemDisk::new());
    let mut store = Store::empty();
    let key = |i: u8| [&vec![b'x'; 1_500_000][..], &[i]].concat();
    for i in [3, 1, 2, 5, 4] {
        put(&mut store, &key(i), &[i]);
    }
    flush(&mut store, &mut db);
    let recovered = Store::recover(&may(), db.begin_read()).unwrap();
    for store in [&store, &recovered] {
        let view = store.publish();
        let (low, high) = (key(2), key(5));
        let ranged = view.range(&RangeQuery::between(&low, &high)).unwrap();
        assert_eq!(ranged.count, 3);
        let values: Vec<_> = render(&view, &view, ranged, 1)
            .iter()
            .map(|kv| KeyValue::parse(kv).unwrap().value[0])
            .collect();
        assert_eq!(values, [2, 3, 4]);
    }
}

#[test]
fn the_tail_is_bounded_and_what_left_it_is_read_from_the_database() {
    let disk = MemDisk::new();
    let mut db = fresh(&disk);
    let mut store = Store::empty();
    let value = vec![b'v'; 64 << 10];
    let total = 2 * WATCH_TAIL_BYTES / value.len();
    for i in 0..total {
        put(&mut store, format!("k{i:04}").as_bytes(), &value);
        seal(&mut store);
    }
    let held = store.publish();
    assert!(store.uncommitted_bytes() > 2 * WATCH_TAIL_BYTES);
    assert!(!store.is_over_limit());
    assert_eq!(held.tail_start(), Revision(2));
    let mut batches = Vec::new();
    put(&mut store, b"last", b"");
    batches.push(seal(&mut store));
    // The database needs all of them: take them from where a committer would have them.
    let mut tx = db.begin_write();
    let mut again = Store::empty();
    for i in 0..total {
        put(&mut again, format!("k{i:04}").as_bytes(), &value);
        seal(&mut again).write_to(&mut tx, &may()).unwrap();
    }
    batches[0].write_to(&mut tx, &may()).unwrap();
    tx.commit(&may()).unwrap();
    drop(store.committed(&batches[0], db.begin_read()));
    assert_eq!(store.uncommitted_bytes(), 0);
    let view = store.publish();
    assert!(view.tail_start() > Revision(2));
    assert!(view.tail(Rev::first_of(Revision(2))).is_none());
    let tail: usize = view.tail(Rev::first_of(view.tail_start())).unwrap().count();
    assert!(tail * value.len() <= WATCH_TAIL_BYTES && tail * value.len() * 2 > WATCH_TAIL_BYTES);
    let history =
        view.history(&may(), Rev::first_of(Revision(2)), view.revision(), usize::MAX).unwrap();
    assert_eq!(history.next, None);
    assert_eq!(history.changes.len() + tail, total + 1);
    // The View from before has all of it in memory.
    assert_eq!(held.tail(Rev::first_of(Revision(2))).unwrap().count(), total);
    disk.set_cold(true);
    let first = view.get(b"k0000", 0).unwrap().unwrap().rev;
    assert_eq!(view.try_value(first), Ok(Lookup::Cold));
    assert!(matches!(held.try_value(first), Ok(Lookup::Found(_))));
    assert!(view.value(&may(), first).unwrap().is_some());
}

#[test]
fn what_the_database_does_not_hold_stays_in_memory_whatever_its_size() {
    let mut db = fresh(&MemDisk::new());
    let mut store = Store::empty();
    let value = vec![b'v'; 1 << 20];
    let total = 3 * (WATCH_TAIL_BYTES >> 20);
    let sealed: Vec<_> = (0..total)
        .map(|i| {
            put(&mut store, format!("k{i:04}").as_bytes(), &value);
            seal(&mut store)
        })
        .collect();
    for committed in [1, 5, total / 2, total] {
        let read = commit(&mut db, &sealed[..committed]).unwrap();
        drop(store.committed(&sealed[committed - 1], read));
        let in_memory = total - (store.publish().tail_start().0 as usize - 2);
        assert!(in_memory >= total - committed);
        assert!(in_memory << 20 <= WATCH_TAIL_BYTES || in_memory == total - committed);
        assert_eq!(value_of(&store, b"k0000").map(|v| v.len()), Some(1 << 20));
        assert_eq!(value_of(&store, b"k0023").map(|v| v.len()), Some(1 << 20));
    }
}

#[test]
fn one_huge_batch_leaves_memory_once_it_is_committed() {
    let mut db = fresh(&MemDisk::new());
    let mut store = Store::empty();
    let value = vec![b'v'; 1 << 20];
    for i in 0..=UNCOMMITTED_LIMIT_BYTES >> 20 {
        put(&mut store, format!("k{i}").as_bytes(), &value);
    }
    let batch = seal(&mut store);
    assert!(store.is_over_limit());
    let read = commit(&mut db, &[Arc::clone(&batch)]).unwrap();
    drop(store.committed(&batch, read));
    assert!(!store.is_over_limit());
    let view = store.publish();
    assert_eq!(view.tail_start().0, view.revision().0 + 1);
    assert_eq!(value_of(&store, b"k0").map(|v| v.len()), Some(1 << 20));
    put(&mut store, b"next", b"v");
    seal(&mut store);
    assert_eq!(store.publish().tail(Rev::first_of(store.revision())).unwrap().count(), 1);
}

#[test]
fn local_operations_and_the_position_are_in_the_same_transaction() {
    let mut db = fresh(&MemDisk::new());
    let mut store = Store::empty();
    let op = |value: Option<&'static [u8]>| Op {
        bucket: Bucket::AuthUsers,
        key: Bytes::from_static(b"root"),
        value: value.map(Bytes::from_static),
    };
    store.local(op(Some(b"user")));
    put(&mut store, b"k", b"v");
    let conf_state = Bytes::from_static(b"{\"voters\":[1],\"auto_leave\":false}");
    let batch = store.seal(Index(9), Term(4), Some(conf_state.clone()));
    drop(commit(&mut db, &[batch]).unwrap());
    assert_eq!(rows(&db, Bucket::AuthUsers), [(b"root".to_vec(), b"user".to_vec())]);
    let want = [
        (meta::CONF_STATE.to_vec(), conf_state.to_vec()),
        (meta::CONSISTENT_INDEX.to_vec(), 9u64.to_be_bytes().to_vec()),
        (meta::TERM.to_vec(), 4u64.to_be_bytes().to_vec()),
    ];
    assert_eq!(rows(&db, Bucket::Meta), want);
    store.local(op(None));
    let batch = store.seal(Index(10), Term(4), None);
    drop(commit(&mut db, &[batch]).unwrap());
    assert!(rows(&db, Bucket::AuthUsers).is_empty());
    let recovered = Store::recover(&may(), db.begin_read()).unwrap();
    assert_eq!((recovered.applied_index(), recovered.applied_term()), (Index(10), Term(4)));
}

#[test]
fn recovery_hands_out_the_leases_of_live_keys() {
    let mut db = fresh(&MemDisk::new());
    let mut store = Store::empty();
    let mut txn = store.begin();
    for (key, lease) in [("a", 7), ("b", 7), ("c", -8), ("d", 9)] {
        txn.put(key.as_bytes(), b"v", LeaseId(lease));
    }
    txn.end();
    let mut txn = store.begin();
    txn.delete_range(b"b", b"");
    txn.put(b"d", b"v", NO_LEASE);
    txn.put(b"a", b"v", LeaseId(10));
    txn.end();
    flush(&mut store, &mut db);
    let mut leases = Vec::new();
    Store::recover_with_leases(&may(), db.begin_read(), &mut |key, lease| {
        leases.push((key.to_vec(), lease.0));
    })
    .unwrap();
    assert_eq!(leases, [(b"a".to_vec(), 10), (b"c".to_vec(), -8)]);
}

fn database_with(bucket: Bucket, key: &[u8], value: &[u8]) -> bolt::Db {
    let mut db = fresh(&MemDisk::new());
    let mut tx = db.begin_write();
    tx.put(&may(), bucket.name(), key, value).unwrap();
    tx.commit(&may()).unwrap();
    db
}

fn rev_key(main: u64) -> Vec<u8> {
    [&main.to_be_bytes()[..], b"_", &[0; 8]].concat()
}

#[test]
fn the_empty_row_of_a_bumped_revision_is_tolerated_and_never_shown() {
    let mut db = database_with(Bucket::Key, &rev_key(1_000), b"");
    let mut tx = db.begin_write();
    tx.put(&may(), Bucket::Meta.name(), meta::SCHEDULED_COMPACT, &rev_key(1_000)).unwrap();
    tx.commit(&may()).unwrap();
    let mut store = Store::recover(&may(), db.begin_read()).unwrap();
    assert_eq!((store.revision(), store.compact_revision()), (Revision(1_000), Revision(1_000)));
    assert!(store.is_compacting(), "the compaction is taken up");
    let (key, end) = EVERYTHING;
    let count = |store: &Store| store.publish().count(&RangeQuery::between(key, end));
    assert_eq!(count(&store), Ok(0));
    while store.compaction_step(1) == Step::More {}
    put(&mut store, b"k", b"v");
    flush(&mut store, &mut db);
    assert_eq!((store.revision(), count(&store)), (Revision(1_001), Ok(1)));
    let again = Store::recover(&may(), db.begin_read()).unwrap();
    assert!(!again.is_compacting());
    assert_eq!(again.revision(), Revision(1_001));
}

#[test]
fn damaged_rows_are_refused_with_their_place() {
    let recover = |bucket, key: &[u8], value: &[u8]| {
        Store::recover(&may(), database_with(bucket, key, value).begin_read()).map(drop)
    };
    let kv = |create: i64, version: i64| {
        let mut out = Vec::new();
        KeyValue { key: b"k", create, main: 5, version, ..KeyValue::default() }.encode(&mut out);
        out
    };
    assert_eq!(recover(Bucket::Key, &rev_key(5), &kv(5, 1)), Ok(()));
    let bad = Err(RecoverError::BadRow { main: 5, sub: 0 });
    for value in [&b"\x0a\x09k"[..], &kv(6, 1), &kv(-1, 1), &kv(5, i64::MAX), &kv(5, -1)] {
        assert_eq!(recover(Bucket::Key, &rev_key(5), value), bad);
    }
    let odd = rev_key(5)[..16].to_vec();
    assert_eq!(recover(Bucket::Key, &odd, &kv(5, 1)), Err(RecoverError::BadRevisionKey(odd)));
    let last = rev_key(i64::MAX as u64);
    assert!(recover(Bucket::Key, &last, &kv(5, 1)).is_err(), "no revision could follow");
    for key in [meta::FINISHED_COMPACT, meta::SCHEDULED_COMPACT, meta::TERM] {
        assert_eq!(recover(Bucket::Meta, key, b"short"), Err(RecoverError::BadMeta(key)));
    }
}

#[test]
fn plans_made_within_a_transaction_stay_valid_after_it() {
    let mut store = Store::empty();
    put(&mut store, b"a", b"1");
    let mut txn = store.begin();
    txn.put(b"b", b"2", NO_LEASE);
    let ranged = txn.range(&RangeQuery::between(b"a", b"\0")).unwrap();
    assert_eq!(ranged.revision, Revision(3), "own changes show at the new revision");
    let keys = txn.range(&RangeQuery { keys_only: true, ..RangeQuery::between(b"a", b"\0") });
    txn.delete_range(b"a", b"\0");
    txn.put(b"b", b"3", NO_LEASE);
    txn.end();
    seal(&mut store);
    let view = store.publish();
    let mut out = Vec::new();
    assert!(view.try_render(&ranged, 1 << 20, &mut out).unwrap());
    let values: Vec<_> =
        elements(&out).iter().map(|kv| KeyValue::parse(kv).unwrap().value.to_vec()).collect();
    assert_eq!(values, [b"1", b"2"]);
    assert_eq!(render(&view, &view, keys.unwrap(), 1).len(), 2);
}

#[test]
fn the_newest_ten_compaction_hashes_are_kept() {
    let mut hashes = store::CompactionHashes::default();
    for i in (0..15).rev() {
        let (revision, compact_revision) = (Revision(i), Revision(i - 1));
        hashes.store(store::KvHash { hash: i as u32, revision, compact_revision, was_alive: true });
    }
    let kept: Vec<_> = hashes.all().iter().map(|h| h.revision.0).collect();
    assert_eq!(kept, (5..15).collect::<Vec<_>>());
    assert_eq!(hashes.get(Revision(9)).unwrap().hash, 9);
    assert_eq!(hashes.get(Revision(4)), None);
}

#[test]
fn deletes_of_many_keys_come_in_byte_order_with_rising_subs() {
    let mut store = Store::empty();
    let mut txn = store.begin();
    for i in 0..3_000u32 {
        txn.put(&i.reverse_bits().to_be_bytes(), b"v", NO_LEASE);
    }
    txn.end();
    let mut txn = store.begin();
    let deleted = txn.delete_range(b"\0", b"\0");
    txn.end();
    assert_eq!(deleted.len(), 3_000);
    assert!(deleted.windows(2).all(|pair| pair[0].key < pair[1].key));
    let batch = seal(&mut store);
    let tombstones: Vec<_> = batch.events().filter(|e| e.is_tombstone()).collect();
    for (i, (event, deleted)) in tombstones.iter().zip(&deleted).enumerate() {
        assert_eq!(event.rev(), Rev { main: Revision(3), sub: SubRevision(i as i64) });
        assert_eq!(event.fields().unwrap().key, deleted.key);
    }
    assert_eq!(store.publish().count(&RangeQuery::between(b"\0", b"\0")), Ok(0));
}

fn finish(mut hasher: store::KvHasher, view: &store::View) -> store::KvHash {
    while hasher.step(&may(), view, 1).unwrap() == Step::More {}
    hasher.finish()
}

#[test]
fn a_hash_begins_again_after_a_compaction_and_ends_if_that_passed_its_revision() {
    let mut store = Store::empty();
    for i in 0..20 {
        put(&mut store, format!("k{}", i % 4).as_bytes(), b"v");
    }
    seal(&mut store);
    let old = store.publish();
    let (mut at_10, mut at_20) = (old.hash_kv(10).unwrap(), old.hash_kv(20).unwrap());
    for _ in 0..5 {
        assert_eq!(at_10.step(&may(), &old, 1), Ok(Step::More));
        assert_eq!(at_20.step(&may(), &old, 1), Ok(Step::More));
    }
    store.compact(Revision(15)).unwrap();
    seal(&mut store);
    let of_compaction = store.publish().hash_compaction(Revision(-1));
    store.compaction_step(3);
    seal(&mut store);
    let new = store.publish();
    assert_eq!(at_10.step(&may(), &new, 1), Err(store::ValueError::Compacted));
    let hash = finish(at_20, &new);
    assert_eq!(hash.compact_revision, Revision(15));
    assert_eq!(hash, finish(new.hash_kv(20).unwrap(), &new));
    assert_ne!(hash.hash, finish(old.hash_kv(20).unwrap(), &old).hash);
    // The hash of a compaction is void once another was accepted.
    store.compact(Revision(16)).unwrap();
    seal(&mut store);
    let mut of_compaction = of_compaction;
    let step = of_compaction.step(&may(), &store.publish(), 1);
    assert_eq!(step, Err(store::ValueError::Compacted));
}

#[test]
fn hashes_of_revisions_outside_are_refused_and_negative_ones_hash_the_seed() {
    let mut store = Store::empty();
    for _ in 0..5 {
        put(&mut store, b"k", b"v");
    }
    store.compact(Revision(3)).unwrap();
    seal(&mut store);
    let view = store.publish();
    assert_eq!(view.hash_kv(2).map(drop), Err(RangeError::Compacted));
    assert_eq!(view.hash_kv(7).map(drop), Err(RangeError::FutureRevision));
    let seed = finish(view.hash_kv(-1).unwrap(), &view);
    assert_eq!((seed.hash, seed.revision), (crc32c::crc32c(b"key"), Revision(-1)));
    assert_eq!(finish(view.hash_kv(0).unwrap(), &view).revision, Revision(6));
}

#[test]
fn history_splits_a_revision_only_if_that_alone_is_over_budget() {
    let mut db = fresh(&MemDisk::new());
    let mut store = Store::empty();
    for size in [2, 2, 50, 2] {
        let mut txn = store.begin();
        for i in 0..size {
            txn.put(format!("k{i}").as_bytes(), &[b'v'; 100], NO_LEASE);
        }
        txn.end();
    }
    flush(&mut store, &mut db);
    let store = Store::recover(&may(), db.begin_read()).unwrap();
    let view = store.publish();
    let (mut next, mut chunks) = (Some(Rev::first_of(Revision(2))), Vec::new());
    while let Some(from) = next {
        let chunk = view.history(&may(), from, Revision(5), 2_000).unwrap();
        let revs: Vec<_> = chunk.changes.iter().map(|c| (c.rev.main.0, c.rev.sub.0)).collect();
        next = chunk.next;
        assert_eq!(next.is_none(), revs.last() == Some(&(5, 1)));
        chunks.push(revs);
    }
    assert_eq!(chunks[0], [(2, 0), (2, 1), (3, 0), (3, 1)]);
    assert!(chunks[1..chunks.len() - 1].iter().all(|c| c.iter().all(|rev| rev.0 == 4)));
    assert!(chunks.len() > 4);
    let all: Vec<_> = chunks.concat();
    assert!(all.is_sorted() && all.len() == 56);
}

#[test]
fn a_delete_event_has_the_key_and_its_revision() {
    let mut out = Vec::new();
    store::encode_deleted(b"k", Revision(300), &mut out);
    assert_eq!(out, b"\x0a\x01k\x18\xac\x02");
}

#[test]
fn views_do_not_see_batches_sealed_after_them() {
    let mut store = Store::empty();
    put(&mut store, b"a", b"1");
    seal(&mut store);
    let view = store.publish();
    put(&mut store, b"a", b"2");
    seal(&mut store);
    let mains = |view: &store::View| -> Vec<i64> {
        view.tail(Rev::first_of(Revision(1).max(view.tail_start())))
            .unwrap()
            .map(|event| event.rev().main.0)
            .collect()
    };
    assert_eq!(mains(&view), [2], "both share the segment");
    assert_eq!(mains(&store.publish()), [2, 3]);
    assert_eq!(view.get(b"a", 0).unwrap().unwrap().version, 1);
    assert_eq!(view.tail(Rev::first_of(Revision(3))).unwrap().count(), 0);
}
