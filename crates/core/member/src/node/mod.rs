//! Node: raft and everything that waits for it.
//!
//! Owns raft's state, proposals in flight, reads waiting for an index, the lease clock, and when a
//! snapshot is due. Never touches a disk or a socket and never applies anything.
//!
//! One [`Node::handle`] takes all queued inputs, ticks what is due, and gives out everything there
//! is to do; one [`Node::deadline`] says when to call again without input. Each arm of the match
//! lives in the file of its topic: `propose`, `forwarded`, `reads`, `leases`, `snapshots`,
//! `cluster`.

use std::collections::VecDeque;
use std::time::Duration;

use api::membershippb;
use env::{Hooks, Instant};
use machine::{Effect, Members};
use raft::{Message, Raft};
use types::limits::{REQUEST_TIMEOUT_BASE_MS, REVOKE_RETRY_MS};
use types::{Index, LeaseId, MemberId, ReplyToken, RequestId, Term};

use crate::lease_expiry::LeaseClock;
use crate::message::{
    Applied, Committed, LogInput, NodeInput, NodeOutput, NodeStatus, Proposal, Reply,
};
use crate::proposals::InFlight;

use self::cluster::{Stopping, Transfer};
use self::leases::{Pause, Question, WaitingLease};
use self::propose::Parked;
use self::reads::Reads;
use self::snapshots::{Arrived, Sending};

mod cluster;
mod forwarded;
#[cfg(test)]
mod kit;
mod leases;
mod propose;
mod reads;
mod snapshots;

/// Ticks behind from which on a leader asks itself whether it still leads.
//= etcd 3.7.1: server/etcdserver/server.go#isActive (3 ticks)
const MISSED_TICKS: u32 = 2;

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
    /// Whether a leader tells the others what is left of long leases (gate `LeaseCheckpoint`).
    pub lease_checkpoints: bool,
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

/// The automaton around raft.
pub struct Node {
    config: NodeConfig,
    raft: Raft,
    in_flight: InFlight,
    /// What came while no leader was known, and when.
    parked: VecDeque<(Instant, Parked)>,
    /// Membership changes that other members proposed while one was not applied, and when.
    parked_forwarded: VecDeque<(Instant, Message)>,
    reads: Reads,
    leases: LeaseClock,
    waiting_leases: Vec<WaitingLease>,
    pause: Pause,
    next_tick: Instant,
    next_id: u64,
    status: NodeStatus,
    /// What was last given out as [`NodeOutput::status`].
    shown: NodeStatus,
    /// The term whose first entry this member led and has applied.
    led_term: Option<Term>,
    published: bool,
    /// This process's newest publication, and until when it is waited for.
    publish_pending: Option<(RequestId, Instant)>,
    /// Where a publication of this process stands in the log. One of an earlier process may be
    /// replayed before it, and what was acknowledged behind that is not applied yet.
    publish_index: Option<Index>,
    version_decided: bool,
    last_snapshot: Index,
    snapshot_asked: bool,
    /// A snapshot must cover this entry, however few others there are.
    snapshot_forced: Option<Index>,
    sending: Sending,
    arrived: Option<Arrived>,
    /// Applied index when entries were last let go.
    forgotten: Index,
    leader_seen: Option<MemberId>,
    /// When a leader was last known after there was none.
    leader_elected: Option<Instant>,
    transfers: Vec<Transfer>,
    stopping: Option<Stopping>,
    /// When the process must end, once this member was removed.
    removed_at: Option<Instant>,
    members: Members,
    /// The auth revision, if what wants permission must be signed.
    signing_revision: Option<u64>,
    hooks: Hooks,
}

/// When the end of a lease that was refused is proposed again.
const REVOKE_RETRY: Duration = Duration::from_millis(REVOKE_RETRY_MS);

impl Node {
    /// As of the recovered state, what wants permission must be signed with this auth revision.
    pub(crate) fn set_signing_revision(&mut self, revision: Option<u64>) {
        self.signing_revision = revision;
    }

    /// A node over a recovered raft. `last_snapshot` is the newest snapshot the log vouches for.
    #[must_use]
    pub fn new(
        config: NodeConfig,
        raft: Raft,
        now: Instant,
        last_snapshot: Index,
        members: Members,
        leases: impl Iterator<Item = (LeaseId, i64, i64)>,
        hooks: Hooks,
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
            parked_forwarded: VecDeque::new(),
            reads: Reads::new(next_id),
            leases: clock,
            waiting_leases: Vec::new(),
            pause: Pause::default(),
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
            snapshot_forced: None,
            sending: Sending::default(),
            arrived: None,
            forgotten: last_snapshot,
            leader_seen: None,
            leader_elected: None,
            transfers: Vec::new(),
            stopping: None,
            removed_at: None,
            members,
            signing_revision: None,
            hooks,
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

    fn election_ticks(&self) -> u32 {
        let ticks = self.config.election.as_millis() / self.config.tick.as_millis().max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// Whether this member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.status.is_leader
    }

    /// When [`Node::handle`] must be called even without input.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let waiting = self.waiting_leases.iter().map(|waiting| waiting.until).min();
        let lease = self.leases.next_deadline().filter(|_| self.led_term.is_some());
        [Some(self.next_tick), waiting, lease].into_iter().flatten().min().expect("a tick is due")
    }

