//! One member on a disk in memory: the four automata run in one thread, the disk loses what was
//! not synced.

mod harness;
mod lagging;
mod versions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::{
    AlarmType, CompactionRequest, InternalRaftRequest, LeaseGrantRequest, PutRequest,
};
use env::mem::{Fault, MemDisk};
use env::{Access, Disk, Entropy, Instant, IoErrorKind, MayBlock, Open, SplitMix};
use member::{ApplierInput, CommitPolicy, LogInput, NodeInput, Reply, StartConfig, start};
use types::{LeaseId, ReplyToken};

use harness::{ID, Running, config};

#[test]
fn a_put_is_acknowledged_visible_and_survives_a_power_cut() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    let token = member.put("k", "v");
    let outcome = member.outcome(token).unwrap();
    assert_eq!(outcome.revision.0, 2);
    assert_eq!(member.value("k").as_deref(), Some(&b"v"[..]));
    member.turn(2);
    assert_eq!(member.status.applied, outcome.index, "what is shown keeps up");
    disk.crash(None);
    let member = Running::start(&disk, member.now, 2);
    assert_eq!(member.value("k").as_deref(), Some(&b"v"[..]));
    assert_eq!(member.view.store.revision().0, 2);
    let members: Vec<_> = member.view.members.iter().collect();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].name, "m");
    assert_eq!(member.view.members.cluster_version.as_deref(), Some("3.7.0"));
}

#[test]
fn i4_what_crosses_the_quota_is_applied_and_refused_once_the_alarm_is_set() {
    let disk = MemDisk::new();
    let mut config = config();
    config.apply.quota_bytes = Some(1);
    let mut member = Running::start_with(config, &disk, Instant(0), 1);
    let token = member.put("k", "v");
    let outcome = loop {
        member.step(7);
        if let Some(at) = member.replies.iter().position(|(t, _)| *t == token) {
            break member::applier::outcome(member.replies.swap_remove(at).1).unwrap();
        }
        assert!(!member.view.alarms.is_set(AlarmType::Nospace), "the refusal comes with the alarm");
    };
    assert_eq!(outcome.reply.unwrap_err(), ApiError::NoSpace);
    assert!(member.view.alarms.is_set(AlarmType::Nospace), "who is refused finds the alarm");
    assert_eq!(member.value("k").as_deref(), Some(&b"v"[..]), "it was applied");
    let token = member.put("k", "w");
    assert_eq!(member.outcome(token).unwrap().reply.unwrap_err(), ApiError::NoSpace);
    assert_eq!(member.value("k").as_deref(), Some(&b"v"[..]), "the alarm stops later ones");
}

#[test]
fn nothing_acknowledged_is_lost_whatever_lags_when_the_power_goes() {
    for seed in 0..40 {
        let mut entropy = SplitMix::new(seed);
        let disk = MemDisk::new();
        let mut now = Instant(0);
        let mut acknowledged: Vec<(String, u64)> = Vec::new();
        for life in 0..4u64 {
            let mut member = Running::start(&disk, now, seed * 10 + life);
            for (key, value) in &acknowledged {
                let stored = member.value(key).map(|v| String::from_utf8(v).unwrap());
                let stored: u64 = stored.expect("acknowledged").parse().unwrap();
                assert!(stored >= *value, "seed {seed}: {key} went back to {stored}");
            }
            let mut waiting = Vec::new();
            for n in 0..120 {
                let key = format!("k{}", entropy.below(12));
                let value = life * 1_000 + n;
                waiting.push((member.put(&key, &value.to_string()), key, value));
                member.now = member.now + Duration::from_millis(entropy.below(30));
                member.step(entropy.next_u64());
            }
            for (token, key, value) in waiting {
                let done = member
                    .replies
                    .iter()
                    .any(|(t, r)| *t == token && matches!(r, Reply::Applied(o) if o.reply.is_ok()));
                if done {
                    acknowledged.retain(|(k, _)| *k != key);
                    acknowledged.push((key, value));
                }
            }
            now = member.now;
            disk.crash(Some(&mut entropy));
        }
        assert!(acknowledged.len() > 5);
    }
}

