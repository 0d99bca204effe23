//! The Cluster service, and MoveLeader of the Maintenance service.
//!
//! What may harm the cluster is refused before it is proposed (`--strict-reconfig-check`), by who
//! has started and who is connected; what contradicts the members is refused when it is applied.
//= etcd 3.7.1: server/etcdserver/server.go#AddMember, server/etcdserver/api/v3rpc/member.go

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::error::{ApiError, Status};
use api::etcdserverpb as pb;
use api::method::Method;
use bytes::Bytes;
use machine::{Member as ClusterMember, Members};
use member::{NodeInput, Reply};
use raft::{ConfChange, ConfChangeKind};
use types::{MemberId, Revision, Url};

use crate::answer::{Answer, Body, Encoded, Finish, Stage, Then};
use crate::caller::{Allowed, Wish, authorize};
use crate::decode::decode;
use crate::host::Measure;
use crate::identity::added_member_id;
use crate::kv::go_on;
use crate::member::Member;
use crate::{Call, peers};

/// How long peers must have been connected to count as healthy.
//= etcd 3.7.1: server/etcdserver/server.go (HealthInterval)
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// Responses of this service carry no revision.
fn header(member: &Member) -> pb::ResponseHeader {
    pb::ResponseHeader { revision: 0, ..member.header(Revision(0)) }
}

