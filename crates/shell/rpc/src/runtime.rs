//! How one runtime thread talks to the member.
//!
//! Owns the outbox (requests leave in batches), the table of waiting replies (they come back in
//! batches), and the block of request ids. Invariant: nothing on this thread waits for the disk,
//! for a lock held over work, or for another client.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::ResponseHeader;
use handover::{Bell, Inbox, Replies, Slot, Wait};
use machine::Outcome;
use machine::command::{self, CommandKind, Header};
use member::{ApplierInput, MemberView, NodeInput, NodeStatus, Proposal, Reply};
use types::{ClusterId, Index, MemberId, ReplyToken, RequestId, Revision};

use crate::pool::Pool;
use crate::services::cors::Cors;
use observe::Metrics;

/// Replies on their way to one runtime.
pub type ReplyInbox = Inbox<(ReplyToken, Reply)>;

/// Limits of requests that are checked before they go anywhere.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes of an encoded raft request (`--max-request-bytes`).
    pub max_request_bytes: usize,
    /// Operations per level of a transaction (`--max-txn-ops`).
    pub max_txn_ops: usize,
    /// Bytes of the backend beyond which writes are refused; none if negative.
    pub quota_bytes: i64,
}

impl RequestLimits {
    /// Bytes of the backend beyond which writes are refused.
    #[must_use]
    pub fn quota(&self) -> Option<u64> {
        u64::try_from(self.quota_bytes).ok()
    }
}

/// Times of watch streams.
#[derive(Clone, Copy, Debug)]
pub struct WatchLimits {
    /// How long a watch is quiet before it tells its progress
    /// (`--watch-progress-notify-interval`); at least 100 ms.
    pub progress_interval: Duration,
    /// `--election-timeout`: after three of them without a leader, streams that require one end.
    pub election: Duration,
}

/// The member as all runtimes see it.
pub struct Handle {
    /// Who this is.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Requests for Node.
    pub node: Arc<Inbox<NodeInput>>,
    /// Questions for Applier.
    pub applier: Arc<Inbox<ApplierInput>>,
    /// The newest View.
    pub view: Arc<Slot<MemberView>>,
    /// The newest state of raft.
    pub status: Arc<Slot<NodeStatus>>,
    /// The work pool.
    pub pool: Pool,
    /// Request limits.
    pub limits: RequestLimits,
    /// What is counted and measured.
    pub metrics: Arc<Metrics>,
    /// The next block of request ids.
    pub ids: AtomicU64,
    /// Rung for each runtime when a View has a new revision.
    pub bells: Arc<[Bell]>,
    /// For maps of watched keys.
    pub hash_seed: env::HashSeed,
    /// Times of watch streams.
    pub watch: WatchLimits,
    /// The connections to the other members.
    pub plane: peer::Plane,
    /// Calls to other members that are not about raft.
    pub peers: peer::Client,
    /// Whether this member is a learner; see [`Handle::is_learner`].
    pub learner: Arc<AtomicBool>,
    /// Feature gates: name, stage, and whether it is open.
    pub features: Vec<(&'static str, &'static str, bool)>,
    /// `--strict-reconfig-check`.
    pub strict_reconfig: bool,
    /// `--cors`.
    pub cors: Cors,
    /// How long a request may wait: 5 s and two election timeouts.
    pub request_timeout: Duration,
    /// Long lists that keep the state they began with, and for how long each may.
    pub pins: Pins,
    /// What tests from outside make fail.
    pub failpoints: env::Failpoints,
}

impl Handle {
    /// Whether this member only receives the log, and so serves little.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Relaxed)
    }
}

/// How many long lists keep their state, and how long each may (invariant 12).
#[derive(Debug)]
pub struct Pins {
    /// Those that do now.
    pub count: AtomicUsize,
    /// The age at which a list lets go of its state.
    pub age: Duration,
}

impl Default for Pins {
    fn default() -> Self {
        let age = Duration::from_millis(types::limits::LIST_PIN_MS);
        Self { count: AtomicUsize::new(0), age }
    }
}

/// Request ids that a runtime takes at once.
const ID_BLOCK: u64 = 1_024;

