//! Calls that a call makes, in the name of its own caller.
//!
//! Locks and elections are made of transactions, reads, leases and watches: each is authorized by
//! its own method's rule, as if the client had made it itself. How such a call fails is told as
//! etcd's own client would tell it, for that is what etcd's services are written with.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use api::method::Method;
use bytes::Bytes;
use prost::{Message, Name};

use crate::answer::{Body, ENVELOPE_BYTES, Encoded};
use crate::caller::Caller;
use crate::dispatch::{Call, Calls, complete};
use crate::stream::{Gone, Serving, Sink, Source};

/// The calls of one caller.
#[derive(Clone)]
pub(crate) struct Inner {
    calls: Rc<Calls>,
    caller: Caller,
}

impl Inner {
    /// Calls in the name of whoever made `call`.
    pub(crate) fn of(calls: &Rc<Calls>, call: &Call<'_>) -> Self {
        Self { calls: Rc::clone(calls), caller: call.caller.clone() }
    }

    /// Lets a future run beside the calls, whatever becomes of this one.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.calls.member().spawn(task);
    }

    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call(Method::Range, &request).await
    }

    pub(crate) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call(Method::Txn, &request).await
    }

    pub(crate) async fn grant(&self, ttl: i64) -> Result<i64, Status> {
        let request = LeaseGrantRequest { id: 0, ttl };
        let answer: LeaseGrantResponse = self.call(Method::LeaseGrant, &request).await?;
        Ok(answer.id)
    }

    /// One unary call, answered as a message.
    ///
    /// # Errors
    /// As [`told`] tells them.
    pub(crate) async fn call<A: Message + Default + Name>(
        &self,
        method: Method,
        request: &impl Message,
    ) -> Result<A, Status> {
        let answer = self.raw(method, request.encode_to_vec().into()).await.map_err(told)?;
        Ok(A::decode(answer).expect("the method answers with this message"))
    }

    async fn raw(&self, method: Method, message: Bytes) -> Result<Bytes, Status> {
        let call = Call {
            row: method.row(),
            caller: self.caller.clone(),
            requires_leader: false,
            client_version: None,
        };
        let mut out = Encoded::default();
        let answer = self.calls.answer(&call, message, &mut out)?;
        match complete(&self.calls, answer, out).await? {
            Body::Whole(message) => Ok(message.into_message().into()),
            Body::Pieces(mut pieces) => {
                let mut message = Vec::new();
                while let Some(piece) = pieces.next().await? {
                    message.extend_from_slice(&piece);
                }
                Ok(message.into())
            }
        }
    }

    /// A watch of its own stream.
    pub(crate) fn watch(&self, create: WatchCreateRequest) -> Watching {
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let feed = Rc::new(Feed::default());
        let requests = Box::new(Once(Some(request.encode_to_vec().into())));
        let call = Call {
            row: Method::Watch.row(),
            caller: self.caller.clone(),
            requires_leader: false,
            client_version: None,
        };
        let serving = self.calls.stream(&call, requests, Rc::clone(&feed) as _);
        Watching { serving, feed }
    }
}

/// An error as etcd's own client gives it on: what it knows loses its code.
//= etcd 3.7.3: api/v3rpc/rpctypes/error.go#Error
fn told(status: Status) -> Status {
    let is_known = ApiError::ALL.iter().any(|error| error.text() == status.message);
    if is_known { Status { code: Code::Unknown, ..status } } else { status }
}

/// A watch.
pub(crate) struct Watching {
    serving: Serving,
    feed: Rc<Feed>,
}

