//! Streams that require a leader end when there is none for long.
//!
//! One task per runtime looks at each election timeout; a stream that wants it asks while it runs.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use api::error::{ApiError, Status};

use crate::member::Member;
use crate::stream::Serving;

/// Election timeouts without a leader after which streams that require one end.
//= etcd 3.7.3: server/etcdserver/api/v3rpc/interceptor.go (maxNoLeaderCnt)
const MAX_NO_LEADER: u32 = 3;

/// A stream that is watched over.
#[derive(Default)]
struct Stream {
    is_over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The streams of one runtime that require a leader.
#[derive(Default)]
pub(crate) struct Leaderless {
    streams: RefCell<Vec<Weak<Stream>>>,
    is_watching: Cell<bool>,
}

impl Leaderless {
    /// Runs a stream until it ends, or there was no leader for three election timeouts.
    pub(crate) async fn guard(
        self: Rc<Self>,
        member: Rc<Member>,
        mut serving: Serving,
    ) -> Result<(), Status> {
        let stream = Rc::new(Stream::default());
        self.streams.borrow_mut().push(Rc::downgrade(&stream));
        if !self.is_watching.replace(true) {
            let watching = Rc::clone(&self).watch(Rc::clone(&member));
            member.spawn(watching);
        }
        poll_fn(|cx| {
            if stream.is_over.get() {
                return Poll::Ready(Err(ApiError::NoLeader.into()));
            }
            let mut waker = stream.waker.borrow_mut();
            if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            drop(waker);
            Pin::new(&mut serving).poll(cx)
        })
        .await
    }

    /// Looks for a leader while there are streams that require one.
    //= etcd 3.7.3: server/etcdserver/api/v3rpc/interceptor.go#monitorLeader
    async fn watch(self: Rc<Self>, member: Rc<Member>) {
        let mut missing = 0;
        loop {
            member.sleep(member.shared.limits.election).await;
            self.streams.borrow_mut().retain(|stream| stream.strong_count() > 0);
            if self.streams.borrow().is_empty() {
                self.is_watching.set(false);
                return;
            }
            if member.status().leader.is_some() {
                missing = 0;
                continue;
            }
            missing += 1;
            if missing >= MAX_NO_LEADER {
                self.end_all();
            }
        }
    }

    fn end_all(&self) {
        for stream in self.streams.borrow().iter().filter_map(Weak::upgrade) {
            stream.is_over.set(true);
            if let Some(waker) = stream.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}