/// One runtime's side.
pub struct Runtime {
    /// The member.
    pub handle: Arc<Handle>,
    /// For questions to other members.
    pub peers: peer::Client,
    number: u8,
    replies: Replies<Reply>,
    inbox: Arc<ReplyInbox>,
    outbox: RefCell<Outbox>,
    ids: Cell<(u64, u64)>,
}

#[derive(Default)]
struct Outbox {
    requests: Vec<NodeInput>,
    waker: Option<Waker>,
}

impl Runtime {
    /// Runtime number `number`, whose replies come through `inbox`. [`Runtime::pump`] must run
    /// beside it.
    #[must_use]
    pub fn new(handle: Arc<Handle>, number: u8, inbox: Arc<ReplyInbox>) -> Rc<Self> {
        Rc::new(Self {
            peers: handle.peers.clone(),
            handle,
            number,
            replies: Replies::new(number),
            inbox,
            outbox: RefCell::default(),
            ids: Cell::new((0, 0)),
        })
    }

    /// Moves requests out and replies in, for ever. Both in batches: whatever the tasks of this
    /// thread submit until all of them wait leaves together.
    pub async fn pump(self: Rc<Self>) {
        let (mut replies, mut out) = (Vec::new(), Vec::new());
        loop {
            poll_fn(|cx| self.poll_work(&mut replies, cx)).await;
            for (token, reply) in replies.drain(..) {
                self.replies.resolve(token, reply);
            }
            if self.outbox.borrow().requests.is_empty() {
                continue;
            }
            // Behind everything that can run now. Sent at once, a batch would hold what the first
            // few connections asked, and each batch costs two turns of other threads. One that is
            // alone has nobody to wait for.
            if self.waiting() > 1 {
                tokio::task::yield_now().await;
            }
            out.append(&mut self.outbox.borrow_mut().requests);
            self.handle.node.push_all(&mut out);
            for refused in out.drain(..) {
                self.refuse(refused);
            }
        }
    }

