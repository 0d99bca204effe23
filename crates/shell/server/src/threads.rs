//! The threads that run the automata, joined by bounded inboxes.
//!
//! | thread | runs | never waits for |
//! |---|---|---|
//! | node | Node | disk, apply |
//! | log | LogWriter | apply |
//! | apply | Applier | fsync |
//! | commit | Committer | clients |
//!
//! A panic or a fatal error on any of them ends the process: what was acknowledged is on disk, and
//! nothing more may be acknowledged (invariant 10).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use env::{Failpoint, Failpoints, Instant, MayBlock};
use handover::{Inbox, Notifier, Slot};
use machine::Members;
use member::{
    Applier, ApplierInput, ApplierOutput, CommitFailure, Committer, CommitterInput,
    CommitterOutput, FinishedCompaction, LogFailure, LogInput, LogWriter, MemberView, Node,
    NodeInput, NodeOutput, NodeStatus, PeerChange, Reply,
};
use osenv::{Clock, RecvBlocking};
use peer::Plane;
use raft::StepError;
use types::{MemberId, ReplyToken};

use crate::host::ReplyInbox;

use observe::report::DatabaseSize;
use observe::{Reporter, Turn};

/// Requests that wait for Node at once; beyond it callers are refused.
pub const NODE_INBOX: usize = 65_536;
/// Questions and entries that wait for Applier at once.
pub const APPLIER_INBOX: usize = 65_536;
/// Writes that wait for the log.
const LOG_INBOX: usize = 65_536;
/// Batches that wait for the backend; their bytes are limited by the store.
const COMMITTER_INBOX: usize = 65_536;

/// The queues between the threads.
#[derive(Clone)]
pub struct Queues {
    /// For Node.
    pub node: Arc<Inbox<NodeInput>>,
    /// For Applier.
    pub applier: Arc<Inbox<ApplierInput>>,
    log: Arc<Inbox<LogInput>>,
    committer: Arc<Inbox<CommitterInput>>,
    /// The newest View.
    pub view: Arc<Slot<MemberView>>,
    /// The newest state of raft.
    pub status: Arc<Slot<NodeStatus>>,
    /// This member.
    member: MemberId,
    /// Whether it is a learner, for calls that learners refuse.
    pub learner: Arc<AtomicBool>,
    checked: Arc<AtomicBool>,
    runtimes: Arc<Vec<Arc<ReplyInbox>>>,
    /// One per runtime, notified when a View has a new revision.
    pub notifiers: Arc<[Notifier]>,
    pub(crate) reporter: Arc<Reporter>,
    /// Called with the reason when the member cannot go on.
    fatal: Arc<dyn Fn(Fatal) + Send + Sync>,
    /// Called when this member was removed from its cluster.
    removed: Arc<dyn Fn() + Send + Sync>,
}

/// Why a member ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// etcd's log text where it has one.
    pub message: &'static str,
    /// What failed.
    pub error: String,
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.message, self.error)
    }
}

/// What is said of failures that etcd has no text for.
pub const CANNOT_GO_ON: &str = "the member cannot go on";

//= etcd 3.7.1: server/etcdserver/raft.go#start, server/etcdserver/server.go#snapshot
fn log_failed(e: &LogFailure) -> Fatal {
    let message = match e {
        LogFailure::Wal(_) => "failed to save Raft hard state and entries",
        LogFailure::Snap(_) => "failed to save snapshot",
    };
    Fatal { message, error: e.to_string() }
}

//= etcd 3.7.1: server/storage/backend/batch_tx.go#commit, backend.go#defrag,
//= server/etcdserver/server.go#applySnapshot
fn commit_failed(e: &CommitFailure) -> Fatal {
    let message = match e {
        CommitFailure::Write(_) | CommitFailure::Read(_) | CommitFailure::Commit(_) => {
            "failed to commit tx"
        }
        CommitFailure::Rename(_) => "failed to rename tmp database",
        CommitFailure::Snap(_) => "failed to save snapshot",
        CommitFailure::Install(_) | CommitFailure::Open(_) => "failed to open snapshot backend",
    };
    Fatal { message, error: e.to_string() }
}

