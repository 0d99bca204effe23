//! Every number of the list has a test here by its name, or stands below with the reason why not.

use std::collections::BTreeSet;

/// The sections that one member shows, with their last number.
const SECTIONS: [(char, u32); 11] = [
    ('a', 11),
    ('b', 20),
    ('c', 7),
    ('d', 18),
    ('e', 12),
    ('f', 27),
    ('g', 24),
    ('i', 12),
    ('j', 9),
    ('n', 11),
    ('p', 7),
];

const MEMBERS: &str = "needs several members";
const AUTH: &str = "needs authentication";
const TOOLS: &str = "tests/tools.rs";

/// What has no test in this program, and where it is tested or why it is not.
const ELSEWHERE: &[(&str, &str)] = &[
    ("b13", "a lone member never lacks a leader"),
    ("e5", "NO TEST: the pace of a compaction is no answer"),
    ("e6", "crates/core/member/tests/one_member.rs#a_compaction_resumes_after_a_power_cut"),
    ("e8", AUTH),
    ("e9", "crates/core/member/src/auto_compaction.rs"),
    ("e10", "crates/core/member/src/auto_compaction.rs"),
    ("e11", MEMBERS),
    ("e12", "NO TEST: hours"),
    ("f19", AUTH),
    ("f20", AUTH),
    ("f21", "a lone member never lacks a leader"),
    ("f23", MEMBERS),
    ("f24", MEMBERS),
    ("g4", MEMBERS),
    ("g5", "NO TEST: on one member the wait ends within a millisecond"),
    ("g6", MEMBERS),
    ("g10", MEMBERS),
    ("g16", MEMBERS),
    ("g17", MEMBERS),
    ("g18", MEMBERS),
    ("g19", MEMBERS),
    ("g23", AUTH),
    ("g24", AUTH),
    ("i4", "NO TEST: needs two writes between a check and its apply"),
    ("i10", "i5_to_i8 and i9 compare /health and the errors of Status"),
    ("j1", "NO TEST: needs an apply that lags by 5,000 entries"),
    ("j4", "a lone member's proposals do not time out"),
    ("j5", "whoever has cancelled sees no answer"),
    ("j6", "NO TEST: needs a call that is open while the server stops"),
    ("j7", "a lone member never lacks a leader"),
    ("j8", "NO TEST: texts of the log"),
    ("j9", "NO TEST: needs a proposal that times out"),
    ("n2", MEMBERS),
    ("n6", MEMBERS),
    ("n7", MEMBERS),
    ("n8", MEMBERS),
    ("n9", "NO TEST: --force-new-cluster comes with clusters"),
    ("n10", TOOLS),
    ("n11", TOOLS),
    ("p2", MEMBERS),
    ("p5", "NO TEST: an entry of an unknown kind cannot be proposed by a client"),
    ("p6", MEMBERS),
    ("p7", "crates/test/lossy/tests/faults.rs"),
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
        include_str!("i_alarms.rs"),
        include_str!("j_limits.rs"),
        include_str!("n_maintenance.rs"),
        include_str!("p_durability.rs"),
    ];
    let tests = sources.iter().flat_map(|text| text.split("#[test]\nfn ").skip(1));
    let named: BTreeSet<String> = tests.flat_map(numbers).collect();
    let mut missing = Vec::new();
    for (section, last) in SECTIONS {
        for id in (1..=last).map(|n| format!("{section}{n}")) {
            let excused = ELSEWHERE.iter().any(|(other, _)| *other == id);
            if named.contains(&id) == excused {
                missing.push(id);
            }
        }
    }
    assert!(missing.is_empty(), "neither test nor reason, or both: {missing:?}");
}

#[test]
fn names_tell_their_numbers() {
    assert_eq!(numbers("i5_to_i8_an_alarm"), ["i5", "i6", "i7", "i8"]);
    assert_eq!(numbers("f2_f18_a_watch_begins"), ["f2", "f18"]);
    assert_eq!(numbers("b20_a_compaction"), ["b20"]);
}
