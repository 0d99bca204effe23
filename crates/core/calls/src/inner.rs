//! Calls that a call makes, in the name of its own caller.
//!
//! Locks and elections are made of transactions, reads, leases and watches: each is authorized by
//! its own method's rule, as if the client had made it itself. How such a call fails is told as
//! etcd's own client would tell it, for that is what etcd's services are written with.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll};

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use api::method::Method;
use bytes::Bytes;
use prost::{Message, Name};

use crate::caller::Caller;
use crate::dispatch::{Call, Calls};
use crate::feed::Responses;
use crate::stream::Source;

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
        Ok(A::decode(&answer[..]).expect("the method answers with this message"))
    }

    async fn raw(&self, method: Method, message: Bytes) -> Result<Vec<u8>, Status> {
        self.calls.whole(&self.made(method), message).await
    }

    fn made(&self, method: Method) -> Call<'static> {
        let (row, caller) = (method.row(), self.caller.clone());
        Call { row, caller, requires_leader: false, client_version: None }
    }

    /// A watch of its own stream.
    pub(crate) fn watch(&self, create: WatchCreateRequest) -> Watching {
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = Box::new(Once(Some(request.encode_to_vec().into())));
        let call = self.made(Method::Watch);
        Watching(Responses::new(|sink| self.calls.stream(&call, requests, sink)))
    }
}

/// An error as etcd's own client gives it on: what it knows loses its code.
//= etcd 3.7.3: api/v3rpc/rpctypes/error.go#Error
fn told(status: Status) -> Status {
    let is_known = ApiError::ALL.iter().any(|error| error.text() == status.message);
    if is_known { Status { code: Code::Unknown, ..status } } else { status }
}

/// A watch.
pub(crate) struct Watching(Responses);

impl Watching {
    /// The next response with events.
    ///
    /// # Errors
    /// The watch is cancelled, or its stream ended.
    //= etcd 3.7.3: client/v3/watch.go#WatchResponse.Err
    pub(crate) async fn events(&mut self) -> Result<WatchResponse, Status> {
        loop {
            let next = poll_fn(|cx| self.0.poll_next(cx)).await;
            let response = next.unwrap_or_else(|| Err(lost())).map_err(told)?;
            let response = WatchResponse::decode(response).expect("a watch responds with this");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcds_client_knows_loses_its_code() {
        let status = told(ApiError::LeaseNotFound.into());
        assert_eq!(status.code, Code::Unknown);
        assert_eq!(status.message, ApiError::LeaseNotFound.text());
        let other = Status::new(Code::Canceled, "context canceled");
        assert_eq!(told(other.clone()), other);
    }
}
