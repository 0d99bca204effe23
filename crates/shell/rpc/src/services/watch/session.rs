//! One client's stream: its requests, its pauses, its end.
//!
//! //= etcd 3.7.1: server/etcdserver/api/v3rpc/watch.go

use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use types::{Revision, WatchId};
use watch::{Create, Filter, Flow, Resumed, StreamId};

use super::out::Out;
use super::{TURN, Watches};
use crate::{Requests, Sender};

/// Shortest time between progress notifications.
const MIN_PROGRESS: Duration = Duration::from_millis(100);
/// The watch id of a response that concerns none.
const NO_WATCH: i64 = -1;

/// An open stream; dropping it closes it.
pub(super) struct Session {
    watches: Rc<Watches>,
    out: Rc<Out>,
    id: StreamId,
    /// Made with the first watch that wants to be told.
    ticker: Option<Interval>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.watches.hub.borrow_mut().close(self.id);
        self.watches.rt.handle.metrics.watch_streams.dec();
        self.watches.show();
        self.watches.outs.borrow_mut()[self.id.0 as usize] = None;
    }
}

enum Next {
    Request(Option<Bytes>),
    Changed,
    Tick,
}

impl Session {
    pub(super) fn open(watches: &Rc<Watches>, sender: Sender, requires_leader: bool) -> Self {
        let id = watches.hub.borrow_mut().open();
        watches.rt.handle.metrics.watch_streams.inc();
        let out = Rc::new(Out::new(sender, requires_leader));
        let mut outs = watches.outs.borrow_mut();
        if outs.len() <= id.0 as usize {
            outs.resize_with(id.0 as usize + 1, || None);
        }
        outs[id.0 as usize] = Some(Rc::clone(&out));
        drop(outs);
        Self { watches: Rc::clone(watches), out, id, ticker: None }
    }

    /// Runs until the client is gone or the server ends it. The client's half-close ends nothing:
    /// events go on.
    pub(super) async fn run(mut self, mut requests: Requests) -> Result<(), Status> {
        let mut is_open = true;
        loop {
            if !self.out.is_clear() {
                self.flush().await?;
                self.resume().await;
                continue;
            }
            let (out, ticker) = (&self.out, &mut self.ticker);
            let next = tokio::select! {
                biased;
                changed = poll_fn(|cx| out.poll_changed(cx)) => {
                    changed?;
                    Next::Changed
                }
                message = requests.next(), if is_open => Next::Request(message?),
                () = tick(ticker) => Next::Tick,
            };
            match next {
                Next::Changed => {}
                Next::Request(None) => is_open = false,
                Next::Request(Some(message)) => {
                    self.request(crate::services::decode_in_stream(message)?);
                }
                Next::Tick => {
                    let mut hub = self.watches.hub.borrow_mut();
                    hub.tick(self.id, &mut self.watches.delivery());
                }
            }
        }
    }

    /// Waits until everything pending is sent.
    async fn flush(&self) -> Result<(), Status> {
        poll_fn(|cx| {
            if let Poll::Ready(status) = self.out.poll_end(cx) {
                return Poll::Ready(Err(status));
            }
            let gone = |_| Status::new(Code::Canceled, "context canceled");
            self.out.poll_flush(cx).map_err(gone)
        })
        .await
    }

    /// Brings the stream to where the hub is, or until it is full again.
    async fn resume(&self) {
        loop {
            let view = self.watches.rt.view();
            let resumed = {
                let mut hub = self.watches.hub.borrow_mut();
                hub.resume(self.id, &view.store, TURN, &mut self.watches.delivery())
            };
            match resumed {
                Resumed::More => tokio::task::yield_now().await,
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
        let revision = self.watches.rt.view().store.revision();
        let notify = request.progress_notify;
        let created = if request.start_revision < 0 {
            Err(ApiError::Compacted.text().to_owned())
        } else {
            let create = translate(request);
            let mut hub = self.watches.hub.borrow_mut();
            hub.create(self.id, create, revision).map_err(|refused| refused.to_string())
        };
        match created {
            Ok(id) => {
                self.watches.show();
                if notify && self.ticker.is_none() {
                    self.ticker = Some(ticker(self.watches.rt.handle.watch.progress_interval));
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

    /// Answers a request.
    fn respond(&self, response: WatchResponse) {
        let revision: Revision = self.watches.rt.view().store.revision();
        let header = Some(self.watches.rt.header(revision));
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

/// The interval, at least the shortest, and up to a tenth more, so that streams do not tick
/// together.
fn ticker(interval: Duration) -> Interval {
    let interval = interval.max(MIN_PROGRESS);
    let random = RandomState::new().build_hasher().finish();
    let tenth = (interval.as_nanos() / 10).max(1) as u64;
    let interval = interval + Duration::from_nanos(random % tenth);
    let mut ticker = tokio::time::interval_at(Instant::now() + interval, interval);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

async fn tick(ticker: &mut Option<Interval>) {
    match ticker {
        Some(ticker) => {
            ticker.tick().await;
        }
        None => std::future::pending().await,
    }
}
