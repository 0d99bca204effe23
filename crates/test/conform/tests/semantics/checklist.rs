//! Every number of the list has a test here by its name, or stands below with the test elsewhere
//! or the reason why it has none.

use std::collections::BTreeSet;
use std::path::Path;

/// The sections that are covered, with their last number.
const SECTIONS: [(char, u32); 15] = [
    ('a', 11),
    ('b', 20),
    ('c', 7),
    ('d', 18),
    ('e', 12),
    ('f', 27),
    ('g', 24),
    ('h', 34),
    ('i', 12),
    ('j', 9),
    ('k', 19),
    ('l', 7),
    ('m', 11),
    ('n', 11),
    ('p', 7),
];

const MEMBERS: &str = "needs several members";

const MEMBER: &str = "crates/core/member/tests/one_member/";
const COMPACTION: &str = "crates/core/member/src/auto_compaction.rs";
const CONFIG: &str = "crates/shell/server/src/config/mod.rs";
const CONFORM: &str = "crates/test/conform/tests/";
const FAULTS: &str = "crates/test/lossy/tests/faults.rs";

/// What is tested elsewhere: where the file lies, its name there, the test.
const ELSEWHERE: &[(&str, &str, &str, &str)] = &[
    ("e5", MEMBER, "lagging.rs", "e5_a_compaction_rests_after_each_batch"),
    ("e6", MEMBER, "main.rs", "a_compaction_resumes_after_a_power_cut"),
    ("e9", COMPACTION, "", "periodic_compacts_to_what_was_current_one_period_ago"),
    ("e10", COMPACTION, "", "nothing_is_compacted_twice_or_by_a_follower"),
    ("e12", CONFIG, "", "e12_a_bare_retention_is_hours_or_revisions_and_0_is_none"),
    ("g5", MEMBER, "lagging.rs", "g5_a_keep_alive_waits_for_apply_only_if_its_lease_is_unknown"),
    ("h32", CONFORM, "users.rs", "h32_one_of_etcd_and_two_of_ours_know_the_same_users"),
    (
        "i4",
        MEMBER,
        "main.rs",
        "i4_what_crosses_the_quota_is_applied_and_refused_once_the_alarm_is_set",
    ),
    ("i10", CONFORM, "semantics/i_alarms.rs", "i5_to_i8_an_alarm_stays_until_it_is_turned_off"),
    ("i10", CONFORM, "semantics/i_alarms.rs", "i9_a_corrupt_cluster_takes_no_writes"),
    (
        "j1",
        MEMBER,
        "lagging.rs",
        "j1_a_proposal_is_refused_while_apply_lags_by_more_than_its_limit",
    ),
    (
        "j6",
        MEMBER,
        "lagging.rs",
        "j6_a_member_that_stops_answers_what_is_in_flight_and_takes_nothing_more",
    ),
    ("j6", CONFORM, "stop.rs", "j6_open_calls_are_cut_without_a_status_when_the_server_stops"),
    // Slow applies only: slow calls have no line yet.
    ("j8", CONFORM, "logs.rs", "j8_an_apply_slower_than_the_flag_says_is_told"),
    ("j9", MEMBER, "lagging.rs", "j9_a_write_that_timed_out_may_still_be_applied"),
    ("n10", CONFORM, "tools.rs", "snapshots_are_saved_told_and_restored_by_either_tool"),
    ("n11", CONFORM, "tools.rs", "snapshots_are_saved_told_and_restored_by_either_tool"),
    ("p5", CONFORM, "behind.rs", "p5_an_entry_of_an_unknown_kind_ends_each_start"),
    ("p7", FAULTS, "", "a_failed_sync_of_the_log_ends_the_process_before_anything_is_acknowledged"),
];

