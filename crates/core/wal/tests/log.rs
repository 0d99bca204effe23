//! A log on a disk that fails, tears and loses unsynced writes, and the same log in Go's hands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{raftpb, walpb};
use bytes::Bytes;
use env::mem::{Fault, MemDisk};
use env::{Access, Disk, Entropy, IoErrorKind, IoOp, MayBlock, Open, SplitMix};
use types::{ClusterId, MemberId};
use wal::writer::{Beginning, metadata};
use wal::{ReadError, Wal, read_all};

const DIR: &str = "/m/wal";

fn may() -> MayBlock {
    MayBlock::on_this_thread()
}

fn entry(term: u64, index: u64, len: usize) -> raftpb::Entry {
    let data = Bytes::from(vec![index as u8 | 1; len]);
    raftpb::Entry { r#type: None, term: Some(term), index: Some(index), data: Some(data) }
}

fn state(term: u64, commit: u64) -> raftpb::HardState {
    raftpb::HardState { term: Some(term), vote: Some(1), commit: Some(commit) }
}

fn new_disk() -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir_all(&may(), Path::new("/m")).unwrap();
    disk.sync_dir(&may(), Path::new("/")).unwrap();
    disk
}

fn create(disk: &MemDisk) -> Result<Wal, wal::WriteError> {
    let md = metadata(MemberId(7), ClusterId(9));
    let beginning =
        Beginning { entries: vec![entry(1, 1, 30)], hard_state: Some(state(1, 1)), snapshot: None };
    Wal::create(Arc::new(disk.clone()), Path::new(DIR), &may(), md, &beginning)
}

#[test]
fn what_was_appended_reads_back_across_segments() {
    let disk = new_disk();
    let mut log = create(&disk).unwrap();
    log.set_segment_bytes(2_000);
    for index in 2..=100 {
        log.append(&entry(1, index, 100));
        log.append_hard_state(&state(1, index - 1));
        log.write(&may()).unwrap();
    }
    log.sync(&may()).unwrap();
    drop(log);
    let read = read_all(&disk, Path::new(DIR), &may(), (0, 0)).unwrap();
    assert!(read.segments.len() > 5);
    assert_eq!(read.entries.len(), 100);
    assert_eq!(read.hard_state, Some(state(1, 99)));
    assert!(read.snapshot_found);
    assert_eq!(read.metadata, metadata(MemberId(7), ClusterId(9)));
    let (mut log, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &may(), (0, 0)).unwrap();
    log.append(&entry(2, 90, 10));
    log.write(&may()).unwrap();
    log.sync(&may()).unwrap();
    let read = read_all(&disk, Path::new(DIR), &may(), (0, 0)).unwrap();
    assert_eq!(read.entries.len(), 90, "an entry replaces everything from its index on");
    assert_eq!(read.entries[89].term, Some(2));
}

#[test]
fn released_segments_are_purged_and_held_ones_are_not() {
    let disk = new_disk();
    let mut log = create(&disk).unwrap();
    log.set_segment_bytes(1_000);
    for index in 2..=100 {
        log.append(&entry(1, index, 100));
        log.write(&may()).unwrap();
    }
    log.append_hard_state(&state(1, 100));
    let conf_state = raftpb::ConfState { voters: vec![7], ..Default::default() };
    let snapshot = walpb::Snapshot { index: Some(60), term: Some(1), conf_state: Some(conf_state) };
    log.append_snapshot(&snapshot);
    log.write(&may()).unwrap();
    log.sync(&may()).unwrap();
    assert!(log.purge(&may(), 1).unwrap().is_empty(), "nothing was released");
    log.release_to(60);
    let purged = log.purge(&may(), 2).unwrap();
    assert!(!purged.is_empty());
    drop(log);
    assert!(matches!(
        read_all(&disk, Path::new(DIR), &may(), (0, 0)),
        Err(ReadError::FileNotFound { .. })
    ));
    let valid = wal::snapshots(&disk, Path::new(DIR), &may()).unwrap();
    assert_eq!(valid, [snapshot]);
    let read = read_all(&disk, Path::new(DIR), &may(), (60, 1)).unwrap();
    assert_eq!(read.entries.first().unwrap().index, Some(61));
    assert_eq!(read.entries.len(), 40);
}

/// Appends with syncs until an operation fails; returns (synced, appended) last indexes.
fn work(disk: &MemDisk) -> (u64, u64) {
    let Ok(mut log) = create(disk) else { return (0, 1) };
    log.set_segment_bytes(3_000);
    let (mut synced, mut index) = (1, 1);
    for round in 0..40 {
        for _ in 0..=round % 3 {
            index += 1;
            log.append(&entry(1, index, 150));
        }
        log.append_hard_state(&state(1, synced));
        if log.write(&may()).is_err() || log.sync(&may()).is_err() {
            assert!(log.write(&may()).is_err(), "a failed log takes nothing more");
            break;
        }
        synced = index;
        // Space is prepared now and then; a disk that fails there loses nothing that was synced.
        if round % 4 == 1 && log.zero_ahead(&may(), 5_000).is_err() {
            assert!(log.write(&may()).is_err(), "a failed log takes nothing more");
            break;
        }
    }
    (synced, index)
}

