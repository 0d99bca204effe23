//! One process of a member: the four automata, their inboxes, and what they have yet to send.
//!
//! As in the server (`shell/server/src/threads.rs`) an automaton takes its inbox, handles it, and
//! then sends its outputs one by one in the same fixed order; others run between any two of them.
//! Invariant: an automaton handles nothing while it still has something to send.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::membershippb;
use env::mem::MemDisk;
use env::{Disk, Instant, MayBlock, SplitMix};
use machine::{ApplyConfig, Member};
use member::{
    Applier, ApplierInput, ApplierOutput, BackendCommitted, Committer, CommitterInput,
    CommitterOutput, LogInput, LogWriter, MemberView, Node, NodeConfig, NodeInput, NodeOutput,
    NodeStatus, Parts, Reply, Sealed, StartConfig, StartError, start,
};
use store::Store;
use types::{ClusterId, MemberId, ReplyToken, RequestId, WriteId};

use crate::inbox::Inbox;
use crate::options::Options;
use crate::plant::Plant;
use crate::trace::Trace;

/// The directory of the simulated member.
const DIR: &str = "/d/member";
/// Milliseconds of a tick and of an election timeout.
const TICK_MS: u64 = 100;
const ELECTION_MS: u64 = 1_000;
/// Shortest lease, in seconds: three halves of the election timeout, upwards.
pub(crate) const MIN_LEASE_TTL: i64 = 2;

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
}

/// A running process.
pub(crate) struct Process {
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
    pub(crate) replies: VecDeque<(ReplyToken, Reply)>,
    /// What the monotonic clock of this boot shows at time 0.
    clock_offset: u64,
    keep: u32,
    purge: Duration,
    next_purge: Instant,
    plant: Option<Plant>,
    /// Writes that Node was told of too early, by plan.
    told_early: Vec<WriteId>,
    /// The newest batch on its way to the backend, for the planted early snapshot.
    newest_batch: Option<BackendCommitted>,
    /// Snapshots recorded since this was last looked at.
    pub(crate) snapshots: u64,
    /// The planted commit of an index was made; its effects follow.
    index_ahead: bool,
}

fn config(options: &Options, boot: u64) -> StartConfig {
    let member = MemberId(7);
    let attributes = membershippb::Attributes {
        name: "m".to_owned(),
        client_urls: vec!["http://localhost:2379".to_owned()],
    };
    StartConfig {
        snap_dir: PathBuf::from(DIR).join("snap"),
        wal_dir: PathBuf::from(DIR).join("wal"),
        member,
        cluster: ClusterId(9),
        founders: vec![Member {
            id: member.0,
            peer_urls: Some(vec!["http://localhost:2380".to_owned()]),
            name: "m".to_owned(),
            ..Member::default()
        }],
        node: NodeConfig {
            id: member,
            tick: Duration::from_millis(TICK_MS),
            election: Duration::from_millis(ELECTION_MS),
            snapshot_count: options.snapshot_count,
            catchup_entries: options.catchup_entries,
            attributes,
            cluster_version: types::CLUSTER_VERSION.to_owned(),
            lease_checkpoints: false,
            first_request_id: RequestId((boot + 1) << 40 | 1 << 39),
        },
        apply: ApplyConfig {
            id: member,
            min_lease_ttl: MIN_LEASE_TTL,
            max_learners: 1,
            quota_bytes: options.quota_bytes,
            persist_checkpoints: false,
        },
        commit: options.commit,
        limits: options.limits,
        election_ticks: u32::try_from(ELECTION_MS / TICK_MS).expect("a small number"),
        pre_vote: true,
        unsafe_no_fsync: false,
        force_new_cluster: false,
    }
}

impl Process {
    /// Starts the member on what the disk holds.
    pub(crate) fn start(
        options: &Options,
        disk: &MemDisk,
        boot: u64,
        (now, clock_offset): (u64, u64),
        entropy: SplitMix,
        plant: Option<Plant>,
    ) -> Result<Self, StartError> {
        let may = MayBlock::on_this_thread();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let begin = Instant(now + clock_offset);
        let config = config(options, boot);
        let parts = start(shared, &may, begin, config, Box::new(entropy))?;
        let Parts { node, log_writer, applier, committer, .. } = parts;
        let view = Arc::new(applier.view());
        let purge = Duration::from_millis(options.purge_ms);
        Ok(Self {
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
            status: NodeStatus::default(),
            replies: VecDeque::new(),
            clock_offset,
            keep: options.keep,
            purge,
            next_purge: begin + purge,
            plant,
            told_early: Vec::new(),
            newest_batch: None,
            snapshots: 0,
            index_ahead: false,
        })
    }

