//! Node: raft and everything that waits for it.
//!
//! Owns raft's state, proposals in flight, reads waiting for an index, the lease clock, and when a
//! snapshot is due. Never touches a disk or a socket and never applies anything.
//!
//! One [`Node::handle`] takes all queued inputs, ticks what is due, and gives out everything there
//! is to do; one [`Node::deadline`] says when to call again without input. Each arm of the match
//! lives in the file of its topic.

use std::collections::VecDeque;
use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    AlarmRequest, AlarmType, InternalRaftRequest, LeaseRevokeRequest, RequestHeader,
};
use api::membershippb;
use bytes::Bytes;
use env::Instant;
use machine::{Effect, Members};
use prost::Message;
use raft::{ProposeError, Raft};
use types::limits::{
    MAX_APPLY_GAP, MAX_REVOKES_IN_FLIGHT, MEMORY_COMPACTION_ENTRIES, REQUEST_TIMEOUT_BASE_MS,
};
use types::{Index, LeaseId, MemberId, ReplyToken, RequestId, Term};

use crate::lease_expiry::{LeaseClock, Renewed};
use crate::message::{
    Applied, BackendCommitted, Committed, LogInput, NodeInput, NodeOutput, NodeStatus, Proposal,
    RaftSnapshot, Reply,
};
use crate::proposals::{InFlight, request_id};

/// Settings of a node. Times are etcd's unless a flag says otherwise.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This member.
    pub id: MemberId,
    /// Time per raft tick (`--heartbeat-interval`).
    pub tick: Duration,
    /// The election timeout (`--election-timeout`).
    pub election: Duration,
    /// Applied entries between snapshots (`--snapshot-count`).
    pub snapshot_count: u64,
    /// Entries kept behind a snapshot (`--snapshot-catchup-entries`).
    pub catchup_entries: u64,
    /// What this member tells the others about itself.
    pub attributes: membershippb::Attributes,
    /// The cluster version that this member would decide on as leader.
    pub cluster_version: String,
    /// The first of the request ids for this node's own proposals; it counts up from there.
    pub first_request_id: RequestId,
}

impl NodeConfig {
    /// How long a request may wait: 5 s and two election timeouts.
    //= etcd 3.7.1: server/config/config.go#ReqTimeout
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(REQUEST_TIMEOUT_BASE_MS) + 2 * self.election
    }
}

/// A keep-alive that waits for apply to catch up, or for a revoke to be applied.
#[derive(Debug)]
struct WaitingKeepAlive {
    token: ReplyToken,
    lease: LeaseId,
    until: Instant,
    /// Answerable once this much is applied.
    applied: Index,
}

/// The automaton around raft.
pub struct Node {
    config: NodeConfig,
    raft: Raft,
    in_flight: InFlight,
    /// Proposals that came while no leader was known.
    parked: VecDeque<(Instant, Proposal)>,
    /// Reads by the context their index was asked with, oldest first.
    reads: VecDeque<(u64, Instant, Vec<ReplyToken>)>,
    next_context: u64,
    leases: LeaseClock,
    keep_alives: Vec<WaitingKeepAlive>,
    next_tick: Instant,
    next_id: u64,
    status: NodeStatus,
    /// What was last given out as [`NodeOutput::status`].
    shown: NodeStatus,
    /// The term whose first entry this member led and has applied.
    led_term: Option<Term>,
    published: bool,
    publish_pending: Option<RequestId>,
    /// Where this process's own publication stands in the log. One of an earlier process may be
    /// replayed before it, and what was acknowledged behind that is not applied yet.
    publish_index: Option<Index>,
    version_decided: bool,
    last_snapshot: Index,
    snapshot_asked: bool,
    /// Applied index when entries were last let go.
    forgotten: Index,
    leader_seen: Option<MemberId>,
    stopping: bool,
    members: Members,
}

