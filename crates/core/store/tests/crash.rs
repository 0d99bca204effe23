//! Power cuts and failing disks at every I/O operation of a script of transactions, commits and
//! compactions. What comes back is the last acknowledged commit, or the one in flight.

mod common;

use common::World;
use common::model::Model;
use env::mem::{Fault, MemDisk};
use env::{Disk, Entropy, IoErrorKind, SplitMix};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use store::{Batch, Step, Store};
use types::Revision;

/// Commits all that is sealed; false if the disk failed, and then the queue's models tell what may
/// be in the file.
fn commit_all(world: &mut World) -> bool {
    let Some((last, model)) = world.queue.back().cloned() else { return true };
    let batches: Vec<Arc<Batch>> = world.queue.iter().map(|q| Arc::clone(&q.0)).collect();
    let mut tx = world.db.begin_write();
    let written = batches.iter().all(|batch| batch.write_to(&mut tx, &common::may()).is_ok());
    if !written || tx.commit(&common::may()).is_err() {
        return false;
    }
    world.queue.clear();
    drop(world.store.committed(&last, world.db.begin_read()));
    world.durable = model;
    true
}

/// Runs until the disk fails; true if it did not.
fn script(world: &mut World) -> bool {
    for round in 0..8 {
        for _ in 0..3 {
            world.transaction_of(4);
            world.seal();
        }
        if round % 3 == 2 {
            let target = world.model.revision - 1 - round % 2;
            if world.store.compact(Revision(target)).is_ok() {
                world.model.compact = target;
            }
        }
        for _ in 0..2 {
            world.store.compaction_step(3);
            world.seal();
        }
        if !commit_all(world) {
            return false;
        }
    }
    true
}

/// Finishes the compaction that a recovered store resumes and compares the file's rows.
fn finish_compaction(world: &mut World) {
    while world.store.compaction_step(5) == Step::More {
        world.seal();
    }
    world.seal();
    assert!(commit_all(world));
    let all = (Bound::Unbounded, Bound::Unbounded);
    let read = world.db.begin_read();
    let rows: Vec<_> = read
        .scan(&common::may(), b"key", all, env::Access::Scan)
        .map(|row| row.unwrap().1.to_vec())
        .collect();
    let want: Vec<_> = world.model.remaining().values().map(|(key, v)| v.stored(key)).collect();
    assert_eq!(rows, want);
    assert!(world.db.check(&common::may()).unwrap().is_empty());
}

fn seeded(seed: u64) -> World {
    let mut world = World::new(seed);
    world.key_count = 9;
    world
}

#[test]
fn a_failure_or_power_cut_at_any_operation_loses_only_what_was_not_acknowledged() {
    let mut points = 0;
    for seed in 0..3 {
        for at in 0.. {
            let mut world = seeded(seed);
            let kind = IoErrorKind::Other;
            let torn = at % 2 == 0;
            world.disk.set_fault(Some(Fault { at, only: None, kind, permanent: true, torn }));
            let finished = script(&mut world);
            // Any state between the last acknowledged commit and the one in flight would be a
            // torn transaction; only these two may come back.
            let in_flight = world.queue.back().map(|q| q.1.clone());
            world.disk.set_fault(None);
            let mut cut = SplitMix::new(seed * 1_000 + at);
            match at % 3 {
                0 => world.disk.crash(None),
                _ => world.disk.crash(Some(&mut cut)),
            }
            recover(&mut world, in_flight);
            points += 1;
            if finished {
                break;
            }
        }
    }
    assert!(points > 60, "{points} points");
}

fn recover(world: &mut World, in_flight: Option<Model>) {
    world.queue.clear();
    world.store = Store::empty();
    world.db = common::open(&world.disk.clone());
    world.store = Store::recover(&common::may(), world.db.begin_read()).unwrap();
    let revision = world.store.revision().0;
    let view = world.store.publish();
    let rows = |model: &Model| (model.revision, model.compact);
    let found = (revision, view.compact_revision().0);
    world.model = world.durable.clone();
    if found != rows(&world.durable) {
        let in_flight = in_flight.expect("only a commit in flight may show besides");
        assert_eq!(found, rows(&in_flight));
        world.model = in_flight;
    }
    world.index = world.store.applied_index().0;
    let model = world.model.clone();
    for _ in 0..6 {
        world.check(&view, &view, &model);
    }
    world.check_events(&view, &model);
    world.check_hash(&view, &model);
    drop(view);
    // Life goes on.
    world.transaction_of(3);
    world.seal();
    finish_compaction(world);
}

#[test]
fn damage_at_any_byte_of_the_database_never_panics() {
    let mut world = seeded(5);
    assert!(script(&mut world));
    drop(std::mem::replace(&mut world.store, Store::empty()));
    let file = world.disk.open(&common::may(), Path::new("/db"), env::Open::Read).unwrap();
    let mut good = vec![0; file.len().unwrap() as usize];
    file.read_at(&common::may(), &mut good, 0, env::Access::Scan).unwrap();
    let mut random = SplitMix::new(9);
    for _ in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next_u64() as u8;
        }
        let disk = MemDisk::new();
        let file = disk.open(&common::may(), Path::new("/db"), env::Open::CreateNew).unwrap();
        file.write_at(&common::may(), &bytes, 0).unwrap();
        drop(file);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let opened =
            bolt::Db::open(disk, Path::new("/db"), &common::may(), store::database_options());
        let Ok(db) = opened else { continue };
        let Ok(store) = Store::recover(&common::may(), db.begin_read()) else { continue };
        let view = store.publish();
        let _ = view.history(&common::may(), Default::default(), view.revision(), 1 << 20);
        if let Ok(mut hasher) = view.hash_kv(0) {
            let _ = hasher.step(&common::may(), &view, usize::MAX);
        }
        if let Ok(ranged) = view.range(&store::RangeQuery::between(b"\0", b"\0")) {
            let _ = view.body(ranged).next(&view, usize::MAX, &mut Vec::new());
        }
    }
}
