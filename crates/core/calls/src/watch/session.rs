//! One client's stream: its requests, its pauses, its end.
//!
//! //= etcd 3.7.1: server/etcdserver/api/v3rpc/watch.go

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::error::{ApiError, Status};
use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use api::method::Method;
use bytes::Bytes;
use types::{Revision, WatchId};
use watch::{Create, Filter, Flow, Resumed, StreamId};

use super::Watches;
use super::out::Out;
use crate::audit;
use crate::caller::{Caller, Wish, authorize};
use crate::decode::decode_in_stream;
use crate::host::Measure;
use crate::stream::{self, Source, context_canceled};
use crate::timers::Sleep;

/// Shortest time between progress notifications.
const MIN_PROGRESS: Duration = Duration::from_millis(100);
/// The watch id of a response that concerns none.
const NO_WATCH: i64 = -1;

/// An open stream; dropping it closes it.
pub(super) struct Session {
    watches: Rc<Watches>,
    out: Rc<Out>,
    id: StreamId,
    caller: Caller,
    /// Made with the first watch that wants to be told.
    ticker: Option<Ticker>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.watches.hub.borrow_mut().close(self.id);
        self.watches.member.measure(Measure::WatchStreams(-1));
        self.watches.show();
        self.watches.outs.borrow_mut()[self.id.0 as usize] = None;
    }
}

enum Next {
    Request(Option<Bytes>),
    Changed,
    Tick,
}

/// When the stream tells its progress next, and how long from then on.
struct Ticker {
    sleep: Sleep,
    interval: Duration,
}

impl Session {
    pub(super) fn open(watches: &Rc<Watches>, caller: Caller, sink: stream::Out) -> Self {
        let id = watches.hub.borrow_mut().open();
        watches.member.measure(Measure::WatchStreams(1));
        let out = Rc::new(Out::new(sink));
        let mut outs = watches.outs.borrow_mut();
        if outs.len() <= id.0 as usize {
            outs.resize_with(id.0 as usize + 1, || None);
        }
        outs[id.0 as usize] = Some(Rc::clone(&out));
        drop(outs);
        Self { watches: Rc::clone(watches), out, id, caller, ticker: None }
    }

    /// Runs until the client is gone or the server ends it. The client's half-close ends nothing:
    /// events go on.
    pub(super) async fn run(mut self, requests: Box<dyn Source>) -> Result<(), Status> {
        let mut requests = Some(requests);
        loop {
            if !self.out.is_clear() {
                self.flush().await?;
                self.resume().await;
                continue;
            }
            match poll_fn(|cx| self.poll_next(requests.as_deref_mut(), cx)).await? {
                Next::Changed => {}
                Next::Request(None) => requests = None,
                Next::Request(Some(message)) => {
                    let request =
                        decode_in_stream(message).inspect_err(|why| self.receive_failed(why))?;
                    self.timed(Measure::WatchControl, |session| session.request(request));
                }
                Next::Tick => self.timed(Measure::WatchProgress, |session| {
                    let mut hub = session.watches.hub.borrow_mut();
                    hub.tick(session.id, &mut session.watches.delivery());
                }),
            }
        }
    }

