//! The threads that run the automata, joined by bounded inboxes.
//!
//! Node and Applier may also be run by a thread that brings them a little work ([`handover::Seat`]):
//! Node by a runtime's and the log's, Applier by the log's. With one client two threads wake for a
//! put, not five.
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

mod apply;
mod commit;
mod log;
mod node;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use env::{Failpoints, Instant};
use handover::{Inbox, Notifier, Slot};
use machine::Members;
use member::{
    ApplierInput, CommitterInput, FinishedCompaction, LogInput, MemberView, NodeInput, NodeStatus,
    Reply,
};
use observe::Reporter;
use observe::report::DatabaseSize;
use osenv::Clock;
use peer::Plane;
use types::{MemberId, ReplyToken};

use crate::host::ReplyInbox;
use apply::{ApplierDoor, ApplierHost};
use commit::run_committer;
use log::run_log;
use node::NodeHost;

pub(crate) use node::NodeDoor;

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

/// Runs the automata on their threads until [`Queues::close`], and gives the way to Node.
///
/// # Errors
/// The operating system refuses a thread.
pub(crate) fn spawn_all(
    queues: &Queues,
    parts: member::Parts,
    plane: &Plane,
    failpoints: &Failpoints,
    keep: Keep,
) -> std::io::Result<(Vec<JoinHandle<()>>, NodeDoor)> {
    let member::Parts { node, log_writer, applier, committer, .. } = parts;
    let node = NodeHost::new(queues, node, plane.clone(), failpoints.clone());
    let node = NodeDoor::new(queues, node);
    let applier = ApplierHost::new(queues, applier, committer.working_set());
    let applier = ApplierDoor::new(queues, applier);
    let own = node.clone();
    let mut threads = vec![spawn(queues, "node", move || own.run())?];
    let (q, n, a) = (queues.clone(), node.clone(), applier.clone());
    threads.push(spawn(queues, "log", move || run_log(&q, log_writer, keep, &n, &a))?);
    threads.push(spawn(queues, "apply", move || applier.run())?);
    let (q, peers) = (queues.clone(), plane.clone());
    threads.push(spawn(queues, "commit", move || run_committer(&q, committer, &peers))?);
    Ok((threads, node))
}

/// How large the database of a View is; 0 before there is one.
fn size_of(view: &MemberView) -> DatabaseSize {
    view.store.backend().map_or_else(DatabaseSize::default, DatabaseSize::from)
}
