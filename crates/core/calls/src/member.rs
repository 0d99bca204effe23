//! The member as the calls of one runtime reach it.
//!
//! [`Member`] holds the newest View and raft status, the table of waiting replies, timers, and an
//! outbox: everything that a call wants from elsewhere (Node, Applier, the pool, other members, a
//! task of its own) is put there, and the host takes it out in batches. What comes back is handed
//! in: [`Member::resolve`], [`Member::answered`], [`Member::fire`].
//!
//! Invariant: nothing here waits for the disk, for a lock held over work, or for another client.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use api::error::{ApiError, Status};
use api::etcdserverpb::ResponseHeader;
use env::{Entropy, HashSeed, Instant, SplitMix};
use handover::Notifier;
use machine::Outcome;
use machine::auth::Who;
use machine::command::{self, CommandKind, Header};
use member::{ApplierInput, NodeInput, NodeStatus, Proposal, Reply};
use types::{Index, MemberId, ReplyToken, RequestId, Revision};

use crate::answer::Local;
use crate::caller::{Allowed, Caller, Known};
use crate::host::{Host, Measure};
use crate::jobs::Job;
use crate::peers::{Answered, Asked};
use crate::published::PublishedView;
use crate::replies::{Recipient, Replies, Wait};
use crate::shared::Shared;
use crate::timers::{Sleep, Timers};

/// Request ids that a runtime takes at once.
const ID_BLOCK: u64 = 1_024;

/// Requests of a runtime's calls to the rest of the process. The number of open calls bounds its
/// length: each waits for what it asked.
#[derive(Default)]
pub struct Outbox {
    /// For Node; what does not fit there is handed to [`Member::refuse`].
    pub node: Vec<NodeInput>,
    /// For Applier; what does not fit there is handed to [`Member::refuse_question`].
    pub applier: Vec<ApplierInput>,
    /// For the pool; a job that is dropped is refused.
    pub jobs: Vec<Job>,
    /// For other members.
    pub peers: Vec<Asked>,
    /// To be polled by the host until they end.
    pub tasks: Vec<Local<'static, ()>>,
    /// Tasks that go on once others had their turn.
    pub yielded: Vec<Waker>,
}

impl Outbox {
    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.node.is_empty()
            && self.applier.is_empty()
            && self.jobs.is_empty()
            && self.peers.is_empty()
            && self.tasks.is_empty()
            && self.yielded.is_empty()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("node", &self.node.len())
            .field("applier", &self.applier.len())
            .field("jobs", &self.jobs.len())
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// One runtime's handle to the member.
pub struct Member {
    /// What all runtimes share.
    pub shared: Arc<Shared>,
    pub(crate) host: Rc<dyn Host>,
    /// Whether the host keeps an audit log.
    pub(crate) audits: bool,
    number: u8,
    replies: Replies<Reply>,
    answers: Replies<Answered>,
    timers: Rc<Timers>,
    outbox: RefCell<Outbox>,
    /// The host's task that takes things out.
    waker: RefCell<Option<Waker>>,
    ids: Cell<(u64, u64)>,
    entropy: RefCell<SplitMix>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("id", &self.shared.id)
            .field("runtime", &self.number)
            .finish_non_exhaustive()
    }
}

/// What the host does.
impl Member {
    /// The handle of runtime number `number`. `seed` decides what is drawn at random.
    #[must_use]
    pub fn new(shared: Arc<Shared>, host: Rc<dyn Host>, number: u8, seed: u64) -> Rc<Self> {
        let audits = host.audits();
        Rc::new(Self {
            shared,
            host,
            audits,
            number,
            replies: Replies::new(number),
            answers: Replies::new(number),
            timers: Rc::default(),
            outbox: RefCell::default(),
            waker: RefCell::default(),
            ids: Cell::new((0, 0)),
            entropy: RefCell::new(SplitMix::new(seed)),
        })
    }

