//! One process of a member: the four automata, their inboxes, and what they have yet to send.
//!
//! As in the server (`shell/server/src/threads`) an automaton takes its inbox, handles it, and
//! then sends its outputs one by one in the same fixed order; others run between any two of them.
//! Invariant: an automaton handles nothing while it still has something to send.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::membershippb;
use env::mem::MemDisk;
use env::{Disk, HashSeed, Hooks, Instant, MayBlock, SplitMix};
use handover::{Notifier, Slot};
use machine::{ApplyConfig, Member};
use member::{
    Applier, ApplierInput, ApplierOutput, BackendCommitted, Committed, Committer, CommitterInput,
    CommitterOutput, LogInput, LogWriter, MemberView, Node, NodeConfig, NodeInput, NodeOutput,
    NodeStatus, OutgoingSnapshot, Parts, PeerChange, RaftSnapshot, Reply, Sealed, StartConfig,
    StartError, Tokens, start,
};
use raft::Message;
use store::Store;
use types::{ClusterId, Index, LeaseId, MemberId, ReplyToken, RequestId, WriteId};

use crate::checks::Checks;
use crate::clock::Clock;
use crate::inbox::Inbox;
use crate::options::Options;
use crate::plant::Plant;
use crate::trace::Trace;

/// The directory of the simulated member.
const DIR: &str = "/d/member";
/// Ticks in an election timeout.
const ELECTION_TICKS: u32 = 10;

/// One of the automata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Automaton {
    Node,
    Log,
    Applier,
    Committer,
}

impl Automaton {
    pub(crate) const ALL: [Automaton; 4] =
        [Automaton::Node, Automaton::Log, Automaton::Applier, Automaton::Committer];
}

/// Something to be sent.
enum Send {
    ToLog(LogInput),
    ToApplier(ApplierInput),
    ToNode(NodeInput),
    ToCommitter(CommitterInput),
    View(Box<MemberView>),
    Status(NodeStatus),
    Replies(Vec<(ReplyToken, Reply)>),
    ToPeers(Vec<Message>),
    Peer(PeerChange),
    Snapshot(OutgoingSnapshot),
    Removed,
}

/// Who a process is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: MemberId,
    /// How many members found the cluster; none if this one joins.
    pub(crate) founders: usize,
    /// Members of the cluster that this one joins.
    pub(crate) remotes: Vec<MemberId>,
}

/// What is published to the calls, as in the server.
pub(crate) struct Published {
    pub(crate) view: Arc<Slot<MemberView>>,
    pub(crate) status: Arc<Slot<NodeStatus>>,
    pub(crate) notifiers: Arc<[Notifier]>,
    pub(crate) learner: Arc<AtomicBool>,
}

/// What leaves a process for its peer plane.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) messages: Vec<Message>,
    pub(crate) snapshots: Vec<OutgoingSnapshot>,
}

/// A running process.
pub(crate) struct Process {
    pub(crate) id: MemberId,
    node: Node,
    log: LogWriter,
    applier: Applier,
    committer: Committer,
    pub(crate) to_node: Inbox<NodeInput>,
    to_log: Inbox<LogInput>,
    pub(crate) to_applier: Inbox<ApplierInput>,
    to_committer: Inbox<CommitterInput>,
    /// What each automaton has still to send.
    sending: [VecDeque<Send>; 4],
    /// Until when each automaton stands still.
    pub(crate) stalled: [u64; 4],
    /// The published View and state, as the shell sees them.
    pub(crate) view: Arc<MemberView>,
    pub(crate) status: NodeStatus,
    pub(crate) shared: Published,
    /// The tokens of those who logged in, where users call.
    pub(crate) tokens: Option<Arc<Tokens>>,
    pub(crate) replies: VecDeque<(ReplyToken, Reply)>,
    /// The monotonic clock of this boot.
    pub(crate) clock: Clock,
    pub(crate) out: Outbox,
    /// Whom the peer plane writes to, and whom it only answers.
    pub(crate) peers: BTreeSet<MemberId>,
    pub(crate) remotes: BTreeSet<MemberId>,
    /// Node says that this member was removed.
    pub(crate) removed: bool,
    /// The last entry that the log writer has said is durable, with what is on its way to it.
    durable: Durable,
    keep: u32,
    purge: Duration,
    next_purge: Instant,
    plant: Option<Plant>,
    /// Writes that Node was told of too early, by plan.
    told_early: Vec<WriteId>,
    /// A vote was kept from the log, by plan.
    pub(crate) lost_vote: bool,
    /// The newest batch on its way to the backend, for the planted early snapshot.
    newest_batch: Option<BackendCommitted>,
    /// Snapshots recorded since this was last looked at.
    pub(crate) snapshots: u64,
    /// Snapshots of peers installed, likewise.
    pub(crate) installs: u64,
    /// Planted: entries up to here were applied before they were durable.
    applied_ahead: Index,
    /// The planted commit of an index was made; its effects follow.
    index_ahead: bool,
}

