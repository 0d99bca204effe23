//! Failures, torn writes and power cuts at every I/O operation of a script.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod common;

use bolt::{CommitError, OpenError};
use common::*;
use env::mem::{Fault, MemDisk};
use env::{Entropy, IoErrorKind, IoOp, SplitMix};

const TRANSACTIONS: usize = 7;

/// How far a script came before the disk failed.
struct Reached {
    /// The content of the last acknowledged commit.
    acknowledged: Model,
    /// That of the commit whose end is unknown.
    in_flight: Option<Model>,
    /// The whole script ran.
    finished: bool,
}

/// Opens the database and commits until an error that ends writing.
fn script(disk: &MemDisk, seed: u64) -> Reached {
    let mut ops = Ops::new(seed);
    ops.longest = 100;
    let mut acknowledged = Model::new();
    let mut db = match try_open(disk, 4096) {
        Ok(db) => db,
        Err(OpenError::Io(_)) => return Reached { acknowledged, in_flight: None, finished: false },
        Err(error) => panic!("a failing disk is no damaged file: {error}"),
    };
    for _ in 0..TRANSACTIONS {
        let before = ops.model.clone();
        let batch = ops.transaction();
        let mut tx = db.begin_write();
        let failed = match perform(&mut tx, &batch) {
            Err(bolt::WriteError::Io(_)) => None,
            Err(error) => panic!("{error}"),
            Ok(()) => Some(tx.commit(&may())),
        };
        match failed {
            Some(Ok(_)) => acknowledged = ops.model.clone(),
            // Nothing happened: the next transaction goes on from the state before.
            None | Some(Err(CommitError::RolledBack(_))) => ops.model = before,
            Some(Err(CommitError::Unknown(_))) => {
                let mut tx = db.begin_write();
                assert_eq!(tx.put(&may(), b"a", b"k", b"v"), Err(bolt::WriteError::Poisoned));
                assert_eq!(tx.commit(&may()), Err(CommitError::Poisoned));
                return Reached { acknowledged, in_flight: Some(ops.model), finished: false };
            }
            Some(Err(error)) => panic!("{error}"),
        }
    }
    Reached { acknowledged, in_flight: None, finished: true }
}

#[derive(Clone, Copy, Debug)]
enum After {
    /// The process dies, the kernel keeps what was written.
    Kill,
    /// Nothing unsynced survives.
    PowerCut,
    /// Any mixture of sectors survives.
    TornPowerCut,
}

fn fail_everywhere(fault: Fault, after: After, seed: u64) {
    for at in 0.. {
        let disk = MemDisk::new();
        disk.set_fault(Some(Fault { at, ..fault }));
        let reached = script(&disk, seed);
        disk.set_fault(None);
        match after {
            After::Kill => {}
            After::PowerCut => disk.crash(None),
            After::TornPowerCut => disk.crash(Some(&mut SplitMix::new(seed ^ at << 8))),
        }
        let when = format!("seed {seed}, {fault:?} at {at}, then {after:?}");
        let mut db = try_open(&disk, 4096).unwrap_or_else(|e| panic!("{when}: {e}"));
        assert_eq!(db.check(&may()).unwrap(), [], "{when}");
        let found = content(&db.begin_read());
        let is_new = reached.in_flight.as_ref() == Some(&found);
        assert!(is_new || found == reached.acknowledged, "{when}: neither before nor after");
        // And it can be written again.
        let mut tx = db.begin_write();
        tx.create_bucket(&may(), b"a").unwrap();
        tx.put(&may(), b"a", b"k", b"after").unwrap();
        tx.commit(&may()).unwrap();
        assert_eq!(db.check(&may()).unwrap(), [], "{when}");
        if reached.finished && !disk_was_hit(at, &disk) {
            return;
        }
    }
}

/// Whether a run without faults has more than `at` operations, in the whole life of the disk.
fn disk_was_hit(at: u64, disk: &MemDisk) -> bool {
    at < disk.operations()
}

fn fault(only: Option<IoOp>, permanent: bool, torn: bool) -> Fault {
    Fault { at: 0, only, kind: IoErrorKind::Other, permanent, torn }
}

#[test]
fn a_dead_disk_leaves_the_state_before_or_after() {
    for (after, torn) in
        [(After::Kill, true), (After::PowerCut, false), (After::TornPowerCut, true)]
    {
        fail_everywhere(fault(None, true, torn), after, 1);
    }
}

#[test]
fn one_failed_operation_leaves_the_state_before_or_after() {
    for (after, torn) in
        [(After::Kill, true), (After::PowerCut, false), (After::TornPowerCut, true)]
    {
        fail_everywhere(fault(None, false, torn), after, 2);
    }
}

#[test]
fn failed_writes_and_syncs_leave_the_state_before_or_after() {
    for only in [IoOp::Write, IoOp::Sync, IoOp::SetLen] {
        for seed in 3..5 {
            fail_everywhere(fault(Some(only), false, true), After::TornPowerCut, seed);
        }
    }
}

#[test]
fn power_cuts_between_operations_lose_no_commit() {
    for seed in 0..80 {
        let disk = MemDisk::new();
        let mut random = SplitMix::new(seed);
        let mut ops = Ops::new(seed);
        for _ in 0..4 {
            let mut db = open(&disk);
            for _ in 0..random.below(5) {
                let batch = ops.transaction();
                let mut tx = db.begin_write();
                perform(&mut tx, &batch).unwrap();
                tx.commit(&may()).unwrap();
            }
            // A transaction that is open at the cut leaves nothing behind.
            let mut tx = db.begin_write();
            tx.create_bucket(&may(), b"open").unwrap();
            disk.crash(Some(&mut random));
        }
        let db = open(&disk);
        assert_eq!(db.check(&may()).unwrap(), [], "seed {seed}");
        assert_same(&db.begin_read(), &ops.model, &format!("seed {seed}"));
    }
}

#[test]
fn a_full_disk_rolls_back_and_writing_goes_on_when_there_is_room() {
    let disk = MemDisk::new();
    let mut db = open(&disk);
    let mut tx = db.begin_write();
    tx.create_bucket(&may(), b"b").unwrap();
    tx.put(&may(), b"b", b"k", b"old").unwrap();
    tx.commit(&may()).unwrap();
    disk.set_capacity(Some(200_000));
    let fill = |db: &mut bolt::Db| {
        let mut tx = db.begin_write();
        for i in 0..500u32 {
            tx.put(&may(), b"b", &i.to_be_bytes(), &[9; 1000]).unwrap();
        }
        tx.put(&may(), b"b", b"k", b"new").unwrap();
        tx.commit(&may())
    };
    for _ in 0..3 {
        match fill(&mut db).unwrap_err() {
            CommitError::RolledBack(e) => assert_eq!(e.kind, IoErrorKind::NoSpace),
            other => panic!("{other}"),
        }
        assert_eq!(db.check(&may()).unwrap(), []);
        let value = db.begin_read().get(&may(), b"b", b"k").unwrap();
        assert_eq!(value.as_deref(), Some(&b"old"[..]));
    }
    disk.set_capacity(None);
    fill(&mut db).unwrap();
    assert_eq!(db.check(&may()).unwrap(), []);
    drop(db);
    let db = open(&disk);
    let value = db.begin_read().get(&may(), b"b", b"k").unwrap();
    assert_eq!(value.as_deref(), Some(&b"new"[..]));
}
