//! The short form of `cargo xtask sim`, and what must hold of the simulator itself.

use std::ops::RangeInclusive;

use sim::{Callers, Carrier, Case, Log, Plant, Shape, Summary, run};

/// Seeds of the short forms.
const SEEDS: RangeInclusive<u64> = 1..=60;
const CLUSTERS: RangeInclusive<u64> = 1..=24;
const USERS: RangeInclusive<u64> = 1..=8;

/// Runs a range of seeds on two threads; panics with the first failure.
fn run_all(shape: Shape, seeds: RangeInclusive<u64>) -> Vec<Summary> {
    run_with(shape, Callers::Drawn, seeds)
}

fn run_with(shape: Shape, callers: Callers, seeds: RangeInclusive<u64>) -> Vec<Summary> {
    let seeds: Vec<u64> = seeds.collect();
    std::thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(2)).map(|half| {
            let one = move |seed: &u64| {
                run(Case { seed: *seed, shape, callers, ..Case::default() }, Log::Nowhere)
            };
            let all = move || half.iter().map(one).collect::<Vec<_>>();
            scope.spawn(all)
        });
        let halves: Vec<_> = halves.collect();
        let results = halves.into_iter().flat_map(|h| h.join().expect("seeds catch panics"));
        results.map(|r| r.unwrap_or_else(|failure| panic!("{failure}"))).collect()
    })
}

#[test]
fn sixty_seeds_find_nothing_and_meet_everything() {
    let summaries = run_all(Shape::One, SEEDS);
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
fn clusters_find_nothing_and_meet_everything() {
    let summaries = run_all(Shape::Cluster, CLUSTERS);
    for seed in &summaries {
        assert!(seed.simulated >= 60_000_000_000, "{seed:?}");
        assert!(seed.report.operations >= 500 && seed.counts.faults >= 5, "{seed:?}");
    }
    let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
    assert!(sum(|s| s.counts.crashes) > 100);
    assert!(sum(|s| s.counts.entries) > 20_000);
    assert!(sum(|s| s.counts.terms) > 100, "leaders change");
    assert!(sum(|s| s.counts.changes) > 30, "members come and go");
    assert!(sum(|s| s.counts.installs) > 20);
    assert!(sum(|s| s.counts.broken) > 5);
    assert!(sum(|s| s.counts.packets_harmed) > 5_000);
    assert!(sum(|s| s.counts.forwarded) > 500);
    let over_http2 = summaries.iter().filter(|s| s.counts.carried > 500).count();
    assert!((2..=12).contains(&over_http2), "some come over HTTP/2: {over_http2}");
    assert!(sum(|s| s.counts.compared) > 1_000);
    let reached = summaries.iter().flat_map(|s| s.reached.iter().copied());
    let reached: std::collections::BTreeSet<_> = reached.collect();
    let all: Vec<_> = sim::probes::all().collect();
    assert!(reached.iter().all(|probe| all.contains(probe)), "a probe is not listed");
    assert!(reached.len() > 15, "{reached:?}");
}

/// What users do is permitted where the log has it, whatever happens meanwhile. The ways that were
/// taken name what must happen among it: users and roles that change between a member's check and
/// the entry, and a role that is revoked while its holder watches.
#[test]
fn users_do_what_their_roles_permit_and_no_more() {
    let summaries = run_with(Shape::Cluster, Callers::Users, USERS);
    let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
    assert!(sum(|s| s.counts.user_changes) > 500, "users and roles change");
    assert!(sum(|s| s.counts.let_in) > 5_000);
    assert!(sum(|s| s.counts.turned_away) > 2_000);
    assert!(sum(|s| s.counts.refused_entries) > 50, "entries are refused when they are applied");
    for probe in sim::probes::USERS {
        assert!(summaries.iter().any(|seed| seed.reached.contains(probe)), "never: {probe}");
    }
    let alone = run_with(Shape::One, Callers::Users, USERS);
    assert!(alone.iter().map(|seed| seed.counts.let_in).sum::<u64>() > 500);
}

#[test]
fn a_seed_gives_the_same_event_log_each_time() {
    let (one, cluster) = (Shape::One, Shape::Cluster);
    let (users, nobody) = (Callers::Users, Callers::Nobody);
    let (messages, http2) = (Carrier::Messages, Carrier::Http2);
    let seeds = [
        (3, one, messages, nobody),
        (14, one, messages, nobody),
        (14, one, http2, nobody),
        (15, cluster, messages, nobody),
        (16, cluster, messages, users),
        (16, cluster, http2, nobody),
        (16, cluster, http2, users),
    ];
    let mut hashes = std::collections::BTreeSet::new();
    for (seed, shape, carrier, callers) in seeds {
        let case = Case { seed, shape, carrier, callers, plant: None };
        let run = || run(case, Log::Nowhere).unwrap_or_else(|f| panic!("{f}"));
        let (first, second) = (run(), run());
        assert_eq!((first.hash, first.lines), (second.hash, second.lines), "seed {seed}");
        assert_eq!(first, second);
        assert!(first.lines > 500);
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), seeds.len(), "seeds differ");
}