/// What the log holds durably, by what was handed to its writer and what it said.
#[derive(Debug, Default)]
struct Durable {
    last: Index,
    /// Writes on their way: the last entry of each, if it has any.
    writes: VecDeque<(WriteId, Option<Index>)>,
}

impl Durable {
    fn wrote(&mut self, persist: &raft::Persist) {
        let snapshot = persist.snapshot.as_ref().map(|meta| meta.index);
        let last = persist.entries.last().map(|entry| entry.index).or(snapshot);
        if let Some(first) = persist.entries.first() {
            // What follows is replaced: it does not count from here on.
            let before = Index(first.index.0 - 1);
            self.last = self.last.min(before);
            for (_, last) in &mut self.writes {
                *last = last.map(|last| last.min(before));
            }
        }
        self.writes.push_back((persist.id, last));
    }

    fn persisted(&mut self, id: WriteId) {
        while self.writes.front().is_some_and(|(write, _)| *write <= id) {
            let (_, last) = self.writes.pop_front().expect("there is one");
            self.last = last.unwrap_or(self.last).max(self.last);
        }
    }
}

/// Where a member keeps its log.
pub(crate) fn wal_dir() -> PathBuf {
    PathBuf::from(DIR).join("wal")
}

/// Where a member keeps its database.
pub(crate) fn snap_dir() -> PathBuf {
    PathBuf::from(DIR).join("snap")
}

/// The URL at which members reach the machine at a place. Nobody dials it.
pub(crate) fn peer_url(place: usize) -> String {
    format!("http://m{place}:2380")
}

/// The machine of a URL.
pub(crate) fn place_of(url: &str) -> Option<usize> {
    url.strip_prefix("http://m")?.strip_suffix(":2380")?.parse().ok()
}

/// The id of a founding member, by its place.
pub(crate) fn founder_id(place: usize) -> MemberId {
    MemberId(7 + place as u64)
}

/// Where the request ids of a boot begin: no two boots of all members share any.
pub(crate) fn request_ids(member: MemberId, boot: u64) -> u64 {
    (member.0 & 0xffff) << 48 | (boot + 1) << 32
}

/// No result may depend on it.
pub(crate) fn hash_seed() -> HashSeed {
    HashSeed::draw(&mut SplitMix::new(1))
}

fn config(options: &Options, identity: &Identity, boot: u64, hooks: Hooks) -> StartConfig {
    let member = identity.id;
    let attributes = membershippb::Attributes {
        name: format!("m{}", member.0),
        client_urls: vec![format!("http://m{}:2379", member.0)],
    };
    let founder = |place: usize| Member {
        id: founder_id(place).0,
        peer_urls: Some(vec![peer_url(place)]),
        name: format!("m{}", founder_id(place).0),
        ..Member::default()
    };
    let election = options.election();
    let election_ms = election.as_millis() as u64;
    StartConfig {
        snap_dir: snap_dir(),
        wal_dir: wal_dir(),
        member,
        cluster: ClusterId(9),
        founders: (0..identity.founders).map(founder).collect(),
        node: NodeConfig {
            id: member,
            tick: Duration::from_millis(election_ms / u64::from(ELECTION_TICKS)),
            election,
            snapshot_count: options.snapshot_count,
            catchup_entries: options.catchup_entries,
            attributes,
            cluster_version: types::CLUSTER_VERSION.to_owned(),
            lease_checkpoints: false,
            first_request_id: RequestId(request_ids(member, boot) | 1 << 31),
        },
        apply: ApplyConfig {
            id: member,
            // Three halves of the election timeout, upwards.
            min_lease_ttl: (election_ms * 3 / 2).div_ceil(1_000) as i64,
            max_learners: 1,
            quota_bytes: options.quota_bytes,
            persist_checkpoints: false,
            hash_seed: hash_seed(),
        },
        commit: options.commit,
        limits: options.limits,
        election_ticks: ELECTION_TICKS,
        pre_vote: true,
        unsafe_no_fsync: false,
        force_new_cluster: false,
        hooks,
    }
}