impl Watching {
    /// The next response with events.
    ///
    /// # Errors
    /// The watch is cancelled, or its stream ended.
    //= etcd 3.7.3: client/v3/watch.go#WatchResponse.Err
    pub(crate) async fn events(&mut self) -> Result<WatchResponse, Status> {
        loop {
            let response = poll_fn(|cx| self.poll_next(cx)).await.map_err(told)?;
            if response.compact_revision != 0 {
                return Err(told(ApiError::Compacted.into()));
            }
            if response.canceled && response.cancel_reason.is_empty() {
                return Err(told(ApiError::FutureRevision.into()));
            }
            if response.canceled {
                let reason = response.cancel_reason;
                return Err(told(Status::new(Code::FailedPrecondition, reason)));
            }
            if !response.events.is_empty() {
                return Ok(response);
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<WatchResponse, Status>> {
        loop {
            if let Some(response) = self.feed.take() {
                return Poll::Ready(Ok(response));
            }
            let served = self.serving.as_mut().poll(cx);
            self.feed.wait(cx);
            if self.feed.whole().is_none() {
                return served.map(|served| Err(served.err().unwrap_or_else(lost)));
            }
        }
    }
}

fn lost() -> Status {
    Status::new(Code::Unknown, "lost watcher waiting for delete")
}

/// The requests of a stream that asks once and then listens.
struct Once(Option<Bytes>);

impl Source for Once {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        match self.0.take() {
            Some(message) => Poll::Ready(Ok(Some(message))),
            None => Poll::Pending,
        }
    }
}

/// The responses of a stream within the process. It takes more only while it holds no whole one, so
/// that what a watch has to tell waits where that of a slow client does.
#[derive(Default)]
struct Feed {
    /// Messages in their envelopes.
    sealed: RefCell<Vec<u8>>,
    waiting: RefCell<Option<Waker>>,
}

impl Feed {
    fn wait(&self, cx: &Context<'_>) {
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
    }

    /// Bytes of the first message, once it is whole.
    fn whole(&self) -> Option<usize> {
        let sealed = self.sealed.borrow();
        let (envelope, message) = sealed.split_first_chunk::<ENVELOPE_BYTES>()?;
        let length = u32::from_be_bytes([envelope[1], envelope[2], envelope[3], envelope[4]]);
        let length = usize::try_from(length).expect("a length of 32 bits fits");
        (message.len() >= length).then_some(length)
    }

    fn take(&self) -> Option<WatchResponse> {
        let length = self.whole()?;
        let mut sealed = self.sealed.borrow_mut();
        let message = sealed.drain(..ENVELOPE_BYTES + length);
        let decoded = WatchResponse::decode(&message.as_slice()[ENVELOPE_BYTES..]);
        Some(decoded.expect("a watch responds with this message"))
    }
}

impl Sink for Feed {
    fn try_send(&self, sealed: &mut Bytes) -> Result<(), Gone> {
        if self.whole().is_none() {
            self.sealed.borrow_mut().extend_from_slice(sealed);
            sealed.clear();
        }
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
        Ok(())
    }

    fn poll_send(&self, cx: &mut Context<'_>, sealed: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.try_send(sealed)?;
        if sealed.is_empty() {
            return Poll::Ready(Ok(()));
        }
        // Whoever takes the first message polls the stream, of which this is part.
        self.wait(cx);
        Poll::Pending
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn compress(&self, message: &[u8]) -> Bytes {
        unreachable!("messages of {} bytes go out plain", message.len())
    }

    /// What does not leave the process is not counted.
    fn count(&self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::envelope;

    fn sealed(watch_id: i64) -> Bytes {
        let message = WatchResponse { watch_id, ..WatchResponse::default() }.encode_to_vec();
        [&envelope(message.len())[..], &message].concat().into()
    }

    #[test]
    fn a_feed_holds_one_whole_message() {
        let feed = Feed::default();
        let mut first = sealed(7);
        let mut rest = first.split_off(6);
        feed.try_send(&mut first).unwrap();
        assert!(first.is_empty() && feed.take().is_none());
        feed.try_send(&mut rest).unwrap();
        assert!(rest.is_empty());
        let mut second = sealed(8);
        feed.try_send(&mut second).unwrap();
        assert_eq!(second, sealed(8), "the first has not been taken");
        assert_eq!(feed.take().map(|response| response.watch_id), Some(7));
        feed.try_send(&mut second).unwrap();
        assert_eq!(feed.take().map(|response| response.watch_id), Some(8));
        assert!(feed.take().is_none());
    }

    #[test]
    fn what_etcds_client_knows_loses_its_code() {
        let status = told(ApiError::LeaseNotFound.into());
        assert_eq!(status.code, Code::Unknown);
        assert_eq!(status.message, ApiError::LeaseNotFound.text());
        let other = Status::new(Code::Canceled, "context canceled");
        assert_eq!(told(other.clone()), other);
    }
}