impl Node {
    /// A node over a recovered raft. `last_snapshot` is the newest snapshot the log vouches for.
    #[must_use]
    pub fn new(
        config: NodeConfig,
        raft: Raft,
        now: Instant,
        last_snapshot: Index,
        members: Members,
        leases: impl Iterator<Item = (LeaseId, i64, i64)>,
    ) -> Self {
        let mut clock = LeaseClock::default();
        for (id, ttl, checkpoint) in leases {
            clock.granted(now, id, ttl, checkpoint);
        }
        let next_id = config.first_request_id.0;
        let next_tick = now + config.tick;
        let version_decided = members.cluster_version.is_some();
        let mut node = Self {
            config,
            raft,
            in_flight: InFlight::default(),
            parked: VecDeque::new(),
            reads: VecDeque::new(),
            next_context: next_id,
            leases: clock,
            keep_alives: Vec::new(),
            next_tick,
            next_id,
            status: NodeStatus::default(),
            shown: NodeStatus::default(),
            led_term: None,
            published: false,
            publish_pending: None,
            publish_index: None,
            version_decided,
            last_snapshot,
            snapshot_asked: false,
            forgotten: last_snapshot,
            leader_seen: None,
            stopping: false,
            members,
        };
        node.campaign_if_alone();
        node
    }

    /// A sole voter has nobody to wait for. etcd lets it wait for 1-10 ticks all the same.
    fn campaign_if_alone(&mut self) {
        let conf_state = self.raft.conf_state();
        if conf_state.voters == [self.config.id] && conf_state.voters_outgoing.is_empty() {
            self.raft.campaign();
        }
    }