impl Process {
    /// Starts the member on what the disk holds.
    pub(crate) fn start(
        options: &Options,
        identity: &Identity,
        disk: &MemDisk,
        boot: u64,
        (now, clock): (u64, Clock),
        entropy: SplitMix,
        (plant, hooks, tokens): (Option<Plant>, Hooks, Option<Arc<Tokens>>),
    ) -> Result<Self, StartError> {
        let may = MayBlock::on_this_thread();
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let begin = clock.at(now);
        let config = config(options, identity, boot, hooks);
        let parts = start(disk, &may, begin, config, Box::new(entropy))?;
        let Parts { node, log_writer, mut applier, committer, .. } = parts;
        if let Some(tokens) = &tokens {
            applier.set_tokens(Arc::clone(tokens));
        }
        let shared = Published {
            view: Arc::new(Slot::new(applier.view())),
            status: Arc::new(Slot::new(NodeStatus::default())),
            notifiers: [Notifier::default()].into(),
            learner: Arc::default(),
        };
        let view = shared.view.load();
        let own = identity.id;
        let peers = view.members.iter().map(|m| MemberId(m.id)).filter(|id| *id != own).collect();
        let remotes = identity.remotes.iter().copied().filter(|id| *id != own).collect();
        // What a start finds in the log is synced by it.
        let durable = Durable { last: Index(u64::MAX), writes: VecDeque::new() };
        let purge = Duration::from_millis(options.purge_ms);
        Ok(Self {
            id: own,
            peers,
            remotes,
            out: Outbox::default(),
            removed: false,
            durable,
            node,
            log: log_writer,
            applier,
            committer,
            to_node: Inbox::default(),
            to_log: Inbox::default(),
            to_applier: Inbox::default(),
            to_committer: Inbox::default(),
            sending: Default::default(),
            stalled: [0; 4],
            view,
            shared,
            tokens,
            status: NodeStatus::default(),
            replies: VecDeque::new(),
            clock,
            keep: options.keep,
            purge,
            next_purge: begin + purge,
            plant,
            told_early: Vec::new(),
            lost_vote: false,
            newest_batch: None,
            snapshots: 0,
            installs: 0,
            applied_ahead: Index(0),
            index_ahead: false,
        })
    }

    /// When an automaton has something to do: now, later, or not before it gets a message.
    pub(crate) fn due(&self, which: Automaton, now: u64) -> Option<u64> {
        let inbox_empty = match which {
            Automaton::Node => self.to_node.is_empty(),
            Automaton::Log => self.to_log.is_empty(),
            Automaton::Applier => self.to_applier.is_empty(),
            Automaton::Committer => self.to_committer.is_empty(),
        };
        let at = |deadline: Instant| self.clock.when(deadline).max(now);
        let due = if !inbox_empty || !self.sending[which as usize].is_empty() {
            now
        } else {
            match which {
                Automaton::Node => at(self.node.deadline()),
                Automaton::Log => at(self.next_purge),
                Automaton::Applier => at(self.applier.deadline()?),
                Automaton::Committer => at(self.committer.deadline()?),
            }
        };
        Some(due.max(self.stalled[which as usize]))
    }

