//! Questions between members besides raft, as values: answers to those of others, and calls that only
//! the leader can serve, forwarded to it.
//!
//! How a question is sent (HTTP, JSON, the meaning of each status) is the host's.
//= etcd 3.7.3: server/etcdserver/api/etcdhttp/peer.go, server/lease/leasehttp/http.go

use std::rc::Rc;
use std::time::Duration;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::{HashKvResponse, LeaseTimeToLiveResponse, ResponseHeader};
use api::method::Method;
use machine::{Member as ClusterMember, Members, Secret};
use member::{NodeInput, Reply};
use types::{LeaseId, MemberId, ReplyToken, Revision, SERVER_VERSION};

use crate::caller::{Allowed, Caller, Wish, authorize};
use crate::cluster::{self, Promoted};
use crate::credential::Credential;
use crate::host::Measure;
use crate::member::Member;
use crate::{lease, maintenance};

/// A question of one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Renew a lease.
    Renew(LeaseId),
    /// Answer with a lease's time to live.
    TimeToLive {
        /// The lease's id.
        lease: LeaseId,
        /// Whether its keys are wanted.
        keys: bool,
    },
    /// Promote a learner to a voter.
    Promote(MemberId),
    /// Answer with the hash of the keys at a revision; 0 is the newest.
    HashKv(Revision),
    /// Answer with the versions of program, cluster and storage.
    Version,
    /// Answer whether a downgrade is going on.
    DowngradeEnabled,
    /// Answer with the members.
    Members,
}

/// The answer to a question; variants in the order of [`Question`]'s.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerAnswer {
    /// The lease's new time to live in seconds.
    Renewed(i64),
    /// The lease's time to live.
    TimeToLive(LeaseTimeToLiveResponse),
    /// The members after the promotion.
    Promoted(Vec<ClusterMember>),
    /// The hash.
    Hash(PeerHash),
    /// The versions.
    Versions(PeerVersions),
    /// Whether a downgrade is going on.
    DowngradeEnabled(bool),
    /// The members.
    Members(Vec<ClusterMember>),
}

/// A hash of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHash {
    /// The newest revision of the member that answers.
    pub revision: Revision,
    /// The hash.
    pub hash: u32,
    /// The compact revision that the hash counts from.
    pub compact_revision: Revision,
    /// The revision up to which keys are hashed.
    pub hash_revision: Revision,
}

/// A member's versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerVersions {
    /// The program's version.
    pub server: String,
    /// The cluster version, once it is decided.
    pub cluster: Option<String>,
    /// The storage version, if it is known.
    pub storage: Option<String>,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// There is no such lease.
    LeaseNotFound,
    /// Another member leads.
    NotLeader,
    /// There is no such member.
    MemberNotFound,
    /// The member is no learner.
    NotLearner,
    /// The learner is not in sync with the leader.
    LearnerNotReady,
    /// The revision was compacted.
    Compacted,
    /// The revision is in the future.
    FutureRevision,
    /// It is a member of another cluster.
    ClusterMismatch,
    /// What is committed was not applied in time.
    NotApplied,
    /// Anything else that the member says, or that hinders it from saying something; another one
    /// may do better.
    Other(String),
}

/// An answer, or why there is none.
pub type Answered = Result<PeerAnswer, PeerError>;

/// A question on its way to another member, with all the addresses at which it may be reached.
///
/// They are tried in turn, each for `patience`, until one gives an answer, or a refusal that is
/// final for its question: a lease that does not exist, a learner that is not ready.
#[derive(Debug)]
pub struct Asked {
    /// The token that [`Member::answered`] takes with the answer.
    pub token: ReplyToken,
    /// The member asked.
    pub to: MemberId,
    /// Its peer URLs.
    pub urls: Vec<String>,
    /// The question.
    pub question: Question,
    /// The token of the caller on whose behalf it is asked, where that matters.
    pub authorization: Option<Secret>,
    /// How long each URL is given.
    pub patience: Duration,
}

/// Pause between attempts to reach a leader.
const RETRY: Duration = Duration::from_millis(50);