/// The first seed that finds a planted bug, and what it says.
fn found_by(shape: Shape, plant: Plant, seeds: RangeInclusive<u64>) -> String {
    let mut seeds = seeds;
    let case = |seed| Case { seed, shape, plant: Some(plant), ..Case::default() };
    let failure = seeds.find_map(|seed| run(case(seed), Log::Nowhere).err());
    let failure = failure.unwrap_or_else(|| panic!("{plant} is not found"));
    assert!(failure.to_string().contains(&format!("cargo xtask sim --seed {}", failure.case.seed)));
    failure.what
}

fn found(plant: Plant, seeds: RangeInclusive<u64>) -> String {
    found_by(Shape::One, plant, seeds)
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
    assert!(what.contains("failed to find database snapshot file"), "{what}");
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

#[test]
fn a_vote_that_is_not_in_the_log_is_found() {
    found_by(Shape::Cluster, Plant::VoteNotPersisted, 1..=20);
}

#[test]
fn a_read_that_no_quorum_confirmed_is_found() {
    let what = found_by(Shape::Cluster, Plant::ReadWithoutQuorum, 1..=20);
    assert!(what.starts_with("RealTime"), "{what}");
}

#[test]
fn leases_that_a_deposed_leader_ends_are_found() {
    let what = found_by(Shape::Cluster, Plant::DeposedRevoke, 1..=60);
    assert!(what.starts_with("Leases"), "{what}");
}

#[test]
fn entries_applied_before_they_are_durable_are_found() {
    let what = found_by(Shape::Cluster, Plant::ApplyAhead, 1..=10);
    // Raft's own assertions may be quicker than the check of the log.
    let by_raft = ["was handed out", "is not the next handed-out membership change"];
    let is_found = what.contains("its log holds") || by_raft.iter().any(|by| what.contains(by));
    assert!(is_found, "{what}");
}

#[test]
fn an_entry_applied_twice_after_a_restart_is_found() {
    found_by(Shape::Cluster, Plant::AppliedTwice, 1..=10);
}

#[test]
fn a_put_that_a_client_asks_for_twice_is_found() {
    found_by(Shape::Cluster, Plant::RetriedPut, 1..=10);
}

#[test]
fn a_write_that_is_not_held_against_the_quota_is_found() {
    let what = found_by(Shape::Cluster, Plant::QuotaSkipped, 1..=20);
    assert!(what.contains("goes into the log"), "{what}");
}

#[test]
fn a_put_under_the_number_of_another_request_is_found() {
    found_by(Shape::Cluster, Plant::WrongField, 1..=5);
}

#[test]
fn a_read_that_does_not_wait_for_its_index_is_found() {
    let what = found_by(Shape::Cluster, Plant::ViewBeforeIndex, 1..=10);
    assert!(what.starts_with("RealTime"), "{what}");
}

#[test]
fn keep_alives_that_a_deposed_leader_answers_are_found() {
    let what = found_by(Shape::Cluster, Plant::DeposedKeepAlive, 1..=30);
    assert!(what.starts_with("Leases"), "{what}");
}

#[test]
fn a_cluster_version_that_no_member_runs_is_found() {
    let what = found_by(Shape::Cluster, Plant::WrongVersion, 1..=5);
    assert!(what.contains("the cluster's version"), "{what}");
}

#[test]
fn hashes_that_are_not_compared_are_found_by_data_that_differs() {
    let what = found_by(Shape::Cluster, Plant::HashSkipped, 1..=20);
    assert!(what.contains("the alarm for corrupt data"), "{what}");
}

#[test]
fn an_answer_on_the_stream_that_was_opened_last_is_found() {
    found_by(Shape::Cluster, Plant::AnswerMisplaced, 1..=20);
}

#[test]
fn an_answer_on_the_stream_behind_a_reset_is_found() {
    found_by(Shape::Cluster, Plant::StreamReused, 1..=20);
}

#[test]
fn a_long_answer_that_loses_what_the_window_does_not_allow_is_found() {
    found_by(Shape::Cluster, Plant::WindowSkipped, 1..=20);
}