/// Files kept by purge.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Log segments (`--max-wals`); 0 keeps all.
    pub wals: u32,
    /// Snapshot files (`--max-snapshots`); 0 keeps all.
    pub snapshots: u32,
}

impl Queues {
    /// Queues for a member whose runtimes receive their replies through `runtimes`.
    pub fn new(
        member: MemberId,
        view: MemberView,
        runtimes: Vec<Arc<ReplyInbox>>,
        reporter: Arc<Reporter>,
        fatal: Arc<dyn Fn(Fatal) + Send + Sync>,
        removed: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let notifiers = runtimes.iter().map(|_| Notifier::default()).collect();
        let members = Arc::clone(&view.members);
        let queues = Self {
            member,
            learner: Arc::default(),
            checked: Arc::default(),
            notifiers,
            node: Arc::new(Inbox::new(NODE_INBOX)),
            applier: Arc::new(Inbox::new(APPLIER_INBOX)),
            log: Arc::new(Inbox::new(LOG_INBOX)),
            committer: Arc::new(Inbox::new(COMMITTER_INBOX)),
            view: Arc::new(Slot::new(view)),
            status: Arc::new(Slot::new(NodeStatus::default())),
            runtimes: Arc::new(runtimes),
            reporter,
            fatal,
            removed,
        };
        queues.note_learner(&members);
        queues
    }

    /// Hands leadership to `successor` before the member stops, if it leads. Returns when that is
    /// done, or after `patience`.
    pub fn hand_over(&self, successor: MemberId, patience: Duration) {
        if !self.status.load().is_leader {
            return;
        }
        self.node.push_event(NodeInput::Stop { successor: Some(successor) });
        let until = Clock.now() + patience;
        while self.status.load().is_leader && Clock.now() < until {
            std::thread::sleep(HAND_OVER_STEP);
        }
    }

    /// This member.
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// Sends replies out, one push per runtime.
    fn reply(
        &self,
        replies: &mut Vec<(ReplyToken, Reply)>,
        sorted: &mut [Vec<(ReplyToken, Reply)>],
    ) {
        for (token, reply) in replies.drain(..) {
            if let Some(batch) = sorted.get_mut(token.runtime()) {
                batch.push((token, reply));
            }
        }
        for (batch, inbox) in sorted.iter_mut().zip(self.runtimes.iter()) {
            inbox.push_all(batch);
        }
    }

    fn reply_buffers(&self) -> Vec<Vec<(ReplyToken, Reply)>> {
        self.runtimes.iter().map(|_| Vec::new()).collect()
    }

    /// Whether this member's data needs no comparison with its peers' before it serves, or passed.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Acquire)
    }

    /// Whether clients may be served: the member has published itself, and the View shows it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let status = self.status.load();
        self.is_checked()
            && status.ready
            && self.view.load().store.applied_index() >= status.applied
    }

    /// The comparison was passed, or is not needed.
    pub fn set_checked(&self) {
        self.checked.store(true, Ordering::Release);
    }

    /// Ends the member.
    pub fn fail(&self, why: Fatal) {
        (self.fatal)(why);
    }

    /// What the members say of this one.
    fn note_learner(&self, members: &Members) {
        let is_learner = members.get(self.member).is_some_and(|member| member.is_learner);
        self.learner.store(is_learner, Ordering::Relaxed);
    }

    /// Reports what a View shows that the one before did not.
    fn report_view(&self, view: &MemberView, compacted: Option<FinishedCompaction>) {
        if let Some(compacted) = compacted {
            self.reporter.compacted(&compacted, size_of(view));
        }
        let before = self.view.load();
        if !Arc::ptr_eq(&before.members, &view.members) {
            self.note_learner(&view.members);
            self.reporter.members(&before.members, &view.members);
        }
        if !Arc::ptr_eq(&before.alarms, &view.alarms) {
            self.reporter.alarms(&before.alarms, &view.alarms);
        }
    }

    /// Lets every thread finish what is queued and end: Node first, so that nothing new comes.
    pub fn close(&self) {
        self.node.close();
    }
}

