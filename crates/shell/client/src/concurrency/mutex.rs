//! A lock that one session has at a time.

use api::etcdserverpb::range_request::SortOrder;
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, RangeResponse, ResponseHeader, ResponseOp, TxnRequest,
    TxnResponse,
};
use api::method::Method;
use bytes::Bytes;

use super::{LockError, Session, created_at, get, one_by_creation, own_key, put, range};

/// A lock by its name.
#[derive(Debug)]
pub struct Mutex<'a> {
    session: &'a Session,
    prefix: String,
    key: Bytes,
    /// When the session's key was created, while there is one.
    revision: Option<i64>,
    header: ResponseHeader,
}

impl<'a> Mutex<'a> {
    /// A lock that this session does not have yet.
    #[must_use]
    pub fn new(session: &'a Session, name: &str) -> Self {
        let prefix = format!("{name}/");
        let key = own_key(&prefix, session.lease());
        Self { session, prefix, key, revision: None, header: ResponseHeader::default() }
    }

    /// The session's key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The header of the answer that gave the lock.
    #[must_use]
    pub fn header(&self) -> ResponseHeader {
        self.header
    }

    /// Waits for the lock. Whoever gives up waiting calls [`Mutex::unlock`].
    ///
    /// # Errors
    /// A call failed, or the session ended while it waited. The lock is not held then.
    //= etcd 3.7.3: client/v3/concurrency/mutex.go#Lock
    pub async fn lock(&mut self) -> Result<(), LockError> {
        let answer = self.queue_up().await?;
        let header = answer.header.unwrap_or_default();
        let [own, oldest] = answer.responses.as_slice() else { return Err(LockError::Malformed) };
        let mine = if answer.succeeded {
            header.revision
        } else {
            ranged(own).and_then(|r| r.kvs.first()).ok_or(LockError::Malformed)?.create_revision
        };
        self.revision = Some(mine);
        let oldest = ranged(oldest).ok_or(LockError::Malformed)?.kvs.first();
        if oldest.is_none_or(|oldest| oldest.create_revision == mine) {
            self.header = header;
            return Ok(());
        }
        let waited = self.wait_for_turn(mine).await;
        if waited.as_ref().is_err_and(|e| *e != LockError::SessionExpired) {
            // The reason why it is given up is told, not what comes of that.
            let _ = self.unlock().await;
        }
        waited
    }

    /// Puts the session's key, unless it is there, and asks who has the lock.
    async fn queue_up(&self) -> Result<TxnResponse, LockError> {
        let (session, key) = (self.session, &self.key);
        let oldest = range(one_by_creation(&self.prefix, SortOrder::Ascend));
        let request = TxnRequest {
            compare: vec![created_at(key, 0)],
            success: vec![put(key, Bytes::new(), session.lease()), oldest.clone()],
            failure: vec![range(get(key)), oldest],
        };
        Ok(session.client().call(Method::Txn, &request, None).await?)
    }

    async fn wait_for_turn(&mut self, mine: i64) -> Result<(), LockError> {
        let client = self.session.client();
        super::wait_for_older(client, &self.prefix, mine.saturating_sub(1)).await?;
        // The lease may have ended meanwhile, and the key with it.
        let own: RangeResponse = client.call(Method::Range, &get(&self.key), None).await?;
        if own.kvs.is_empty() {
            return Err(LockError::SessionExpired);
        }
        self.header = own.header.unwrap_or_default();
        Ok(())
    }

    /// Gives the lock up, or the place in its queue.
    ///
    /// # Errors
    /// It is not held, or the call failed.
    pub async fn unlock(&mut self) -> Result<(), LockError> {
        if self.revision.is_none() {
            return Err(LockError::Released);
        }
        let request = DeleteRangeRequest { key: self.key.clone(), ..DeleteRangeRequest::default() };
        let client = self.session.client();
        let _: DeleteRangeResponse = client.call(Method::DeleteRange, &request, None).await?;
        self.revision = None;
        Ok(())
    }
}

/// The answer to a read within a transaction.
fn ranged(op: &ResponseOp) -> Option<&RangeResponse> {
    match &op.response {
        Some(Response::ResponseRange(range)) => Some(range),
        _ => None,
    }
}