    /// Ready when something is in the outbox. The task is also woken when the time of
    /// [`Member::next_deadline`] changes.
    pub fn poll_outbox(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.timers.set_host(cx.waker());
        if self.outbox.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Takes everything but what is for Node.
    pub fn take_all_but_node(&self, out: &mut Outbox) {
        let mut outbox = self.outbox.borrow_mut();
        out.applier.append(&mut outbox.applier);
        out.jobs.append(&mut outbox.jobs);
        out.peers.append(&mut outbox.peers);
        out.tasks.append(&mut outbox.tasks);
        out.yielded.append(&mut outbox.yielded);
    }

    /// Takes what is for Node.
    pub fn take_for_node(&self, out: &mut Vec<NodeInput>) {
        out.append(&mut self.outbox.borrow_mut().node);
    }

    /// Whether something is there for Node.
    #[must_use]
    pub fn has_for_node(&self) -> bool {
        !self.outbox.borrow().node.is_empty()
    }

    /// Gives a reply of the automata to whoever waits for it, if anyone still does.
    pub fn resolve(&self, token: ReplyToken, reply: Reply) {
        self.replies.resolve(token, reply);
    }

    /// Gives another member's answer to whoever waits for it.
    pub fn answered(&self, token: ReplyToken, answer: Answered) {
        self.answers.resolve(token, answer);
    }

    /// Refuses a request that Node's inbox had no room for.
    pub fn refuse(&self, request: NodeInput) {
        let token = match request {
            NodeInput::Propose(Proposal { token, .. })
            | NodeInput::ReadIndex(token)
            | NodeInput::KeepAlive { token, .. }
            | NodeInput::TimeToLive { token, .. }
            | NodeInput::Leases(token)
            | NodeInput::ChangeMembers { token, .. }
            | NodeInput::IsLearnerReady { token, .. }
            | NodeInput::TransferLeader { token, .. } => token,
            _ => return,
        };
        self.resolve(token, Reply::Refused(ApiError::TooManyRequests));
    }

    /// Refuses a question that Applier's inbox had no room for.
    pub fn refuse_question(&self, question: ApplierInput) {
        let token = match question {
            ApplierInput::LeaseKeys { token, .. }
            | ApplierInput::PermitLeases { token, .. }
            | ApplierInput::AwaitApplied { token, .. }
            | ApplierInput::AwaitCompaction(token)
            | ApplierInput::AwaitBackend(token)
            | ApplierInput::Defragment(token) => token,
            _ => return,
        };
        self.resolve(token, Reply::Refused(ApiError::TooManyRequests));
    }

    /// When the first timer is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Lets every timer end that is due at `now`.
    pub fn fire(&self, now: Instant) {
        self.timers.fire(now);
    }

    /// Waits for the reply to a call that is answered later; dropping the future gives the token
    /// back.
    pub fn wait(&self, token: ReplyToken) -> impl Future<Output = Reply> + use<> {
        self.replies.wait(token)
    }

    /// Has the reply to a call that is answered later handed to `to` with this key, when it comes.
    /// A call that is given up meanwhile gives the token back ([`Member::release`]).
    pub fn address(&self, token: ReplyToken, to: Rc<dyn Recipient<Reply>>, key: u64) {
        self.replies.address(token, to, key);
    }

    /// Gives the token of a call back that nobody waits for any more.
    pub fn release(&self, token: ReplyToken) {
        self.replies.release(token);
    }

    /// Number of calls that wait for a reply.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.replies.waiting()
    }
}

/// What calls do.
impl Member {
    /// Puts something into the outbox.
    pub(crate) fn hand_out(&self, put: impl FnOnce(&mut Outbox)) {
        let mut outbox = self.outbox.borrow_mut();
        let was_empty = outbox.is_empty();
        put(&mut outbox);
        drop(outbox);
        if let Some(waker) = self.waker.borrow().as_ref().filter(|_| was_empty) {
            waker.wake_by_ref();
        }
    }

