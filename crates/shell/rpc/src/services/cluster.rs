//! The Cluster service, and handing leadership over.
//!
//! What may harm the cluster is refused before it is proposed (`--strict-reconfig-check`), by who
//! has started and who is connected; what contradicts the members is refused when it is applied.
//= etcd 3.7.1: server/etcdserver/server.go#AddMember, server/etcdserver/api/v3rpc/member.go

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::error::{ApiError, Status};
use api::etcdserverpb as pb;
use bytes::Bytes;
use machine::{Member, Members};
use member::{NodeInput, Reply};
use prost::Message;
use raft::{ConfChange, ConfChangeKind};
use types::{MemberId, Revision, Url};

use crate::identity::added_member_id;
use crate::runtime::Runtime;
use crate::services::{decode, peers};
use crate::{Body, Draft};

/// How long peers must have been connected to count as healthy.
//= etcd 3.7.1: server/etcdserver/server.go (HealthInterval)
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

fn whole(message: &impl Message) -> Body {
    Body::Whole(Draft::of(message))
}

/// Responses of this service carry no revision.
fn header(rt: &Runtime) -> pb::ResponseHeader {
    pb::ResponseHeader { revision: 0, ..rt.header(Revision(0)) }
}

fn to_proto(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone().unwrap_or_default(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

fn list(members: &Members) -> Vec<pb::Member> {
    members.iter().map(to_proto).collect()
}

pub(super) async fn member_list(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: pb::MemberListRequest = decode(message)?;
    let view = if request.linearizable { rt.linearizable_view().await? } else { rt.view() };
    let members = list(&view.members);
    Ok(whole(&pb::MemberListResponse { header: Some(header(rt)), members }))
}

pub(super) async fn member_add(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: pb::MemberAddRequest = decode(message)?;
    let urls = peer_urls(&request.peer_ur_ls)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = added_member_id(&urls, now.as_secs());
    let member = Member {
        id: id.0,
        peer_urls: Some(urls),
        is_learner: request.is_learner,
        ..Member::default()
    };
    may_add(rt, &member)?;
    let kind = match member.is_learner {
        true => ConfChangeKind::AddLearner,
        false => ConfChangeKind::AddNode,
    };
    let members = change(rt, kind, id, member.to_json()).await?;
    let (member, members) = (Some(to_proto(&member)), list(&members));
    Ok(whole(&pb::MemberAddResponse { header: Some(header(rt)), member, members }))
}

pub(super) async fn member_remove(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: pb::MemberRemoveRequest = decode(message)?;
    let id = MemberId(request.id);
    may_remove(rt, id)?;
    let members = change(rt, ConfChangeKind::RemoveNode, id, Bytes::new()).await?;
    let members = list(&members);
    Ok(whole(&pb::MemberRemoveResponse { header: Some(header(rt)), members }))
}

pub(super) async fn member_update(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: pb::MemberUpdateRequest = decode(message)?;
    let urls = Some(request.peer_ur_ls).filter(|urls| !urls.is_empty());
    let member = Member { id: request.id, peer_urls: urls, ..Member::default() };
    let id = MemberId(request.id);
    let members = change(rt, ConfChangeKind::UpdateNode, id, member.to_json()).await?;
    let members = list(&members);
    Ok(whole(&pb::MemberUpdateResponse { header: Some(header(rt)), members }))
}

pub(super) async fn member_promote(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: pb::MemberPromoteRequest = decode(message)?;
    let id = MemberId(request.id);
    let promoted = promote_here(rt, id).await.inspect_err(|status| {
        rt.handle.metrics.peers.promoted(Some(&status.message));
    });
    let members = match promoted? {
        Promoted::Here(members) => {
            rt.handle.metrics.peers.promoted(None);
            list(&members)
        }
        Promoted::Elsewhere => {
            let members = peers::promote_on_leader(rt, id).await?;
            members.iter().map(to_proto).collect()
        }
    };
    Ok(whole(&pb::MemberPromoteResponse { header: Some(header(rt)), members }))
}

/// Where a promotion is decided.
pub(super) enum Promoted {
    /// Here, with this result.
    Here(Arc<Members>),
    /// On the leader, which alone knows how far the learner is.
    Elsewhere,
}

/// Promotes a learner if this member leads.
pub(super) async fn promote_here(rt: &Rc<Runtime>, id: MemberId) -> Result<Promoted, Status> {
    rt.view_at(rt.handle.status.load().commit).await?;
    match rt.ask(|token| NodeInput::IsLearnerReady { token, learner: id }).await {
        Reply::Done => {}
        Reply::Elsewhere(_) | Reply::Refused(ApiError::NoLeader) => return Ok(Promoted::Elsewhere),
        Reply::Refused(error) => return Err(error.into()),
        other => unreachable!("a learner is ready or not, not {other:?}"),
    }
    // The learner counts as a voter that has started.
    //= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#IsReadyToPromoteMember
    let (all, up) = started(voters(&rt.view().members));
    if rt.handle.strict_reconfig && !is_quorum((all + 1, up + 1)) {
        return Err(ApiError::MemberNotEnoughStarted.into());
    }
    let context = format!(r#"{{"id":{},"peerURLs":null,"isPromote":true}}"#, id.0);
    change(rt, ConfChangeKind::AddNode, id, context.into()).await.map(Promoted::Here)
}

pub(super) async fn move_leader(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: pb::MoveLeaderRequest = decode(message)?;
    let to = MemberId(request.target_id);
    match rt.ask(|token| NodeInput::TransferLeader { token, to }).await {
        Reply::Done => Ok(whole(&pb::MoveLeaderResponse { header: None })),
        Reply::Refused(error) => Err(error.into()),
        other => unreachable!("a transfer is done or refused, not {other:?}"),
    }
}

/// Puts a change through the log; the members after it.
async fn change(
    rt: &Rc<Runtime>,
    kind: ConfChangeKind,
    node: MemberId,
    context: Bytes,
) -> Result<Arc<Members>, Status> {
    let change = ConfChange { id: rt.next_id().0, kind, node, context };
    let reply = rt.ask(|token| NodeInput::ChangeMembers { token, change }).await;
    match member::applier::outcome(reply)?.reply? {
        machine::Reply::Members(members) => Ok(members),
        other => unreachable!("a change is answered by the members, not {other:?}"),
    }
}

/// Peer URLs as etcd accepts them, sorted.
//= etcd 3.7.1: client/pkg/types/urls.go#NewURLs
fn peer_urls(texts: &[String]) -> Result<Vec<String>, Status> {
    let urls = Url::parse_all(texts).map_err(|_| ApiError::MemberBadUrls)?;
    Ok(urls.iter().map(|url| url.text().to_owned()).collect())
}

fn voters(members: &Members) -> impl Iterator<Item = &Member> {
    members.iter().filter(|member| !member.is_learner)
}

/// Voters, and how many of them have started.
fn started<'a>(voters: impl Iterator<Item = &'a Member>) -> (usize, usize) {
    voters.fold((0, 0), |(all, up), member| (all + 1, up + usize::from(!member.name.is_empty())))
}

/// Whether a majority has started.
fn is_quorum((all, started): (usize, usize)) -> bool {
    started > all / 2
}

/// Voters that are connected for a while, this member among them.
fn connected(rt: &Runtime, members: &Members) -> usize {
    let plane = &rt.handle.plane;
    let is_connected = |id: MemberId| {
        id == rt.handle.member
            || plane.active_since(id).is_some_and(|since| since.elapsed() > HEALTH_INTERVAL)
    };
    voters(members).filter(|member| is_connected(MemberId(member.id))).count()
}

fn may_add(rt: &Runtime, member: &Member) -> Result<(), Status> {
    let members = &rt.view().members;
    if !rt.handle.strict_reconfig {
        return Ok(());
    }
    // A lone member may always get a second one.
    //= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#IsReadyToAddVotingMember
    let (all, up) = started(voters(members));
    let is_ready = (all, up) == (1, 1) || is_quorum((all + 1, up));
    if !member.is_learner && !is_ready {
        return Err(ApiError::MemberNotEnoughStarted.into());
    }
    if all != 1 && connected(rt, members) <= all.div_ceil(2) {
        return Err(ApiError::Unhealthy.into());
    }
    Ok(())
}

//= etcd 3.7.1: server/etcdserver/server.go#mayRemoveMember
fn may_remove(rt: &Runtime, id: MemberId) -> Result<(), Status> {
    let members = &rt.view().members;
    let is_learner = members.get(id).is_some_and(|member| member.is_learner);
    if !rt.handle.strict_reconfig || is_learner {
        return Ok(());
    }
    //= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#IsReadyToRemoveVotingMember
    let stay = voters(members).filter(|member| MemberId(member.id) != id);
    if !is_quorum(started(stay)) {
        return Err(ApiError::MemberNotEnoughStarted.into());
    }
    // One that is down is not among those that keep the cluster going.
    if id != rt.handle.member && rt.handle.plane.active_since(id).is_none() {
        return Ok(());
    }
    let others = voters(members).count().saturating_sub(1);
    if connected(rt, members).saturating_sub(1) < 1 + others / 2 {
        return Err(ApiError::Unhealthy.into());
    }
    Ok(())
}
