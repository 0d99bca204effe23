//! A runtime thread as the surroundings of its calls.
//!
//! Owns what carries the outbox of [`calls::Member`] to the automata, the pool, other members and
//! tokio, and what comes back ([`pump`]); and what hears of measurements and events ([`Hearing`]).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::error::{Code, Status};
use api::method::{CallType, Row};
use calls::{
    Calls, CompactionHash, Event, HashDiffers, Host, Local, Measure, Member, Outbox, Read,
};
use env::{Instant, WallTime};
use handover::Inbox;
use member::{ApplierInput, NodeInput, Reply};
use observe::metrics::IntCounter;
use observe::{Log, Metrics, log_line};
use osenv::Clock;
use rpc::{Cors, Dispatch, HttpRequest, HttpResponse};
use types::{MemberId, ReplyToken};

use crate::pool::Pool;

/// Replies on their way to one runtime.
pub type ReplyInbox = Inbox<(ReplyToken, Reply)>;

/// Where the outbox of a runtime leads to.
pub(crate) struct Doors {
    pub(crate) replies: Arc<ReplyInbox>,
    pub(crate) node: Arc<Inbox<NodeInput>>,
    pub(crate) applier: Arc<Inbox<ApplierInput>>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) peers: Rc<peer::Client>,
}

/// Moves what calls want out and what they wait for in, for ever. Both in batches: whatever the
/// tasks of this thread submit until all of them wait leaves together.
pub(crate) async fn pump(member: Rc<Member>, doors: Doors) {
    let (mut replies, mut for_node) = (Vec::new(), Vec::new());
    let mut outbox = Outbox::default();
    let mut timer = Timer::default();
    loop {
        poll_fn(|cx| {
            let received = doors.replies.poll_recv(&mut replies, cx);
            let wanted = member.poll_outbox(cx);
            let fired = timer.poll(&member, cx);
            match (received, wanted, fired) {
                (Poll::Pending, Poll::Pending, Poll::Pending) => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
        for (token, reply) in replies.drain(..) {
            member.resolve(token, reply);
        }
        member.take_all_but_node(&mut outbox);
        doors.hand_out(&member, &mut outbox);
        if !member.has_for_node() && outbox.yielded.is_empty() {
            continue;
        }
        // Behind everything that can run now. Sent at once, a batch would hold what the first few
        // connections asked, and each batch costs two turns of other threads. One that is alone has
        // nobody to wait for.
        if member.waiting() > 1 || !outbox.yielded.is_empty() {
            tokio::task::yield_now().await;
        }
        member.take_for_node(&mut for_node);
        doors.node.push_all(&mut for_node);
        for refused in for_node.drain(..) {
            member.refuse(refused);
        }
        for waker in outbox.yielded.drain(..) {
            waker.wake();
        }
    }
}

impl Doors {
    fn hand_out(&self, member: &Rc<Member>, outbox: &mut Outbox) {
        for question in outbox.applier.drain(..) {
            if let Err(handover::Full(question)) = self.applier.push(question) {
                member.refuse_question(question);
            }
        }
        for job in outbox.jobs.drain(..) {
            // One that does not fit is dropped, and its caller told.
            let _ = self.pool.submit(job);
        }
        for asked in outbox.peers.drain(..) {
            let (member, client) = (Rc::clone(member), Rc::clone(&self.peers));
            tokio::task::spawn_local(async move {
                let answer = rpc::peers::ask(&client, member.shared.cluster, &asked).await;
                member.answered(asked.token, answer);
            });
        }
        for task in outbox.tasks.drain(..) {
            tokio::task::spawn_local(task);
        }
    }
}

/// The first deadline of the member's timers, as one of tokio's.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    deadline: Option<Instant>,
}

impl Timer {
    /// Ready when timers were fired.
    fn poll(&mut self, member: &Member, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = member.next_deadline() else {
            self.deadline = None;
            return Poll::Pending;
        };
        if self.deadline != Some(deadline) {
            let due = tokio::time::Instant::now() + deadline.since(Clock.now());
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(due),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(due))),
            }
            self.deadline = Some(deadline);
        }
        let sleep = self.sleep.as_mut().expect("made with the deadline");
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.deadline = None;
        member.fire(Clock.now());
        Poll::Ready(())
    }
}

/// The calls of one runtime's connections, and where they are counted.
pub(crate) struct Services {
    pub(crate) calls: Rc<Calls>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) cors: Cors,
}

impl Dispatch for Services {
    fn calls(&self) -> &Rc<Calls> {
        &self.calls
    }

    fn http(self: Rc<Self>, request: HttpRequest) -> Local<'static, HttpResponse> {
        Box::pin(async move {
            let answer = |request| rpc::http::answer(self.calls.member(), &self.metrics, request);
            self.cors.guard(request, answer).await
        })
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn finished(&self, row: &'static Row, status: Option<&Status>) {
        self.metrics.calls.ended(row.method, status.map_or(Code::Ok, |s| s.code));
    }
}

/// Turns what calls measure and tell into metrics and log lines.
pub(crate) struct Hearing {
    member: MemberId,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    /// The counters of the last client's version.
    client: RefCell<Option<(String, [IntCounter; 2])>>,
}

impl Hearing {
    pub(crate) fn new(member: MemberId, log: Arc<Log>, metrics: Arc<Metrics>) -> Self {
        Self { member, log, metrics, client: RefCell::default() }
    }