    /// One step of an automaton: it sends one output, or handles its inbox if it has none.
    ///
    /// # Errors
    /// The process ends, as the server's does.
    pub(crate) fn step(
        &mut self,
        which: Automaton,
        now: u64,
        entropy: &mut SplitMix,
        trace: &mut Trace,
        checks: &mut Checks,
    ) -> Result<(), String> {
        if let Some(send) = self.sending[which as usize].pop_front() {
            return self.send(send, checks);
        }
        let clock = self.clock.at(now);
        let id = self.id;
        match which {
            Automaton::Node => {
                let mut inputs = self.to_node.take(entropy);
                trace.event(now, format_args!("{id} node {}", inputs.len()));
                self.handle_node(clock, &mut inputs);
                Ok(())
            }
            Automaton::Log => {
                let mut inputs = self.to_log.take(entropy);
                trace.event(now, format_args!("{id} log {}", inputs.len()));
                self.handle_log(clock, &mut inputs)
            }
            Automaton::Applier => {
                let mut inputs = self.to_applier.take(entropy);
                trace.event(now, format_args!("{id} apply {}", inputs.len()));
                self.handle_applier(clock, &mut inputs, checks)
            }
            Automaton::Committer => {
                let mut inputs = self.to_committer.take(entropy);
                trace.event(now, format_args!("{id} commit {}", inputs.len()));
                self.handle_committer(clock, &mut inputs)
            }
        }
    }

    fn handle_node(&mut self, clock: Instant, inputs: &mut Vec<NodeInput>) {
        let mut out = NodeOutput::default();
        self.node.handle(clock, inputs, &mut out);
        if self.plant == Some(Plant::ApplyAhead) {
            self.apply_ahead(&mut out);
        }
        let sending = &mut self.sending[Automaton::Node as usize];
        // The server's order: the log first.
        sending.extend(out.log.into_iter().map(Send::ToLog));
        sending.extend(out.peers.into_iter().map(Send::Peer));
        if !out.messages.is_empty() {
            sending.push_back(Send::ToPeers(out.messages));
        }
        let committed = out.committed.into_iter().map(ApplierInput::Committed);
        sending.extend(committed.map(Send::ToApplier));
        sending.extend(out.install.map(|meta| Send::ToApplier(ApplierInput::Install(meta))));
        let saved = out.snapshot_saved.map(ApplierInput::SnapshotSaved);
        sending.extend(saved.map(Send::ToApplier));
        let wanted = out.snapshots.into_iter().map(CommitterInput::Snapshot);
        sending.extend(wanted.map(Send::ToCommitter));
        let save = out.save_snapshot.map(CommitterInput::SaveSnapshot);
        sending.extend(save.map(Send::ToCommitter));
        if out.flush {
            sending.push_back(Send::ToCommitter(CommitterInput::Flush));
        }
        sending.extend(out.status.map(Send::Status));
        if !out.replies.is_empty() {
            sending.push_back(Send::Replies(out.replies));
        }
        if out.removed {
            sending.push_back(Send::Removed);
        }
    }

    /// Planted: what is written and known to be committed is applied at once.
    fn apply_ahead(&mut self, out: &mut NodeOutput) {
        let commit = out.status.map_or(self.status.commit, |status| status.commit);
        out.committed.retain(|committed| committed.entry.index > self.applied_ahead);
        let mut ahead = Vec::new();
        for input in &out.log {
            let LogInput::Persist(persist) = input else { continue };
            let known = persist.entries.iter().filter(|entry| entry.index <= commit);
            ahead.extend(known.map(|entry| Committed { entry: entry.clone(), token: None }));
        }
        if let Some(last) = ahead.last().filter(|_| out.committed.is_empty()) {
            self.applied_ahead = last.entry.index;
            out.committed = ahead;
        }
    }

    /// The leases that there are, and when they would end if nobody renewed them any more.
    pub(crate) fn leases(&self, now: u64) -> Vec<(u64, i64)> {
        let leases = self.applier.machine().leases().iter();
        let end = |ttl: i64| now + u64::try_from(ttl).unwrap_or(0) * 1_000_000_000;
        let mut ends: Vec<_> = leases.map(|(id, lease)| (end(lease.ttl), id.0)).collect();
        ends.sort_unstable();
        ends
    }

    /// A lease's time to live as granted, if there is such a lease.
    pub(crate) fn ttl(&self, lease: LeaseId) -> Option<i64> {
        let mut leases = self.applier.machine().leases().iter();
        leases.find(|(id, _)| *id == lease).map(|(_, lease)| lease.ttl)
    }