/// Answers another member, which asks on behalf of `caller`.
///
/// # Errors
/// [`PeerError`].
pub async fn answer(member: &Rc<Member>, question: Question, caller: &Caller) -> Answered {
    match question {
        Question::Members => {
            Ok(PeerAnswer::Members(member.view().members().iter().cloned().collect()))
        }
        Question::Renew(lease) => renew(member, lease).await,
        Question::TimeToLive { lease, keys } => time_to_live(member, lease, keys).await,
        Question::Promote(id) => promote(member, id, caller).await,
        Question::HashKv(revision) => hash_kv(member, revision).await,
        Question::Version => Ok(PeerAnswer::Versions(versions(member))),
        Question::DowngradeEnabled => match member.linearizable_view().await {
            Ok(view) => Ok(PeerAnswer::DowngradeEnabled(view.members().downgrade.is_some())),
            Err(status) => {
                Err(PeerError::Other(format!("failed linearized read: {}", status.message)))
            }
        },
    }
}

/// The versions of program, cluster and files.
#[must_use]
pub fn versions(member: &Member) -> PeerVersions {
    let view = member.view();
    let storage = view.storage_version().map(|version| &version[..]);
    PeerVersions {
        server: SERVER_VERSION.to_owned(),
        cluster: view.members().cluster_version.clone(),
        storage: storage.map(|text| String::from_utf8_lossy(text).into_owned()),
    }
}

fn listed(members: &Members) -> Vec<ClusterMember> {
    members.iter().cloned().collect()
}

async fn promote(member: &Rc<Member>, id: MemberId, caller: &Caller) -> Answered {
    member.catch_up(caller).await;
    let row = Method::MemberPromote.row();
    let promoted = match authorize(member, row, caller, &member.view(), Wish::Method) {
        Ok(allowed) => cluster::promote_here(member, id, allowed).await,
        Err(refused) => Err(refused),
    };
    let promoted = match promoted {
        Ok(Promoted::Here(members)) => Ok(listed(&members)),
        Ok(Promoted::Elsewhere) => promote_on_leader(member, id, caller).await,
        Err(status) => Err(status),
    };
    promoted.map(PeerAnswer::Promoted).map_err(|status| match status {
        status if status == ApiError::MemberNotFound.into() => PeerError::MemberNotFound,
        status if status == ApiError::MemberNotLearner.into() => PeerError::NotLearner,
        status if status == ApiError::LearnerNotReady.into() => PeerError::LearnerNotReady,
        other => PeerError::Other(other.message.into_owned()),
    })
}

async fn renew(member: &Rc<Member>, lease: LeaseId) -> Answered {
    match member.ask(|token| NodeInput::KeepAlive { token, lease, for_peer: true }).await {
        Reply::KeepAlive(0) => Err(PeerError::LeaseNotFound),
        Reply::KeepAlive(ttl) => {
            member.measure(Measure::LeaseRenewed);
            Ok(PeerAnswer::Renewed(ttl))
        }
        reply => Err(lease_refused(reply)),
    }
}

fn lease_refused(reply: Reply) -> PeerError {
    match reply {
        Reply::Refused(ApiError::TimeoutWaitApplied) => PeerError::NotApplied,
        Reply::Elsewhere(_) => PeerError::NotLeader,
        Reply::Refused(error) => PeerError::Other(error.text().to_owned()),
        other => unreachable!("a lease is answered or refused, not {other:?}"),
    }
}

async fn time_to_live(member: &Rc<Member>, lease: LeaseId, keys: bool) -> Answered {
    let time = match member.ask(|token| NodeInput::TimeToLive { token, lease }).await {
        Reply::TimeToLive(Some(time)) => time,
        Reply::TimeToLive(None) => return Err(PeerError::LeaseNotFound),
        reply => return Err(lease_refused(reply)),
    };
    let mut response = LeaseTimeToLiveResponse {
        header: Some(ResponseHeader::default()),
        id: lease.0,
        ttl: time.remaining,
        granted_ttl: time.granted,
        keys: Vec::new(),
    };
    // Whoever sent it on has looked at who asks. A refusal leaves the keys out.
    if keys && let Ok(keys) = lease::keys_of(member, lease, Allowed::BY_ITSELF).await {
        response.keys = keys;
    }
    Ok(PeerAnswer::TimeToLive(response))
}

//= etcd 3.7.3: server/etcdserver/corrupt.go#ServeHTTP
async fn hash_kv(member: &Rc<Member>, revision: Revision) -> Answered {
    match maintenance::hash_at(member, revision, Allowed::BY_ITSELF).await {
        Ok(response) => Ok(PeerAnswer::Hash(PeerHash::from(&response))),
        Err(status) if status.code == Code::OutOfRange => {
            Err(match status == ApiError::Compacted.into() {
                true => PeerError::Compacted,
                false => PeerError::FutureRevision,
            })
        }
        Err(status) => Err(PeerError::Other(status.message.into_owned())),
    }
}

