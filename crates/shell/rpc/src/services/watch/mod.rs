//! The Watch service: sessions of one runtime around its [`WatchHub`].
//!
//! Owns each stream's way to its client, the task that walks the hub when the member has news, and
//! the pool jobs for watchers that are behind. A response is handed to HTTP/2 at once as far as the
//! client's window goes; what remains of that one response is all that is ever kept for a client
//! (and at most one answer to a request, as none is read meanwhile).
//!
//! Read next: [`out`] (a stream's way out and the bytes of responses), [`session`].

mod out;
mod session;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use api::error::{ApiError, Code, Status};
use member::MemberView;
use watch::{CatchUp, ReadJob, Step, StreamId, WatchHub};

use crate::runtime::Runtime;
use crate::{Call, Requests, Sender};
use out::{Delivery, Out};

/// Events and responses that one turn on the runtime's thread is worth.
const TURN: usize = 4_096;
/// Jobs of one runtime that read history at once.
const MAX_JOBS: usize = 4;
/// How long a full pool is left alone.
const POOL_RETRY: Duration = Duration::from_millis(10);
/// Election timeouts without a leader after which streams that require one end.
//= etcd 3.7.1: server/etcdserver/api/v3rpc/interceptor.go (maxNoLeaderCnt)
const MAX_NO_LEADER: u32 = 3;

/// The watch streams of one runtime.
pub(super) struct Watches {
    rt: Rc<Runtime>,
    hub: RefCell<WatchHub>,
    /// By stream.
    outs: RefCell<Vec<Option<Rc<Out>>>>,
    driver: RefCell<Option<Waker>>,
    kicked: Cell<bool>,
    driving: Cell<bool>,
    monitoring: Cell<bool>,
    jobs: Cell<usize>,
    /// Watchers, and those that read history, as last added to the gauges.
    shown: Cell<(usize, usize)>,
}

impl Watches {
    pub(super) fn new(rt: Rc<Runtime>) -> Rc<Self> {
        let hub = WatchHub::new(rt.view().store.revision(), rt.handle.hash_seed);
        Rc::new(Self {
            rt,
            hub: RefCell::new(hub),
            outs: RefCell::default(),
            driver: RefCell::default(),
            kicked: Cell::new(false),
            driving: Cell::new(false),
            monitoring: Cell::new(false),
            jobs: Cell::new(0),
            shown: Cell::new((0, 0)),
        })
    }

    /// Serves one stream to its end.
    pub(super) async fn stream(
        self: &Rc<Self>,
        call: &Call,
        requests: Requests,
        sender: Sender,
    ) -> Result<(), Status> {
        if !self.driving.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).drive());
        }
        let requires_leader = call.metadata.requires_leader();
        if requires_leader && !self.monitoring.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).monitor_leader());
        }
        session::Session::open(self, sender, requires_leader).run(requests).await
    }

    /// Lets the driver look again.
    fn kick(&self) {
        self.kicked.set(true);
        if let Some(waker) = &*self.driver.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Brings the gauges of watchers up to date.
    fn show(&self) {
        let hub = self.hub.borrow();
        let now = (hub.watchers(), hub.waiting_for_history());
        let before = self.shown.replace(now);
        let change = |now: usize, before: usize| now as i64 - before as i64;
        let metrics = &self.rt.handle.metrics;
        if now.0 != before.0 {
            metrics.watchers.add(change(now.0, before.0));
        }
        if now.1 != before.1 {
            metrics.slow_watchers.add(change(now.1, before.1));
        }
    }

    fn delivery(&self) -> Delivery<'_> {
        let header = self.rt.header(types::Revision(0));
        let limit =
            self.rt.handle.limits.max_request_bytes + types::limits::GRPC_OVERHEAD_BYTES as usize;
        let handle = &self.rt.handle;
        Delivery::new(self.outs.borrow(), header, limit, &handle.metrics, &handle.failpoints)
    }

    /// Walks the hub whenever there is something to tell, for ever.
    async fn drive(self: Rc<Self>) {
        loop {
            poll_fn(|cx| self.poll_news(cx)).await;
            let more = self.turn(&self.rt.view());
            self.show();
            if more {
                self.kicked.set(true);
                tokio::task::yield_now().await;
            }
        }
    }

    fn poll_news(&self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        {
            let mut driver = self.driver.borrow_mut();
            if driver.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
                *driver = Some(cx.waker().clone());
            }
        }
        if self.kicked.replace(false) {
            return Poll::Ready(());
        }
        let hub = self.hub.borrow();
        if hub.synced() == 0 {
            self.rt.bell().disarm();
            return Poll::Pending;
        }
        self.rt.bell().arm(cx.waker());
        if self.rt.view().store.revision() > hub.revision() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// One turn; whether there is more to do at once.
    fn turn(self: &Rc<Self>, view: &Arc<MemberView>) -> bool {
        let (mut hub, mut delivery) = (self.hub.borrow_mut(), self.delivery());
        if hub.advance(&view.store, TURN, &mut delivery) == Step::More {
            return true;
        }
        while self.jobs.get() < MAX_JOBS {
            match hub.catch_up(&view.store, TURN, &mut delivery) {
                CatchUp::Job(job) => {
                    self.jobs.set(self.jobs.get() + 1);
                    tokio::task::spawn_local(Rc::clone(self).read(job, Arc::clone(view)));
                }
                CatchUp::More => return true,
                CatchUp::Idle => break,
            }
        }
        false
    }

    /// Runs a job on the pool and delivers what it found.
    async fn read(self: Rc<Self>, job: ReadJob, view: Arc<MemberView>) {
        let id = job.id;
        let result = self.rt.handle.pool.run(move |may| job.run(may, &view.store)).await;
        match result {
            Ok(Ok(chunk)) => {
                let view = self.rt.view();
                let mut hub = self.hub.borrow_mut();
                hub.finish(chunk, &view.store, &mut self.delivery());
            }
            Ok(Err(error)) => {
                let status = Status::new(Code::DataLoss, format!("etcdserver: {error}"));
                for StreamId(stream) in self.hub.borrow_mut().failed(id) {
                    if let Some(out) = &self.outs.borrow()[stream as usize] {
                        out.end(status.clone());
                    }
                }
            }
            Err(_) => {
                tokio::time::sleep(POOL_RETRY).await;
                self.hub.borrow_mut().failed(id);
            }
        }
        self.jobs.set(self.jobs.get() - 1);
        self.kick();
    }

    /// Ends streams that require a leader when there is none for long.
    //= etcd 3.7.1: server/etcdserver/api/v3rpc/interceptor.go#monitorLeader
    async fn monitor_leader(self: Rc<Self>) {
        let mut missing = 0;
        loop {
            tokio::time::sleep(self.rt.handle.watch.election).await;
            if self.rt.handle.status.load().leader.is_some() {
                missing = 0;
                continue;
            }
            missing += 1;
            if missing < MAX_NO_LEADER {
                continue;
            }
            for out in self.outs.borrow().iter().flatten() {
                if out.requires_leader {
                    out.end(ApiError::NoLeader.into());
                }
            }
        }
    }
}
