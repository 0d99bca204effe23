//! Lists against the same lists read value by value, with pages missing from the cache.

mod common;

use common::{World, commit, may};
use env::Entropy;
use store::{Lookup, Piece, RangeQuery, Step, StoreLimits, ValueRef, View};
use types::{Index, LeaseId, Revision, Term};

const KEYS: u64 = 2_000;
const LIST: (&[u8], &[u8]) = (b"/list/", b"/list0");

/// What a list holds, each value read alone where waiting is allowed.
struct Expected {
    /// The encoded field of each value.
    fields: Vec<Vec<u8>>,
    /// Whether each is in memory.
    warm: Vec<bool>,
}

impl Expected {
    fn new(view: &View, refs: &[ValueRef]) -> Self {
        let (mut fields, mut warm) = (Vec::new(), Vec::new());
        for r in refs {
            let value = view.value(&may(), r.rev()).unwrap().unwrap();
            let mut field = vec![0x12];
            let mut len = value.len();
            while len >= 0x80 {
                field.push(len as u8 | 0x80);
                len >>= 7;
            }
            field.push(len as u8);
            field.extend_from_slice(&value);
            fields.push(field);
            warm.push(view.try_value(r.rev()).unwrap() != Lookup::Cold);
        }
        Self { fields, warm }
    }
}

/// Fills a store with lists whose values lie next to each other, anywhere, in memory and over
/// several pages.
fn fill(world: &mut World) {
    // What is committed is read from the database, not from the watchers' tail.
    let limits = StoreLimits { watch_tail_bytes: 0, ..world.store.limits() };
    world.store.set_limits(limits);
    let rounds = 2 + world.below(4);
    for round in 0..rounds {
        let scattered = round > 0 && world.below(2) == 0;
        for _ in 0..4 {
            let from = world.below(KEYS);
            let count = if round == 0 { KEYS / 4 } else { world.below(KEYS / 8) };
            let mut txn = world.store.begin();
            for i in 0..count {
                let n = if scattered { world.random.below(KEYS) } else { (from + i) % KEYS };
                let key = format!("/list/{n:05}");
                if round > 0 && world.random.below(10) == 0 {
                    txn.delete_range(key.as_bytes(), b"");
                    continue;
                }
                let len = match world.random.below(60) {
                    0 => world.random.below(30_000),
                    1 => 0,
                    _ => world.random.below(600),
                };
                let value = vec![n as u8 ^ round as u8; len as usize];
                txn.put(key.as_bytes(), &value, LeaseId(0));
                // Revisions of their own, and several within one.
                if world.random.below(3) > 0 {
                    txn.end();
                    txn = world.store.begin();
                }
            }
            txn.end();
            seal(world, true);
        }
        if world.below(4) == 0 {
            let revision = world.store.revision();
            world.store.compact(Revision(revision.0 - 1)).unwrap();
            seal(world, true);
            while world.store.compaction_step(500) == Step::More {}
            seal(world, true);
        }
    }
    // The newest changes are in memory only.
    for _ in 0..world.below(300) {
        let key = format!("/list/{:05}", world.below(KEYS));
        let mut txn = world.store.begin();
        txn.put(key.as_bytes(), b"new", LeaseId(0));
        txn.end();
    }
    seal(world, false);
}

fn seal(world: &mut World, durable: bool) {
    world.index += 1;
    let batch = world.store.seal(Index(world.index), Term(1), None);
    if durable {
        let read = commit(&mut world.db, &[std::sync::Arc::clone(&batch)]).unwrap();
        drop(world.store.committed(&batch, read));
    }
}

/// Reads a list in pieces, on the pool only if told to; counts the pieces that needed it.
fn check_pieces(world: &mut World, view: &View, query: &RangeQuery<'_>) -> u64 {
    let ranged = view.range(query).unwrap();
    let expected = Expected::new(view, ranged.refs().unwrap());
    let mut body = view.body(ranged);
    let (mut at, mut needed) = (0, 0);
    loop {
        let max = 1 + world.below(200_000) as usize;
        let (mut out, mut want) = (Vec::new(), Vec::new());
        let mut piece = body.next(view, max, &mut out).unwrap();
        // Whole values in order, whatever ended the piece.
        while want.len() < out.len() {
            assert!(expected.warm[at], "a value that is not in memory was waited for");
            want.extend_from_slice(&expected.fields[at]);
            at += 1;
        }
        if piece == Piece::NeedsBlocking {
            let (mut rest, mut cold) = (want.len(), false);
            for (field, warm) in expected.fields[at..].iter().zip(&expected.warm[at..]) {
                if rest >= max {
                    break;
                }
                rest += field.len();
                cold |= !warm;
            }
            assert!(cold, "all that the piece needs is in memory");
            needed += 1;
            piece = body.next_blocking(&may(), view, max, &mut out).unwrap();
            while want.len() < out.len() {
                want.extend_from_slice(&expected.fields[at]);
                at += 1;
            }
        }
        assert!(out == want, "bytes of a piece that ends before value {at}");
        let last = at.checked_sub(1).map_or(0, |i| expected.fields[i].len());
        assert!(out.is_empty() || out.len() - last < max, "one value overshoots at most");
        match piece {
            Piece::More => assert!(out.len() >= max),
            Piece::Done => break,
            Piece::NeedsBlocking => unreachable!("it was allowed to block"),
        }
    }
    assert_eq!(at, expected.fields.len());
    needed
}

/// Renders a list at once; whether that was possible.
fn check_whole(view: &View, query: &RangeQuery<'_>, max: usize) -> bool {
    let ranged = view.range(query).unwrap();
    let expected = Expected::new(view, ranged.refs().unwrap());
    let mut out = b"head".to_vec();
    let done = view.try_render(&ranged, max, &mut out).unwrap();
    let all = expected.fields.concat();
    let fits = all.len() <= max;
    assert_eq!(done, fits && expected.warm.iter().all(|w| *w));
    let want = if done { all } else { Vec::new() };
    assert!(out == [b"head", &want[..]].concat(), "bytes of a whole list");
    done
}

#[test]
fn lists_in_runs_of_pages_equal_lists_read_value_by_value() {
    let (mut needed, mut whole, mut not_whole) = (0, 0, 0);
    for seed in 0..16 {
        let mut world = World::new(seed);
        fill(&mut world);
        let view = world.store.publish();
        let pages = view.backend().unwrap().size_bytes() / 4096;
        for _ in 0..25 {
            let cold = [0, 0, 1, pages / 50, pages][world.below(5) as usize];
            let missing: Vec<u64> = (0..cold).map(|_| world.below(pages)).collect();
            world.disk.set_cold_blocks(missing);
            let compacted = view.compact_revision().0.max(1);
            let span = view.revision().0 - compacted + 1;
            let revision = compacted + world.below(span as u64) as i64;
            let from = format!("/list/{:05}", world.below(KEYS));
            let query = RangeQuery {
                key: if world.below(2) == 0 { LIST.0 } else { from.as_bytes() },
                range_end: LIST.1,
                revision: if world.below(2) == 0 { 0 } else { revision },
                limit: [0, 1, 3, 4, 50, 500][world.below(6) as usize],
                ..RangeQuery::default()
            };
            needed += check_pieces(&mut world, &view, &query);
            let max = 1 << (10 + world.below(12));
            match check_whole(&view, &query, max) {
                true => whole += 1,
                false => not_whole += 1,
            }
        }
    }
    assert!(needed > 50 && whole > 50 && not_whole > 50, "{needed} {whole} {not_whole}");
}