#[test]
fn a_lease_takes_its_keys_along() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    let grant = LeaseGrantRequest { ttl: 3, id: 77 };
    let token =
        member.propose(InternalRaftRequest { lease_grant: Some(grant), ..Default::default() });
    member.outcome(token).unwrap();
    let put = PutRequest { key: "k".into(), lease: 77, ..PutRequest::default() };
    let token = member.propose(InternalRaftRequest { put: Some(put), ..Default::default() });
    member.outcome(token).unwrap();
    let token = ReplyToken(1);
    member.to_node.push(NodeInput::KeepAlive { token, lease: LeaseId(77), for_peer: false });
    member.turn(2);
    let kept = |r: &(ReplyToken, Reply)| r.0 == token && matches!(r.1, Reply::KeepAlive(3));
    assert!(member.replies.iter().any(kept));
    member.now = member.now + Duration::from_millis(2_900);
    member.turn(6);
    assert!(member.value("k").is_some());
    member.now = member.now + Duration::from_millis(200);
    member.turn(6);
    assert_eq!(member.value("k"), None);
    let token = ReplyToken(2);
    member.to_node.push(NodeInput::KeepAlive { token, lease: LeaseId(77), for_peer: false });
    member.turn(6);
    let gone = |r: &(ReplyToken, Reply)| r.0 == token && matches!(r.1, Reply::KeepAlive(0));
    assert!(member.replies.iter().any(gone));
}

#[test]
fn snapshots_let_go_of_the_log_and_the_member_starts_from_the_backend() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    for n in 0..300 {
        let token = member.put(&format!("k{n}"), "v");
        member.outcome(token).unwrap();
    }
    let may = MayBlock::on_this_thread();
    let snaps = wal::snap::list(&disk, &PathBuf::from("/d/member/snap"), &may).unwrap();
    assert!(snaps.len() >= 3, "{snaps:?}");
    let newest = PathBuf::from("/d/member/snap").join(&snaps[0]);
    let metadata = wal::snap::read(&disk, &newest, &may).unwrap().metadata.unwrap();
    assert_eq!(metadata.conf_state.unwrap().voters, [ID.0]);
    disk.crash(None);
    let member = Running::start(&disk, member.now, 2);
    assert_eq!(member.view.store.revision().0, 301);
    assert_eq!(member.value("k299").as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_snapshot_of_the_log_adds_no_flush_to_what_raft_waits_for() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    let (mut most, mut beside_entries) = (0, 0);
    for n in 0..300 {
        member.put(&format!("k{n}"), "v");
        for which in [0, 1, 6] {
            member.now = member.now + Duration::from_millis(20);
            let snapshot = member.log.iter().any(|i| matches!(i, LogInput::Snapshot(_)));
            let entries = member.log.iter().any(|i| matches!(i, LogInput::Persist(_)));
            let before = disk.flushes();
            member.step(which);
            if which == 1 {
                most = most.max(disk.flushes() - before);
                beside_entries += u32::from(snapshot && entries);
            }
        }
    }
    assert_eq!(most, 1);
    assert!(beside_entries >= 3, "records shared a flush {beside_entries} times");
    let may = MayBlock::on_this_thread();
    let snaps = wal::snap::list(&disk, &config().snap_dir, &may).unwrap();
    let records = wal::snapshots(&disk, &config().wal_dir, &may).unwrap();
    for name in &snaps {
        let (term, index) = wal::snap::parse_name(name).unwrap();
        let is_it = |r: &&api::walpb::Snapshot| (r.term, r.index) == (Some(term), Some(index));
        assert!(records.iter().any(|r| is_it(&r)), "{name} has no record");
    }
}

#[test]
fn a_power_cut_at_any_operation_of_a_defragmentation_loses_nothing() {
    let mut at = 0;
    loop {
        let disk = MemDisk::new();
        let mut member = Running::start(&disk, Instant(0), 1);
        for n in 0..40 {
            let token = member.put(&format!("k{}", n % 7), &n.to_string());
            member.outcome(token).unwrap();
        }
        let fault =
            Fault { at, only: None, kind: IoErrorKind::Other, permanent: true, torn: at % 2 == 0 };
        let token = ReplyToken(1);
        member.to_applier.push(ApplierInput::Defragment(token));
        disk.set_fault(Some(fault));
        let failed = (0..12).any(|_| {
            let _ = member.put("during", "x");
            member.try_step().is_err()
        });
        disk.set_fault(None);
        let done = member.replies.iter().any(|(t, r)| *t == token && matches!(r, Reply::Done));
        disk.crash(Some(&mut SplitMix::new(at)));
        let member = Running::start(&disk, member.now, 2);
        assert_eq!(member.value("k4").as_deref(), Some(&b"39"[..]), "cut at operation {at}");
        if done && !failed {
            break;
        }
        at += 1;
    }
    assert!(at > 20, "the defragmentation does much more than {at} operations");
}

