//! What locks and elections share: many sessions want to be first under a prefix.
//!
//! Each contender puts a key under the prefix, named by its lease, and waits until there is none
//! that was created before. A key ends with its lease, so that one who is gone is in nobody's way;
//! and with the call that put it, if its client gives up before it was first.
//!
//! //= etcd 3.7.3: client/v3/concurrency

use std::future::poll_fn;

use api::error::Status;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse, WatchCreateRequest,
};
use api::mvccpb::KeyValue;
use api::mvccpb::event::EventType;
use bytes::Bytes;

use crate::answer::Local;
use crate::inner::Inner;

/// Seconds of a lease that is granted to a contender without one.
//= etcd 3.7.3: client/v3/concurrency/session.go#defaultSessionTTL
const SESSION_TTL: i64 = 60;

/// The lease of a contender: its own, or a new one if it names none. It is not renewed here.
///
/// # Errors
/// No lease is granted.
pub(crate) async fn session(inner: &Inner, lease: i64) -> Result<i64, Status> {
    if lease == 0 { inner.grant(SESSION_TTL).await } else { Ok(lease) }
}

/// The prefix of a lock or an election.
pub(crate) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The contender's key. Go writes a negative number with its sign.
pub(crate) fn key(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    [prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

/// The end of the range of keys with this prefix, which ends with a slash.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let (last, before) = prefix.split_last().expect("a prefix ends with a slash");
    [before, &[last + 1]].concat().into()
}

/// The oldest key under a prefix.
pub(crate) fn oldest(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..RangeRequest::default()
    }
}

/// That a key was created at a revision; at 0, that there is none.
pub(crate) fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

pub(crate) fn get(range: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(range)) }
}

pub(crate) fn get_key(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..RangeRequest::default() }
}

pub(crate) fn put(key: &Bytes, value: &Bytes, lease: i64) -> RequestOp {
    let (key, value) = (key.clone(), value.clone());
    let put = PutRequest { key, value, lease, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

/// Deletes a key if it was created at this revision.
pub(crate) fn delete(key: &Bytes, revision: i64) -> TxnRequest {
    let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
    TxnRequest {
        compare: vec![created_at(key, revision)],
        success: vec![RequestOp { request: Some(Request::RequestDeleteRange(delete)) }],
        failure: Vec::new(),
    }
}

/// The first key of a range's answer within a transaction's.
pub(crate) fn first_of(response: Option<&ResponseOp>) -> Option<&KeyValue> {
    match response?.response.as_ref()? {
        Response::ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}

pub(crate) fn revision_of(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// A contender, from its transaction on. When it is dropped before it was first, its key goes.
pub(crate) struct Contender {
    inner: Inner,
    pub(crate) key: Bytes,
    state: State,
}

enum State {
    /// Its transaction is on its way.
    Entering(Local<'static, Result<TxnResponse, Status>>),
    /// Its key was created at this revision.
    Waiting(i64),
    /// Its key is no longer this call's concern.
    Done,
}

impl Contender {
    /// Puts the key of a contender by a transaction that first compares whether it is there, and
    /// reads it first if it is.
    ///
    /// # Errors
    /// The transaction's.
    pub(crate) async fn enter(
        inner: &Inner,
        key: Bytes,
        txn: TxnRequest,
    ) -> Result<(Self, TxnResponse), Status> {
        let own = inner.clone();
        let entering: Local<'static, _> = Box::pin(async move { own.txn(txn).await });
        let state = State::Entering(entering);
        let mut contender = Self { inner: inner.clone(), key, state };
        let entered = poll_fn(|cx| match &mut contender.state {
            State::Entering(entering) => entering.as_mut().poll(cx),
            State::Waiting(_) | State::Done => unreachable!("it enters once"),
        });
        let answer = match entered.await {
            Ok(answer) => answer,
            Err(status) => {
                contender.state = State::Done;
                return Err(status);
            }
        };
        contender.state = State::Waiting(created(&answer));
        Ok((contender, answer))
    }

    /// The revision at which the key was created.
    pub(crate) fn revision(&self) -> i64 {
        match self.state {
            State::Waiting(revision) => revision,
            State::Entering(_) | State::Done => 0,
        }
    }

    /// It is first, or its key is to stay for another reason.
    pub(crate) fn stay(mut self) {
        self.state = State::Done;
    }

    /// Takes the key away.
    pub(crate) async fn leave(mut self) {
        if let State::Waiting(revision) = self.state {
            self.state = State::Done;
            let _ = self.inner.txn(delete(&self.key, revision)).await;
        }
    }

    /// Waits until no key under the prefix is older than the contender's.
    ///
    /// # Errors
    /// The keys cannot be read or watched.
    //= etcd 3.7.3: client/v3/concurrency/key.go#waitDeletes
    pub(crate) async fn wait(&self, prefix: &Bytes) -> Result<(), Status> {
        let request = RangeRequest {
            sort_order: SortOrder::Descend as i32,
            max_create_revision: self.revision() - 1,
            ..oldest(prefix)
        };
        loop {
            let RangeResponse { header, kvs, .. } = self.inner.range(request.clone()).await?;
            let Some(before) = kvs.into_iter().next() else { return Ok(()) };
            wait_deleted(&self.inner, before.key, revision_of(header.as_ref())).await?;
        }
    }
}

impl Drop for Contender {
    /// Nobody waits for the key any more. etcd leaves one whose transaction was on its way, and
    /// takes the others away as nobody, which may not with authentication on.
    fn drop(&mut self) {
        let (inner, key) = (self.inner.clone(), std::mem::take(&mut self.key));
        match std::mem::replace(&mut self.state, State::Done) {
            State::Done => {}
            State::Waiting(revision) => self.inner.spawn(async move {
                let _ = inner.txn(delete(&key, revision)).await;
            }),
            State::Entering(entering) => self.inner.spawn(async move {
                if let Ok(answer) = entering.await
                    && answer.succeeded
                {
                    let _ = inner.txn(delete(&key, created(&answer))).await;
                }
            }),
        }
    }
}

/// The revision at which a contender's key was created, by the answer to its transaction.
fn created(answer: &TxnResponse) -> i64 {
    match first_of(answer.responses.first()) {
        Some(own) if !answer.succeeded => own.create_revision,
        _ => revision_of(answer.header.as_ref()),
    }
}

async fn wait_deleted(inner: &Inner, key: Bytes, start_revision: i64) -> Result<(), Status> {
    let create = WatchCreateRequest { key, start_revision, ..WatchCreateRequest::default() };
    let mut watching = inner.watch(create);
    loop {
        let response = watching.events().await?;
        if response.events.iter().any(|event| event.r#type == EventType::Delete as i32) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_go_writes_numbers() {
        for (lease, name) in
            [(0x694d_0000_1234, "l/694d00001234"), (-1, "l/-1"), (i64::MIN, "l/-8000000000000000")]
        {
            assert_eq!(key(b"l/", lease), name);
        }
        assert_eq!(prefix_end(b"l/"), "l0");
    }
}
