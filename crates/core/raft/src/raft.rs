//! The state of one member and its inputs. `step.rs` dispatches messages; each role has its file.
//!
//! Invariants: the term never decreases; a vote, once given in a term, does not change in it; a
//! member campaigns only if it is a voter, no snapshot is being installed and no committed
//! membership change is unapplied.
//= etcd 3.7.1: raft/raft.go

use bytes::Bytes;
use env::Entropy;
use types::{Index, MemberId, Term, WriteId};

use crate::confchange::changer::Changer;
use crate::confchange::{ConfChange, ConfChangeError, ConfChangeV2};
use crate::config::{Config, Recovered};
use crate::entry::{ConfState, EntryKind, HardState, SnapshotMeta};
use crate::error::{ConfigError, NotLeader, ProposeError, StepError};
use crate::log::Log;
use crate::message::{Body, Message, Proposal};
use crate::progress::Progress;
use crate::read_index::ReadIndexes;
use crate::ready::{ReadState, SoftState};
use crate::status::{PeerStatus, Role, Status};
use crate::tracker::Tracker;
use crate::unstable::Unstable;

/// Ticks within which a member campaigns that knows its leader's process to have ended: several, or
/// all would at once.
pub const EARLY_CAMPAIGN_TICKS: u64 = 3;

/// One member of a raft group. See the crate's documentation.
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) term: Term,
    pub(crate) vote: Option<MemberId>,
    pub(crate) leader: Option<MemberId>,
    pub(crate) role: Role,
    pub(crate) log: Log,
    pub(crate) unstable: Unstable,
    pub(crate) tracker: Tracker,

    /// Messages that may leave now.
    pub(crate) out: Vec<Message>,
    /// Messages whose write is durable, held until membership changes are applied.
    pub(crate) gated: Vec<Message>,
    pub(crate) read_indexes: ReadIndexes,
    pub(crate) read_states: Vec<ReadState>,
    /// A durable snapshot that the state machine shall install.
    pub(crate) install: Option<SnapshotMeta>,
    pub(crate) reported_hard: HardState,
    pub(crate) reported_soft: SoftState,

    /// All ticks since the start.
    pub(crate) ticks: u64,
    /// Ticks since the last sign of a leader, or since the last quorum check of a leader.
    pub(crate) election_elapsed: u32,
    pub(crate) heartbeat_elapsed: u32,
    /// Set while this member knows of no leader but one whose process has ended: when it campaigns
    /// ahead of its timeout.
    pub(crate) early_campaign_at: Option<u64>,
    /// This election's timeout, drawn from `election_ticks..2 * election_ticks`.
    pub(crate) election_timeout: u32,
    /// Whom this leader hands over to.
    pub(crate) transferee: Option<MemberId>,
    /// No membership change is proposed until this index is applied.
    pub(crate) pending_conf_index: Index,
    entropy: Box<dyn Entropy>,
}

impl Raft {
    /// A follower with what its disk held.
    ///
    /// If `config.applied` is beyond the recovered commit index (the state machine's commit was
    /// durable, the hard state's not), the commit index is raised; if the log's last term is
    /// beyond the hard state's, the term is. Both are in the first [`Raft::ready`].
    ///
    /// # Errors
    /// Settings out of range, or recovered parts that contradict each other.
    pub fn new(
        config: Config,
        recovered: Recovered,
        entropy: Box<dyn Entropy>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let hard = recovered.hard_state;
        let conf_state = recovered.conf_state.clone();
        let log = Log::recover(recovered, config.applied)?;
        let (conf, progress) = Changer::restore(&conf_state, log.last(), config.max_inflight)
            .map_err(ConfigError::InvalidConfState)?;
        let unstable = Unstable::new(log.last());
        let mut raft = Self {
            term: hard.term,
            vote: hard.vote,
            leader: None,
            role: Role::Follower,
            unstable,
            tracker: Tracker::new(config.id, conf, progress),
            out: Vec::new(),
            gated: Vec::new(),
            read_indexes: ReadIndexes::default(),
            read_states: Vec::new(),
            install: None,
            reported_hard: hard,
            reported_soft: SoftState::default(),
            ticks: 0,
            election_elapsed: 0,
            heartbeat_elapsed: 0,
            early_campaign_at: None,
            election_timeout: 0,
            transferee: None,
            pending_conf_index: Index(0),
            entropy,
            config,
            log,
        };
        raft.become_follower(hard.term.max(raft.log.last_id().term), None);
        Ok(raft)
    }