/// Pause between looks at who leads.
const HAND_OVER_STEP: Duration = Duration::from_millis(5);

/// How long until `deadline`.
fn until(now: Instant, deadline: Instant) -> Duration {
    deadline.since(now)
}

fn spawn(
    queues: &Queues,
    name: &'static str,
    work: impl FnOnce() -> Result<(), Fatal> + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let fatal = Arc::clone(&queues.fatal);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || match std::panic::catch_unwind(
        std::panic::AssertUnwindSafe(work),
    ) {
        Ok(Ok(())) => {}
        Ok(Err(why)) => fatal(why),
        Err(payload) => {
            let said = payload.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
            let error = format!("thread {name} panicked: {said}");
            fatal(Fatal { message: CANNOT_GO_ON, error });
        }
    })
}

/// Runs the automata on their threads until [`Queues::close`].
///
/// # Errors
/// The operating system refuses a thread.
pub fn spawn_all(
    queues: &Queues,
    parts: member::Parts,
    plane: &Plane,
    failpoints: &Failpoints,
    keep: Keep,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let member::Parts { node, log_writer, applier, committer, .. } = parts;
    let (q, peers, failpoints) = (queues.clone(), plane.clone(), failpoints.clone());
    let node = spawn(queues, "node", move || run_node(&q, node, &peers, &failpoints))?;
    let q = queues.clone();
    let log = spawn(queues, "log", move || run_log(&q, log_writer, keep))?;
    let q = queues.clone();
    let tell_at = committer.working_set();
    let apply = spawn(queues, "apply", move || run_applier(&q, applier, tell_at))?;
    let (q, peers) = (queues.clone(), plane.clone());
    let commit = spawn(queues, "commit", move || run_committer(&q, committer, &peers))?;
    Ok(vec![node, log, apply, commit])
}

/// Time after which a commit index is written though nothing else is; Node's ticks come as often.
const LAZY_LOG: Duration = Duration::from_millis(100);

fn run_node(
    q: &Queues,
    mut node: Node,
    plane: &Plane,
    failpoints: &Failpoints,
) -> Result<(), Fatal> {
    let (mut inputs, mut out) = (Vec::new(), NodeOutput::default());
    let mut sorted = q.reply_buffers();
    let mut next_nudge = Clock.now();
    loop {
        let now = Clock.now();
        node.handle(now, &mut inputs, &mut out);
        // The log first: its flush is what everything else waits for.
        for input in out.log.drain(..) {
            if input.is_awaited() {
                q.log.push_event(input);
            } else {
                q.log.push_lazily(input);
            }
        }
        for change in out.peers.drain(..) {
            q.reporter.peer_changed(&change, change_peer(plane, &change));
        }
        if !out.messages.is_empty() {
            let leads = node.is_leader();
            failpoints.hit(match leads {
                true => Failpoint::RaftBeforeLeaderSend,
                false => Failpoint::RaftBeforeFollowerSend,
            });
            q.reporter.sent(&out.messages);
            plane.send(std::mem::take(&mut out.messages));
        }
        for (peer, why) in out.refused.drain(..) {
            q.reporter.refused(peer, &why);
            if let StepError::CommitBeyondLog { .. } = why {
                return Err(log_lost(&why));
            }
        }
        if now >= next_nudge {
            next_nudge = now + LAZY_LOG;
            q.log.nudge();
        }
        for committed in out.committed.drain(..) {
            q.applier.push_event(ApplierInput::Committed(committed));
        }
        if let Some(meta) = out.install.take() {
            q.applier.push_event(ApplierInput::Install(meta));
        }
        if let Some(index) = out.snapshot_saved.take() {
            q.applier.push_event(ApplierInput::SnapshotSaved(index));
        }
        for wanted in out.snapshots.drain(..) {
            q.committer.push_event(CommitterInput::Snapshot(wanted));
        }
        if let Some(snapshot) = out.save_snapshot.take() {
            q.committer.push_event(CommitterInput::SaveSnapshot(snapshot));
        }
        if std::mem::take(&mut out.flush) {
            q.committer.push_event(CommitterInput::Flush);
        }
        if let Some(status) = out.status.take() {
            q.reporter.status(&q.status.load(), &status);
            q.status.store(status);
        }
        q.reply(&mut out.replies, &mut sorted);
        if std::mem::take(&mut out.removed) {
            (q.removed)();
        }
        let timeout = until(Clock.now(), node.deadline());
        if !q.node.recv_blocking(&mut inputs, Some(timeout)) {
            break;
        }
    }
    q.log.close();
    Ok(())
}

