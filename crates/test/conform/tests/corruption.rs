//! A member whose data differs from the others': found before it serves, by the leader's round, and
//! by the hashes of compactions, on clusters of each kind.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, CompactionResponse,
};
use conform::cluster::Cluster;
use conform::process::Kind;
use env::{Disk, MayBlock};

/// Changes a value in a member's database, which nobody has open.
fn tamper(database: &Path) {
    let may = MayBlock::on_this_thread();
    let disk: Arc<dyn Disk> = Arc::new(osenv::OsDisk);
    let options = store::database_options();
    let mut db = bolt::Db::open(disk, database, &may, options).expect("it is closed");
    let bucket = store::Bucket::Key.name();
    let reader = db.begin_read();
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let mut scan = reader.scan(&may, bucket, all, env::Access::Scan);
    let (key, value) = scan.next_ref().unwrap().map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap();
    drop(scan);
    drop(reader);
    let mut changed = value;
    // The last byte of the first key-value is the last of its value.
    *changed.last_mut().expect("a key-value is not empty") ^= 1;
    let mut tx = db.begin_write();
    tx.put(&may, bucket, &key, &changed).unwrap();
    tx.commit(&may).unwrap();
}

/// A cluster whose last member holds something else than the others, with these flags, not running
/// that member.
async fn tampered(kind: Kind, args: &[&str]) -> Option<Cluster> {
    let mut cluster = Cluster::start(&[kind; 3], args)?;
    for n in 0..20 {
        cluster.put(0, &format!("key{n}"), "value").await.expect("a cluster writes");
    }
    cluster.assert_equal().await;
    cluster.nodes[2].stop();
    tamper(&cluster.nodes[2].data_dir.join("member/snap/db"));
    Some(cluster)
}

async fn alarms(cluster: &Cluster) -> Vec<AlarmMember> {
    let path = "/etcdserverpb.Maintenance/Alarm";
    let answer: AlarmResponse =
        cluster.call(0, path, &AlarmRequest::default()).await.expect("alarms are always listed");
    answer.alarms
}

async fn await_corrupt(cluster: &Cluster) -> u64 {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let found = alarms(cluster).await;
        if let Some(alarm) = found.iter().find(|a| a.alarm == AlarmType::Corrupt as i32) {
            return alarm.member_id;
        }
        assert!(Instant::now() < until, "no alarm is raised");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const KINDS: [Kind; 2] = [Kind::Reference, Kind::Quorate];

#[tokio::test]
async fn a_member_that_differs_does_not_serve() {
    for kind in KINDS {
        let Some(mut cluster) = tampered(kind, &[]).await else { return };
        cluster.nodes[2].args.push("--feature-gates=InitialCorruptCheck=true".to_owned());
        cluster.spawn(2);
        let ended = cluster.nodes[2].wait_exit(Duration::from_secs(20));
        let log = cluster.nodes[2].log();
        assert!(ended.is_some_and(|code| code != Some(0)), "{kind:?} serves\n{log}");
        assert!(log.contains("found data inconsistency with peers"), "{log}");
    }
}

#[tokio::test]
async fn the_leader_finds_a_member_that_differs() {
    for kind in KINDS {
        let Some(mut cluster) = tampered(kind, &["--corrupt-check-time=1s"]).await else { return };
        cluster.restart(2);
        assert_eq!(await_corrupt(&cluster).await, cluster.id(2).await, "{kind:?}");
        let refused = cluster.put(0, "a", "b").await.expect_err("a corrupt cluster writes nothing");
        assert_eq!(refused.message, "etcdserver: corrupt cluster");
    }
}

#[tokio::test]
async fn hashes_of_compactions_tell_the_minority() {
    for kind in KINDS {
        let gate = ["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=1s"];
        let Some(mut cluster) = tampered(kind, &gate).await else { return };
        cluster.restart(2);
        let compact = CompactionRequest { revision: 15, physical: true };
        let path = "/etcdserverpb.KV/Compact";
        // The changed value must still be there to be hashed: it is the newest of its key.
        cluster.call::<CompactionResponse>(0, path, &compact).await.expect("it can be compacted");
        assert_eq!(await_corrupt(&cluster).await, cluster.id(2).await, "{kind:?}");
    }
}