    /// Lets one tick of time pass. A sole voter campaigns on its first tick; others when the
    /// election timeout has passed without a leader.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.election_elapsed = self.election_elapsed.saturating_add(1);
        if self.role == Role::Leader {
            self.tick_leader();
        } else if self.promotable() && self.is_election_due() {
            self.election_elapsed = 0;
            self.campaign();
        } else if self.role == Role::Follower && self.early_campaign_at == Some(self.ticks) {
            // The timeout runs on: those who know better do not answer.
            self.campaign();
        }
    }

    /// A sole voter has nobody to wait for, and then only for its own vote to be durable: campaigning
    /// anew meanwhile, it would never win on a disk that is slower than that.
    fn is_election_due(&self) -> bool {
        if self.tracker.is_sole_voter(self.id()) {
            return self.role == Role::Follower;
        }
        self.election_elapsed >= self.election_timeout
    }

    /// Lets the election clock of a member that does not lead run ahead by some ticks, though not
    /// so far that it campaigns: after a start, when others can be reached, waiting longer for a
    /// leader that they do not have is of no use.
    //= etcd 3.7.1: server/etcdserver/raft.go#advanceTicks
    pub fn advance_election(&mut self, ticks: u32) {
        if self.role != Role::Leader {
            let most = self.config.election_ticks.saturating_sub(1);
            let elapsed = self.election_elapsed.saturating_add(ticks).min(most);
            self.election_elapsed = elapsed.max(self.election_elapsed);
        }
    }

    /// The process of `peer` has ended: its connections broke and nobody listens there. If it led,
    /// this member asks for pre-votes within [`EARLY_CAMPAIGN_TICKS`] and grants them, instead of waiting
    /// out the timeout that tells a dead leader from a slow one. Whoever still hears from that
    /// leader grants none, so a report that is wrong changes no leader; a restarted process is a
    /// follower anyway. Ours: etcd waits for the timeout.
    pub fn peer_ended(&mut self, peer: MemberId) {
        let led = self.role == Role::Follower && self.leader == Some(peer);
        if led && self.config.pre_vote && self.early_campaign_at.is_none() {
            self.early_campaign_at =
                Some(self.ticks + 1 + self.entropy.below(EARLY_CAMPAIGN_TICKS));
        }
    }

    /// Starts an election now, unless this member leads, is not a voter, installs a snapshot, or
    /// has committed membership changes to apply first.
    pub fn campaign(&mut self) {
        self.hup(if self.config.pre_vote {
            crate::candidate::Campaign::PreVote
        } else {
            crate::candidate::Campaign::Election
        });
    }

    /// Handles a message from a peer.
    ///
    /// # Errors
    /// See [`StepError`]; nothing that a peer sends panics. An error is for the log and metrics:
    /// the member goes on.
    pub fn step(&mut self, message: Message) -> Result<(), StepError> {
        self.check(&message)?;
        self.receive(message)
    }

    /// Proposes one entry per element, in order, all or nothing. A follower sends them on to the
    /// leader, where they may still be dropped or lost.
    ///
    /// # Errors
    /// Nothing was proposed; see [`ProposeError`].
    pub fn propose(&mut self, batch: Vec<Bytes>) -> Result<(), ProposeError> {
        if batch.is_empty() {
            return Ok(());
        }
        match self.role {
            Role::Leader => self.append_as_leader(batch),
            Role::Follower => {
                let normal = |data| Proposal { kind: EntryKind::Normal, data };
                self.forward_proposals(self.id(), batch.into_iter().map(normal).collect())
            }
            Role::PreCandidate | Role::Candidate => Err(ProposeError::NoLeader),
        }
    }

    /// Proposes a membership change (version 1, the only one that etcd applies). On a follower it
    /// is sent on; the leader turns it into an empty entry if another change is unapplied.
    ///
    /// # Errors
    /// Nothing was proposed; see [`ProposeError`].
    pub fn propose_conf_change(&mut self, change: ConfChange) -> Result<(), ProposeError> {
        self.propose_change(EntryKind::ConfChange, change.encode(), &change.to_v2())
    }

    /// As [`Raft::propose_conf_change`], with version 2, which etcd's server refuses to apply:
    /// never for a cluster with Go members.
    ///
    /// # Errors
    /// Nothing was proposed; see [`ProposeError`].
    pub fn propose_conf_change_v2(&mut self, change: &ConfChangeV2) -> Result<(), ProposeError> {
        self.propose_change(EntryKind::ConfChangeV2, change.encode(), change)
    }

    fn propose_change(
        &mut self,
        kind: EntryKind,
        data: Bytes,
        change: &ConfChangeV2,
    ) -> Result<(), ProposeError> {
        let proposal = Proposal { kind, data };
        match self.role {
            Role::Leader => {
                self.conf_change_allowed(change, Index(0))?;
                self.propose_as_is(vec![proposal])
            }
            Role::Follower => self.forward_proposals(self.id(), vec![proposal]),
            Role::PreCandidate | Role::Candidate => Err(ProposeError::NoLeader),
        }
    }

    /// Proposes one entry, only if this member leads `term` and is not handing over. Never
    /// forwarded, so what a deposed leader decided does not reach its successor's log
    /// (invariant 9).
    ///
    /// # Errors
    /// [`NotLeader`] otherwise; nothing was proposed.
    pub fn propose_as_leader(&mut self, term: Term, data: Bytes) -> Result<(), NotLeader> {
        let refused = NotLeader { wanted: term, term: self.term };
        if self.role != Role::Leader || self.term != term {
            return Err(refused);
        }
        self.append_as_leader(vec![data]).map_err(|_| refused)
    }

    /// Asks for an index from which reads are linearizable. The answer comes as a
    /// [`ReadState`] with the same context; it may never come (no leader, lost messages): ask
    /// again with the same context after a while.
    pub fn read_index(&mut self, context: u64) {
        let context = Bytes::copy_from_slice(&context.to_be_bytes());
        match self.role {
            Role::Leader => self.read_index_as_leader(self.id(), context),
            Role::Follower => self.forward_read_index(self.id(), context),
            Role::PreCandidate | Role::Candidate => {}
        }
    }

    /// Hands leadership to `to`, a voter, if this member leads; otherwise asks the leader to.
    /// Gives up after an election timeout; proposals are refused meanwhile.
    pub fn transfer_leader(&mut self, to: MemberId) {
        match self.role {
            Role::Leader => self.transfer_to(to),
            Role::Follower => self.forward_transfer(to),
            Role::PreCandidate | Role::Candidate => {}
        }
    }

    /// A message to `peer` could not be delivered.
    pub fn report_unreachable(&mut self, peer: MemberId) {
        if self.role == Role::Leader {
            self.peer_unreachable(peer);
        }
    }

    /// The snapshot sent to `peer` has arrived, or failed.
    pub fn report_snapshot(&mut self, peer: MemberId, arrived: bool) {
        if self.role == Role::Leader {
            self.snapshot_reported(peer, arrived);
        }
    }

    /// The write `id`, and with it every earlier one, is durable.
    ///
    /// # Panics
    /// If `id` is not under way.
    pub fn persisted(&mut self, id: WriteId) {
        let completed = self.unstable.complete(id);
        if let Some(index) = completed.snapshot {
            self.snapshot_persisted(index);
        }
        self.release(completed.messages);
        if self.role == Role::Leader {
            self.acknowledge_own_log();
        }
    }

    /// The state machine has applied everything up to `index`; every membership change among it
    /// was reported by [`Raft::conf_applied`].
    ///
    /// # Panics
    /// If `index` was not handed out, or a membership change up to it was not reported.
    pub fn applied(&mut self, index: Index) {
        self.log.applied_to(index);
        if self.role == Role::Leader {
            self.leave_joint_if_due();
        }
    }

    /// The membership change at `index` was applied (`Some`) or rejected (`None`). Returns the
    /// membership now in force. Changes are reported in order, before [`Raft::applied`] passes
    /// them; one that a received snapshot covers has no effect.
    ///
    /// # Panics
    /// If `index` is not the next handed-out change, or the change is impossible, which
    /// [`Raft::check_conf_change`] tells beforehand.
    pub fn conf_applied(&mut self, index: Index, change: Option<ConfChange>) -> ConfState {
        self.conf_applied_v2(index, change.map(|change| change.to_v2()))
    }

    /// As [`Raft::conf_applied`], for an entry of kind `ConfChangeV2`.
    ///
    /// # Panics
    /// As [`Raft::conf_applied`].
    pub fn conf_applied_v2(&mut self, index: Index, change: Option<ConfChangeV2>) -> ConfState {
        if self.log.conf_applied(index) {
            if let Some(change) = change {
                let (conf, progress) = self
                    .changed(&change)
                    .unwrap_or_else(|error| panic!("impossible change at {index}: {error}"));
                self.tracker.switch(self.config.id, conf, progress);
            }
            if self.role == Role::Leader {
                self.conf_switched();
            }
        }
        self.conf_state()
    }

    /// Whether a change can be applied to the membership in force.
    ///
    /// # Errors
    /// Why not; such a change must be rejected.
    pub fn check_conf_change(&self, change: &ConfChange) -> Result<(), ConfChangeError> {
        self.check_conf_change_v2(&change.to_v2())
    }

    /// As [`Raft::check_conf_change`], for version 2.
    ///
    /// # Errors
    /// As [`Raft::check_conf_change`].
    pub fn check_conf_change_v2(&self, change: &ConfChangeV2) -> Result<(), ConfChangeError> {
        self.changed(change).map(|_| ())
    }

    /// Forgets the entries up to `to` in memory, but for the term of the last. A follower that
    /// needs them gets a snapshot.
    ///
    /// # Panics
    /// If `to` is not applied.
    pub fn compact(&mut self, to: Index) {
        self.log.compact(to);
    }

    /// This member.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.config.id
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Index of the last entry known to be committed.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.log.committed()
    }

    /// The leader of the current term, if known.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        self.leader
    }

    /// This member's part in the current term.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether this member leads and would take no membership change now, because its log may hold
    /// one that is not applied.
    #[must_use]
    pub fn has_unapplied_conf_change(&self) -> bool {
        self.role == Role::Leader && self.pending_conf_index > self.log.applied()
    }

    /// The membership in force.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        self.tracker.conf.clone()
    }

    /// The term of the entry at `index`, if it is in memory or the last one forgotten.
    #[must_use]
    pub fn entry_term(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    /// On a leader: ticks since it last knew of contact with a quorum (0 for a sole voter).
    #[must_use]
    pub fn quorum_contact_age(&self) -> Option<u64> {
        if self.role != Role::Leader {
            return None;
        }
        let reached = self.tracker.quorum_reached(|id| {
            if id == self.id() {
                return self.ticks;
            }
            self.tracker.progress.get(&id).map_or(0, |progress| progress.last_contact)
        });
        Some(self.ticks - reached.min(self.ticks))
    }

    /// A copy of the state, for metrics and the Status RPC.
    #[must_use]
    pub fn status(&self) -> Status {
        let peer = |(&id, progress): (&MemberId, &Progress)| PeerStatus {
            id,
            matched: progress.matched,
            next: progress.next,
            state: progress.state,
            learner: progress.learner,
            recent_active: progress.recent_active,
            paused: progress.is_paused(),
            inflight: progress.inflight(),
        };
        let progress = match self.role {
            Role::Leader => self.tracker.progress.iter().map(peer).collect(),
            _ => Vec::new(),
        };
        Status {
            id: self.id(),
            term: self.term,
            vote: self.vote,
            commit: self.log.committed(),
            applied: self.log.applied(),
            first: self.log.first(),
            last: self.log.last(),
            persisted: self.unstable.persisted(),
            leader: self.leader,
            role: self.role,
            transferee: self.transferee,
            conf_state: self.conf_state(),
            progress,
        }
    }

    // ---- Shared by the roles ----

    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<MemberId>) {
        self.reset(term);
        self.leader = leader;
        self.role = Role::Follower;
    }

    /// Forgets what belongs to a term or an election.
    pub(crate) fn reset(&mut self, term: Term) {
        if self.term != term {
            assert!(term > self.term, "terms never decrease");
            self.term = term;
            self.vote = None;
        }
        self.leader = None;
        self.election_elapsed = 0;
        self.heartbeat_elapsed = 0;
        self.early_campaign_at = None;
        let jitter = self.entropy.below(u64::from(self.config.election_ticks));
        self.election_timeout = self.config.election_ticks.saturating_add(jitter as u32);
        self.transferee = None;
        self.tracker.reset_votes();
        let (next, persisted) = (self.log.last().next(), self.unstable.persisted());
        for (&id, progress) in &mut self.tracker.progress {
            *progress = Progress::new(next, self.config.max_inflight, progress.learner);
            if id == self.config.id {
                progress.matched = persisted;
            }
        }
        self.pending_conf_index = Index(0);
        self.read_indexes.reset();
    }

    /// Whether this member may become a leader.
    pub(crate) fn promotable(&self) -> bool {
        self.log.installing().is_none()
            && self.tracker.progress.get(&self.id()).is_some_and(|progress| !progress.learner)
    }

    /// Sends a message that promises nothing about the disk.
    pub(crate) fn send(&mut self, to: MemberId, body: Body) {
        let term = match body {
            Body::Propose(_) | Body::ReadIndex { .. } => Term(0),
            _ => self.term,
        };
        self.send_as(self.id(), to, term, body);
    }

    /// As [`Raft::send`], on behalf of `from`.
    pub(crate) fn send_as(&mut self, from: MemberId, to: MemberId, term: Term, body: Body) {
        self.out.push(Message { from, to, term, body });
    }

    /// Sends a message once everything that is in memory now is durable (invariant 2).
    pub(crate) fn send_durable(&mut self, to: MemberId, body: Body) {
        self.send_durable_at(to, self.term, body);
    }

    /// As [`Raft::send_durable`], with another term than the current.
    pub(crate) fn send_durable_at(&mut self, to: MemberId, term: Term, body: Body) {
        self.unstable.hold(Message { from: self.id(), to, term, body });
    }

    /// The membership after `change`.
    pub(crate) fn changed(
        &self,
        change: &ConfChangeV2,
    ) -> Result<(ConfState, std::collections::BTreeMap<MemberId, Progress>), ConfChangeError> {
        Changer::new(
            &self.tracker.conf,
            &self.tracker.progress,
            self.log.last(),
            self.config.max_inflight,
        )
        .apply(change)
    }
}