    fn poll_next(
        &mut self,
        requests: Option<&mut (dyn Source + 'static)>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Next, Status>> {
        if let Poll::Ready(changed) = self.out.poll_changed(cx) {
            return Poll::Ready(changed.map(|()| Next::Changed));
        }
        if let Some(requests) = requests
            && let Poll::Ready(message) = requests.poll_next(cx)
        {
            let message = message.inspect_err(|why| self.receive_failed(why));
            return Poll::Ready(message.map(Next::Request));
        }
        if let Some(ticker) = &mut self.ticker
            && Pin::new(&mut ticker.sleep).poll(cx).is_ready()
        {
            ticker.sleep = self.watches.member.sleep(ticker.interval);
            return Poll::Ready(Ok(Next::Tick));
        }
        Poll::Pending
    }

    fn timed(
        &mut self,
        measure: impl FnOnce(Duration) -> Measure<'static>,
        work: impl FnOnce(&mut Self),
    ) {
        let began = self.watches.member.now();
        work(self);
        let member = &self.watches.member;
        member.measure(measure(member.now().since(began)));
    }

    fn receive_failed(&self, why: &Status) {
        stream::receive_failed(&self.watches.member, "watch", why);
    }

    /// Waits until everything pending is sent.
    async fn flush(&self) -> Result<(), Status> {
        poll_fn(|cx| {
            if let Poll::Ready(status) = self.out.poll_end(cx) {
                return Poll::Ready(Err(status));
            }
            self.out.poll_flush(cx).map_err(|_| context_canceled())
        })
        .await
    }

    /// Brings the stream to where the hub is, or until it is full again.
    async fn resume(&self) {
        loop {
            let view = self.watches.view();
            let resumed = {
                let mut hub = self.watches.hub.borrow_mut();
                let budget = self.watches.turn_budget();
                hub.resume(self.id, &view.store, budget, &mut self.watches.delivery())
            };
            match resumed {
                Resumed::More => self.watches.member.yield_now().await,
                Resumed::Synced | Resumed::Full => break,
            }
        }
        // The hub counts this stream in again, or has watchers that go on reading.
        self.watches.kick();
    }

    fn request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => {
                let id = WatchId(cancel.watch_id);
                let known = self.watches.hub.borrow_mut().cancel(self.id, id);
                if known {
                    self.watches.show();
                    self.respond(WatchResponse {
                        watch_id: id.0,
                        canceled: true,
                        ..WatchResponse::default()
                    });
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.watches.hub.borrow_mut().want_progress(self.id);
                self.watches.kick();
            }
            None => {}
        }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        let view = self.watches.member.view();
        let revision = view.revision();
        let notify = request.progress_notify;
        let wish = Wish::Watch(&request);
        let member = &self.watches.member;
        let created = match authorize(member, Method::Watch.row(), &self.caller, &view, wish) {
            _ if request.start_revision < 0 => Err(ApiError::Compacted.text().to_owned()),
            Err(status) => {
                let union = Some(RequestUnion::CreateRequest(request));
                let request = WatchRequest { request_union: union };
                audit::refused(member, (Method::Watch.row(), &self.caller), &request, &status);
                Err(status.to_string())
            }
            Ok(allowed) => {
                let create = translate(request);
                let mut hub = self.watches.hub.borrow_mut();
                hub.create(self.id, create, revision, allowed)
                    .map_err(|refused| refused.to_string())
            }
        };
        match created {
            Ok(id) => {
                self.watches.show();
                if notify && self.ticker.is_none() {
                    self.ticker = Some(self.ticker());
                }
                self.respond(WatchResponse {
                    watch_id: id.0,
                    created: true,
                    ..WatchResponse::default()
                });
                self.watches.kick();
            }
            Err(reason) => self.respond(WatchResponse {
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: reason,
                ..WatchResponse::default()
            }),
        }
    }

    /// Ticks at the interval, at least the shortest, and up to a tenth more, so that streams do not
    /// tick together.
    fn ticker(&self) -> Ticker {
        let member = &self.watches.member;
        let interval = member.shared.limits.progress_interval.max(MIN_PROGRESS);
        let tenth = (interval.as_nanos() / 10).max(1) as u64;
        let interval = interval + Duration::from_nanos(member.random() % tenth);
        Ticker { sleep: member.sleep(interval), interval }
    }

    /// Answers a request.
    fn respond(&self, response: WatchResponse) {
        let revision: Revision = self.watches.member.view().revision();
        let header = Some(self.watches.member.header(revision));
        if self.out.respond(&WatchResponse { header, ..response }) == Flow::Full {
            self.watches.hub.borrow_mut().stall(self.id);
        }
    }
}

fn translate(request: WatchCreateRequest) -> Create {
    let has = |filter: FilterType| request.filters.contains(&(filter as i32));
    Create {
        filter: Filter { no_put: has(FilterType::Noput), no_delete: has(FilterType::Nodelete) },
        key: request.key,
        range_end: request.range_end,
        start: Revision(request.start_revision),
        id: WatchId(request.watch_id),
        prev_kv: request.prev_kv,
        progress_notify: request.progress_notify,
        fragment: request.fragment,
    }
}