    fn handle_log(&mut self, clock: Instant, inputs: &mut Vec<LogInput>) -> Result<(), String> {
        let may = MayBlock::on_this_thread();
        let mut done = Vec::new();
        self.log.handle(&may, inputs, &mut done).map_err(|e| e.to_string())?;
        let told_early = &mut self.told_early;
        let recorded = done.iter().filter(|i| matches!(i, NodeInput::SnapshotSaved(_))).count();
        self.snapshots += recorded as u64;
        done.retain(|input| match input {
            NodeInput::Persisted(id) => !told_early.contains(id),
            _ => true,
        });
        self.sending[Automaton::Log as usize].extend(done.into_iter().map(Send::ToNode));
        if clock >= self.next_purge {
            self.next_purge = clock + self.purge;
            // What could not be deleted now is tried again the next time.
            let _ = self.log.purge(&may, self.keep, self.keep);
        }
        Ok(())
    }

    fn handle_applier(
        &mut self,
        clock: Instant,
        inputs: &mut Vec<ApplierInput>,
        checks: &mut Checks,
    ) -> Result<(), String> {
        let may = MayBlock::on_this_thread();
        let mut out = ApplierOutput::default();
        self.applier.handle(&may, clock, inputs, &mut out).map_err(|e| e.to_string())?;
        if let Some(view) = &out.view {
            checks.applied(self.id, view, self.applier.machine().leases())?;
        }
        let sending = &mut self.sending[Automaton::Applier as usize];
        // The server's order: events, then the View, then the replies. Watchers look at the View
        // when it is their turn; the notifier of the server only wakes them.
        sending.extend(out.node.into_iter().map(Send::ToNode));
        let view = out.view.map(|view| Send::View(Box::new(view)));
        let replies = (!out.replies.is_empty()).then_some(Send::Replies(out.replies));
        if self.plant == Some(Plant::ViewAfterReply) {
            sending.extend(replies.into_iter().chain(view));
        } else {
            sending.extend(view.into_iter().chain(replies));
        }
        sending.extend(out.holds.map(|holds| Send::ToCommitter(CommitterInput::Holds(holds))));
        let batches = out.batches.into_iter().map(CommitterInput::Batch);
        sending.extend(batches.map(Send::ToCommitter));
        if out.flush {
            sending.push_back(Send::ToCommitter(CommitterInput::Flush));
        }
        if out.defragment {
            sending.push_back(Send::ToCommitter(CommitterInput::Defragment));
        }
        sending.extend(out.install.map(|meta| Send::ToCommitter(CommitterInput::Install(meta))));
        Ok(())
    }

    fn handle_committer(
        &mut self,
        clock: Instant,
        inputs: &mut Vec<CommitterInput>,
    ) -> Result<(), String> {
        let may = MayBlock::on_this_thread();
        let mut done = CommitterOutput::default();
        if self.plant == Some(Plant::IndexApart) {
            self.commit_index_apart(&may, clock, inputs)?;
        }
        self.committer.handle(&may, clock, inputs, &mut done).map_err(|e| e.to_string())?;
        let sending = &mut self.sending[Automaton::Committer as usize];
        sending.extend(done.applier.into_iter().map(Send::ToApplier));
        sending.extend(done.snapshots.into_iter().map(Send::Snapshot));
        let committed = done.node.into_iter().map(NodeInput::BackendCommitted);
        sending.extend(committed.map(Send::ToNode));
        let saved = done.saved.into_iter().map(NodeInput::SnapshotFileSaved);
        sending.extend(saved.map(Send::ToNode));
        Ok(())
    }