    /// When [`Node::handle`] must be called even without input.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let waiting = self.keep_alives.iter().map(|k| k.until).min();
        let lease = self.leases.next_deadline();
        [Some(self.next_tick), waiting, lease].into_iter().flatten().min().expect("a tick is due")
    }

    /// Takes all inputs and appends to `out` everything there is to do.
    pub fn handle(&mut self, now: Instant, inputs: &mut Vec<NodeInput>, out: &mut NodeOutput) {
        let mut reading: Vec<ReplyToken> = Vec::new();
        let mut proposed: Vec<Proposal> = Vec::new();
        for input in inputs.drain(..) {
            match input {
                NodeInput::Propose(proposal) => proposed.push(proposal),
                NodeInput::ReadIndex(token) => reading.push(token),
                NodeInput::KeepAlive { token, lease } => self.keep_alive(now, token, lease, out),
                NodeInput::TimeToLive { token, lease } => {
                    out.replies.push((token, self.time_to_live(now, lease)));
                }
                NodeInput::Leases(token) => {
                    out.replies.push((token, Reply::Leases(self.leases.by_remaining())));
                }
                NodeInput::Persisted(id) => self.raft.persisted(id),
                NodeInput::Applied(applied) => self.applied(now, applied, out),
                NodeInput::BackendCommitted(committed) => self.backend_committed(committed, out),
                NodeInput::SnapshotSaved(index) => self.snapshot_saved(index),
                NodeInput::Stop => self.stopping = true,
            }
        }
        self.propose(now, proposed, out);
        self.read_index(now, reading);
        self.tick(now, out);
        self.expire_leases(now);
        self.drain(now, out);
        self.wake_keep_alives(now, out);
        self.publish_status(out);
        out.stopped = self.stopping && self.in_flight.len() == 0;
    }

    fn propose(&mut self, now: Instant, proposed: Vec<Proposal>, out: &mut NodeOutput) {
        if proposed.is_empty() {
            return;
        }
        if self.stopping {
            let stopped = |p: Proposal| (p.token, Reply::Refused(ApiError::Stopped));
            out.replies.extend(proposed.into_iter().map(stopped));
            return;
        }
        //= etcd 3.7.1: server/etcdserver/v3_server.go#processInternalRaftRequestOnce
        let status = &self.status;
        if status.commit.0.saturating_sub(status.applied.0) > MAX_APPLY_GAP {
            let refused = |p: Proposal| (p.token, Reply::Refused(ApiError::TooManyRequests));
            out.replies.extend(proposed.into_iter().map(refused));
            return;
        }
        let batch: Vec<Bytes> = proposed.iter().map(|p| p.data.clone()).collect();
        match self.raft.propose(batch) {
            Ok(()) => {
                for proposal in proposed {
                    self.in_flight.insert(now, proposal.id, proposal.token);
                }
            }
            // As in etcd, a proposal without a leader waits for one until its time is over.
            Err(_) => self.parked.extend(proposed.into_iter().map(|p| (now, p))),
        }
    }

    fn unpark(&mut self, now: Instant) {
        if self.parked.is_empty() || self.status.leader.is_none() {
            return;
        }
        let parked = std::mem::take(&mut self.parked);
        for (at, proposal) in parked {
            match self.raft.propose(vec![proposal.data.clone()]) {
                Ok(()) => self.in_flight.insert(at.min(now), proposal.id, proposal.token),
                Err(_) => self.parked.push_back((at, proposal)),
            }
        }
    }

    /// All reads of one turn share one context: each of them came before it was asked for.
    fn read_index(&mut self, now: Instant, reading: Vec<ReplyToken>) {
        if reading.is_empty() {
            return;
        }
        self.next_context += 1;
        self.raft.read_index(self.next_context);
        self.reads.push_back((self.next_context, now, reading));
    }

    fn tick(&mut self, now: Instant, out: &mut NodeOutput) {
        // After a pause of the process each missed tick would be one heartbeat: one is enough.
        let mut ticks = 0;
        while self.next_tick <= now {
            self.next_tick = self.next_tick + self.config.tick;
            if ticks < 2 {
                self.raft.tick();
            }
            ticks += 1;
        }
        if ticks == 0 {
            return;
        }
        let timeout = self.config.request_timeout();
        let Some(until) = now.0.checked_sub(timeout.as_nanos() as u64).map(Instant) else {
            return;
        };
        let timed_out = |token| (token, Reply::Refused(ApiError::Timeout));
        let late = self.in_flight.take_older(until);
        self.status.proposals_failed += late.len() as u64;
        out.replies.extend(late.into_iter().map(|(_, token)| timed_out(token)));
        while self.parked.front().is_some_and(|(at, _)| *at <= until) {
            self.status.proposals_failed += 1;
            out.replies.extend(self.parked.pop_front().map(|(_, p)| timed_out(p.token)));
        }
        while self.reads.front().is_some_and(|(_, at, _)| *at <= until) {
            self.status.reads_failed += 1;
            let tokens = self.reads.pop_front().map(|(_, _, tokens)| tokens);
            out.replies.extend(tokens.into_iter().flatten().map(timed_out));
        }
    }

    /// Takes from raft what is ready until nothing is.
    fn drain(&mut self, now: Instant, out: &mut NodeOutput) {
        loop {
            if !self.raft.has_ready() {
                break;
            }
            let ready = self.raft.ready();
            let mut progress = false;
            if let Some(soft) = ready.soft {
                progress = true;
                self.leader_changed(soft.leader, soft.role == raft::Role::Leader, out);
            }
            if let Some(persist) = ready.persist {
                progress = true;
                out.log.push(LogInput::Persist(persist));
            }
            progress |= !ready.messages.is_empty();
            out.messages.extend(ready.messages);
            for state in ready.read_states {
                progress = true;
                self.read_ready(state.context, state.index, out);
            }
            for entry in ready.committed {
                progress = true;
                let token = match entry.kind {
                    raft::EntryKind::Normal if !entry.data.is_empty() => {
                        let id = request_id(&entry.data);
                        if id.is_some() && id == self.publish_pending {
                            self.publish_index = Some(entry.index);
                        }
                        id.and_then(|id| self.in_flight.take(id))
                    }
                    _ => None,
                };
                out.committed.push(Committed { entry, token });
            }
            // Snapshots come from other members; a peer plane must be there to fetch them.
            assert!(ready.install.is_none(), "no peer can have sent a snapshot");
            if !progress {
                break;
            }
        }
        self.unpark(now);
    }

    fn leader_changed(&mut self, leader: Option<MemberId>, leads: bool, out: &mut NodeOutput) {
        if !leads {
            self.leases.stop();
            self.led_term = None;
        }
        if leader.is_some() && leader != self.leader_seen {
            // A newly known leader ends what waits for the old one's answer.
            //= etcd 3.7.1: server/etcdserver/v3_server.go#requestCurrentIndex
            if self.leader_seen.is_some() {
                let changed = |token| (token, Reply::Refused(ApiError::LeaderChanged));
                self.status.reads_failed += self.reads.len() as u64;
                let waiting = self.reads.drain(..).flat_map(|(_, _, tokens)| tokens);
                out.replies.extend(waiting.map(changed));
            }
            self.leader_seen = leader;
            self.status.leader_changes += 1;
        }
        self.status.leader = leader;
        self.status.is_leader = leads;
    }

    fn read_ready(&mut self, context: u64, index: Index, out: &mut NodeOutput) {
        // Contexts are answered in order; one that was skipped is covered by the later index.
        while self.reads.front().is_some_and(|(c, _, _)| *c <= context) {
            let tokens = self.reads.pop_front().map(|(_, _, tokens)| tokens);
            let answer = |token| (token, Reply::ReadIndex(index));
            out.replies.extend(tokens.into_iter().flatten().map(answer));
        }
    }

    fn applied(&mut self, now: Instant, applied: Applied, out: &mut NodeOutput) {
        for (index, effect) in applied.effects {
            match effect {
                Effect::LeaseGranted { id, ttl } => self.leases.granted(now, id, ttl, 0),
                Effect::LeaseRevoked(id) => self.leases.removed(id),
                Effect::LeaseCheckpoint { id, remaining } => {
                    self.leases.checkpointed(id, remaining);
                }
                Effect::ConfChange(change) => {
                    if let Some(change) = &change {
                        let _ = self.members.change(change);
                    }
                    self.raft.conf_applied(index, change);
                    if self.raft.leader().is_none() {
                        self.campaign_if_alone();
                    }
                }
                Effect::Attributes { id, name, client_urls } => {
                    let _ = self.members.set_attributes(id, name, client_urls);
                }
                Effect::ClusterVersion(version) => {
                    self.members.cluster_version = Some(version);
                    self.version_decided = true;
                }
                Effect::NoSpace => self.raise_no_space(),
                Effect::Compaction(_) => {}
            }
        }
        self.raft.applied(applied.index);
        self.forget_entries(applied.index);
        self.status.applied = applied.index;
        let term = self.raft.term();
        let own_term = self.raft.entry_term(applied.index) == Some(term);
        if self.status.is_leader && own_term && self.led_term != Some(term) {
            // The first entry of the term is applied: what the leader does by itself begins.
            self.led_term = Some(term);
            self.leases.start(now, self.config.election);
            if !self.version_decided {
                self.decide_version();
            }
        }
        self.published |= self.publish_index.is_some_and(|index| index <= applied.index);
        if !self.published && self.publish_pending.is_none() && self.status.leader.is_some() {
            self.publish();
        }
        self.ask_for_snapshot(out);
    }

    fn own_request(&mut self, mut request: InternalRaftRequest) -> (RequestId, Bytes) {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let header = RequestHeader { id: id.0, ..RequestHeader::default() };
        request.header = Some(header);
        (id, request.encode_to_vec().into())
    }

    /// Tells the cluster this member's name and client URLs; the server is ready once applied.
    //= etcd 3.7.1: server/etcdserver/server.go#publishV3
    fn publish(&mut self) {
        let request = membershippb::ClusterMemberAttrSetRequest {
            member_id: self.config.id.0,
            member_attributes: Some(self.config.attributes.clone()),
        };
        let (id, data) = self.own_request(InternalRaftRequest {
            cluster_member_attr_set: Some(request),
            ..InternalRaftRequest::default()
        });
        if self.raft.propose(vec![data]).is_ok() {
            self.publish_pending = Some(id);
        }
    }

    //= etcd 3.7.1: server/etcdserver/version/monitor.go#UpdateClusterVersionIfNeeded
    fn decide_version(&mut self) {
        let request =
            membershippb::ClusterVersionSetRequest { ver: self.config.cluster_version.clone() };
        let (_, data) = self.own_request(InternalRaftRequest {
            cluster_version_set: Some(request),
            ..InternalRaftRequest::default()
        });
        // A failure means that the term is over; the next one's first entry tries again.
        let _: Result<(), ProposeError> = self.raft.propose(vec![data]);
    }

    /// This member's backend is full: every member must stop growing.
    //= etcd 3.7.1: server/etcdserver/server.go#applyEntryNormal
    fn raise_no_space(&mut self) {
        let request = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.config.id.0,
            alarm: AlarmType::Nospace as i32,
        };
        let (_, data) = self.own_request(InternalRaftRequest {
            alarm: Some(request),
            ..InternalRaftRequest::default()
        });
        // If it is refused, the next write that finds the backend full asks again.
        let _: Result<(), ProposeError> = self.raft.propose(vec![data]);
    }

    fn expire_leases(&mut self, now: Instant) {
        let Some(term) = self.led_term.filter(|_| self.leases.is_running()) else {
            return;
        };
        for lease in self.leases.expire(now, MAX_REVOKES_IN_FLIGHT) {
            self.status.leases_expired += 1;
            let (_, data) = self.own_request(InternalRaftRequest {
                lease_revoke: Some(LeaseRevokeRequest { id: lease.0 }),
                ..InternalRaftRequest::default()
            });
            if self.raft.propose_as_leader(term, data).is_err() {
                self.leases.retry(lease, now + self.config.tick);
            }
        }
    }

    fn keep_alive(
        &mut self,
        now: Instant,
        token: ReplyToken,
        lease: LeaseId,
        out: &mut NodeOutput,
    ) {
        if !self.leases.is_running() {
            let until = now + self.config.request_timeout();
            let applied = Index(u64::MAX);
            self.keep_alives.push(WaitingKeepAlive { token, lease, until, applied });
            return;
        }
        match self.leases.renew(now, lease) {
            Renewed::Ttl(ttl) => out.replies.push((token, Reply::KeepAlive(ttl))),
            Renewed::Expiring => {
                let until = now + self.config.request_timeout();
                let applied = Index(u64::MAX);
                self.keep_alives.push(WaitingKeepAlive { token, lease, until, applied });
            }
            Renewed::Unknown => {
                // Its grant may be committed and on its way to apply.
                let until = now + Duration::from_millis(types::limits::APPLY_WAIT_MS);
                let applied = self.status.commit;
                self.keep_alives.push(WaitingKeepAlive { token, lease, until, applied });
            }
        }
    }

    fn wake_keep_alives(&mut self, now: Instant, out: &mut NodeOutput) {
        if self.keep_alives.is_empty() {
            return;
        }
        let running = self.leases.is_running();
        let applied = self.status.applied;
        let waiting = std::mem::take(&mut self.keep_alives);
        for keep_alive in waiting {
            let renewed =
                if running { self.leases.renew(now, keep_alive.lease) } else { Renewed::Expiring };
            let reply = match renewed {
                Renewed::Ttl(ttl) => Reply::KeepAlive(ttl),
                Renewed::Unknown
                    if applied >= keep_alive.applied || keep_alive.applied.0 == u64::MAX =>
                {
                    Reply::KeepAlive(0)
                }
                Renewed::Unknown if keep_alive.until <= now => {
                    Reply::Refused(ApiError::TimeoutWaitApplied)
                }
                Renewed::Expiring if keep_alive.until <= now => Reply::Refused(ApiError::Timeout),
                Renewed::Unknown | Renewed::Expiring => {
                    self.keep_alives.push(keep_alive);
                    continue;
                }
            };
            out.replies.push((keep_alive.token, reply));
        }
    }

    fn time_to_live(&self, now: Instant, lease: LeaseId) -> Reply {
        Reply::TimeToLive(self.leases.time_to_live(now, lease))
    }

    fn ask_for_snapshot(&mut self, out: &mut NodeOutput) {
        let since = self.status.applied.0.saturating_sub(self.last_snapshot.0);
        if since > self.config.snapshot_count && !self.snapshot_asked {
            self.snapshot_asked = true;
            out.flush = true;
        }
    }

    /// Invariant 3: the record is written only for what the backend durably holds.
    fn backend_committed(&mut self, committed: BackendCommitted, out: &mut NodeOutput) {
        let enough =
            committed.index.0.saturating_sub(self.last_snapshot.0) > self.config.snapshot_count;
        if !self.snapshot_asked || !enough {
            return;
        }
        self.last_snapshot = committed.index;
        out.log.push(LogInput::Snapshot(RaftSnapshot {
            index: committed.index,
            term: committed.term,
            conf_state: committed.conf_state,
            data: machine::membership::v2_store_json(&self.members),
        }));
    }

    fn snapshot_saved(&mut self, _: Index) {
        self.snapshot_asked = false;
    }

    /// Lets go of applied entries in memory every hundred entries. Others may still ask for the
    /// last thousands; alone, a member needs none of them.
    //= etcd 3.7.1: server/etcdserver/server.go#compactRaftLog
    fn forget_entries(&mut self, applied: Index) {
        if applied.0 < self.forgotten.0 + MEMORY_COMPACTION_ENTRIES {
            return;
        }
        self.forgotten = applied;
        let alone = self.members.iter().count() <= 1;
        let keep = if alone { 0 } else { self.config.catchup_entries };
        if let Some(to) = applied.0.checked_sub(keep).filter(|to| *to > 0) {
            self.raft.compact(Index(to));
        }
    }

    fn publish_status(&mut self, out: &mut NodeOutput) {
        let status = NodeStatus {
            term: self.raft.term(),
            leader: self.raft.leader(),
            is_leader: self.raft.role() == raft::Role::Leader,
            commit: self.raft.commit(),
            applied: self.status.applied,
            ready: self.published,
            leader_changes: self.status.leader_changes,
            pending: (self.in_flight.len() + self.parked.len()) as u64,
            ..self.status
        };
        self.status = status;
        if status != self.shown {
            self.shown = status;
            out.status = Some(status);
        }
    }
}
