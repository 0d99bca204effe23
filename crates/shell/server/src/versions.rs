//! The version that the cluster agrees on: the leader asks everyone, and decides.
//!
//! A cluster speaks the language of its oldest member; it rises when all have risen, and falls only
//! in a downgrade that was asked for.
//= etcd 3.7.1: server/etcdserver/version/monitor.go, server/etcdserver/server.go#monitorClusterVersions

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest};
use machine::CommandKind;
use member::MemberView;
use prost::Message;
use rpc::runtime::Runtime;
use types::{MemberId, SERVER_VERSION, Version};

use observe::{Log, log_line};

/// Time between two looks.
//= etcd 3.7.1: server/etcdserver/server.go (monitorVersionInterval)
const INTERVAL: Duration = Duration::from_secs(4);
/// Time between looks at who leads: a new leader decides at once.
const STEP: Duration = Duration::from_millis(250);
/// The same, as long as there is no version yet.
const FIRST_STEP: Duration = Duration::from_millis(10);
/// How long a member may take to tell its version.
const PEER_TIMEOUT: Duration = Duration::from_secs(1);
/// The version of a cluster of which not all members could be asked.
const LOWEST: Version = Version { major: 3, minor: 0 };

/// Watches over the versions, for ever. `downgrade_check` is `--downgrade-check-time`.
pub(crate) async fn watch_over(rt: Rc<Runtime>, log: Arc<Log>, downgrade_check: Duration) {
    let mut since_look = INTERVAL;
    let mut since_downgrade = Duration::ZERO;
    let mut led = false;
    loop {
        // Nobody can join a cluster before it has a version.
        let is_decided = rt.view().members.cluster_version.is_some();
        let step = if is_decided { STEP } else { FIRST_STEP };
        tokio::time::sleep(step).await;
        since_look += step;
        since_downgrade += step;
        let leads = rt.handle.status.load().is_leader;
        let led_before = std::mem::replace(&mut led, leads);
        if !leads {
            continue;
        }
        let is_new = !led_before;
        if is_new || since_look >= INTERVAL {
            since_look = Duration::ZERO;
            let view = rt.view();
            let lowest = lowest(&rt, &view).await;
            if let Some(version) = decide(&log, &view, lowest) {
                set_cluster_version(&rt, version).await;
            }
        }
        if !downgrade_check.is_zero() && since_downgrade >= downgrade_check {
            since_downgrade = Duration::ZERO;
            end_downgrade(&rt, &log).await;
        }
    }
}

/// The versions of all members' programs; `None` if one could not be asked.
//= etcd 3.7.1: server/etcdserver/cluster_util.go#getMembersVersions
async fn versions(rt: &Runtime, view: &MemberView) -> Option<Vec<Version>> {
    let own = Version::parse(SERVER_VERSION)?;
    let mut found = vec![own];
    for member in view.members.iter().filter(|m| MemberId(m.id) != rt.handle.member) {
        let urls = member.peer_urls.clone().unwrap_or_default();
        let answer = rt.peers.version(&urls, PEER_TIMEOUT).await.ok()?;
        found.push(Version::parse(&answer.server)?);
    }
    Some(found)
}

async fn lowest(rt: &Runtime, view: &MemberView) -> Option<Version> {
    versions(rt, view).await?.into_iter().min()
}

/// What the cluster's version should become, if anything else than it is.
fn decide(log: &Log, view: &MemberView, lowest: Option<Version>) -> Option<Version> {
    let now = view.members.cluster_version.as_deref().and_then(Version::parse);
    let Some(now) = now else {
        // One that is alone decides by itself as soon as it leads.
        let is_alone = view.members.iter().count() == 1;
        return Some(lowest.unwrap_or(LOWEST)).filter(|_| !is_alone);
    };
    let lowest = lowest?;
    if let Some(target) = view.members.downgrade.as_deref().and_then(Version::parse) {
        if target == now {
            return None;
        }
        if now.before() != Some(target) || lowest.before() != Some(target) {
            log_line!(
                log,
                Error,
                "Cannot downgrade from cluster-version to downgrade-target",
                "downgrade-target" = target.to_string(),
                "cluster-version" = now.to_string(),
            );
            return None;
        }
        return Some(target);
    }
    (now < lowest && now.major == lowest.major).then_some(lowest)
}

async fn set_cluster_version(rt: &Runtime, version: Version) {
    let request = ClusterVersionSetRequest { ver: version.to_string() };
    // What fails is found missing at the next look.
    let _ = rt.propose(CommandKind::ClusterVersionSet, &request.encode_to_vec()).await;
}

/// Ends a downgrade that all members have made.
//= etcd 3.7.1: server/etcdserver/version/monitor.go#CancelDowngradeIfNeeded
async fn end_downgrade(rt: &Runtime, log: &Log) {
    let view = rt.view();
    let Some(target) = view.members.downgrade.as_deref().and_then(Version::parse) else { return };
    let Some(all) = versions(rt, &view).await else { return };
    if all.iter().any(|version| *version != target) {
        return;
    }
    let version = target.to_string();
    log_line!(log, Info, "the cluster has been downgraded", "cluster-version" = version);
    let request = DowngradeInfoSetRequest { enabled: false, ver: String::new() };
    let _ = rt.propose(CommandKind::DowngradeInfoSet, &request.encode_to_vec()).await;
}