    /// Planted: the index of what is to be written goes into a transaction of its own, and the
    /// rest comes in another turn.
    fn commit_index_apart(
        &mut self,
        may: &MayBlock,
        clock: Instant,
        inputs: &mut Vec<CommitterInput>,
    ) -> Result<(), String> {
        let newest = inputs.iter().rev().find_map(|input| match input {
            CommitterInput::Batch(sealed) if sealed.batch.op_count() > 0 => Some(sealed.clone()),
            _ => None,
        });
        let Some(sealed) = newest.filter(|_| !std::mem::take(&mut self.index_ahead)) else {
            return Ok(());
        };
        let batch = Store::empty().seal(sealed.batch.last_index(), sealed.batch.term(), None);
        let index = Sealed { batch, members: sealed.members };
        let mut only = vec![CommitterInput::Batch(index), CommitterInput::Flush];
        let mut unseen = CommitterOutput::default();
        self.committer.handle(may, clock, &mut only, &mut unseen).map_err(|e| e.to_string())?;
        self.to_committer.put_back(inputs);
        self.index_ahead = true;
        Ok(())
    }

    fn send(&mut self, send: Send, checks: &mut Checks) -> Result<(), String> {
        match send {
            Send::ToLog(mut input) => {
                self.hand_to_log(&mut input);
                self.to_log.push(input);
            }
            Send::ToApplier(input) => {
                if let ApplierInput::Committed(committed) = &input {
                    checks.committed(self.id, &committed.entry, self.durable.last)?;
                }
                self.to_applier.push(input);
            }
            Send::ToNode(input) => {
                self.installs += u64::from(matches!(input, NodeInput::Installed(_)));
                if let NodeInput::Persisted(id) = &input {
                    self.durable.persisted(*id);
                }
                self.to_node.push(input);
            }
            Send::ToCommitter(input) => self.send_to_committer(input),
            Send::View(view) => {
                let before = self.view.store.revision();
                let own = view.members.get(self.id);
                self.shared.learner.store(own.is_some_and(|m| m.is_learner), Ordering::Relaxed);
                drop(self.shared.view.store(*view));
                self.view = self.shared.view.load();
                if self.view.store.revision() > before {
                    self.shared.notifiers.iter().for_each(Notifier::notify);
                }
            }
            Send::Status(status) => {
                checks.status(self.id, &self.status, &status)?;
                self.status = status;
                self.shared.status.store(status);
            }
            Send::Replies(replies) => self.replies.extend(replies),
            Send::ToPeers(messages) => {
                for message in &messages {
                    checks.sent(self.id, message)?;
                }
                self.out.messages.extend(messages);
            }
            Send::Peer(PeerChange::Set { id, .. }) => {
                self.peers.insert(id);
            }
            Send::Peer(PeerChange::Remove(id)) => {
                self.peers.remove(&id);
                self.remotes.remove(&id);
            }
            Send::Snapshot(snapshot) => self.out.snapshots.push(snapshot),
            Send::Removed => self.removed = true,
        }
        Ok(())
    }

    fn hand_to_log(&mut self, input: &mut LogInput) {
        let persist = match input {
            LogInput::Persist(persist) | LogInput::Received { persist, .. } => persist,
            LogInput::Snapshot(_) => return,
        };
        self.durable.wrote(persist);
        if self.plant == Some(Plant::EarlyAcknowledgement) {
            self.told_early.push(persist.id);
            self.durable.persisted(persist.id);
            self.to_node.push(NodeInput::Persisted(persist.id));
        }
        if let (Some(Plant::VoteNotPersisted), Some(state)) = (self.plant, &mut persist.hard_state)
        {
            self.lost_vote |= state.vote.take().is_some();
        }
    }

    fn send_to_committer(&mut self, input: CommitterInput) {
        if let CommitterInput::Batch(sealed) = &input {
            self.newest_batch = Some(BackendCommitted {
                index: sealed.batch.last_index(),
                term: sealed.batch.term(),
                members: Arc::clone(&sealed.members),
            });
        }
        if let (Some(Plant::SnapshotAhead), CommitterInput::Flush, Some(newest)) =
            (self.plant, &input, &self.newest_batch)
        {
            // Committer writes batches before the files that are asked for behind them, so the
            // record is planted without it.
            let snapshot = RaftSnapshot {
                index: newest.index,
                term: newest.term,
                conf_state: newest.members.conf_state(),
                data: machine::membership::v2_store_json(&newest.members),
            };
            self.to_node.push(NodeInput::SnapshotFileSaved(snapshot));
        }
        self.to_committer.push(input);
    }
}
