//! The Downgrade call: lets the cluster go back to the version before.
//= etcd 3.7.1: server/etcdserver/v3_server.go#Downgrade, server/etcdserver/version/version.go

use std::rc::Rc;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::etcdserverpb::{DowngradeRequest, DowngradeResponse};
use api::membershippb::DowngradeInfoSetRequest;
use bytes::Bytes;
use machine::CommandKind;
use prost::Message;
use types::Version;

use crate::Call;
use crate::answer::{Answer, Body};
use crate::caller::{Allowed, Caller};
use crate::decode::decode;
use crate::member::Member;
use crate::published::PublishedView;

pub(crate) fn downgrade(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: DowngradeRequest = decode(message)?;
    let allowed = call.permit(member)?;
    let (member, caller) = (Rc::clone(member), call.caller.clone());
    Ok(Answer::Waits(Box::pin(async move { run(&member, &caller, allowed, request).await })))
}

async fn run(
    member: &Rc<Member>,
    caller: &Caller,
    allowed: Allowed,
    request: DowngradeRequest,
) -> Result<Body, Status> {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => {
            let target = target(&request.version)?;
            // Its absence is told before anything else is asked.
            let shown = cluster_version(&member.view())?;
            validate(member, target).await?;
            return Ok(respond(member, shown));
        }
        Ok(DowngradeAction::Enable) => {
            let target = target(&request.version)?;
            validate(member, target).await?;
            let set = DowngradeInfoSetRequest { enabled: true, ver: target.to_string() };
            member
                .propose(CommandKind::DowngradeInfoSet, &set.encode_to_vec(), caller, allowed)
                .await?
                .reply?;
        }
        // What hinders it is no error for the client (semantics M6).
        Ok(DowngradeAction::Cancel) => {
            if member.linearizable_view().await.is_ok_and(|view| view.members().downgrade.is_some())
            {
                let set = DowngradeInfoSetRequest { enabled: false, ver: String::new() };
                let _ = member
                    .propose(CommandKind::DowngradeInfoSet, &set.encode_to_vec(), caller, allowed)
                    .await;
            }
        }
        Err(_) => return Err(Status::new(Code::Unknown, "etcdserver: unknown method")),
    }
    let shown = cluster_version(&member.view())?;
    Ok(respond(member, shown))
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

fn cluster_version(view: &PublishedView) -> Result<Version, Status> {
    let version = view.members().cluster_version.as_deref().and_then(Version::parse);
    version.ok_or_else(|| ApiError::ClusterVersionUnavailable.into())
}

async fn validate(member: &Member, target: Version) -> Result<(), Status> {
    let view = member.linearizable_view().await?;
    if cluster_version(&view)?.before() != Some(target) {
        return Err(ApiError::InvalidDowngradeTarget.into());
    }
    if view.members().downgrade.is_some() {
        return Err(ApiError::DowngradeInProgress.into());
    }
    Ok(())
}

fn respond(member: &Member, version: Version) -> Body {
    let header = Some(member.header(member.view().revision()));
    let version = format!("{}.{}", version.major, version.minor);
    Body::of(&DowngradeResponse { header, version })
}
