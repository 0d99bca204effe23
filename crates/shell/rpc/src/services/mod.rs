//! The services: validate, hand over to the member, render the answer.
//!
//! [`Services`] is one runtime's dispatcher. Read next: [`kv`] for the way of a write and a read.

mod cluster;
pub mod cors;
pub mod downgrade;
mod health;
mod http;
pub mod kv;
pub mod lease;
pub mod maintenance;
pub mod peers;
mod pin;
pub mod range_stream;
pub mod render;
pub mod validate;
mod warm;
pub mod watch;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use api::error::{ApiError, Code, Status};
use api::method::{Kind, Learner, Method, Row};
use api::odd::{self, Undecodable};
use bytes::Bytes;
use observe::metrics::IntCounter;
use prost::{Message, Name};

use crate::metadata::CLIENT_API_VERSION;
use crate::runtime::Runtime;
use crate::{Body, Call, Dispatch, HttpRequest, HttpResponse, Local, Requests, Sender};
use observe::Metrics;

/// Answers the calls of one runtime's connections.
pub struct Services {
    rt: Rc<Runtime>,
    watches: Rc<watch::Watches>,
    /// The counters of the last client's version.
    client: RefCell<Option<(String, [IntCounter; 2])>>,
}

impl Services {
    /// The services of a runtime.
    #[must_use]
    pub fn new(rt: Rc<Runtime>) -> Rc<Self> {
        let watches = watch::Watches::new(Rc::clone(&rt));
        Rc::new(Self { rt, watches, client: RefCell::default() })
    }

    /// Counts a call by its client's version.
    fn count_client(&self, call: &Call, version: &str) {
        let mut last = self.client.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| known != version) {
            *last = Some((version.to_owned(), self.rt.handle.metrics.clients(version)));
        }
        if let Some((_, counters)) = &*last {
            counters[usize::from(call.row.kind != Kind::Unary)].inc();
        }
    }

    /// Checks that hold for every call: the client's version text and its wish for a leader.
    //= etcd 3.7.1: server/etcdserver/api/v3rpc/interceptor.go#newUnaryInterceptor
    fn check(&self, call: &Call) -> Result<(), Status> {
        // A range is looked at when it is decoded.
        if call.row.learner == Learner::Never && self.rt.handle.is_learner() {
            return Err(ApiError::NotSupportedForLearner.into());
        }
        let version = call.metadata.get(&CLIENT_API_VERSION).unwrap_or(b"unknown");
        match std::str::from_utf8(version) {
            Ok(version) => self.count_client(call, version),
            Err(_) => return Err(ApiError::InvalidClientApiVersion.into()),
        }
        if call.metadata.requires_leader() && self.rt.handle.status.load().leader.is_none() {
            return Err(ApiError::NoLeader.into());
        }
        Ok(())
    }
}