    /// Takes all inputs and appends to `out` everything there is to do.
    pub fn handle(&mut self, now: Instant, inputs: &mut Vec<NodeInput>, out: &mut NodeOutput) {
        let mut reading: Vec<ReplyToken> = Vec::new();
        let mut proposed: Vec<Proposal> = Vec::new();
        if now >= self.next_tick + self.config.tick * MISSED_TICKS {
            // Before anything is answered that only a leader may answer.
            self.pause.resumed();
        }
        raft::order_appends(inputs, |input| match input {
            NodeInput::Step(message) => Some(message),
            _ => None,
        });
        for input in inputs.drain(..) {
            match input {
                NodeInput::Propose(proposal) => proposed.push(proposal),
                NodeInput::ReadIndex(token) => reading.push(token),
                NodeInput::Step(message) => self.step(now, message, out),
                NodeInput::KeepAlive { token, lease, for_peer } => {
                    let question = if for_peer { Question::RenewForPeer } else { Question::Renew };
                    self.ask_lease(now, token, lease, question, out);
                }
                NodeInput::TimeToLive { token, lease } => {
                    self.ask_lease(now, token, lease, Question::TimeToLive, out);
                }
                NodeInput::Leases(token) => {
                    out.replies.push((token, Reply::Leases(self.leases.by_remaining())));
                }
                NodeInput::Persisted(id) => self.raft.persisted(id),
                NodeInput::Applied(applied) => self.applied(now, applied, out),
                NodeInput::Installed(installed) => self.installed(now, installed, out),
                NodeInput::BackendCommitted(committed) => self.backend_committed(&committed, out),
                NodeInput::SnapshotFileSaved(snapshot) => {
                    out.log.push(LogInput::Snapshot(snapshot));
                }
                NodeInput::SnapshotSaved(index) => self.snapshot_saved(now, index, out),
                NodeInput::Unreachable(peer) => self.raft.report_unreachable(peer),
                NodeInput::PeerEnded(peer) => self.raft.peer_ended(peer),
                NodeInput::AdvanceElection => {
                    self.raft.advance_election(self.election_ticks().saturating_sub(2));
                }
                NodeInput::SnapshotSent { peer, arrived } => {
                    self.snapshot_sent(now, peer, arrived);
                }
                NodeInput::ChangeMembers { token, change } => {
                    self.propose_change(now, token, change, out);
                }
                NodeInput::IsLearnerReady { token, learner } => {
                    self.is_learner_ready(token, learner, out);
                }
                NodeInput::TransferLeader { token, to } => {
                    self.transfer_leader(now, token, to, out);
                }
                NodeInput::Stop { successor } => self.stop(now, successor),
            }
        }
        self.propose(now, proposed, out);
        self.read(now, reading);
        self.tick(now, out);
        self.expire_leases(now);
        self.checkpoint_leases(now);
        self.drain(now, out);
        self.wake_leases(now, out);
        self.wake_transfers(now, out);
        self.publish_status(out);
        out.stopped = self.is_stopped(now);
        out.removed = self.removed_at.is_some_and(|at| at <= now);
    }

    fn tick(&mut self, now: Instant, out: &mut NodeOutput) {
        // After a pause of the process each missed tick would be one heartbeat: one is enough.
        let mut ticks: u32 = 0;
        while self.next_tick <= now {
            self.next_tick = self.next_tick + self.config.tick;
            if ticks < 2 {
                self.raft.tick();
                self.pause.ticked(self.raft.quorum_contact_age());
            }
            ticks += 1;
        }
        if ticks == 0 {
            return;
        }
        if ticks > 2 && self.status.is_leader {
            //= etcd 3.7.1: server/etcdserver/raft.go#processMessages (heartbeat contention)
            self.status.late_heartbeats += (self.members.iter().count() as u64).saturating_sub(1);
        }
        let timeout = self.config.request_timeout();
        let until = now.0.checked_sub(timeout.as_nanos() as u64).map(Instant);
        if let Some(until) = until {
            self.time_proposals_out(until, out);
        }
        self.tick_reads(now, until, out);
        self.publish_if_due(now);
    }

