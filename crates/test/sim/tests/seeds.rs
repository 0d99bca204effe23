//! The short form of `cargo xtask sim`, and what must hold of the simulator itself.

use sim::{Plant, Summary, run};

/// Seeds of the short form.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=60;

/// Runs a range of seeds on two threads; panics with the first failure.
fn run_all(seeds: std::ops::RangeInclusive<u64>) -> Vec<Summary> {
    let seeds: Vec<u64> = seeds.collect();
    std::thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(2)).map(|half| {
            let all = || half.iter().map(|seed| run(*seed, None, false)).collect::<Vec<_>>();
            scope.spawn(all)
        });
        let halves: Vec<_> = halves.collect();
        let results = halves.into_iter().flat_map(|h| h.join().expect("seeds catch panics"));
        results.map(|r| r.unwrap_or_else(|failure| panic!("{failure}"))).collect()
    })
}

#[test]
fn sixty_seeds_find_nothing_and_meet_everything() {
    let summaries = run_all(SEEDS);
    let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
    // A simulator that tries nothing finds nothing.
    assert!(sum(|s| s.counts.crashes) > 100);
    assert!(sum(|s| s.counts.compactions) > 100);
    assert!(sum(|s| s.counts.defragmentations) > 30);
    assert!(sum(|s| s.counts.snapshots) > 50);
    let no_space = sum(|s| s.counts.no_space);
    assert!(no_space > 50, "the quota is met: {no_space}");
    assert!(sum(|s| s.report.expired as u64) > 20, "leases end with keys on them");
    assert!(sum(|s| s.report.operations as u64) > 10_000);
    assert!(sum(|s| s.report.events as u64) > 10_000);
    assert!(sum(|s| s.report.cancelled as u64) > 20, "watches that a compaction overtook");
    assert!(sum(|s| u64::from(s.report.searched)) > 50, "most histories are searched to the end");
}

#[test]
fn a_seed_gives_the_same_event_log_each_time() {
    for seed in [3, 14, 15] {
        let first = run(seed, None, false).unwrap_or_else(|f| panic!("{f}"));
        let second = run(seed, None, false).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!((first.hash, first.lines), (second.hash, second.lines), "seed {seed}");
        assert_eq!(first, second);
        assert!(first.lines > 500);
    }
    let (one, other) = (run(3, None, false), run(14, None, false));
    assert_ne!(one.expect("passed above").hash, other.expect("passed above").hash);
}

/// The first seed that finds a planted bug, and what it says.
fn found(plant: Plant, seeds: std::ops::RangeInclusive<u64>) -> String {
    let mut seeds = seeds;
    let failure = seeds.find_map(|seed| run(seed, Some(plant), false).err());
    let failure = failure.unwrap_or_else(|| panic!("{plant} is not found"));
    assert!(failure.to_string().contains(&format!("cargo xtask sim --seed {}", failure.seed)));
    failure.what
}

#[test]
fn a_log_that_is_not_synced_is_found() {
    found(Plant::SkippedFsync, 1..=10);
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    found(Plant::EarlyAcknowledgement, 1..=20);
}

#[test]
fn an_index_committed_without_its_effects_is_found() {
    found(Plant::IndexApart, 1..=10);
}

#[test]
fn a_snapshot_ahead_of_the_backend_is_found() {
    let what = found(Plant::SnapshotAhead, 1..=400);
    assert!(what.contains("does not match with snapshot"), "{what}");
}

#[test]
fn a_view_published_after_its_replies_is_found() {
    let what = found(Plant::ViewAfterReply, 1..=10);
    assert!(what.starts_with("RealTime"), "{what}");
}

#[test]
fn a_watch_that_skips_a_compacted_tombstone_is_found() {
    let what = found(Plant::SkippedTombstone, 1..=10);
    assert!(what.starts_with("Reliable") || what.starts_with("Cancelled"), "{what}");
}
