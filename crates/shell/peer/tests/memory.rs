//! What messages that are kept keep with them. Alone in its process: it reads the process's size.

#[path = "support/samples.rs"]
mod samples;
mod support;

use samples::append;
use support::Ours;

/// Bytes of anonymous memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn entries_that_arrive_one_by_one_keep_little_but_themselves() {
    const COUNT: usize = 3_000;
    let (one, two) = (Ours::start(1), Ours::start(2));
    one.add(2, &two.url);
    two.add(1, &one.url);
    one.wait_streams(1);
    two.wait_streams(1);
    // Large ones first, after which a reader might expect more of the kind.
    for n in 1..=20 {
        one.plane.send(vec![append(1, 2, n as u64, 1, 1 << 20)]);
        two.member.wait("a large one", |told| told.received.len() == n);
    }
    two.member.with(|told| told.received.clear());
    let before = resident();
    for n in 1..=COUNT {
        one.plane.send(vec![append(1, 2, 100 + n as u64, 1, 100)]);
        two.member.wait("a small one", |told| told.received.len() == n);
    }
    let each = resident().saturating_sub(before) / COUNT as u64;
    assert!(each < 2_000, "an entry of 100 bytes keeps {each}");
}