    /// Waits for requests in the outbox or for replies.
    fn poll_work(&self, replies: &mut Vec<(ReplyToken, Reply)>, cx: &mut Context<'_>) -> Poll<()> {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            outbox.waker = Some(cx.waker().clone());
        }
        let received = self.inbox.poll_recv(replies, cx);
        if outbox.requests.is_empty() { received } else { Poll::Ready(()) }
    }

    /// Node's inbox is at its limit.
    fn refuse(&self, request: NodeInput) {
        let token = match request {
            NodeInput::Propose(Proposal { token, .. })
            | NodeInput::ReadIndex(token)
            | NodeInput::KeepAlive { token, .. }
            | NodeInput::TimeToLive { token, .. }
            | NodeInput::Leases(token) => token,
            _ => return,
        };
        self.replies.resolve(token, Reply::Refused(ApiError::TooManyRequests));
    }

    fn submit(&self, request: NodeInput) {
        let mut outbox = self.outbox.borrow_mut();
        outbox.requests.push(request);
        if outbox.requests.len() == 1
            && let Some(waker) = &outbox.waker
        {
            waker.wake_by_ref();
        }
    }

    /// Asks Node and waits for its answer.
    pub async fn ask(&self, request: impl FnOnce(ReplyToken) -> NodeInput) -> Reply {
        self.begin(request).await
    }

    /// Asks Node; the answer is waited for when the caller likes.
    pub fn begin(&self, request: impl FnOnce(ReplyToken) -> NodeInput) -> Wait<Reply> {
        let wait: Wait<Reply> = self.replies.register();
        self.submit(request(wait.token()));
        wait
    }

    /// Asks Applier and waits for its answer.
    ///
    /// # Errors
    /// `too many requests` if its inbox is at the limit.
    pub async fn ask_applier(
        &self,
        question: impl FnOnce(ReplyToken) -> ApplierInput,
    ) -> Result<Reply, Status> {
        let wait: Wait<Reply> = self.replies.register();
        let question = question(wait.token());
        self.handle.applier.push(question).map_err(|_| ApiError::TooManyRequests)?;
        Ok(wait.await)
    }

    /// The next request id of this member.
    #[must_use]
    pub fn next_id(&self) -> RequestId {
        let (mut next, mut end) = self.ids.get();
        if next == end {
            next = self.handle.ids.fetch_add(ID_BLOCK, Ordering::Relaxed);
            end = next + ID_BLOCK;
        }
        self.ids.set((next + 1, end));
        RequestId(next)
    }

    /// Puts a command through the log and waits until it is applied here. `body` is its encoding,
    /// which goes into the log as it is.
    ///
    /// # Errors
    /// The refusal of the request, or of Node.
    pub async fn propose(&self, kind: CommandKind, body: &[u8]) -> Result<Box<Outcome>, Status> {
        let id = self.next_id();
        let data = command::encode(kind, body, Header { id, ..Header::default() });
        if data.len() > self.handle.limits.max_request_bytes {
            return Err(ApiError::RequestTooLarge.into());
        }
        let began = Instant::now();
        let reply = self.ask(|token| NodeInput::Propose(Proposal { token, id, data })).await;
        let outcome = member::applier::outcome(reply).map_err(|error| match error {
            ApiError::Timeout => self.why_late(began),
            other => other,
        });
        let success = outcome.as_ref().is_ok_and(|outcome| outcome.reply.is_ok());
        self.handle.metrics.requested(kind, success, began.elapsed());
        Ok(outcome?)
    }

    /// Why a request from this time on had no outcome: peers that did not answer are named.
    //= etcd 3.7.1: server/etcdserver/v3_server.go#parseProposeCtxErr
    fn why_late(&self, began: Instant) -> ApiError {
        let plane = &self.handle.plane;
        let is_connected = |id: MemberId| plane.active_since(id).is_some_and(|since| since < began);
        let lost = match self.handle.status.load().leader {
            None => false,
            Some(leader) if leader != self.handle.member => !is_connected(leader),
            Some(own) => {
                let members = &self.view().members;
                let voters = || members.iter().filter(|member| !member.is_learner);
                let reached = voters().filter(|m| m.id == own.0 || is_connected(MemberId(m.id)));
                reached.count() <= voters().count() / 2
            }
        };
        if lost { ApiError::TimeoutConnectionLost } else { ApiError::Timeout }
    }

    /// This runtime's bell.
    ///
    /// # Panics
    /// If the member was made for fewer runtimes.
    #[must_use]
    pub fn bell(&self) -> &Bell {
        &self.handle.bells[usize::from(self.number)]
    }

    /// The newest View, whatever its age.
    #[must_use]
    pub fn view(&self) -> Arc<MemberView> {
        self.handle.view.load()
    }

    /// A View that shows everything that was acknowledged before this call (invariant 7).
    ///
    /// # Errors
    /// No leader confirmed in time, or the leader changed meanwhile.
    pub async fn linearizable_view(&self) -> Result<Arc<MemberView>, Status> {
        let index = match self.ask(NodeInput::ReadIndex).await {
            Reply::ReadIndex(index) => index,
            Reply::Refused(error) => return Err(error.into()),
            other => unreachable!("a read is answered by an index, not {other:?}"),
        };
        self.view_at(index).await
    }

    /// A View at or beyond an entry.
    pub(crate) async fn view_at(&self, index: Index) -> Result<Arc<MemberView>, Status> {
        let view = self.view();
        if view.store.applied_index() >= index {
            return Ok(view);
        }
        let await_applied = |token| ApplierInput::AwaitApplied { token, index };
        match self.ask_applier(await_applied).await? {
            Reply::Refused(error) => Err(error.into()),
            _ => Ok(self.view()),
        }
    }

    /// The header of a response.
    #[must_use]
    pub fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.handle.cluster.0,
            member_id: self.handle.member.0,
            revision: revision.0,
            raft_term: self.handle.status.load().term.0,
        }
    }

    /// Calls waiting for a reply on this runtime.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.replies.waiting()
    }
}

/// The status of work that the pool refused.
#[must_use]
pub fn pool_refused(_: crate::pool::Refused) -> Status {
    Status::new(Code::ResourceExhausted, "etcdserver: the work pool takes no more jobs")
}