/// What has no test, and why.
const UNTESTED: &[(&str, &str)] = &[
    ("e11", MEMBERS),
    ("g18", MEMBERS),
    ("g24", "a fault of etcd's: here the leader signs whatever tokens there are"),
    ("h30", "needs TLS"),
    ("j5", "whoever has cancelled sees no answer"),
    ("n6", MEMBERS),
    ("n7", MEMBERS),
    ("n8", MEMBERS),
    ("n9", "--force-new-cluster drops other members, and is refused until there can be some"),
    ("m11", "needs a member whose peer port answers and whose version does not"),
    ("p2", "an order that no client can see; crates/core/member/tests shows it"),
    ("p6", "etcd does not put such entries into the log any more"),
];

/// The numbers in a test's name: `f2_f18_…` has two, `i5_to_i8_…` four.
fn numbers(name: &str) -> Vec<String> {
    let mut found: Vec<(char, u32)> = Vec::new();
    let mut through = false;
    for word in name.split('_') {
        if word == "to" && !found.is_empty() {
            through = true;
            continue;
        }
        let mut letters = word.chars();
        let section = letters.next().filter(char::is_ascii_lowercase);
        let (Some(section), Ok(number)) = (section, letters.as_str().parse::<u32>()) else { break };
        let first = match found.last() {
            Some(&(last, from)) if through && last == section => from + 1,
            _ => number,
        };
        found.extend((first..=number).map(|n| (section, n)));
        through = false;
    }
    found.into_iter().map(|(section, number)| format!("{section}{number}")).collect()
}

#[test]
fn every_number_has_a_test_or_a_reason() {
    let sources = [
        include_str!("a_revisions.rs"),
        include_str!("b_range.rs"),
        include_str!("b_range_stream.rs"),
        include_str!("c_writes.rs"),
        include_str!("d_txn.rs"),
        include_str!("e_compaction.rs"),
        include_str!("f_watch.rs"),
        include_str!("g_leases.rs"),
        include_str!("h_auth/bypasses.rs"),
        include_str!("h_auth/every_method.rs"),
        include_str!("h_auth/rights.rs"),
        include_str!("h_auth/tokens.rs"),
        include_str!("h_auth/users.rs"),
        include_str!("i_alarms.rs"),
        include_str!("j_limits.rs"),
        include_str!("k_members.rs"),
        include_str!("l_leadership.rs"),
        include_str!("m_versions.rs"),
        include_str!("n_maintenance.rs"),
        include_str!("p_durability.rs"),
    ];
    let tests = sources.iter().flat_map(|text| text.split("#[test]\nfn ").skip(1));
    let named: BTreeSet<String> = tests.flat_map(numbers).collect();
    let mut missing = Vec::new();
    for (section, last) in SECTIONS {
        for id in (1..=last).map(|n| format!("{section}{n}")) {
            let elsewhere = ELSEWHERE.iter().any(|(other, ..)| *other == id);
            let untested = UNTESTED.iter().any(|(other, _)| *other == id);
            if [named.contains(&id), elsewhere, untested].iter().filter(|known| **known).count()
                != 1
            {
                missing.push(id);
            }
        }
    }
    assert!(missing.is_empty(), "in none of the lists, or in several: {missing:?}");
}

#[test]
fn what_is_tested_elsewhere_is_there() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).expect("three deep");
    for (id, place, name, test) in ELSEWHERE {
        let path = workspace.join(format!("{place}{name}"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{id}: {path:?}: {e}"));
        let lines: Vec<&str> = text.lines().collect();
        let is_test = |pair: &[&str]| {
            pair[0].trim() == "#[test]" && pair[1].trim().starts_with(&format!("fn {test}("))
        };
        assert!(lines.windows(2).any(is_test), "{id}: {} has no test {test}", path.display());
    }
}

#[test]
fn names_tell_their_numbers() {
    assert_eq!(numbers("i5_to_i8_an_alarm"), ["i5", "i6", "i7", "i8"]);
    assert_eq!(numbers("f2_f18_a_watch_begins"), ["f2", "f18"]);
    assert_eq!(numbers("b20_a_compaction"), ["b20"]);
}
