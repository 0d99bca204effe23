//! M: versions of a cluster, and going back to the one before.

use std::time::{Duration, Instant};

use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::etcdserverpb::{DowngradeRequest, DowngradeResponse};
use conform::{Cluster, Failure, Kind, on_both_clusters};

async fn downgrade(
    c: &Cluster,
    n: usize,
    action: DowngradeAction,
    version: &str,
) -> Result<String, Failure> {
    let request = DowngradeRequest { action: action as i32, version: version.to_owned() };
    let path = "/etcdserverpb.Maintenance/Downgrade";
    let answer: DowngradeResponse = c.call(n, path, &request).await?;
    Ok(format!("{} {}", answer.version, answer.header.is_some()))
}

/// The cluster version that a member shows.
fn shown(c: &Cluster, n: usize) -> String {
    let text = c.nodes[n].http_get("/version").unwrap_or_default();
    let found = text.split("\"etcdcluster\":\"").nth(1).and_then(|rest| rest.split('"').next());
    found.unwrap_or_default().to_owned()
}

/// Waits until all members that run show a cluster version.
async fn cluster_version(c: &Cluster, version: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    for n in (0..c.nodes.len()).filter(|&n| c.nodes[n].runs()) {
        while shown(c, n) != version {
            assert!(Instant::now() < until, "{n} shows {:?}", shown(c, n));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Waits until all members' storage has a version.
async fn storage_version(c: &Cluster, version: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    for n in 0..c.nodes.len() {
        while c.status(n).await.storage_version != version {
            let now = c.status(n).await.storage_version;
            assert!(Instant::now() < until, "{n} has {now:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[test]
fn m1_m3_m7_members_agree_on_their_lowest_version_and_storage_follows() {
    on_both_clusters(&[], async |c| {
        cluster_version(c, "3.7.0").await;
        storage_version(c, "3.7.0").await;
        for n in 0..3 {
            let validate = downgrade(c, n, DowngradeAction::Validate, "3.6").await.unwrap();
            assert_eq!(validate, "3.7 true");
        }
        // It is known at once after a start.
        let n = c.follower().await;
        c.nodes[n].stop();
        c.restart(n);
        assert_eq!(shown(c, n), "3.7.0");
    });
}

#[test]
fn m4_m6_m9_what_can_be_downgraded_to_is_checked() {
    on_both_clusters(&[], async |c| {
        cluster_version(c, "3.7.0").await;
        let targets = [
            "3.6",
            "3.6.0",
            "3.6.99",
            "v3.6",
            "3",
            "",
            "x",
            "3.6.x",
            "3.6.1-rc",
            "3.5",
            "3.7",
            "3.8",
            "4.6",
            "3.6.0.0",
            " 3.6",
            "03.6",
            "3.6-rc",
            "3.6.0+x.y",
            "3.6.0-",
            "3.6.0-a_b",
        ];
        for action in [DowngradeAction::Validate, DowngradeAction::Cancel] {
            for version in targets {
                let answer = downgrade(c, 1, action, version).await;
                c.note(format!("{action:?} {version:?}: {answer:?}"));
            }
        }
        for version in ["", "x", "3.5", "3.7"] {
            let answer = downgrade(c, 2, DowngradeAction::Enable, version).await;
            c.note(format!("enable {version:?}: {answer:?}"));
        }
        let request = DowngradeRequest { action: 9, version: "3.6".into() };
        let path = "/etcdserverpb.Maintenance/Downgrade";
        let answer: Result<DowngradeResponse, _> = c.call(0, path, &request).await;
        c.note(format!("{:?}", answer.map(|a| a.version)));
    });
}

#[test]
fn m5_m6_a_downgrade_lowers_the_version_and_can_be_taken_back() {
    on_both_clusters(&[], async |c| {
        cluster_version(c, "3.7.0").await;
        storage_version(c, "3.7.0").await;
        let follower = c.follower().await;
        let answer = downgrade(c, follower, DowngradeAction::Enable, "3.6.0").await;
        c.note(format!("{answer:?}"));
        cluster_version(c, "3.6.0").await;
        for n in 0..3 {
            let info = c.status(n).await.downgrade_info.unwrap();
            c.note(format!("{info:?}"));
            c.note(format!("{:?}", c.nodes[n].peer_get("/downgrade/enabled")));
        }
        let again = downgrade(c, 0, DowngradeAction::Enable, "3.6.0").await;
        c.note(format!("again: {again:?}"));
        let again = downgrade(c, 0, DowngradeAction::Validate, "3.5.0").await;
        c.note(format!("further: {again:?}"));
        storage_version(c, "3.6.0").await;
        c.put(0, "a", "1").await.unwrap();
        let answer = downgrade(c, follower, DowngradeAction::Cancel, "").await;
        c.note(format!("{answer:?}"));
        cluster_version(c, "3.7.0").await;
        storage_version(c, "3.7.0").await;
        c.assert_equal().await;
    });
}

#[test]
fn m1_m2_a_cluster_of_two_versions_speaks_the_older_one_until_all_have_risen() {
    let Some(mut c) = Cluster::start(&[Kind::Reference36, Kind::Quorate, Kind::Quorate], &[])
    else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        cluster_version(&c, "3.6.0").await;
        for n in 0..3 {
            c.put_in_time(n, &format!("k{n}"), "v").await;
        }
        c.assert_equal().await;
        c.nodes[0].stop();
        c.nodes[0].kind = Kind::Quorate;
        c.restart(0);
        cluster_version(&c, "3.7.0").await;
        storage_version(&c, "3.7.0").await;
        c.assert_equal().await;
        // The old binary must not come back.
        c.nodes[2].stop();
        c.nodes[2].kind = Kind::Reference36;
        c.spawn(2);
        let code = c.nodes[2].wait_exit(Duration::from_secs(10)).expect("it ends by itself");
        assert_ne!(code, Some(0));
    });
}

#[test]
fn m8_m10_a_cluster_goes_back_to_the_version_before_member_by_member() {
    if Kind::Reference36.program().is_none() {
        return;
    }
    on_both_clusters(&["--downgrade-check-time", "1s"], async |c| {
        cluster_version(c, "3.7.0").await;
        storage_version(c, "3.7.0").await;
        c.put(0, "a", "1").await.unwrap();
        downgrade(c, 0, DowngradeAction::Enable, "3.6.0").await.unwrap();
        cluster_version(c, "3.6.0").await;
        storage_version(c, "3.6.0").await;
        c.drop_arg("--downgrade-check-time");
        for n in 0..3 {
            // Whatever tells that it may be downgraded may be ended in any way. etcd tells it some
            // moments before it is on the disk.
            if c.nodes[n].kind == Kind::Quorate && n != 1 {
                c.nodes[n].kill();
            } else {
                c.nodes[n].stop();
            }
            c.nodes[n].kind = Kind::Reference36;
            c.restart(n);
            c.put_in_time(n, "a", &n.to_string()).await;
        }
        c.assert_equal().await;
        let until = Instant::now() + Duration::from_secs(20);
        while c.status(0).await.downgrade_info.is_some_and(|info| info.enabled) {
            assert!(Instant::now() < until, "the downgrade never ends");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        cluster_version(c, "3.6.0").await;
    });
}