/// The leader knows that this member once had entries that it has not: they were acknowledged, and
/// its vote for others may be lost with them, so it must not go on under this name.
//= raft 3.7.0: log.go#commitTo (etcd panics)
fn log_lost(why: &StepError) -> Fatal {
    let error = format!(
        "{why}; if the data directory was lost or emptied, remove this member from the cluster \
         (etcdctl member remove), add it again (etcdctl member add) and start it with an empty \
         data directory"
    );
    Fatal { message: "Was the raft log corrupted, truncated, or lost?", error }
}

/// Tells the peer plane who the members are now.
fn change_peer(plane: &Plane, change: &PeerChange) -> Result<(), types::BadUrl> {
    match change {
        // Adding one that is there changes nothing, updating one that is not there neither.
        PeerChange::Set { id, urls } => {
            plane.add_peer(*id, urls)?;
            plane.update_peer(*id, urls)
        }
        PeerChange::Remove(id) => {
            plane.remove_peer(*id);
            Ok(())
        }
    }
}

fn run_log(q: &Queues, mut log: LogWriter, keep: Keep) -> Result<(), Fatal> {
    let may = MayBlock::on_this_thread();
    let (mut inputs, mut done) = (Vec::new(), Vec::new());
    let purge = Duration::from_secs(types::limits::PURGE_INTERVAL_SECS);
    let mut next_purge = Clock.now() + purge;
    let mut is_ready = false;
    while q.log.recv_blocking(&mut inputs, Some(purge)) {
        let began = Clock.now();
        log.handle(&may, &mut inputs, &mut done).map_err(|e| log_failed(&e))?;
        q.reporter.flushed(Clock.now().since(began));
        for input in done.drain(..) {
            if let NodeInput::SnapshotSaved(index) = &input {
                q.reporter.snapshot_saved(*index);
            }
            q.node.push_event(input);
        }
        let now = Clock.now();
        is_ready = is_ready || q.status.load().ready;
        if is_ready && q.log.is_empty() {
            log.prepare(&may, now).map_err(|e| log_failed(&e))?;
        }
        if now >= next_purge {
            next_purge = now + purge;
            // What could not be deleted now is tried again the next time.
            q.reporter.purge_failed(&log.purge(&may, keep.wals, keep.snapshots));
        }
    }
    q.applier.close();
    Ok(())
}