    /// Takes from raft what is ready until nothing is.
    fn drain(&mut self, now: Instant, out: &mut NodeOutput) {
        self.drain_raft(now, out);
        if self.unpark(out) | self.unpark_forwarded(now, out) {
            self.drain_raft(now, out);
        }
    }

    fn drain_raft(&mut self, now: Instant, out: &mut NodeOutput) {
        while self.raft.has_ready() {
            let ready = self.raft.ready();
            let mut progress = false;
            if let Some(soft) = ready.soft {
                progress = true;
                self.leader_changed(now, soft.leader, soft.role == raft::Role::Leader, out);
            }
            if let Some(persist) = ready.persist {
                progress = true;
                let input = self.log_input(persist);
                out.log.push(input);
            }
            progress |= !ready.messages.is_empty();
            self.send(ready.messages, out);
            for state in ready.read_states {
                progress = true;
                self.read_ready(now, state.context, state.index, out);
            }
            for entry in ready.committed {
                progress = true;
                let token = self.waiting_for(&entry);
                out.committed.push(Committed { entry, token });
            }
            if let Some(meta) = ready.install {
                // Nothing behind it is handed out before it is installed.
                progress = true;
                out.install = Some(meta);
            }
            if !progress {
                break;
            }
        }
    }

    /// Who waits for a committed entry on this member.
    fn waiting_for(&mut self, entry: &raft::Entry) -> Option<ReplyToken> {
        match entry.kind {
            raft::EntryKind::Normal if !entry.data.is_empty() => {
                let id = machine::command::request_id(&entry.data)?;
                if self.publish_pending.is_some_and(|(pending, _)| pending == id) {
                    self.publish_index = Some(entry.index);
                }
                self.in_flight.take(id)
            }
            raft::EntryKind::ConfChange => {
                let change = raft::ConfChange::decode(entry.data.clone()).ok()?;
                self.in_flight.take(RequestId(change.id))
            }
            _ => None,
        }
    }

    fn leader_changed(
        &mut self,
        now: Instant,
        leader: Option<MemberId>,
        leads: bool,
        out: &mut NodeOutput,
    ) {
        if !leads {
            self.leases.stop();
            self.led_term = None;
        }
        if self.status.leader.is_none() && leader.is_some() {
            self.leader_elected = Some(now);
        }
        self.status.leader = leader;
        self.status.is_leader = leads;
        if leader.is_some() && leader != self.leader_seen {
            // A newly known leader ends what waits for the old one's answer.
            //= etcd 3.7.1: server/etcdserver/v3_server.go#requestCurrentIndex
            if self.leader_seen.is_some() {
                self.leader_of_reads_changed(out);
            } else {
                self.ask_reads_again(now);
            }
            self.leader_seen = leader;
            self.status.leader_changes += 1;
            self.publish_if_due(now);
        }
    }

    fn applied(&mut self, now: Instant, applied: Applied, out: &mut NodeOutput) {
        for (index, effect) in applied.effects {
            match effect {
                Effect::LeaseGranted { id, ttl } => self.leases.granted(now, id, ttl, 0),
                Effect::LeaseRevoked(id) => self.leases.removed(id),
                Effect::LeaseKept(id) => self.leases.retry(id, now + REVOKE_RETRY),
                Effect::LeaseCheckpoint { id, remaining } => {
                    self.leases.checkpointed(now, id, remaining);
                }
                Effect::ConfChange(change) => self.conf_applied(now, index, change, out),
                Effect::Attributes { id, name, client_urls } => {
                    let _ = self.members.set_attributes(id, name, client_urls);
                }
                Effect::ClusterVersion(version) => self.version_set(index, version),
                Effect::Downgrade(target) => self.members.downgrade = target,
                Effect::NoSpace => self.raise_no_space(),
                Effect::Auth { signing_revision } => self.signing_revision = signing_revision,
                Effect::Compaction(_)
                | Effect::TokenAssigned { .. }
                | Effect::UserTokensEnded(_)
                | Effect::TokensEnded => {}
            }
        }
        self.raft.applied(applied.index);
        self.forget_entries(now, applied.index);
        self.status.applied = applied.index;
        let term = self.raft.term();
        let own_term = self.raft.entry_term(applied.index) == Some(term);
        if self.status.is_leader && own_term && self.led_term != Some(term) {
            // The first entry of the term is applied: what the leader does by itself begins.
            self.led_term = Some(term);
            self.leases.start(now, self.config.election);
            self.decide_version();
        }
        self.published |= self.publish_index.is_some_and(|index| index <= applied.index);
        self.publish_if_due(now);
        self.ask_for_snapshot(out);
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