impl Dispatch for Services {
    fn unary(self: Rc<Self>, call: Call, message: Bytes) -> Local<'static, Result<Body, Status>> {
        if let Err(status) = self.check(&call) {
            return at_once(Err(status));
        }
        let rt = Rc::clone(&self.rt);
        // Each in a box of its own size: the largest is many times a put's.
        match call.row.method {
            Method::Range => Box::pin(async move { kv::range(&rt, message).await }),
            Method::Put => Box::pin(async move { kv::put(&rt, message).await }),
            Method::DeleteRange => Box::pin(async move { kv::delete(&rt, message).await }),
            Method::Txn => Box::pin(async move { kv::txn(&rt, message).await }),
            Method::Compact => Box::pin(async move { kv::compact(&rt, message).await }),
            Method::LeaseGrant => Box::pin(async move { lease::grant(&rt, message).await }),
            Method::LeaseRevoke => Box::pin(async move { lease::revoke(&rt, message).await }),
            Method::LeaseTimeToLive => {
                Box::pin(async move { lease::time_to_live(&rt, message).await })
            }
            Method::LeaseLeases => Box::pin(async move { lease::leases(&rt).await }),
            Method::MemberList => Box::pin(async move { cluster::member_list(&rt, message).await }),
            Method::MemberAdd => Box::pin(async move { cluster::member_add(&rt, message).await }),
            Method::MemberRemove => {
                Box::pin(async move { cluster::member_remove(&rt, message).await })
            }
            Method::MemberUpdate => {
                Box::pin(async move { cluster::member_update(&rt, message).await })
            }
            Method::MemberPromote => {
                Box::pin(async move { cluster::member_promote(&rt, message).await })
            }
            Method::Downgrade => Box::pin(async move { downgrade::downgrade(&rt, message).await }),
            Method::MoveLeader => Box::pin(async move { cluster::move_leader(&rt, message).await }),
            Method::Status => at_once(Ok(maintenance::status(&rt))),
            Method::Alarm => Box::pin(async move { maintenance::alarm(&rt, message).await }),
            Method::Defragment => Box::pin(async move { maintenance::defragment(&rt).await }),
            Method::Hash => Box::pin(async move { maintenance::hash(&rt).await }),
            Method::HashKV => Box::pin(async move { maintenance::hash_kv(&rt, message).await }),
            Method::HealthCheck => at_once(health::check(message)),
            Method::HealthList => at_once(Ok(health::list())),
            _ => at_once(Err(not_implemented(call.row))),
        }
    }

    fn stream(
        self: Rc<Self>,
        call: Call,
        requests: Requests,
        sender: Sender,
    ) -> Local<'static, Result<(), Status>> {
        Box::pin(async move {
            self.check(&call)?;
            let rt = &self.rt;
            match call.row.method {
                Method::HealthWatch => health::watch(requests, sender).await,
                Method::LeaseKeepAlive => lease::keep_alive(rt, requests, sender).await,
                Method::RangeStream => range_stream::range_stream(rt, requests, sender).await,
                Method::Watch => self.watches.stream(&call, requests, sender).await,
                Method::Snapshot => maintenance::snapshot(rt, requests, sender).await,
                _ => Err(not_implemented(call.row)),
            }
        })
    }

    fn http(self: Rc<Self>, request: HttpRequest) -> Local<'static, HttpResponse> {
        Box::pin(async move {
            let answer = |request| http::answer(&self.rt, request);
            self.rt.handle.cors.guard(request, answer).await
        })
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.rt.handle.metrics
    }

    fn finished(&self, row: &'static Row, status: Option<&Status>) {
        self.rt.handle.metrics.calls.ended(row.method, status.map_or(Code::Ok, |s| s.code));
    }
}

/// An answer that nothing must be waited for.
fn at_once(answer: Result<Body, Status>) -> Local<'static, Result<Body, Status>> {
    Box::pin(std::future::ready(answer))
}

/// A method of the table that this version does not answer yet (COMPAT.md lists them).
fn not_implemented(row: &Row) -> Status {
    Status::new(
        Code::Unimplemented,
        format!("method {} of {} is not implemented by Quorate yet", row.name, row.service),
    )
}

/// Decodes the request of a unary call, with grpc-go's text for bytes that are not one.
fn decode<M: Message + Default + Name>(message: Bytes) -> Result<M, Status> {
    odd::decode(message).map_err(|e| malformed("grpc: error unmarshalling request: ", e))
}

/// Decodes a message of a stream.
fn decode_in_stream<M: Message + Default + Name>(message: Bytes) -> Result<M, Status> {
    odd::decode(message)
        .map_err(|e| malformed("grpc: failed to unmarshal the received message: ", e))
}

fn malformed(prefix: &str, error: Undecodable) -> Status {
    Status::new(Code::Internal, format!("{prefix}{error}"))
}

/// The bytes of a request for the log: as the client sent them if they are what we would write
/// ourselves, else written anew. Bytes that Go cannot read would stop every Go member.
fn unchanged<M: Message>(message: Bytes, decoded: &M) -> Bytes {
    if decoded.encoded_len() == message.len() {
        return message;
    }
    decoded.encode_to_vec().into()
}
