//! The shell's side of calls: what `rpc/src/services` does with them, without sockets.
//!
//! Requests are checked and encoded, and answers rendered, by the functions of `rpc` itself; what
//! is here is only the waiting in between, which the server writes as futures. Reads take the
//! newest View when their turn comes and may finish on the pool later, with that View.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionResponse, HashKvResponse, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseRevokeResponse, PutResponse, RangeRequest, RangeResponse,
    ResponseHeader, TxnRequest, TxnResponse,
};
use env::{Entropy, MayBlock, SplitMix};
use machine::Outcome as Applied;
use machine::command::{self, CommandKind, Header};
use machine::kv::{query, range_error};
use member::{ApplierInput, MemberView, NodeInput, Proposal, Reply};
use model::{Request, Response};
use prost::Message;
use raft::{ConfChange, ConfChangeKind};
use rpc::services::{kv, render, validate};
use store::compact::Step;
use store::{KvHasher, Piece, RangeBody, Ranged, ValueError};
use types::{LeaseId, MemberId, ReplyToken, RequestId, Revision};

use crate::plant::Plant;
use crate::process::{Process, peer_url, request_ids};

/// How long a keep-alive is tried on the leader, how long for each attempt, and the pause between
/// attempts.
const FORWARD_NS: u64 = 7_000_000_000;
const FORWARD_PATIENCE_NS: u64 = 2_000_000_000;
const FORWARD_RETRY_NS: u64 = 50_000_000;

/// Operations per level of a transaction.
const MAX_TXN_OPS: usize = 128;

/// What is asked of the member.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Something that the model knows.
    Kv(Request),
    /// A fresh copy of the database.
    Defragment,
    /// Takes the NOSPACE alarm back.
    Disarm,
    /// Which leases there are.
    Leases,
    /// When no compaction has work left.
    AwaitCompaction,
    /// A membership change.
    Change(Change),
    /// Another leader.
    Transfer(MemberId),
    /// The cluster's version, as the leader decides it among several.
    ClusterVersion,
    /// A keep-alive of another member's client: from where, and the call there.
    KeepAliveFor(usize, u64, LeaseId),
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add(MemberId),
    AddLearner(MemberId),
    Promote(MemberId),
    Remove(MemberId),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Kv(Response),
    Done,
    Leases(Vec<LeaseId>),
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Entry,
    Index,
    Apply,
    /// The physical end of a compaction that was answered at this revision.
    Compaction(Revision),
    /// The leader, which another member must ask.
    Leader,
    Other,
    Pool,
}

/// A keep-alive that the leader must be asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forward {
    pub(crate) call: u64,
    pub(crate) lease: LeaseId,
    /// When it is sent on next, and when it is given up.
    pub(crate) due: u64,
    pub(crate) until: u64,
}

struct Call {
    ask: Ask,
    waits: Waits,
}

enum Job {
    Plan { view: Arc<MemberView>, ranged: Ranged },
    Body { view: Arc<MemberView>, body: RangeBody, out: Vec<u8>, more: bool, count: i64 },
    Txn { view: Arc<MemberView>, request: TxnRequest },
    Hash { view: Arc<MemberView>, hasher: KvHasher },
}

/// The calls of one process.
pub(crate) struct Gateway {
    calls: BTreeMap<u64, Call>,
    jobs: Vec<(u64, Job)>,
    next_token: u64,
    next_id: u64,
    quota_bytes: Option<u64>,
    id: MemberId,
    plant: Option<Plant>,
    pub(crate) done: Vec<(u64, Result<Told, Status>)>,
    /// Requests that were proposed for calls since this was last looked at.
    pub(crate) proposed: Vec<(u64, u64)>,
    pub(crate) forwards: Vec<Forward>,
    /// Answers for other members: to where, which call, and the time to live.
    pub(crate) answers: Vec<(usize, u64, Option<i64>)>,
}

