//! The store with its database against the naive model, through commits, compactions, held Views
//! and restarts.

mod common;

use std::sync::Arc;

use common::World;
use common::model::Model;
use env::Entropy;
use store::{Step, Store, View};
use types::Revision;

/// Lets a compaction begin, with the hash that belongs to it checked.
fn compact(world: &mut World) {
    let old = world.model.compact;
    if world.model.revision <= old || world.store.is_compacting() {
        return;
    }
    let target = old.max(0) + 1 + world.below((world.model.revision - old.max(0)) as u64) as i64;
    let target = target.min(world.model.revision);
    let done = world.store.compact(Revision(target)).unwrap();
    assert_eq!((done.previous.0, done.previous_finished), (old, true));
    world.model.compact = target;
    world.seal();
    let view = world.store.publish();
    let mut hasher = view.hash_compaction(done.previous);
    while hasher.step(&common::may(), &view, 200).unwrap() == Step::More {}
    assert_eq!(hasher.finish().hash, world.model.hash_compaction(old), "{old} to {target}");
}

#[test]
fn views_and_held_views_match_the_model() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        let mut held: Vec<(View, Model)> = Vec::new();
        for round in 0..120 {
            for _ in 0..world.below(4) {
                world.transaction();
            }
            if world.store.is_compacting() && world.below(2) == 0 {
                let budget = 1 + world.below(30) as usize;
                world.store.compaction_step(budget);
            }
            if round % 10 == 9 && world.below(2) == 0 {
                compact(&mut world);
            }
            world.seal();
            if world.below(3) == 0 {
                world.commit_some();
            }
            let (view, model) = (world.store.publish(), world.model.clone());
            for _ in 0..4 {
                world.check(&view, &view, &model);
            }
            world.check_events(&view, &model);
            world.check_hash(&view, &model);
            for (old, model) in &held {
                world.check(old, old, model);
                world.check_events(old, model);
            }
            if world.below(8) == 0 {
                held.push((view, model));
                if held.len() > 3 {
                    held.remove(0);
                }
            }
        }
    }
}

#[test]
fn a_recovered_store_equals_the_one_that_was_lost() {
    for seed in 100..125 {
        let mut world = World::new(seed);
        for _ in 0..6 {
            for _ in 0..15 {
                for _ in 0..world.below(4) {
                    world.transaction();
                }
                if world.store.is_compacting() && world.below(3) == 0 {
                    world.store.compaction_step(7);
                }
                world.seal();
                world.commit_some();
            }
            compact(&mut world);
            world.seal();
            world.commit_some();
            // Lose what was not committed.
            world.queue.clear();
            world.store = Store::empty();
            let Some(disk) = Some(world.disk.clone()) else { continue };
            disk.crash(Some(&mut world.random.clone()));
            world.db = common::open(&disk);
            assert!(world.db.check(&common::may()).unwrap().is_empty());
            world.store = Store::recover(&common::may(), world.db.begin_read()).unwrap();
            world.model = world.durable.clone();
            world.index = world.store.applied_index().0;
            let (view, model) = (world.store.publish(), world.model.clone());
            for _ in 0..20 {
                world.check(&view, &view, &model);
            }
            world.check_events(&view, &model);
            world.check_hash(&view, &model);
        }
    }
}

#[test]
fn bodies_go_on_with_the_newest_view_while_writes_land() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        for _ in 0..60 {
            world.transaction();
            world.seal();
        }
        let (view, model) = (world.store.publish(), world.model.clone());
        world.commit_some();
        for _ in 0..20 {
            world.transaction();
            world.seal();
            world.commit_some();
        }
        let newest = world.store.publish();
        for _ in 0..50 {
            world.check(&view, &newest, &model);
        }
    }
}

#[test]
fn deletes_of_a_compaction_leave_exactly_the_remaining_rows() {
    for seed in 200..215 {
        let mut world = World::new(seed);
        for _ in 0..8 {
            for _ in 0..20 {
                world.transaction();
            }
            compact(&mut world);
            while world.store.is_compacting() {
                let budget = 1 + world.random.below(20) as usize;
                world.store.compaction_step(budget);
                world.seal();
            }
            let (last, _) = world.queue.back().cloned().unwrap();
            let batches: Vec<_> = world.queue.drain(..).map(|q| q.0).collect();
            let read = common::commit(&mut world.db, &batches).unwrap();
            let rows = read
                .scan(
                    &common::may(),
                    b"key",
                    (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
                    env::Access::Scan,
                )
                .map(|row| row.unwrap().1.to_vec())
                .collect::<Vec<_>>();
            let want: Vec<_> =
                world.model.remaining().values().map(|(key, v)| v.stored(key)).collect();
            assert_eq!(rows, want);
            drop(world.store.committed(&last, read));
            world.durable = world.model.clone();
        }
        let _: &Arc<_> = &world.seal();
    }
}

#[test]
fn a_copy_made_beside_running_commits_is_the_same_database_and_smaller() {
    for seed in 300..310 {
        let mut world = World::new(seed);
        for _ in 0..60 {
            world.transaction();
            compact(&mut world);
            while world.store.compaction_step(50) == Step::More {}
            world.seal();
            world.commit_some();
        }
        while !world.queue.is_empty() {
            world.commit_some(); // no delete may be outstanding
        }
        let target = bolt::Db::open(
            Arc::new(world.disk.clone()),
            std::path::Path::new("/db.tmp"),
            &common::may(),
            store::database_options(),
        );
        let mut defrag = store::Defrag::new(target.unwrap());
        for _ in 0..20 {
            world.transaction();
            world.seal();
            world.commit_some();
            defrag.step(&common::may(), &world.db.begin_read(), 500).unwrap();
        }
        let source = world.db.begin_read();
        let copy = defrag.finish(&common::may(), &source).unwrap();
        assert!(copy.check(&common::may()).unwrap().is_empty());
        let hash = |db: &bolt::Db| {
            let mut hasher = store::DatabaseHasher::new(db.begin_read());
            while hasher.step(&common::may(), 300).unwrap() == Step::More {}
            hasher.finish()
        };
        assert_eq!(hash(&copy), hash(&world.db));
        assert!(copy.size_in_use_bytes() <= world.db.size_in_use_bytes());
        let recovered = Store::recover(&common::may(), copy.begin_read()).unwrap();
        assert_eq!(recovered.applied_index(), {
            let original = Store::recover(&common::may(), source).unwrap();
            original.applied_index()
        });
        // The store goes on with the copy.
        world.store.replace_backend(copy.begin_read());
        world.db = copy;
        let (view, model) = (world.store.publish(), world.model.clone());
        for _ in 0..10 {
            world.check(&view, &view, &model);
        }
        world.check_events(&view, &model);
    }
}
