//! A downgrade that ends at any point: the storage version never falls before a snapshot covers what
//! the older version could not read in the log.

use api::etcdserverpb::InternalRaftRequest;
use api::membershippb::ClusterVersionSetRequest;
use env::mem::MemDisk;
use env::{Disk, Instant, MayBlock};

use super::harness::{Running, config};

/// Log, applier and committer, as [`Running::run`] counts them.
const ALL: u64 = 7;
const ALL_BUT_THE_APPLIER: u64 = 5;

fn lower(member: &mut Running) {
    let set = ClusterVersionSetRequest { ver: "3.6.0".to_owned() };
    member.propose(InternalRaftRequest { cluster_version_set: Some(set), ..Default::default() });
}

fn stored(member: &Running) -> &[u8] {
    member.view.storage_version.as_deref().unwrap_or_default()
}

/// The newest entry that a snapshot in the log covers.
fn covered(disk: &MemDisk) -> u64 {
    let may = MayBlock::on_this_thread();
    let snapshots = wal::snapshots(disk as &dyn Disk, &config().wal_dir, &may).unwrap();
    snapshots.iter().filter_map(|snapshot| snapshot.index).max().unwrap_or(0)
}

#[test]
fn a_lowered_version_is_stored_once_a_snapshot_covers_its_entry() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    assert_eq!(stored(&member), b"3.7.0");
    assert_eq!(covered(&disk), 0);
    lower(&mut member);
    let mut entry = 0;
    for _ in 0..100 {
        member.step(ALL);
        if member.view.members.cluster_version.as_deref() == Some("3.6.0") && entry == 0 {
            entry = member.view.store.applied_index().0;
        }
        if stored(&member) == b"3.6.0" {
            assert!(entry > 0 && covered(&disk) >= entry);
            return;
        }
    }
    panic!("it is never lowered");
}

#[test]
fn wherever_a_downgrade_breaks_off_the_next_start_goes_on_with_it() {
    let mut early = 0;
    for steps in 0..40 {
        for last in [ALL, ALL_BUT_THE_APPLIER] {
            let disk = MemDisk::new();
            let mut member = Running::start(&disk, Instant(0), 1);
            lower(&mut member);
            (0..steps).for_each(|_| member.step(ALL));
            (0..8).for_each(|_| member.step(last));
            disk.crash(None);
            let mut member = Running::start(&disk, member.now, 2);
            if member.view.members.cluster_version.as_deref() != Some("3.6.0") {
                // The entry itself was lost.
                early += 1;
                continue;
            }
            member.turn(8);
            assert_eq!(stored(&member), b"3.6.0", "{steps} {last}");
        }
    }
    assert!(early < 20, "{early}");
}