fn header(revision: Revision) -> ResponseHeader {
    ResponseHeader { revision: revision.0, ..ResponseHeader::default() }
}

fn broken(error: ValueError) -> Status {
    match error {
        ValueError::Compacted => ApiError::Compacted.into(),
        other => Status::new(Code::DataLoss, format!("etcdserver: {other}")),
    }
}

fn count(ranged: &Ranged) -> i64 {
    i64::try_from(ranged.count).expect("keys are counted in memory")
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("the services encode responses")
}

impl Gateway {
    /// The calls of a boot of the member `id`; they are numbered from `first`.
    pub(crate) fn new(
        id: MemberId,
        boot: u64,
        first: u64,
        quota_bytes: Option<u64>,
        plant: Option<Plant>,
    ) -> Self {
        Self {
            calls: BTreeMap::new(),
            jobs: Vec::new(),
            next_token: first,
            next_id: request_ids(id, boot),
            quota_bytes,
            id,
            plant,
            done: Vec::new(),
            proposed: Vec::new(),
            forwards: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// The client has gone: what comes for the call is dropped.
    pub(crate) fn abandon(&mut self, token: u64) {
        self.calls.remove(&token);
        self.jobs.retain(|(own, _)| *own != token);
        self.forwards.retain(|forward| forward.call != token);
    }

    /// Begins a call. Its number comes back, and later in `done`.
    pub(crate) fn call(&mut self, p: &mut Process, ask: Ask) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.calls.insert(token, Call { ask: ask.clone(), waits: Waits::Other });
        if let Err(error) = self.begin(p, token, ask) {
            self.finish(token, Err(error.into()));
        }
        token
    }

    fn begin(&mut self, p: &mut Process, token: u64, ask: Ask) -> Result<(), ApiError> {
        match ask {
            Ask::Kv(request) => return self.begin_kv(p, token, request),
            Ask::Disarm => {
                let alarm = AlarmRequest {
                    action: AlarmAction::Deactivate as i32,
                    member_id: self.id.0,
                    alarm: AlarmType::Nospace as i32,
                };
                self.propose(p, token, CommandKind::Alarm, &alarm.encode_to_vec());
            }
            Ask::Leases => p.to_node.push(NodeInput::Leases(ReplyToken(token))),
            Ask::Defragment => {
                p.to_applier.push(ApplierInput::Defragment(ReplyToken(token)));
            }
            Ask::AwaitCompaction => {
                p.to_applier.push(ApplierInput::AwaitCompaction(ReplyToken(token)));
            }
            Ask::Change(Change::Promote(learner)) => {
                let token = ReplyToken(token);
                p.to_node.push(NodeInput::IsLearnerReady { token, learner });
            }
            Ask::Change(change) => self.change(p, token, change),
            Ask::Transfer(to) => {
                p.to_node.push(NodeInput::TransferLeader { token: ReplyToken(token), to });
            }
            Ask::ClusterVersion => {
                let ver = types::CLUSTER_VERSION.to_owned();
                let request = api::membershippb::ClusterVersionSetRequest { ver };
                self.propose(p, token, CommandKind::ClusterVersionSet, &request.encode_to_vec());
            }
            Ask::KeepAliveFor(_, _, lease) => {
                p.to_node.push(NodeInput::KeepAlive {
                    token: ReplyToken(token),
                    lease,
                    for_peer: false,
                });
            }
        }
        Ok(())
    }

    fn begin_kv(&mut self, p: &mut Process, token: u64, request: Request) -> Result<(), ApiError> {
        match request {
            Request::Range(r) => {
                validate::range(&r)?;
                self.read(p, token, r.serializable);
            }
            Request::Txn(r) if validate::is_read_only(&r) => {
                validate::txn(&r, MAX_TXN_OPS)?;
                self.read(p, token, validate::is_serializable(&r));
            }
            Request::Put(r) => {
                validate::put(&r)?;
                self.check_quota(p, machine::command::put_cost(&r))?;
                self.propose(p, token, CommandKind::Put, &r.encode_to_vec());
            }
            Request::DeleteRange(r) => {
                validate::delete(&r)?;
                self.propose(p, token, CommandKind::DeleteRange, &r.encode_to_vec());
            }
            Request::Txn(r) => {
                validate::txn(&r, MAX_TXN_OPS)?;
                let cost = machine::command::txn_cost(&r);
                if cost > 0 {
                    self.check_quota(p, cost)?;
                }
                self.propose(p, token, CommandKind::Txn, &r.encode_to_vec());
            }
            Request::Compact(r) => {
                self.propose(p, token, CommandKind::Compaction, &r.encode_to_vec())
            }
            Request::LeaseGrant(r) => {
                self.check_quota(p, machine::command::LEASE_COST)?;
                self.propose(p, token, CommandKind::LeaseGrant, &r.encode_to_vec());
            }
            Request::LeaseRevoke(r) => {
                self.propose(p, token, CommandKind::LeaseRevoke, &r.encode_to_vec())
            }
            Request::LeaseKeepAlive(lease) => {
                let (token, lease) = (ReplyToken(token), LeaseId(lease));
                p.to_node.push(NodeInput::KeepAlive { token, lease, for_peer: true });
            }
            Request::HashKv(revision) => {
                let view = Arc::clone(&p.view);
                if let Some(stored) = view.hashes.get(Revision(revision)) {
                    self.hashed(token, &view, stored);
                    return Ok(());
                }
                let hasher = view.store.hash_kv(revision).map_err(range_error)?;
                self.pool(token, Job::Hash { view, hasher });
            }
            Request::LeaseExpire(_) => unreachable!("nobody asks for it"),
        }
        Ok(())
    }

    fn change(&mut self, p: &mut Process, token: u64, change: Change) {
        let added = |id: MemberId, is_learner| {
            let peer_urls = Some(vec![peer_url(id)]);
            machine::Member { id: id.0, peer_urls, is_learner, ..Default::default() }.to_json()
        };
        let (kind, node, context) = match change {
            Change::Add(id) => (ConfChangeKind::AddNode, id, added(id, false)),
            Change::AddLearner(id) => (ConfChangeKind::AddLearner, id, added(id, true)),
            Change::Promote(id) => {
                let context = format!(r#"{{"id":{},"peerURLs":null,"isPromote":true}}"#, id.0);
                (ConfChangeKind::AddNode, id, context.into())
            }
            Change::Remove(id) => (ConfChangeKind::RemoveNode, id, bytes::Bytes::new()),
        };
        self.waits(token, Waits::Entry);
        let id = self.next_id;
        self.next_id += 1;
        let change = ConfChange { id, kind, node, context };
        p.to_node.push(NodeInput::ChangeMembers { token: ReplyToken(token), change });
    }

    fn waits(&mut self, token: u64, waits: Waits) {
        if let Some(call) = self.calls.get_mut(&token) {
            call.waits = waits;
        }
    }

    fn pool(&mut self, token: u64, job: Job) {
        self.waits(token, Waits::Pool);
        self.jobs.push((token, job));
    }

    fn finish(&mut self, token: u64, told: Result<Told, Status>) {
        if self.calls.remove(&token).is_some() {
            self.done.push((token, told));
        }
    }

    fn answer(&mut self, token: u64, response: Response) {
        self.finish(token, Ok(Told::Kv(response)));
    }

    fn propose(&mut self, p: &mut Process, token: u64, kind: CommandKind, body: &[u8]) {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.proposed.push((id.0, token));
        self.waits(token, Waits::Entry);
        let data = command::encode(kind, body, Header { id, ..Header::default() });
        let token = ReplyToken(token);
        p.to_node.push(NodeInput::Propose(Proposal { token, id, data }));
    }

    /// As `rpc/src/services/kv.rs#check_quota`; the alarm goes its way without anyone waiting.
    fn check_quota(&mut self, p: &mut Process, cost: u64) -> Result<(), ApiError> {
        let Some(quota) = self.quota_bytes else { return Ok(()) };
        let size = p.view.store.backend().map_or(0, |b| b.size_bytes());
        if size.saturating_add(cost) < quota {
            return Ok(());
        }
        if !p.view.alarms.is_set(AlarmType::Nospace) {
            let alarm = AlarmRequest {
                action: AlarmAction::Activate as i32,
                member_id: self.id.0,
                alarm: AlarmType::Nospace as i32,
            };
            self.next_token += 1;
            self.propose(p, self.next_token - 1, CommandKind::Alarm, &alarm.encode_to_vec());
        }
        Err(ApiError::NoSpace)
    }

    fn read(&mut self, p: &mut Process, token: u64, serializable: bool) {
        let trusts_itself = self.plant == Some(Plant::ReadWithoutQuorum) && p.status.is_leader;
        if serializable || trusts_itself {
            self.read_view(p, token);
        } else {
            self.waits(token, Waits::Index);
            p.to_node.push(NodeInput::ReadIndex(ReplyToken(token)));
        }
    }

    /// Answers a read from the newest View, at once or on the pool.
    fn read_view(&mut self, p: &Process, token: u64) {
        let view = Arc::clone(&p.view);
        let Some(Call { ask: Ask::Kv(request), .. }) = self.calls.get(&token) else { return };
        match request.clone() {
            Request::Range(r) => {
                if let Err(status) = self.read_range(view, token, &r) {
                    self.finish(token, Err(status));
                }
            }
            Request::Txn(request) => self.pool(token, Job::Txn { view, request }),
            other => unreachable!("not a read: {other:?}"),
        }
    }

    fn read_range(
        &mut self,
        view: Arc<MemberView>,
        token: u64,
        r: &RangeRequest,
    ) -> Result<(), Status> {
        let ranged = view.store.range(&query(r)).map_err(range_error)?;
        let mut out = render::with_header(&header(ranged.revision));
        if view.store.try_render(&ranged, 4_096, &mut out).map_err(broken)? {
            render::range_end(&mut out, ranged.more, count(&ranged));
            self.answer(token, Response::Range(decoded(&out)));
        } else {
            self.pool(token, Job::Plan { view, ranged });
        }
        Ok(())
    }

    /// Takes a reply of the member.
    pub(crate) fn reply(&mut self, now: u64, p: &mut Process, token: ReplyToken, reply: Reply) {
        let token = token.0;
        let Some(call) = self.calls.get(&token) else { return };
        if let Ask::KeepAliveFor(from, theirs, _) = call.ask {
            // As `rpc/src/services/peers.rs#keep_alive`: all but an answer is asked again.
            let ttl = match reply {
                Reply::KeepAlive(ttl) => Some(ttl),
                Reply::Refused(ApiError::LeaseNotFound) => Some(0),
                _ => None,
            };
            self.calls.remove(&token);
            return self.answers.push((from, theirs, ttl));
        }
        match (call.waits, reply) {
            (_, Reply::Elsewhere(_)) => match call.ask {
                Ask::Kv(Request::LeaseKeepAlive(lease)) => {
                    self.waits(token, Waits::Leader);
                    let until = now + FORWARD_NS;
                    let lease = LeaseId(lease);
                    self.forwards.push(Forward { call: token, lease, due: now, until });
                }
                // Whoever wants to promote asks the leader.
                _ => self.finish(token, Err(ApiError::NotLeader.into())),
            },
            (Waits::Other, Reply::Done) if matches!(call.ask, Ask::Change(_)) => {
                let Ask::Change(change) = call.ask else { return };
                self.change(p, token, change);
            }
            (_, Reply::Refused(error)) => {
                let keeps_alive = matches!(call.ask, Ask::Kv(Request::LeaseKeepAlive(_)));
                if keeps_alive && error == ApiError::LeaseNotFound {
                    self.kept_alive(p, token, 0);
                } else {
                    self.finish(token, Err(error.into()));
                }
            }
            (_, Reply::Failed(why)) => {
                self.finish(token, Err(Status::new(Code::Unknown, why)));
            }
            (Waits::Entry, Reply::Applied(outcome)) => self.applied(p, token, *outcome),
            (Waits::Index, Reply::ReadIndex(index)) => {
                if p.view.store.applied_index() >= index {
                    self.read_view(p, token);
                } else {
                    self.waits(token, Waits::Apply);
                    let token = ReplyToken(token);
                    p.to_applier.push(ApplierInput::AwaitApplied { token, index });
                }
            }
            (Waits::Apply, Reply::Done) => self.read_view(p, token),
            (Waits::Compaction(revision), Reply::Done) => {
                let header = Some(header(revision));
                self.answer(token, Response::Compact(CompactionResponse { header }));
            }
            (_, Reply::Done) => self.finish(token, Ok(Told::Done)),
            (_, Reply::KeepAlive(ttl)) => self.kept_alive(p, token, ttl),
            (_, Reply::Leases(leases)) => self.finish(token, Ok(Told::Leases(leases))),
            (waits, other) => panic!("{other:?} for a call that waits for {waits:?}"),
        }
    }

    /// The leader, or nobody, has answered a keep-alive that was sent on.
    pub(crate) fn forwarded(&mut self, now: u64, p: &Process, call: u64, ttl: Option<i64>) {
        let Some(place) = self.forwards.iter().position(|f| f.call == call) else { return };
        match ttl {
            Some(ttl) => {
                self.forwards.swap_remove(place);
                self.kept_alive(p, call, ttl);
            }
            None => self.forwards[place].due = now + FORWARD_RETRY_NS,
        }
    }

    /// Those that are to be sent on now; those whose time is over end.
    pub(crate) fn send_on(&mut self, now: u64) -> Vec<Forward> {
        let late: Vec<u64> =
            self.forwards.iter().filter(|f| f.until <= now).map(|f| f.call).collect();
        for call in late {
            self.forwards.retain(|f| f.call != call);
            self.finish(call, Err(ApiError::Timeout.into()));
        }
        let mut due = Vec::new();
        for forward in self.forwards.iter_mut().filter(|f| f.due <= now) {
            due.push(*forward);
            forward.due = now + FORWARD_PATIENCE_NS;
        }
        due
    }

    fn kept_alive(&mut self, p: &Process, token: u64, ttl: i64) {
        let Some(Call { ask: Ask::Kv(Request::LeaseKeepAlive(id)), .. }) = self.calls.get(&token)
        else {
            return;
        };
        let header = Some(header(p.view.store.revision()));
        let response = LeaseKeepAliveResponse { header, id: *id, ttl };
        self.answer(token, Response::LeaseKeepAlive(response));
    }

    fn applied(&mut self, p: &mut Process, token: u64, outcome: Applied) {
        let Some(Call { ask, .. }) = self.calls.get(&token) else { return };
        let revision = outcome.revision;
        let reply = match outcome.reply {
            Ok(reply) => reply,
            Err(error) => return self.finish(token, Err(error.into())),
        };
        let mut out = render::with_header(&header(revision));
        let response = match (ask, reply) {
            (Ask::Disarm | Ask::ClusterVersion | Ask::Change(_), _) => {
                return self.finish(token, Ok(Told::Done));
            }
            (_, machine::Reply::Put(reply)) => {
                render::put(&mut out, &reply);
                Response::Put(decoded::<PutResponse>(&out))
            }
            (_, machine::Reply::Delete(reply)) => {
                render::delete(&mut out, &reply);
                Response::DeleteRange(decoded(&out))
            }
            (_, machine::Reply::Txn(reply)) => {
                render::txn(&mut out, &reply);
                Response::Txn(decoded::<TxnResponse>(&out))
            }
            (Ask::Kv(Request::Compact(r)), _) if r.physical => {
                self.waits(token, Waits::Compaction(revision));
                let wait = ApplierInput::AwaitCompaction(ReplyToken(token));
                return p.to_applier.push(wait);
            }
            (Ask::Kv(Request::Compact(_)), _) => {
                Response::Compact(CompactionResponse { header: Some(header(revision)) })
            }
            (_, machine::Reply::LeaseGrant { id, ttl }) => {
                Response::LeaseGrant(LeaseGrantResponse {
                    header: Some(header(revision)),
                    id: id.0,
                    ttl,
                    error: String::new(),
                })
            }
            (Ask::Kv(Request::LeaseRevoke(_)), _) => {
                Response::LeaseRevoke(LeaseRevokeResponse { header: Some(header(revision)) })
            }
            (ask, other) => panic!("{ask:?} was answered by {other:?}"),
        };
        self.answer(token, response);
    }

    fn hashed(&mut self, token: u64, view: &MemberView, hash: store::KvHash) {
        let response = HashKvResponse {
            header: Some(header(view.store.revision())),
            hash: hash.hash,
            compact_revision: hash.compact_revision.0,
            hash_revision: hash.revision.0,
        };
        self.answer(token, Response::HashKv(response));
    }

    pub(crate) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Runs one piece of one job on the pool.
    pub(crate) fn run_job(&mut self, entropy: &mut SplitMix) {
        let at = entropy.below(self.jobs.len() as u64) as usize;
        let (token, job) = self.jobs.swap_remove(at);
        let budget = 1 + entropy.below(4_000) as usize;
        match run(job, budget) {
            Ok(Ran::More(job)) => self.jobs.push((token, *job)),
            Ok(Ran::Answer(response)) => self.answer(token, *response),
            Ok(Ran::Hash(view, hash)) => self.hashed(token, &view, hash),
            Err(status) => self.finish(token, Err(status)),
        }
    }
}

enum Ran {
    More(Box<Job>),
    Answer(Box<Response>),
    Hash(Arc<MemberView>, store::KvHash),
}

fn run(job: Job, budget: usize) -> Result<Ran, Status> {
    let may = MayBlock::on_this_thread();
    Ok(match job {
        Job::Plan { view, ranged } => {
            let ranged = view.store.resolve(&may, ranged).map_err(broken)?;
            let out = render::with_header(&header(ranged.revision));
            let (more, count) = (ranged.more, count(&ranged));
            let body = view.store.body(ranged);
            Ran::More(Box::new(Job::Body { view, body, out, more, count }))
        }
        Job::Body { view, mut body, mut out, more, count } => {
            let upto = out.len() + budget;
            let piece = body.next_blocking(&may, &view.store, upto, &mut out).map_err(broken)?;
            if piece != Piece::Done {
                return Ok(Ran::More(Box::new(Job::Body { view, body, out, more, count })));
            }
            render::range_end(&mut out, more, count);
            Ran::Answer(Box::new(Response::Range(decoded::<RangeResponse>(&out))))
        }
        Job::Txn { view, request } => {
            let reply = kv::read_txn(&may, &view, &request)?;
            let mut out = render::with_header(&header(view.store.revision()));
            render::txn(&mut out, &reply);
            Ran::Answer(Box::new(Response::Txn(decoded(&out))))
        }
        Job::Hash { view, mut hasher } => {
            match hasher.step(&may, &view.store, budget).map_err(broken)? {
                Step::More => Ran::More(Box::new(Job::Hash { view, hasher })),
                Step::Done => {
                    let hash = hasher.finish();
                    Ran::Hash(view, hash)
                }
            }
        }
    })
}
