//! A disk that fails: the process ends before it acknowledges anything that is not safe, says
//! why as etcd does, and a restart serves all that was acknowledged. `QUORATE_SOAK=1` tries many
//! more places.

mod common;
#[path = "common/pairs.rs"]
mod pairs;

use std::time::{Duration, Instant};

use common::Lossy;
use pairs::{check_pairs, write_all};

/// How long a process may take to end after its disk failed.
const END: Duration = Duration::from_secs(10);

/// The lines logged at level fatal.
fn fatal_lines(lossy: &Lossy) -> Vec<String> {
    let log = lossy.server.log();
    let fatal = log.lines().filter(|l| l.contains("\"level\":\"fatal\""));
    fatal.map(str::to_owned).collect()
}

/// The long form was asked for.
fn soak() -> bool {
    std::env::var_os("QUORATE_SOAK").is_some()
}

const WAL: &str = "failed to save Raft hard state and entries";
const BACKEND: &str = "failed to commit tx";

/// Fails one operation after another, each on a fresh directory with four writers.
fn fail_each(op: &str, path: &str, effect: &str, message: &str, places: &[u64]) {
    fail_each_under(Load { pairs: 2_000, size: 100 }, op, path, effect, message, places);
}

/// What each of four writers writes.
#[derive(Clone, Copy)]
struct Load {
    pairs: u64,
    size: usize,
}

/// 200 MB in all: the log begins new segments, and the database grows.
const BIG: Load = Load { pairs: 36, size: 700_000 };

fn fail_each_under(load: Load, op: &str, path: &str, effect: &str, message: &str, places: &[u64]) {
    let Load { pairs, size } = load;
    let mut hit_under_load = 0;
    for &place in places {
        let context = format!("{op} {path} {place} {effect}");
        let mut lossy = Lossy::new(&["--snapshot-count", "50"]);
        let served = lossy.start(&format!("{op},{path},{place},1,{effect}"), &[]);
        let mut acknowledged = vec![0; 4];
        if served {
            acknowledged = write_all(lossy.server.port, &acknowledged, pairs, size);
        }
        if served && acknowledged == [pairs; 4] {
            // Beyond the last operation of this kind: nothing failed.
            lossy.server.kill();
        } else {
            hit_under_load += u32::from(served);
            if served {
                let code = lossy.server.wait_exit(END);
                assert_eq!(code, Some(Some(1)), "{context}: the process ends with code 1");
            }
            let said = fatal_lines(&lossy);
            assert_eq!(said.len(), 1, "{context}: one fatal line: {said:?}");
            let wanted = if served { message } else { "\"error\"" };
            assert!(said[0].contains(wanted), "{context}: {said:?}");
        }
        assert!(lossy.start("", &[]), "{context}: a restart on a sound disk serves");
        let there = check_pairs(lossy.server.port, &acknowledged, &context);
        let after = write_all(lossy.server.port, &there, pairs + 10, 100);
        assert_eq!(after, [pairs + 10; 4], "{context}: it takes writes again");
        lossy.server.kill();
        assert!(lossy.start("", &[]), "{context}: and starts once more after a kill");
        check_pairs(lossy.server.port, &after, &context);
    }
    assert!(hit_under_load > 0, "no place of {op} {path} was hit while clients wrote");
}

/// The first places (a start), and some under load.
fn places(first: u64, under_load: &[u64]) -> Vec<u64> {
    if soak() {
        (0..60).chain((60..400).step_by(20)).collect()
    } else {
        (0..first).chain(under_load.iter().copied()).collect()
    }
}

#[test]
fn a_failed_sync_of_the_log_ends_the_process_before_anything_is_acknowledged() {
    fail_each("Sync", "wal", "eio", WAL, &places(3, &[7, 23]));
}

#[test]
fn a_failed_write_of_the_log_ends_the_process() {
    fail_each("Write", "wal", "eio", WAL, &places(2, &[9, 31]));
}

#[test]
fn a_full_disk_under_the_log_ends_the_process() {
    fail_each("Write", "wal", "enospc", WAL, &places(2, &[8, 30]));
}

#[test]
fn a_failed_sync_of_the_database_ends_the_process() {
    fail_each("Sync", "snap/db", "eio", BACKEND, &places(2, &[4, 6]));
}

#[test]
fn a_failed_write_of_the_database_ends_the_process() {
    fail_each("Write", "snap/db", "eio", BACKEND, &places(2, &[6, 11]));
}

#[test]
fn a_full_disk_under_the_database_ends_the_process() {
    fail_each("Write", "snap/db", "enospc", BACKEND, &places(2, &[7, 12]));
}

#[test]
fn a_slow_sync_of_the_log_delays_answers_to_writes_and_nothing_else() {
    let mut lossy = Lossy::new(&[]);
    let armed = lossy.server.data_dir.with_extension("armed");
    let by = armed.to_str().expect("temporary paths are text");
    let slow = format!("Sync,wal,0,{},400ms", u64::MAX);
    assert!(lossy.start(&slow, &[("QUORATE_LOSSY_ARMED_BY", by)]));
    let port = lossy.server.port;
    let before = write_all(port, &[0; 4], 5, 100);
    std::fs::write(&armed, "").expect("the directory is ours");
    let writing = std::thread::spawn(move || {
        let began = Instant::now();
        (write_all(port, &before, 6, 100), began.elapsed())
    });
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    check_pairs(port, &[5; 4], "while the log is being written");
    assert!(began.elapsed() < Duration::from_millis(250), "reads wait for no sync");
    let (after, took) = writing.join().expect("writers do not panic");
    assert_eq!(after, [6; 4]);
    assert!(took >= Duration::from_millis(400), "acknowledged before it was durable: {took:?}");
    // Killed in the middle of one: what was not acknowledged may be there or not, but whole.
    let writing = std::thread::spawn(move || write_all(port, &after, 7, 100));
    std::thread::sleep(Duration::from_millis(150));
    lossy.server.kill();
    let acknowledged = writing.join().expect("writers do not panic");
    assert_eq!(acknowledged, [6; 4], "nothing is acknowledged before its sync");
    assert!(lossy.start("", &[]));
    check_pairs(lossy.server.port, &acknowledged, "after a kill under a slow sync");
}

#[test]
fn a_failed_sync_of_a_snapshot_file_ends_the_process() {
    fail_each("Sync", "snap/0", "eio", "failed to save snapshot", &places(2, &[5]));
}

#[test]
fn a_full_disk_under_a_snapshot_file_ends_the_process() {
    fail_each("Write", "snap/0", "enospc", "failed to save snapshot", &places(1, &[4]));
}

#[test]
fn a_failure_at_the_start_of_a_log_segment_ends_the_process() {
    let few = |wanted: &[u64]| if soak() { (0..12).collect() } else { wanted.to_vec() };
    for (op, effect, wanted) in
        [("Allocate", "enospc", [2]), ("Rename", "eio", [1]), ("SyncDir", "eio", [1])]
    {
        fail_each_under(BIG, op, "wal", effect, WAL, &few(&wanted));
    }
}

#[test]
fn a_full_disk_under_a_growing_database_ends_the_process() {
    let places: Vec<u64> = if soak() { (0..12).collect() } else { vec![2] };
    fail_each_under(BIG, "SetLen", "snap/db", "enospc", BACKEND, &places);
}