/// `tell_at`: operations for which the committer is woken before its time.
fn run_applier(q: &Queues, mut applier: Applier, tell_at: usize) -> Result<(), Fatal> {
    let may = MayBlock::on_this_thread();
    let (mut inputs, mut out) = (Vec::new(), ApplierOutput::default());
    let mut sorted = q.reply_buffers();
    let (mut is_ready, mut untold) = (false, 0);
    let (mut revision, mut turn) = (q.view.load().store.revision(), Turn::default());
    loop {
        let now = Clock.now();
        let timeout = applier.deadline().map(|at| until(now, at));
        if !q.applier.recv_blocking(&mut inputs, timeout) {
            break;
        }
        let began = Clock.now();
        let applied = applier.handle(&may, began, &mut inputs, &mut out);
        applied.map_err(|e| Fatal { message: CANNOT_GO_ON, error: e.to_string() })?;
        let took = Clock.now().since(began);
        q.reporter.note(&out, &mut turn);
        // Told before others can act on it, or the log would tell the story out of order.
        q.reporter.applied(&mut turn, took);
        // Invariant: events, then the View, then the replies; watchers last.
        is_ready = is_ready || q.status.load().ready;
        for input in out.node.drain(..) {
            match &input {
                // Nobody waits until Node knows of it; its tick is soon enough.
                NodeInput::Applied(applied) if is_ready && applied.effects.is_empty() => {
                    q.node.push_lazily(input);
                }
                _ => q.node.push_event(input),
            }
        }
        let mut news = false;
        if let Some(view) = out.view.take() {
            q.report_view(&view, out.compacted.take());
            news = std::mem::replace(&mut revision, view.store.revision()) != revision;
            drop(q.view.store(view));
        }
        q.reply(&mut out.replies, &mut sorted);
        if news {
            q.notifiers.iter().for_each(Notifier::notify);
        }
        if let Some(holds) = out.holds.take() {
            q.reporter.installed(holds.index);
            q.committer.push_event(CommitterInput::Holds(holds));
        }
        for batch in out.batches.drain(..) {
            untold += batch.batch.op_count();
            let input = CommitterInput::Batch(batch);
            // Its time runs from the first batch on.
            if untold < tell_at {
                q.committer.push_lazily(input);
            } else {
                q.committer.push_event(input);
                untold = 0;
            }
        }
        if std::mem::take(&mut out.flush) {
            q.committer.push_event(CommitterInput::Flush);
        }
        if std::mem::take(&mut out.defragment) {
            q.committer.push_event(CommitterInput::Defragment);
        }
        if let Some(meta) = out.install.take() {
            q.reporter.installing(&meta);
            q.committer.push_event(CommitterInput::Install(meta));
        }
        out.released.clear();
    }
    q.committer.push_event(CommitterInput::Flush);
    q.committer.close();
    Ok(())
}

/// How large the database of a View is; 0 before there is one.
fn size_of(view: &MemberView) -> DatabaseSize {
    view.store.backend().map_or_else(DatabaseSize::default, DatabaseSize::from)
}

fn run_committer(q: &Queues, mut committer: Committer, plane: &Plane) -> Result<(), Fatal> {
    let may = MayBlock::on_this_thread();
    let (mut inputs, mut done) = (Vec::new(), CommitterOutput::default());
    let mut defragmenting = None;
    loop {
        let timeout = committer.deadline().map(|at| until(Clock.now(), at));
        if !q.committer.recv_blocking(&mut inputs, timeout) {
            break;
        }
        // The log's commit index should not stay behind what the backend will hold.
        q.log.nudge();
        let now = Clock.now();
        if inputs.iter().any(|input| matches!(input, CommitterInput::Defragment)) {
            let before = size_of(&q.view.load());
            q.reporter.defragmenting(&committer.database_path(), before);
            defragmenting = Some((now, before));
        }
        committer.handle(&may, now, &mut inputs, &mut done).map_err(|e| commit_failed(&e))?;
        if !done.node.is_empty() {
            q.reporter.committed(Clock.now().since(now));
        }
        for input in done.applier.drain(..) {
            if matches!(input, ApplierInput::Installed { .. }) {
                q.reporter.snapshot_opened();
            }
            // Who asked for it tells why it failed.
            if let ApplierInput::Defragmented(result) = &input
                && let Some((began, before)) = defragmenting.take()
                && let Ok(backend) = result
            {
                let took = Clock.now().since(began);
                let path = committer.database_path();
                q.reporter.defragmented(&path, (before, backend.into()), took);
            }
            q.applier.push_event(input);
        }
        for snapshot in done.snapshots.drain(..) {
            plane.send_snapshot(snapshot.message, snapshot.database);
        }
        for committed in done.node.drain(..) {
            q.node.push_event(NodeInput::BackendCommitted(committed));
        }
        for snapshot in done.saved.drain(..) {
            q.node.push_event(NodeInput::SnapshotFileSaved(snapshot));
        }
    }
    Ok(())
}