#[test]
fn a_replayed_publication_of_an_earlier_boot_makes_nobody_ready() {
    let disk = MemDisk::new();
    let may = MayBlock::on_this_thread();
    // The backend never commits: the next boot replays everything.
    let slow = CommitPolicy { interval: Duration::from_secs(3_600), operations: usize::MAX };
    let begin = |now, seed| {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let config = StartConfig { commit: slow, ..config() };
        let entropy = Box::new(SplitMix::new(seed));
        start(shared, &may, now, config, entropy).unwrap_or_else(|e| panic!("{e}"))
    };
    let mut first = Running::of(begin(Instant(0), 1), Instant(0));
    (0..20).for_each(|_| first.turn(4));
    assert!(first.ready, "what it acknowledges now comes behind its publication");
    let token = first.put("k", "acknowledged");
    first.outcome(token).unwrap();
    disk.crash(None);
    // Entries reach the applier one by one, as they may between two threads.
    let mut member = Running::of(begin(first.now, 2), first.now);
    let mut queued = std::collections::VecDeque::new();
    for _ in 0..100 {
        // Until the node has nothing more to hand over.
        (0..4).for_each(|_| member.step(1));
        if member.ready {
            break;
        }
        queued.extend(member.to_applier.drain(..));
        member.to_applier.extend(queued.pop_front());
        member.step(2);
    }
    assert!(member.ready);
    let value = member.value("k");
    assert_eq!(value.as_deref(), Some(&b"acknowledged"[..]), "ready before the log was replayed");
}

#[test]
fn what_a_killed_first_boot_left_behind_survives_a_later_power_cut() {
    let may = MayBlock::on_this_thread();
    let mut at = 0;
    loop {
        let disk = MemDisk::new();
        let fault =
            Fault { at, only: None, kind: IoErrorKind::Other, permanent: true, torn: false };
        disk.set_fault(Some(fault));
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let entropy = Box::new(SplitMix::new(1));
        let killed = start(shared, &may, Instant(0), config(), entropy).is_err();
        // The process is gone, the kernel is not: what was written is there, synced or not.
        disk.set_fault(None);
        let mut member = Running::start(&disk, Instant(0), 2);
        let token = member.put("k", "v");
        member.outcome(token).unwrap();
        disk.crash(None);
        let member = Running::start(&disk, member.now, 3);
        assert_eq!(member.value("k").as_deref(), Some(&b"v"[..]), "killed at operation {at}");
        if !killed {
            break;
        }
        at += 1;
    }
    assert!(at > 20, "a first boot does much more than {at} operations");
}

#[test]
fn a_compaction_resumes_after_a_power_cut() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    for n in 0..50 {
        let token = member.put("k", &n.to_string());
        member.outcome(token).unwrap();
    }
    let compaction = CompactionRequest { revision: 40, physical: false };
    let token =
        member.propose(InternalRaftRequest { compaction: Some(compaction), ..Default::default() });
    member.outcome(token).unwrap();
    disk.crash(None);
    let mut member = Running::start(&disk, member.now, 2);
    assert_eq!(member.view.store.compact_revision().0, 40);
    let token = ReplyToken(1);
    member.to_applier.push(ApplierInput::AwaitCompaction(token));
    for _ in 0..5 {
        member.turn(6);
    }
    assert!(member.replies.iter().any(|(t, r)| *t == token && matches!(r, Reply::Done)));
    assert!(member.view.store.get(b"k", 39).is_err());
    assert!(member.view.store.get(b"k", 40).unwrap().is_some());
}

/// The hash of a compaction of more than one turn can hash, with an entry applied in every so
/// many turns of it.
fn hash_of_a_long_compaction(entry_every: u64) -> store::hash::KvHash {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    let value = "v".repeat(10_000);
    for n in 0..100 {
        let token = member.put(["a", "b"][n % 2], &value);
        member.outcome(token).unwrap();
    }
    let revision = member.view.store.revision();
    let compaction = CompactionRequest { revision: revision.0, physical: false };
    member.propose(InternalRaftRequest { compaction: Some(compaction), ..Default::default() });
    for turn in 0..200 {
        if turn % entry_every == 0 {
            member.put("c", "other");
        }
        member.turn(1);
    }
    let hash = member.view.hashes.get(revision);
    hash.expect("the compaction was hashed, whatever else there was to do")
}

