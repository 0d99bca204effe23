//! The cluster version: the leader asks every member for its version, and decides.
//!
//! A cluster speaks the language of its oldest member; it rises when all have risen, and falls only
//! in a downgrade that was asked for.
//= etcd 3.7.1: server/etcdserver/version/monitor.go, server/etcdserver/server.go#monitorClusterVersions

use std::rc::Rc;
use std::time::Duration;

use api::membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest};
use machine::CommandKind;
use prost::Message;
use types::{SERVER_VERSION, Version};

use crate::host::Event;
use crate::member::Member;
use crate::peers::{PeerAnswer, Question, ask};
use crate::published::PublishedView;

/// Time between two decisions.
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

/// Decides on the cluster version while this member leads. Never returns. `downgrade_check` is
/// `--downgrade-check-time`.
pub async fn watch_over(member: Rc<Member>, downgrade_check: Duration) {
    let mut since_look = INTERVAL;
    let mut since_downgrade = Duration::ZERO;
    let mut led = false;
    loop {
        // Nobody can join a cluster before it has a version.
        let is_decided = member.view().members().cluster_version.is_some();
        let step = if is_decided { STEP } else { FIRST_STEP };
        member.sleep(step).await;
        since_look += step;
        since_downgrade += step;
        let leads = member.status().is_leader;
        let led_before = std::mem::replace(&mut led, leads);
        if !leads {
            continue;
        }
        let is_new = !led_before;
        if is_new || since_look >= INTERVAL {
            since_look = Duration::ZERO;
            let view = member.view();
            let lowest = lowest(&member, &view).await;
            if let Some(version) = decide(&member, &view, lowest) {
                set_cluster_version(&member, version).await;
            }
        }
        if !downgrade_check.is_zero() && since_downgrade >= downgrade_check {
            since_downgrade = Duration::ZERO;
            end_downgrade(&member).await;
        }
    }
}

/// The versions of all members' programs; `None` if one could not be asked.
//= etcd 3.7.1: server/etcdserver/cluster_util.go#getMembersVersions
async fn versions(member: &Member, view: &PublishedView) -> Option<Vec<Version>> {
    let own = Version::parse(SERVER_VERSION)?;
    let mut found = vec![own];
    for other in view.members().iter().filter(|other| other.id != member.shared.id.0) {
        match ask(member, other, Question::Version, PEER_TIMEOUT).await {
            Ok(PeerAnswer::Versions(versions)) => found.push(Version::parse(&versions.server)?),
            _ => return None,
        }
    }
    Some(found)
}

async fn lowest(member: &Member, view: &PublishedView) -> Option<Version> {
    versions(member, view).await?.into_iter().min()
}

/// What the cluster's version should become, if anything else than it is.
fn decide(member: &Member, view: &PublishedView, lowest: Option<Version>) -> Option<Version> {
    let now = view.members().cluster_version.as_deref().and_then(Version::parse);
    let Some(now) = now else {
        // One that is alone decides by itself as soon as it leads.
        let is_alone = view.members().iter().count() == 1;
        return Some(lowest.unwrap_or(LOWEST)).filter(|_| !is_alone);
    };
    let lowest = lowest?;
    if let Some(target) = view.members().downgrade.as_deref().and_then(Version::parse) {
        if target == now {
            return None;
        }
        if now.before() != Some(target) || lowest.before() != Some(target) {
            member.host.log(Event::CannotDowngrade { target, now });
            return None;
        }
        return Some(target);
    }
    (now < lowest && now.major == lowest.major).then_some(lowest)
}

async fn set_cluster_version(member: &Member, version: Version) {
    let request = ClusterVersionSetRequest { ver: version.to_string() };
    // What fails is found missing at the next look.
    let _ = member.propose_own(CommandKind::ClusterVersionSet, &request.encode_to_vec()).await;
}

/// Ends a downgrade that all members have made.
//= etcd 3.7.3: server/etcdserver/version/monitor.go#CancelDowngradeIfNeeded
async fn end_downgrade(member: &Member) {
    let view = member.view();
    let Some(target) = view.members().downgrade.as_deref().and_then(Version::parse) else { return };
    let Some(all) = versions(member, &view).await else { return };
    if all.iter().any(|version| *version != target) {
        return;
    }
    member.host.log(Event::Downgraded(target));
    let request = DowngradeInfoSetRequest { enabled: false, ver: String::new() };
    let _ = member.propose_own(CommandKind::DowngradeInfoSet, &request.encode_to_vec()).await;
}