#[test]
fn no_synced_entry_is_lost_whichever_operation_fails_before_a_power_cut() {
    let total = {
        let disk = new_disk();
        let before = disk.operations();
        work(&disk);
        disk.operations() - before
    };
    assert!(total > 100);
    for at in 0..total {
        for torn in [false, true] {
            let disk = new_disk();
            let kind = if torn { IoErrorKind::NoSpace } else { IoErrorKind::Other };
            disk.set_fault(Some(Fault { at, only: None, kind, permanent: true, torn }));
            let (synced, appended) = work(&disk);
            disk.set_fault(None);
            let mut entropy = SplitMix::new(at * 2 + u64::from(torn));
            disk.crash(Some(&mut entropy));
            if !Wal::exists(&disk, Path::new(DIR), &may()).unwrap() {
                assert_eq!(synced, 0, "operation {at}: a created log is gone");
                continue;
            }
            let shared = Arc::new(disk.clone());
            let (mut log, read) = Wal::open(shared, Path::new(DIR), &may(), (0, 0))
                .unwrap_or_else(|e| panic!("operation {at}, torn {torn}: {e}"));
            let last = read.entries.len() as u64;
            assert!(last >= synced && last <= appended, "{synced} <= {last} <= {appended}");
            for (e, index) in read.entries.iter().zip(1..) {
                assert_eq!(e, &entry(1, index, if index == 1 { 30 } else { 150 }));
            }
            log.append(&entry(2, last + 1, 5_000));
            log.write(&may()).unwrap();
            log.sync(&may()).unwrap();
            disk.crash(None);
            let again = read_all(&disk, Path::new(DIR), &may(), (0, 0)).unwrap();
            assert_eq!(again.entries.len() as u64, last + 1);
        }
    }
}

#[test]
fn a_random_flip_is_refused_or_leaves_a_prefix() {
    let disk = new_disk();
    let mut log = create(&disk).unwrap();
    for index in 2..=20 {
        log.append(&entry(1, index, 100));
    }
    log.write(&may()).unwrap();
    log.sync(&may()).unwrap();
    let end = log.end();
    drop(log);
    let path = PathBuf::from(DIR).join("0000000000000000-0000000000000000.wal");
    let mut entropy = SplitMix::new(3);
    for _ in 0..2_000 {
        let (at, bit) = (entropy.below(end), entropy.below(8));
        let file = disk.open(&may(), &path, Open::Write).unwrap();
        let mut byte = [0];
        file.read_at(&may(), &mut byte, at, Access::Point).unwrap();
        let good = byte;
        byte[0] ^= 1 << bit;
        file.write_at(&may(), &byte, at).unwrap();
        if let Ok(read) = read_all(&disk, Path::new(DIR), &may(), (0, 0)) {
            for (e, index) in read.entries.iter().zip(1..) {
                assert_eq!(e, &entry(1, index, if index == 1 { 30 } else { 100 }), "byte {at}");
            }
        }
        file.write_at(&may(), &good, at).unwrap();
    }
}

#[test]
fn zeroes_ahead_change_nothing_that_is_read() {
    let disk = new_disk();
    let mut log = create(&disk).unwrap();
    log.set_segment_bytes(40_000);
    for index in 2..=200 {
        log.append(&entry(1, index, 700));
        log.write(&may()).unwrap();
        log.sync(&may()).unwrap();
        if index % 7 == 0 {
            assert!(log.zero_ahead(&may(), 10_000).unwrap());
            assert!(log.zeroed_ahead() > 10_000 - 4_096);
        }
    }
    // What is not synced is lost with the power; zeroes never take records with them.
    drop(log);
    disk.crash(Some(&mut SplitMix::new(3)));
    let (_, read) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &may(), (0, 0)).unwrap();
    assert_eq!(read.entries.len(), 200);
    assert!(read.segments.len() > 3);
}

#[test]
fn a_full_disk_ends_zeroing_and_a_failed_sync_ends_the_log() {
    let disk = new_disk();
    let mut log = create(&disk).unwrap();
    log.append(&entry(1, 2, 100));
    log.write(&may()).unwrap();
    log.sync(&may()).unwrap();
    let fault = |only, kind| {
        let at = 0;
        disk.set_fault(Some(Fault { at, only: Some(only), kind, permanent: true, torn: false }));
    };
    fault(IoOp::Write, IoErrorKind::NoSpace);
    assert!(!log.zero_ahead(&may(), 8_192).unwrap());
    disk.set_fault(None);
    log.append(&entry(1, 3, 100));
    log.write(&may()).unwrap();
    log.sync(&may()).unwrap();
    fault(IoOp::Sync, IoErrorKind::Other);
    assert!(log.zero_ahead(&may(), 8_192).is_err());
    disk.set_fault(None);
    assert!(log.write(&may()).is_err());
}