fn to_proto(member: &ClusterMember) -> pb::Member {
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

pub(crate) fn member_list(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let request: pb::MemberListRequest = decode(message)?;
    let allowed = call.permit(member)?;
    if !request.linearizable {
        return Ok(list_members(member, allowed, out));
    }
    let token = member.begin(NodeInput::ReadIndex);
    let then = Then::Members(Stage::Index);
    Ok(Answer::Later(token, Finish::new(member.now(), call.caller.clone(), then)))
}

/// Goes on with a linearizable list of members.
pub(crate) fn finish_member_list(
    member: &Rc<Member>,
    mut finish: Finish,
    reply: Reply,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let Then::Members(stage) = &mut finish.then else {
        unreachable!("asked for a list of members only")
    };
    match go_on(member, stage, reply)? {
        Some(token) => Ok(Answer::Later(token, finish)),
        None => {
            let row = Method::MemberList.row();
            let allowed = authorize(member, row, &finish.caller, &member.view(), Wish::Method)?;
            Ok(list_members(member, allowed, out))
        }
    }
}

fn list_members(member: &Member, _: Allowed, out: &mut Encoded) -> Answer {
    let members = list(member.view().members());
    out.put(&pb::MemberListResponse { header: Some(header(member)), members });
    Answer::Now
}

pub(crate) fn member_add(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: pb::MemberAddRequest = decode(message)?;
    // Before anybody is asked who calls, as in etcd: what is no URL is no secret.
    //= etcd 3.7.3: server/etcdserver/api/v3rpc/member.go#MemberAdd
    let urls = peer_urls(&request.peer_ur_ls)?;
    let allowed = call.permit(member)?;
    let id = added_member_id(&urls, member.host.wall().unix_secs());
    let added = ClusterMember {
        id: id.0,
        peer_urls: Some(urls),
        is_learner: request.is_learner,
        ..ClusterMember::default()
    };
    may_add(member, &added)?;
    let kind = match added.is_learner {
        true => ConfChangeKind::AddLearner,
        false => ConfChangeKind::AddNode,
    };
    let member = Rc::clone(member);
    Ok(Answer::Waits(Box::pin(async move {
        let members = change(&member, kind, id, added.to_json(), allowed).await?;
        let (added, members) = (Some(to_proto(&added)), list(&members));
        let header = Some(header(&member));
        Ok(Body::of(&pb::MemberAddResponse { header, member: added, members }))
    })))
}

pub(crate) fn member_remove(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: pb::MemberRemoveRequest = decode(message)?;
    let allowed = call.permit(member)?;
    let id = MemberId(request.id);
    may_remove(member, id)?;
    let member = Rc::clone(member);
    Ok(Answer::Waits(Box::pin(async move {
        let kind = ConfChangeKind::RemoveNode;
        let members = change(&member, kind, id, Bytes::new(), allowed).await?;
        let members = list(&members);
        Ok(Body::of(&pb::MemberRemoveResponse { header: Some(header(&member)), members }))
    })))
}

pub(crate) fn member_update(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: pb::MemberUpdateRequest = decode(message)?;
    let allowed = call.permit(member)?;
    let peer_urls = Some(request.peer_ur_ls).filter(|urls| !urls.is_empty());
    let updated = ClusterMember { id: request.id, peer_urls, ..ClusterMember::default() };
    let member = Rc::clone(member);
    Ok(Answer::Waits(Box::pin(async move {
        let (kind, id) = (ConfChangeKind::UpdateNode, MemberId(updated.id));
        let members = change(&member, kind, id, updated.to_json(), allowed).await?;
        let members = list(&members);
        Ok(Body::of(&pb::MemberUpdateResponse { header: Some(header(&member)), members }))
    })))
}

pub(crate) fn member_promote(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: pb::MemberPromoteRequest = decode(message)?;
    let allowed = call.permit(member)?;
    let (member, caller) = (Rc::clone(member), call.caller.clone());
    Ok(Answer::Waits(Box::pin(async move {
        let id = MemberId(request.id);
        let promoted = promote_here(&member, id, allowed).await.inspect_err(|status| {
            member.measure(Measure::Promoted(Some(&status.message)));
        });
        let members = match promoted? {
            Promoted::Here(members) => {
                member.measure(Measure::Promoted(None));
                list(&members)
            }
            Promoted::Elsewhere => {
                let members = peers::promote_on_leader(&member, id, &caller).await?;
                members.iter().map(to_proto).collect()
            }
        };
        Ok(Body::of(&pb::MemberPromoteResponse { header: Some(header(&member)), members }))
    })))
}

/// Where a promotion is decided.
pub(crate) enum Promoted {
    /// Here, with this result.
    Here(Arc<Members>),
    /// On the leader, which alone knows how far the learner is.
    Elsewhere,
}

/// Promotes a learner if this member leads.
pub(crate) async fn promote_here(
    member: &Rc<Member>,
    id: MemberId,
    allowed: Allowed,
) -> Result<Promoted, Status> {
    member.view_at(member.status().commit).await?;
    match member.ask(|token| NodeInput::IsLearnerReady { token, learner: id }).await {
        Reply::Done => {}
        Reply::Elsewhere(_) | Reply::Refused(ApiError::NoLeader) => return Ok(Promoted::Elsewhere),
        Reply::Refused(error) => return Err(error.into()),
        other => unreachable!("a learner is ready or not, not {other:?}"),
    }
    // The learner counts as a voter that has started.
    //= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#IsReadyToPromoteMember
    let (all, up) = started(voters(member.view().members()));
    if member.shared.strict_reconfig && !is_quorum((all + 1, up + 1)) {
        return Err(ApiError::MemberNotEnoughStarted.into());
    }
    let context = format!(r#"{{"id":{},"peerURLs":null,"isPromote":true}}"#, id.0);
    let kind = ConfChangeKind::AddNode;
    change(member, kind, id, context.into(), allowed).await.map(Promoted::Here)
}

pub(crate) fn move_leader(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: pb::MoveLeaderRequest = decode(message)?;
    let _: Allowed = call.permit(member)?;
    let to = MemberId(request.target_id);
    let token = member.begin(|token| NodeInput::TransferLeader { token, to });
    let caller = call.caller.clone();
    Ok(Answer::Later(token, Finish::new(member.now(), caller, Then::Moved)))
}

pub(crate) fn finish_move_leader(reply: Reply, out: &mut Encoded) -> Result<Answer, Status> {
    match reply {
        Reply::Done => {
            out.put(&pb::MoveLeaderResponse { header: None });
            Ok(Answer::Now)
        }
        Reply::Refused(error) => Err(error.into()),
        other => unreachable!("a transfer is done or refused, not {other:?}"),
    }
}

/// Puts a change through the log; the members after it.
async fn change(
    member: &Rc<Member>,
    kind: ConfChangeKind,
    node: MemberId,
    context: Bytes,
    _: Allowed,
) -> Result<Arc<Members>, Status> {
    let change = ConfChange { id: member.next_id().0, kind, node, context };
    let reply = member.ask(|token| NodeInput::ChangeMembers { token, change }).await;
    match member::applier::outcome(reply)?.reply? {
        machine::CommandReply::Members(members) => Ok(members),
        other => unreachable!("a change is answered by the members, not {other:?}"),
    }
}

/// Peer URLs as etcd accepts them, sorted.
//= etcd 3.7.1: client/pkg/types/urls.go#NewURLs
fn peer_urls(texts: &[String]) -> Result<Vec<String>, Status> {
    let urls = Url::parse_all(texts).map_err(|_| ApiError::MemberBadUrls)?;
    Ok(urls.iter().map(|url| url.text().to_owned()).collect())
}

fn voters(members: &Members) -> impl Iterator<Item = &ClusterMember> {
    members.iter().filter(|member| !member.is_learner)
}

/// Voters, and how many of them have started.
fn started<'a>(voters: impl Iterator<Item = &'a ClusterMember>) -> (usize, usize) {
    voters.fold((0, 0), |(all, up), member| (all + 1, up + usize::from(!member.name.is_empty())))
}

/// Whether a majority has started.
fn is_quorum((all, started): (usize, usize)) -> bool {
    started > all / 2
}

/// Voters that are connected for a while, this member among them.
fn connected(member: &Member, members: &Members) -> usize {
    let shared = &member.shared;
    let is_connected = |id: MemberId| {
        id == shared.id || (shared.connected)(id).is_some_and(|time| time > HEALTH_INTERVAL)
    };
    voters(members).filter(|voter| is_connected(MemberId(voter.id))).count()
}

fn may_add(member: &Member, added: &ClusterMember) -> Result<(), Status> {
    let view = member.view();
    let members = view.members();
    if !member.shared.strict_reconfig {
        return Ok(());
    }
    // A lone member may always get a second one.
    //= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#IsReadyToAddVotingMember
    let (all, up) = started(voters(members));
    let is_ready = (all, up) == (1, 1) || is_quorum((all + 1, up));
    if !added.is_learner && !is_ready {
        return Err(ApiError::MemberNotEnoughStarted.into());
    }
    if all != 1 && connected(member, members) <= all.div_ceil(2) {
        return Err(ApiError::Unhealthy.into());
    }
    Ok(())
}

//= etcd 3.7.1: server/etcdserver/server.go#mayRemoveMember
fn may_remove(member: &Member, id: MemberId) -> Result<(), Status> {
    let view = member.view();
    let members = view.members();
    let is_learner = members.get(id).is_some_and(|member| member.is_learner);
    if !member.shared.strict_reconfig || is_learner {
        return Ok(());
    }
    //= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#IsReadyToRemoveVotingMember
    let stay = voters(members).filter(|member| MemberId(member.id) != id);
    if !is_quorum(started(stay)) {
        return Err(ApiError::MemberNotEnoughStarted.into());
    }
    // One that is down is not among those that keep the cluster going.
    if id != member.shared.id && (member.shared.connected)(id).is_none() {
        return Ok(());
    }
    let others = voters(members).count().saturating_sub(1);
    if connected(member, members).saturating_sub(1) < 1 + others / 2 {
        return Err(ApiError::Unhealthy.into());
    }
    Ok(())
}
