//! The Downgrade call: lets the cluster go back to the version before.
//= etcd 3.7.1: server/etcdserver/v3_server.go#Downgrade, server/etcdserver/version/version.go

use std::rc::Rc;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::etcdserverpb::{DowngradeRequest, DowngradeResponse};
use api::membershippb::DowngradeInfoSetRequest;
use bytes::Bytes;
use machine::CommandKind;
use member::MemberView;
use prost::Message;
use types::Version;

use crate::runtime::Runtime;
use crate::services::decode;
use crate::{Body, Draft};

pub(super) async fn downgrade(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: DowngradeRequest = decode(message)?;
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => {
            let target = target(&request.version)?;
            // Its absence is told before anything else is asked.
            let shown = cluster_version(&rt.view())?;
            validate(rt, target).await?;
            return Ok(respond(rt, shown));
        }
        Ok(DowngradeAction::Enable) => {
            let target = target(&request.version)?;
            validate(rt, target).await?;
            let set = DowngradeInfoSetRequest { enabled: true, ver: target.to_string() };
            rt.propose(CommandKind::DowngradeInfoSet, &set.encode_to_vec()).await?.reply?;
        }
        // What hinders it is no error for the client (semantics M6).
        Ok(DowngradeAction::Cancel) => {
            if rt.linearizable_view().await.is_ok_and(|view| view.members.downgrade.is_some()) {
                let set = DowngradeInfoSetRequest { enabled: false, ver: String::new() };
                let _ = rt.propose(CommandKind::DowngradeInfoSet, &set.encode_to_vec()).await;
            }
        }
        Err(_) => return Err(Status::new(Code::Unknown, "etcdserver: unknown method")),
    }
    let shown = cluster_version(&rt.view())?;
    Ok(respond(rt, shown))
}

/// The version asked for: `X.Y` or `X.Y.Z`, whose patch does not count, nor what stands behind it.
//= etcd 3.7.1: server/etcdserver/cluster_util.go#convertToClusterVersion
fn target(text: &str) -> Result<Version, Status> {
    let version = semantic(text).or_else(|| semantic(&format!("{text}.0")));
    version.ok_or_else(|| ApiError::WrongDowngradeVersionFormat.into())
}

/// A version of three numbers, perhaps with `-` and a pre-release, `+` and metadata.
//= coreos/go-semver 0.3.1: semver/semver.go#Set
fn semantic(text: &str) -> Option<Version> {
    let (rest, metadata) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, pre_release) = rest.split_once('-').unwrap_or((rest, ""));
    let is_identifier = |text: &str| {
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        text.is_empty() || text.split('.').all(is_part)
    };
    let numbers: Vec<u32> = numbers.splitn(3, '.').map_while(|n| n.parse().ok()).collect();
    let &[major, minor, _] = numbers.as_slice() else { return None };
    (is_identifier(pre_release) && is_identifier(metadata)).then_some(Version { major, minor })
}

fn cluster_version(view: &MemberView) -> Result<Version, Status> {
    let version = view.members.cluster_version.as_deref().and_then(Version::parse);
    version.ok_or_else(|| ApiError::ClusterVersionUnavailable.into())
}

async fn validate(rt: &Runtime, target: Version) -> Result<(), Status> {
    let view = rt.linearizable_view().await?;
    if cluster_version(&view)?.before() != Some(target) {
        return Err(ApiError::InvalidDowngradeTarget.into());
    }
    if view.members.downgrade.is_some() {
        return Err(ApiError::DowngradeInProgress.into());
    }
    Ok(())
}

fn respond(rt: &Runtime, version: Version) -> Body {
    let header = Some(rt.header(rt.view().store.revision()));
    let version = format!("{}.{}", version.major, version.minor);
    Body::Whole(Draft::of(&DowngradeResponse { header, version }))
}
