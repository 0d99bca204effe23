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

use api::error::{Code, Status};
use env::buggify;
use member::MemberView;
use watch::{CatchUp, ReadJob, Step, StreamId, WatchHub};

use crate::caller::{Allowed, Caller};
use crate::host::Measure;
use crate::member::Member;
use crate::stream::{self, Source};
use out::{Delivery, Out};

/// Events and responses that one turn on the runtime's thread is worth.
const TURN: usize = 4_096;
/// The same, if the simulator wants to see what happens within a turn.
const ODD_TURN: usize = 3;
/// Jobs of one runtime that read history at once.
const MAX_JOBS: usize = 4;
/// How long a full pool is left alone.
const POOL_RETRY: Duration = Duration::from_millis(10);

/// The watch streams of one runtime.
pub(crate) struct Watches {
    member: Rc<Member>,
    hub: RefCell<WatchHub<Allowed>>,
    /// By stream.
    outs: RefCell<Vec<Option<Rc<Out>>>>,
    driver: RefCell<Option<Waker>>,
    kicked: Cell<bool>,
    driving: Cell<bool>,
    jobs: Cell<usize>,
    /// Watchers, and those that read history, as last added to the gauges.
    shown: Cell<(usize, usize)>,
}

impl Watches {
    pub(crate) fn new(member: Rc<Member>) -> Rc<Self> {
        let hub = WatchHub::new(member.view().revision(), member.hash_seed());
        Rc::new(Self {
            member,
            hub: RefCell::new(hub),
            outs: RefCell::default(),
            driver: RefCell::default(),
            kicked: Cell::new(false),
            driving: Cell::new(false),
            jobs: Cell::new(0),
            shown: Cell::new((0, 0)),
        })
    }

    /// Serves one stream to its end.
    pub(crate) async fn stream(
        self: Rc<Self>,
        caller: Caller,
        requests: Box<dyn Source>,
        sink: stream::Out,
    ) -> Result<(), Status> {
        if !self.driving.replace(true) {
            self.member.spawn(Rc::clone(&self).drive());
        }
        session::Session::open(&self, caller, sink).run(requests).await
    }

    /// The newest View, for watches that were allowed when they were created: the hub takes no
    /// other.
    fn view(&self) -> Arc<MemberView> {
        self.member.view().open(Allowed::BY_ITSELF)
    }

    /// What one turn is worth.
    fn turn_budget(&self) -> usize {
        let is_odd = buggify!(self.member.shared.hooks, "calls: a turn of few events");
        if is_odd { ODD_TURN } else { TURN }
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
        if now.0 != before.0 {
            self.member.measure(Measure::Watchers(change(now.0, before.0)));
        }
        if now.1 != before.1 {
            self.member.measure(Measure::SlowWatchers(change(now.1, before.1)));
        }
    }

    fn delivery(&self) -> Delivery<'_> {
        Delivery::new(self.outs.borrow(), &self.member)
    }

    /// Walks the hub whenever there is something to tell, for ever.
    async fn drive(self: Rc<Self>) {
        loop {
            poll_fn(|cx| self.poll_news(cx)).await;
            let more = self.turn(&self.view());
            self.show();
            if more {
                self.kicked.set(true);
                self.member.yield_now().await;
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
            self.member.notifier().disarm();
            return Poll::Pending;
        }
        self.member.notifier().arm(cx.waker());
        if self.member.view().revision() > hub.revision() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// One turn; whether there is more to do at once.
    fn turn(self: &Rc<Self>, view: &Arc<MemberView>) -> bool {
        let (mut hub, mut delivery) = (self.hub.borrow_mut(), self.delivery());
        let budget = self.turn_budget();
        if hub.advance(&view.store, budget, &mut delivery) == Step::More {
            return true;
        }
        while self.jobs.get() < MAX_JOBS {
            match hub.catch_up(&view.store, budget, &mut delivery) {
                CatchUp::Job(job) => {
                    self.jobs.set(self.jobs.get() + 1);
                    self.member.spawn(Rc::clone(self).read(job, Arc::clone(view)));
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
        let result = self.member.run(move |may| job.run(may, &view.store)).await;
        match result {
            Ok(Ok(chunk)) => {
                let view = self.view();
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
                self.member.sleep(POOL_RETRY).await;
                self.hub.borrow_mut().failed(id);
            }
        }
        self.jobs.set(self.jobs.get() - 1);
        self.kick();
    }
}
