//! A member whose data differs from the others': found before it serves, by the leader's round, and
//! by the hashes of compactions, on clusters of each kind.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, CompactionResponse,
    DeleteRangeRequest, DeleteRangeResponse,
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

/// Comparisons that a member has ended.
fn comparisons(cluster: &Cluster, n: usize) -> usize {
    cluster.nodes[n].log().matches("finished peer corruption check").count()
}

/// Whether the leader raises an alarm, or has ended two more comparisons without one.
async fn is_alarmed(cluster: &Cluster, leader: usize) -> bool {
    let before = comparisons(cluster, leader);
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        let found: AlarmResponse = cluster
            .call(leader, "/etcdserverpb.Maintenance/Alarm", &AlarmRequest::default())
            .await
            .expect("alarms are always listed");
        if found.alarms.iter().any(|alarm| alarm.alarm == AlarmType::Corrupt as i32) {
            return true;
        }
        if comparisons(cluster, leader) >= before + 2 {
            return false;
        }
        assert!(Instant::now() < until, "nothing is compared");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn compact(cluster: &Cluster, n: usize, revision: i64) {
    let compact = CompactionRequest { revision, physical: true };
    let path = "/etcdserverpb.KV/Compact";
    cluster.call::<CompactionResponse>(n, path, &compact).await.expect("it can be compacted");
}

/// etcd takes the hash that a compaction at 0 has stored for that of the newest revision; a member
/// that was restarted since has none (COMPAT.md).
#[tokio::test]
async fn a_compaction_at_0_makes_etcd_alone_take_a_restarted_member_for_corrupt() {
    for kind in KINDS {
        let args = ["--corrupt-check-time=1s"];
        let Some(mut cluster) = Cluster::start(&[kind; 3], &args) else { return };
        cluster.put(0, "a", "b").await.expect("a cluster writes");
        compact(&cluster, 0, 0).await;
        cluster.assert_equal().await;
        let follower = cluster.follower().await;
        cluster.restart_clean(follower);
        let leader = cluster.leader().await;
        assert_eq!(is_alarmed(&cluster, leader).await, kind == Kind::Reference, "{kind:?}");
    }
}

/// Where nothing is alive, what etcd computes before a compaction differs from what it stores
/// (COMPAT.md). A member that is asked first and does not answer keeps the leader from asking the
/// other one before that has compacted.
#[tokio::test]
async fn where_nothing_is_alive_etcd_alone_takes_a_member_that_has_compacted_for_corrupt() {
    for kind in KINDS {
        let args = ["--corrupt-check-time=1s"];
        let Some(cluster) = Cluster::start(&[kind; 3], &args) else { return };
        for value in ["1", "2"] {
            cluster.put(0, "a", value).await.expect("a cluster writes");
        }
        compact(&cluster, 0, 3).await;
        let delete = DeleteRangeRequest { key: "a".into(), ..Default::default() };
        let gone: DeleteRangeResponse =
            cluster.call(0, "/etcdserverpb.KV/DeleteRange", &delete).await.expect("it is there");
        let revision = gone.header.expect("every answer has one").revision;
        cluster.assert_equal().await;
        let leader = cluster.leader().await;
        let mut ids = Vec::new();
        for n in (0..3).filter(|n| *n != leader) {
            ids.push((cluster.id(n).await, n));
        }
        let (_, first) = ids.into_iter().min().expect("two follow");
        cluster.nodes[first].signal("STOP");
        // By now the leader has computed its hash, and gives that member six seconds to answer.
        tokio::time::sleep(Duration::from_secs(2)).await;
        compact(&cluster, leader, revision).await;
        let alarmed = is_alarmed(&cluster, leader).await;
        cluster.nodes[first].signal("CONT");
        assert_eq!(alarmed, kind == Kind::Reference, "{kind:?}");
    }
}