    fn clock(&self, now: u64) -> Instant {
        Instant(now + self.clock_offset)
    }

    /// When an automaton has something to do: now, later, or not before it gets a message.
    pub(crate) fn due(&self, which: Automaton, now: u64) -> Option<u64> {
        let inbox_empty = match which {
            Automaton::Node => self.to_node.is_empty(),
            Automaton::Log => self.to_log.is_empty(),
            Automaton::Applier => self.to_applier.is_empty(),
            Automaton::Committer => self.to_committer.is_empty(),
        };
        let at = |deadline: Instant| deadline.0.saturating_sub(self.clock_offset).max(now);
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
    ) -> Result<(), String> {
        if let Some(send) = self.sending[which as usize].pop_front() {
            self.send(send);
            return Ok(());
        }
        let clock = self.clock(now);
        match which {
            Automaton::Node => {
                let mut inputs = self.to_node.take(entropy);
                trace.event(now, format_args!("node {}", inputs.len()));
                self.handle_node(clock, &mut inputs);
                Ok(())
            }
            Automaton::Log => {
                let mut inputs = self.to_log.take(entropy);
                trace.event(now, format_args!("log {}", inputs.len()));
                self.handle_log(clock, &mut inputs)
            }
            Automaton::Applier => {
                let mut inputs = self.to_applier.take(entropy);
                trace.event(now, format_args!("apply {}", inputs.len()));
                self.handle_applier(clock, &mut inputs)
            }
            Automaton::Committer => {
                let mut inputs = self.to_committer.take(entropy);
                trace.event(now, format_args!("commit {}", inputs.len()));
                self.handle_committer(clock, &mut inputs)
            }
        }
    }

    fn handle_node(&mut self, clock: Instant, inputs: &mut Vec<NodeInput>) {
        let mut out = NodeOutput::default();
        self.node.handle(clock, inputs, &mut out);
        let sending = &mut self.sending[Automaton::Node as usize];
        // The server's order: the log first.
        sending.extend(out.log.into_iter().map(Send::ToLog));
        let committed = out.committed.into_iter().map(ApplierInput::Committed);
        sending.extend(committed.map(Send::ToApplier));
        if out.flush {
            sending.push_back(Send::ToCommitter(CommitterInput::Flush));
        }
        sending.extend(out.status.map(Send::Status));
        if !out.replies.is_empty() {
            sending.push_back(Send::Replies(out.replies));
        }
        assert!(out.messages.is_empty(), "a sole member has nobody to write to");
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
    ) -> Result<(), String> {
        let may = MayBlock::on_this_thread();
        let mut out = ApplierOutput::default();
        self.applier.handle(&may, clock, inputs, &mut out).map_err(|e| e.to_string())?;
        let sending = &mut self.sending[Automaton::Applier as usize];
        // The server's order: events, then the View, then the replies. Watchers look at the View
        // when it is their turn; the server's bell only wakes them.
        sending.extend(out.node.into_iter().map(Send::ToNode));
        let view = out.view.map(|view| Send::View(Box::new(view)));
        let replies = (!out.replies.is_empty()).then_some(Send::Replies(out.replies));
        if self.plant == Some(Plant::ViewAfterReply) {
            sending.extend(replies.into_iter().chain(view));
        } else {
            sending.extend(view.into_iter().chain(replies));
        }
        let batches = out.batches.into_iter().map(CommitterInput::Batch);
        sending.extend(batches.map(Send::ToCommitter));
        if out.flush {
            sending.push_back(Send::ToCommitter(CommitterInput::Flush));
        }
        if out.defragment {
            sending.push_back(Send::ToCommitter(CommitterInput::Defragment));
        }
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
        let committed = done.node.into_iter().map(NodeInput::BackendCommitted);
        sending.extend(committed.map(Send::ToNode));
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

    fn send(&mut self, send: Send) {
        match send {
            Send::ToLog(input) => {
                if let (Some(Plant::EarlyAcknowledgement), LogInput::Persist(p)) =
                    (self.plant, &input)
                {
                    self.told_early.push(p.id);
                    self.to_node.push(NodeInput::Persisted(p.id));
                }
                self.to_log.push(input);
            }
            Send::ToApplier(input) => self.to_applier.push(input),
            Send::ToNode(input) => self.to_node.push(input),
            Send::ToCommitter(input) => self.send_to_committer(input),
            // The old View is dropped here, outside the slot, as in the server.
            Send::View(view) => self.view = Arc::new(*view),
            Send::Status(status) => self.status = status,
            Send::Replies(replies) => self.replies.extend(replies),
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
            self.to_node.push(NodeInput::BackendCommitted(newest.clone()));
        }
        self.to_committer.push(input);
    }
}
