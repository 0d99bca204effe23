//! The calls of one HTTP/2 connection.
//!
//! [`Session`] is what a connection's task ([`drive`]) shares with the streams of its calls: the
//! wire, the calls that wait for a reply, and counts. A unary call is answered while its frame is
//! being read ([`unary`]), or waits as a number until its reply comes, without a future; streams and
//! long answers are futures ([`stream`]) that the connection's task polls. All that a round of these
//! has to say leaves in one write.
//!
//! Invariants: everything of a connection ends with its task; nothing here is sent to another thread;
//! the wire is borrowed only within a statement, never over a call into `calls`.

mod answer;
mod deadline;
mod drive;
mod gathered;
mod head;
mod keepalive;
mod ping;
mod progress;
mod stream;
mod unary;
mod waits;
mod web;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use api::method::{CallType, Method, Row};
use calls::{Caller, Recipient};
use http2::{Connection, Limits};
use member::Reply;
use observe::Metrics;
use slab::Slab;
use tokio::sync::Semaphore;

pub(crate) use drive::serve;
use head::{Grpc, Head};
use stream::Channel;
use unary::{Gathering, Pending};

use crate::{Origin, Settings};

/// No limit of calls, and the largest that may be told: clients read it as a signed number.
//= etcd 3.7.3: server/embed/serve.go#configureHttpServer
const UNLIMITED_STREAMS: u32 = u32::MAX;
const MAX_STREAMS: u32 = i32::MAX as u32;

/// What a stream is busy with.
#[derive(Debug)]
pub(crate) enum Slot {
    /// A unary call whose message is not there yet, by its place in [`Session::gathering`].
    Gathering(usize),
    /// A unary call that waits for a reply, by its place in [`Session::pending`].
    Pending(usize),
    /// A call that is a future.
    Future(Rc<Channel>),
    /// A request over HTTP whose body is still to come.
    Web(Box<web::Waiting>),
    /// A call that is just being answered.
    Ended,
}

/// What a connection's task shares with its calls.
pub(crate) struct Session {
    wire: RefCell<Connection<Grpc>>,
    /// Unary calls whose messages are not there yet.
    gathering: RefCell<Slab<Gathering>>,
    /// Unary calls that wait for a reply, by the key it is addressed with.
    pending: RefCell<Slab<Pending>>,
    /// Replies that have come for them.
    replies: RefCell<VecDeque<(usize, Reply)>>,
    /// The connection's task, and whether it is just polled: then it needs no wake.
    task: RefCell<Waker>,
    is_polled: Cell<bool>,
    /// Futures that end by themselves.
    finite_futures: Cell<u32>,
    /// Bytes of messages that are not whole ([`gathered`]).
    gathered: Cell<usize>,
    /// Turns of those that hold a piece of a long answer; none on a connection that rests.
    pieces: Cell<Option<Rc<Semaphore>>>,
    metrics: Arc<Metrics>,
    settings: Rc<Settings>,
    /// Who calls, as far as the connection tells.
    caller: Caller,
    /// Whether the client's certificate names a user.
    names_user: bool,
    /// What is answered.
    answers: web::Answers,
}

impl Session {
    fn new(settings: Rc<Settings>, metrics: Arc<Metrics>, origin: &Origin) -> Rc<Self> {
        let concurrent_streams = match settings.max_concurrent_streams {
            UNLIMITED_STREAMS => UNLIMITED_STREAMS,
            limit => limit.min(MAX_STREAMS),
        };
        let answers = web::Answers::of(origin);
        let serves_refused = answers.has_http();
        let limits = Limits { concurrent_streams, serves_refused, ..Limits::default() };
        Rc::new(Self {
            wire: RefCell::new(Connection::new(limits)),
            gathering: RefCell::default(),
            pending: RefCell::default(),
            replies: RefCell::default(),
            task: RefCell::new(Waker::noop().clone()),
            is_polled: Cell::new(false),
            finite_futures: Cell::new(0),
            gathered: Cell::default(),
            pieces: Cell::default(),
            metrics,
            settings,
            caller: origin.caller(),
            names_user: origin.names_user(),
            answers,
        })
    }

    /// The connection's task is polled.
    fn begin_poll(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.will_wake(cx.waker()) {
            task.clone_from(cx.waker());
        }
        self.is_polled.set(true);
    }

    /// Has the connection's task write what was put on the wire.
    fn wake(&self) {
        if !self.is_polled.get() {
            self.task.borrow().wake_by_ref();
        }
    }

    /// Whether a call is open that ends by itself.
    fn has_finite_calls(&self) -> bool {
        self.finite_futures.get() > 0
            || !self.pending.borrow().is_empty()
            || !self.gathering.borrow().is_empty()
    }
}

impl Recipient<Reply> for Session {
    fn receive(&self, key: u64, reply: Reply) {
        let mut replies = self.replies.borrow_mut();
        replies.push_back((usize::try_from(key).expect("a key of this table"), reply));
        if replies.len() == 1 {
            self.wake();
        }
    }
}

/// Whether a call ends by itself.
fn is_finite(row: &Row) -> bool {
    row.kind != CallType::BidiStream && row.method != Method::HealthWatch
}

/// The call as its handler sees it. The certificate of its connection and the token of the call make
/// its caller.
fn seen<'a>(session: &Session, row: &'static Row, head: &'a Head) -> calls::Call<'a> {
    calls::Call {
        row,
        caller: head.caller(&session.caller),
        requires_leader: head.requires_leader(),
        client_version: head.client_version(),
    }
}