    /// Counts a call by its client's version.
    fn count_client(&self, kind: CallType, version: &str) {
        let mut last = self.client.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| known != version) {
            *last = Some((version.to_owned(), self.metrics.clients(version)));
        }
        if let Some((_, counters)) = &*last {
            counters[usize::from(kind != CallType::Unary)].inc();
        }
    }

    /// Tells of a comparison of compaction hashes.
    fn log_compaction(&self, compared: CompactionHash<'_>) {
        let (log, me) = (&self.log, self.member.to_string());
        match compared {
            CompactionHash::Skipped { peer, peers } => log_line!(
                log,
                Warn,
                "Skipped peer's hash",
                "number-of-peers" = peers,
                "leader-id" = me,
                "peer-id" = peer.to_string(),
            ),
            CompactionHash::Shared { own, peers } => log_line!(
                log,
                Info,
                "successfully checked hash on whole cluster",
                "number-of-peers-checked" = peers,
                "revision" = own.revision.0,
                "compactRevision" = own.compact_revision.0,
            ),
            CompactionHash::Differs { own, hash, peers, has_majority } => {
                let ids: Vec<String> = peers.iter().map(MemberId::to_string).collect();
                log_line!(
                    log,
                    Error,
                    "Detected compaction hash mismatch",
                    "leader-id" = me,
                    "leader-revision" = own.revision.0,
                    "leader-compact-revision" = own.compact_revision.0,
                    "leader-hash" = own.hash,
                    "peer-hash" = hash,
                    "peer-ids" = ids.join(","),
                    "quorum-exist" = has_majority,
                );
            }
        }
    }
}

impl Host for Hearing {
    fn now(&self) -> Instant {
        Clock.now()
    }

    fn wall(&self) -> WallTime {
        Clock.wall()
    }

    fn measure(&self, measured: Measure<'_>) {
        use observe::metrics::Read as Known;
        let metrics = &self.metrics;
        match measured {
            Measure::Client { kind, version } => self.count_client(kind, version),
            Measure::Requested { kind, success, took } => metrics.requested(kind, success, took),
            Measure::Read { read: Read::Range, success, took } => {
                metrics.read(Known::Range, success, took);
            }
            Measure::Read { read: Read::Txn, success, took } => {
                metrics.read(Known::Txn, success, took);
            }
            Measure::Ranged { success, took } => metrics.ranged(success, took),
            Measure::LeaseRenewed => metrics.lease_renewed.inc(),
            Measure::WatchStreams(more) => metrics.watch_streams.add(more),
            Measure::Watchers(more) => metrics.watchers.add(more),
            Measure::SlowWatchers(more) => metrics.slow_watchers.add(more),
            Measure::Events(more) => metrics.events.inc_by(more),
            Measure::DefragmentBegan => metrics.defrag_inflight.set(1),
            Measure::Defragmented(took) => {
                metrics.defrag_inflight.set(0);
                metrics.defrag.observe(took.as_secs_f64());
            }
            Measure::Hashed(took) => metrics.hash.observe(took.as_secs_f64()),
            Measure::HashedRevision(took) => metrics.hash_rev.observe(took.as_secs_f64()),
            Measure::SnapshotSent(took) => metrics.snapshot.observe(took.as_secs_f64()),
            Measure::Promoted(failed) => metrics.peers.promoted(failed),
        }
    }

    fn log(&self, event: Event<'_>) {
        let (log, me) = (&self.log, self.member.to_string());
        match event {
            Event::CannotDowngrade { target, now } => log_line!(
                log,
                Error,
                "Cannot downgrade from cluster-version to downgrade-target",
                "downgrade-target" = target.to_string(),
                "cluster-version" = now.to_string(),
            ),
            Event::Downgraded(version) => log_line!(
                log,
                Info,
                "the cluster has been downgraded",
                "cluster-version" = version.to_string()
            ),
            Event::InitialCheckBegan => {
                log_line!(log, Info, "starting initial corruption check", "local-member-id" = me)
            }
            Event::HashDiffers { how, peer, own, theirs } => log_line!(
                log,
                Warn,
                differs(how),
                "local-member-id" = me,
                "local-member-revision" = own.hash_revision.0,
                "local-member-compact-revision" = own.compact_revision.0,
                "local-member-hash" = own.hash,
                "remote-peer-id" = peer.to_string(),
                "remote-peer-revision" = theirs.hash_revision.0,
                "remote-peer-compact-revision" = theirs.compact_revision.0,
                "remote-peer-hash" = theirs.hash,
            ),
            Event::NoHash { peer, why } => log_line!(
                log,
                Warn,
                "cannot fetch hash from remote peer",
                "remote-peer-id" = peer.to_string(),
                "error" = format!("{why:?}"),
            ),
            Event::InitialCheckPassed => log_line!(
                log,
                Info,
                "initial corruption checking passed; no corruption",
                "local-member-id" = me
            ),
            Event::OwnHashChanged(revision) => {
                log_line!(log, Warn, "found hash mismatch", "revision" = revision.0);
            }
            Event::PeriodicCheckEnded { peers } => log_line!(
                log,
                Info,
                "finished peer corruption check",
                "number-of-peers-checked" = peers
            ),
            Event::CompactionCheckEnded { hashes } => log_line!(
                log,
                Info,
                "finished compaction hash check",
                "number-of-hashes-checked" = hashes
            ),
            Event::CompactionHash(compared) => self.log_compaction(compared),
        }
    }
}

fn differs(how: HashDiffers) -> &'static str {
    match how {
        HashDiffers::Initial => "found different hash values from remote peer",
        HashDiffers::InitialCompaction => {
            "found different compact revision values from remote peer"
        }
        HashDiffers::Revision => "revision from follower must be less than or equal to leader's",
        HashDiffers::Compaction => {
            "compact revision from follower must be less than or equal to leader's"
        }
        HashDiffers::Hash => "same compact revision then hashes must match",
    }
}