    /// Lets a future run beside the calls.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.hand_out(|outbox| outbox.tasks.push(Box::pin(task)));
    }

    /// Waits for `duration`.
    pub(crate) fn sleep(&self, duration: Duration) -> Sleep {
        self.timers.until(self.now() + duration)
    }

    /// Lets other tasks have their turn.
    pub(crate) async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            self.hand_out(|outbox| outbox.yielded.push(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Now on the monotonic clock.
    pub(crate) fn now(&self) -> Instant {
        self.host.now()
    }

    /// A random number.
    pub(crate) fn random(&self) -> u64 {
        self.entropy.borrow_mut().next_u64()
    }

    /// A seed for maps of what clients name.
    pub(crate) fn hash_seed(&self) -> HashSeed {
        HashSeed::draw(&mut *self.entropy.borrow_mut())
    }

    /// Hands a measurement to the host.
    pub(crate) fn measure(&self, measured: Measure<'_>) {
        self.host.measure(measured);
    }

    /// The notifier that wakes this runtime's watchers.
    pub(crate) fn notifier(&self) -> &Notifier {
        &self.shared.notifiers[usize::from(self.number)]
    }

    /// The newest View of this member, closed ([`PublishedView`]). Others may have applied more.
    #[must_use]
    pub fn view(&self) -> PublishedView {
        self.shared.view.load()
    }

    /// The newest state of raft.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        *self.shared.status.load()
    }

    /// The header of a response.
    #[must_use]
    pub fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.shared.cluster.0,
            member_id: self.shared.id.0,
            revision: revision.0,
            raft_term: self.shared.status.load().term.0,
        }
    }

    /// Asks Node; the reply will carry the token that is returned.
    pub(crate) fn begin(&self, request: impl FnOnce(ReplyToken) -> NodeInput) -> ReplyToken {
        let token = self.replies.register();
        self.hand_out(|outbox| outbox.node.push(request(token)));
        token
    }

    /// Asks Node.
    pub(crate) fn ask(&self, request: impl FnOnce(ReplyToken) -> NodeInput) -> Wait<Reply> {
        self.replies.wait(self.begin(request))
    }

    /// Asks Applier; the reply will carry the token that is returned.
    pub(crate) fn begin_question(
        &self,
        question: impl FnOnce(ReplyToken) -> ApplierInput,
    ) -> ReplyToken {
        let token = self.replies.register();
        self.hand_out(|outbox| outbox.applier.push(question(token)));
        token
    }

    /// Asks Applier.
    pub(crate) fn ask_applier(
        &self,
        question: impl FnOnce(ReplyToken) -> ApplierInput,
    ) -> Wait<Reply> {
        self.replies.wait(self.begin_question(question))
    }

    /// Asks another member.
    pub(crate) fn ask_peer(&self, asked: impl FnOnce(ReplyToken) -> Asked) -> Wait<Answered> {
        let token = self.answers.register();
        self.hand_out(|outbox| outbox.peers.push(asked(token)));
        self.answers.wait(token)
    }

    /// The next request id of this member.
    pub(crate) fn next_id(&self) -> RequestId {
        let (mut next, mut end) = self.ids.get();
        if next == end {
            next = self.shared.ids.fetch_add(ID_BLOCK, Ordering::Relaxed);
            end = next + ID_BLOCK;
        }
        self.ids.set((next + 1, end));
        RequestId(next)
    }

    /// Puts a request on its way through the log; `body` is its encoding, which goes into the log
    /// as it is. The reply is for [`Member::outcome`].
    ///
    /// # Errors
    /// It is too large.
    pub(crate) fn begin_proposal(
        &self,
        kind: CommandKind,
        body: &[u8],
        caller: &Caller,
        _: Allowed,
    ) -> Result<ReplyToken, Status> {
        let id = self.next_id();
        let known = match caller.is_nobody() {
            true => None,
            false => self.signer(caller)?,
        };
        let Who { user: username, revision: auth_revision } = Known::who(known.as_ref());
        let data = command::encode(kind, body, Header { id, username, auth_revision });
        if data.len() > self.shared.limits.max_request_bytes {
            return Err(ApiError::RequestTooLarge.into());
        }
        Ok(self.begin(|token| NodeInput::Propose(Proposal { token, id, data })))
    }

    /// Who signs an entry of this caller.
    ///
    /// # Errors
    /// `InvalidAuthToken`.
    fn signer(&self, caller: &Caller) -> Result<Option<Known>, ApiError> {
        let view = self.view();
        match view.auth() {
            auth if auth.is_enabled() => self.identify(caller, auth),
            _ => Ok(None),
        }
    }

    /// The outcome of a request that was proposed at `began`.
    ///
    /// # Errors
    /// Node's refusal; that of the machine is within.
    pub(crate) fn outcome(
        &self,
        kind: CommandKind,
        began: Instant,
        reply: Reply,
    ) -> Result<Box<Outcome>, Status> {
        let outcome = member::applier::outcome(reply).map_err(|error| match error {
            ApiError::Timeout => self.why_late(began),
            other => other,
        });
        let success = outcome.as_ref().is_ok_and(|outcome| outcome.reply.is_ok());
        let took = self.now().since(began);
        self.measure(Measure::Requested { kind, success, took });
        Ok(outcome?)
    }

    /// Puts a request through the log and waits until it is applied here.
    ///
    /// # Errors
    /// It is too large, or Node refuses it; the machine's refusal is within.
    pub(crate) async fn propose(
        &self,
        kind: CommandKind,
        body: &[u8],
        caller: &Caller,
        allowed: Allowed,
    ) -> Result<Box<Outcome>, Status> {
        let began = self.now();
        let token = self.begin_proposal(kind, body, caller, allowed)?;
        let reply = self.replies.wait(token).await;
        self.outcome(kind, began, reply)
    }

    /// As [`Member::propose`], for what the member does by itself.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn propose_own(
        &self,
        kind: CommandKind,
        body: &[u8],
    ) -> Result<Box<Outcome>, Status> {
        self.propose(kind, body, &Caller::default(), Allowed::BY_ITSELF).await
    }

    /// Why a request from this time on had no outcome: peers that did not answer are named.
    //= etcd 3.7.3: server/etcdserver/v3_server.go#parseProposeCtxErr
    fn why_late(&self, began: Instant) -> ApiError {
        let waited = self.now().since(began);
        let connected = &self.shared.connected;
        let is_connected = |id: MemberId| connected(id).is_some_and(|time| time > waited);
        let lost = match self.status().leader {
            None => false,
            Some(leader) if leader != self.shared.id => !is_connected(leader),
            Some(own) => {
                let view = self.view();
                let members = view.members();
                let voters = || members.iter().filter(|member| !member.is_learner);
                let reached = voters().filter(|m| m.id == own.0 || is_connected(MemberId(m.id)));
                reached.count() <= voters().count() / 2
            }
        };
        if lost { ApiError::TimeoutConnectionLost } else { ApiError::Timeout }
    }

    /// A View that shows everything that was acknowledged before this call (invariant 7).
    ///
    /// # Errors
    /// No leader confirmed in time, or the leader changed meanwhile.
    pub async fn linearizable_view(&self) -> Result<PublishedView, Status> {
        let index = read_index(self.ask(NodeInput::ReadIndex).await)?;
        self.view_at(index).await
    }

    /// A View at or beyond an entry.
    pub(crate) async fn view_at(&self, index: Index) -> Result<PublishedView, Status> {
        let view = self.view();
        if view.applied_index() >= index {
            return Ok(view);
        }
        match self.ask_applier(|token| ApplierInput::AwaitApplied { token, index }).await {
            Reply::Refused(error) => Err(error.into()),
            _ => Ok(self.view()),
        }
    }
}

/// The index that a linearizable read was given.
///
/// # Errors
/// Node's refusal.
pub(crate) fn read_index(reply: Reply) -> Result<Index, ApiError> {
    match reply {
        Reply::ReadIndex(index) => Ok(index),
        Reply::Refused(error) => Err(error),
        other => unreachable!("a read is answered by an index, not {other:?}"),
    }
}
