//! A runtime thread as the surroundings of its calls.
//!
//! Owns what carries the outbox of [`calls::Member`] to the automata, the pool, other members and
//! tokio, and what comes back ([`pump`]). What hears of measurements and events is `hearing.rs`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::error::{Code, Status};
use api::method::Row;
use calls::{Calls, Local, Member, Outbox};
use env::Instant;
use handover::Inbox;
use member::{ApplierInput, Reply};
use observe::{Log, Metrics, log_line};
use osenv::Clock;
use rpc::gateway::{self, Asked, Came, Content, Told};
use rpc::{Cors, Dispatch, Door, HttpRequest, HttpResponse};
use tokio::sync::Semaphore;
use types::ReplyToken;

use crate::config::words::Hosts;
use crate::health::HealthCheck;
use crate::pool::Pool;
use crate::threads::NodeDoor;

/// Replies on their way to one runtime.
pub type ReplyInbox = Inbox<(ReplyToken, Reply)>;

/// Where the outbox of a runtime leads to.
pub(crate) struct Doors {
    pub(crate) replies: Arc<ReplyInbox>,
    pub(crate) node: NodeDoor,
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
    pub(crate) hosts: Arc<Hosts>,
    /// Turns of the calls that come as JSON (`--enable-grpc-gateway`), shared by all runtimes.
    pub(crate) gateway: Option<Arc<Semaphore>>,
    pub(crate) log: Arc<Log>,
}

impl Services {
    /// The answer to a request for a host that is not on the list.
    //= etcd 3.7.3: server/embed/serve.go#ServeHTTP
    fn hosts_refusal<B>(&self, request: &http::Request<B>) -> Option<HttpResponse> {
        let host = rpc::http::host(request);
        if self.hosts.allow(&host) {
            return None;
        }
        let text = "rejecting HTTP request to prevent DNS rebinding attacks";
        log_line!(self.log, Warn, text, "host" = host.as_str());
        Some(rpc::http::misdirected(&host))
    }
}

impl Dispatch for Services {
    fn calls(&self) -> &Rc<Calls> {
        &self.calls
    }

    fn http(self: Rc<Self>, request: HttpRequest, door: Door) -> Local<'static, HttpResponse> {
        Box::pin(async move {
            if door == Door::Plain
                && let Some(refusal) = self.hosts_refusal(&request)
            {
                return refusal;
            }
            let member = self.calls.member();
            let check = HealthCheck::of(&request);
            let response = if door == Door::Metrics {
                rpc::http::answer_metrics(member, &self.metrics, request).await
            } else {
                let answer = |request| rpc::http::answer(member, &self.metrics, request);
                self.cors.guard(request, answer).await
            };
            if let Some(check) = check {
                check.log(&self.log, &member.view(), &response);
            }
            response
        })
    }

    fn redirect(
        self: Rc<Self>,
        request: http::Request<()>,
        door: Door,
        answer: HttpResponse,
    ) -> Local<'static, HttpResponse> {
        Box::pin(async move {
            let refusal = (door == Door::Plain).then(|| self.hosts_refusal(&request)).flatten();
            match (door, refusal) {
                (Door::Metrics, _) => answer,
                (_, Some(refusal)) => refusal,
                (_, None) => self.cors.guard(request, |_| std::future::ready(answer)).await,
            }
        })
    }

    fn gateway_turns(&self) -> Option<&Arc<Semaphore>> {
        self.gateway.as_ref()
    }

    fn gateway(self: Rc<Self>, request: Asked, came: Came) -> Local<'static, Told> {
        Box::pin(async move {
            if came.door == Door::Plain
                && let Some(refusal) = self.hosts_refusal(&request)
            {
                return refusal.map(Content::from);
            }
            if came.names_user && self.calls.member().view().auth().is_enabled() {
                return gateway::certificate_ignored();
            }
            let dispatch = Rc::clone(&self);
            let answer = |request| gateway::answer(dispatch, request, came);
            self.cors.guard(request, answer).await
        })
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn finished(
        &self,
        row: &'static Row,
        status: Option<&Status>,
        began: Option<std::time::Instant>,
    ) {
        self.metrics.calls.ended(row.method, status.map_or(Code::Ok, |s| s.code), began);
    }
}