impl From<&HashKvResponse> for PeerHash {
    fn from(response: &HashKvResponse) -> Self {
        Self {
            revision: Revision(response.header.as_ref().map_or(0, |header| header.revision)),
            hash: response.hash,
            compact_revision: Revision(response.compact_revision),
            hash_revision: Revision(response.hash_revision),
        }
    }
}

/// The leader and where it is reached, if one is known.
fn leader(member: &Member) -> Option<(MemberId, Vec<String>)> {
    let leader = member.status().leader?;
    Some((leader, member.view().members().get(leader)?.peer_urls.clone()?))
}

/// Asks the leader until it answers with something final, for as long as a request may take. `read`
/// says what an answer means, and gives nothing for one that is asked for again.
async fn on_leader<T>(
    member: &Member,
    question: Question,
    caller: &Caller,
    read: impl Fn(Answered) -> Option<Result<T, Status>>,
) -> Result<T, Status> {
    let until = member.now() + member.shared.limits.request_timeout;
    loop {
        if let Some((to, urls)) = leader(member) {
            let patience = until.since(member.now());
            let authorization = caller.credential().map(Credential::text);
            let asked = |token| Asked { token, to, urls, question, authorization, patience };
            if let Some(answer) = read(member.ask_peer(asked).await) {
                return answer;
            }
        }
        if member.now() >= until {
            //= etcd 3.7.3: server/etcdserver/v3_server.go#waitLeader
            let is_known = member.status().leader.is_some();
            let error = if is_known { ApiError::Timeout } else { ApiError::NoLeader };
            return Err(error.into());
        }
        member.sleep(RETRY).await;
    }
}

/// Renews a lease on the leader; 0 if there is no such lease.
//= etcd 3.7.3: server/etcdserver/v3_server.go#LeaseRenew
pub(crate) async fn renew_on_leader(member: &Member, lease: LeaseId) -> Result<i64, Status> {
    on_leader(member, Question::Renew(lease), &Caller::default(), |answer| match answer {
        Ok(PeerAnswer::Renewed(ttl)) => Some(Ok(ttl)),
        Err(PeerError::LeaseNotFound) => Some(Ok(0)),
        _ => None,
    })
    .await
}

/// What is left of a lease, as the leader knows; `None` if there is no such lease.
//= etcd 3.7.3: server/etcdserver/v3_server.go#LeaseTimeToLive
pub(crate) async fn time_to_live_on_leader(
    member: &Member,
    lease: LeaseId,
    keys: bool,
) -> Result<Option<LeaseTimeToLiveResponse>, Status> {
    let question = Question::TimeToLive { lease, keys };
    on_leader(member, question, &Caller::default(), |answer| match answer {
        Ok(PeerAnswer::TimeToLive(response)) => Some(Ok(Some(response))),
        Err(PeerError::LeaseNotFound) => Some(Ok(None)),
        _ => None,
    })
    .await
}

/// Promotes a learner on the leader; the members afterwards.
//= etcd 3.7.3: server/etcdserver/server.go#PromoteMember
pub(crate) async fn promote_on_leader(
    member: &Member,
    id: MemberId,
    caller: &Caller,
) -> Result<Vec<ClusterMember>, Status> {
    on_leader(member, Question::Promote(id), caller, |answer| {
        let error = match answer {
            Ok(PeerAnswer::Promoted(members)) => return Some(Ok(members)),
            Err(PeerError::MemberNotFound) => ApiError::MemberNotFound,
            Err(PeerError::LearnerNotReady) => ApiError::LearnerNotReady,
            Err(PeerError::NotLearner) => ApiError::MemberNotLearner,
            _ => return None,
        };
        Some(Err(error.into()))
    })
    .await
}

/// Asks another member.
pub(crate) async fn ask(
    member: &Member,
    other: &ClusterMember,
    question: Question,
    patience: Duration,
) -> Answered {
    let (to, urls) = (MemberId(other.id), other.peer_urls.clone().unwrap_or_default());
    let authorization = None;
    member.ask_peer(|token| Asked { token, to, urls, question, authorization, patience }).await
}