#[test]
fn what_a_compaction_hashes_does_not_depend_on_entries_applied_meanwhile() {
    let quiet = hash_of_a_long_compaction(u64::MAX);
    assert_eq!(hash_of_a_long_compaction(2), quiet, "nothing is removed before it is hashed");
    assert_eq!(hash_of_a_long_compaction(1), quiet, "hashing goes on beside a stream of entries");
}

/// The bytes of every log segment.
fn log_files(disk: &MemDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let may = MayBlock::on_this_thread();
    let dir = config().wal_dir;
    let mut files = Vec::new();
    for entry in disk.read_dir(&may, &dir).unwrap() {
        let path = dir.join(entry.name);
        let file = disk.open(&may, &path, Open::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&may, &mut bytes, 0, Access::Scan).unwrap();
        files.push((path, bytes));
    }
    files
}

/// A database that holds more than the log, as Go's servers leave it when they are killed while
/// the log is being written: the log is set back to what it was before the last puts.
fn log_behind_database() -> (MemDisk, Instant, u64) {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    for n in 0..10 {
        let token = member.put(&format!("k{n}"), "early");
        member.outcome(token).unwrap();
    }
    let before = log_files(&disk);
    let mut last = 0;
    for n in 0..10 {
        let token = member.put(&format!("k{n}"), "late");
        last = member.outcome(token).unwrap().index.0;
    }
    // The backend's commit is due after 100 ms.
    (0..10).for_each(|_| member.turn(4));
    let now = member.now;
    drop(member);
    let may = MayBlock::on_this_thread();
    for (path, bytes) in before {
        let file = disk.open(&may, &path, Open::Write).unwrap();
        file.write_at(&may, &bytes, 0).unwrap();
        file.sync_all(&may).unwrap();
    }
    (disk, now, last)
}

#[test]
fn a_database_ahead_of_its_log_becomes_the_snapshot_that_the_log_goes_on_from() {
    let (disk, now, last) = log_behind_database();
    let mut member = Running::start(&disk, now, 2);
    assert_eq!(member.value("k9").as_deref(), Some(&b"late"[..]));
    assert_eq!(member.view.store.revision().0, 21);
    let token = member.put("k0", "new");
    let outcome = member.outcome(token).unwrap();
    assert!(outcome.index.0 > last, "no index is given twice");
    assert_eq!(outcome.revision.0, 22);
    let may = MayBlock::on_this_thread();
    // What Go needs: a record in the log, and a file for it.
    let record = wal::snapshots(&disk, &config().wal_dir, &may).unwrap().pop().unwrap();
    assert_eq!(record.index, Some(last));
    let name = wal::snap::list(&disk, &config().snap_dir, &may).unwrap().remove(0);
    let file = wal::snap::read(&disk, &config().snap_dir.join(name), &may).unwrap();
    let metadata = file.metadata.unwrap();
    assert_eq!((metadata.index, metadata.term), (record.index, record.term));
    assert_eq!(metadata.conf_state.unwrap().voters, [ID.0]);
    disk.crash(None);
    let member = Running::start(&disk, member.now, 3);
    assert_eq!(member.value("k0").as_deref(), Some(&b"new"[..]));
    assert_eq!(member.value("k9").as_deref(), Some(&b"late"[..]));
}

#[test]
fn a_power_cut_at_any_operation_of_that_start_changes_nothing() {
    let mut at = 0;
    loop {
        let (disk, now, last) = log_behind_database();
        let may = MayBlock::on_this_thread();
        let kind = IoErrorKind::Other;
        disk.set_fault(Some(Fault { at, only: None, kind, permanent: true, torn: at % 2 == 0 }));
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let failed = start(shared, &may, now, config(), Box::new(SplitMix::new(at))).is_err();
        disk.set_fault(None);
        disk.crash(Some(&mut SplitMix::new(at)));
        let mut member = Running::start(&disk, now, 2);
        assert_eq!(member.value("k9").as_deref(), Some(&b"late"[..]), "cut at operation {at}");
        let token = member.put("k0", "new");
        assert!(member.outcome(token).unwrap().index.0 > last, "cut at operation {at}");
        if !failed {
            break;
        }
        at += 1;
    }
    assert!(at > 20, "a start does more than {at} operations");
}
