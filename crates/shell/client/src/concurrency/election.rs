//! Elections: the oldest key leads, and its value is what the leader proclaims.

use api::etcdserverpb::range_request::SortOrder;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{
    DeleteRangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
    WatchCreateRequest,
};
use api::method::Method;
use api::mvccpb::KeyValue;
use bytes::Bytes;

use super::{LockError, Session, created_at, get, one_by_creation, own_key, put, range};
use crate::call::{Client, Leader};
use crate::watches::{self, Told, Watches};

/// An election by its name.
#[derive(Debug)]
pub struct Election<'a> {
    session: &'a Session,
    prefix: String,
    key: Bytes,
    /// When the session's key was created, while it stands for election.
    revision: Option<i64>,
}

impl<'a> Election<'a> {
    /// An election for which this session does not stand yet.
    #[must_use]
    pub fn new(session: &'a Session, name: &str) -> Self {
        let prefix = format!("{name}/");
        let key = own_key(&prefix, session.lease());
        Self { session, prefix, key, revision: None }
    }

    /// The session's key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Stands for election and waits until the session leads. Whoever gives up waiting calls
    /// [`Election::resign`].
    ///
    /// # Errors
    /// A call failed.
    //= etcd 3.7.3: client/v3/concurrency/election.go#Campaign
    pub async fn campaign(&mut self, value: Bytes) -> Result<(), LockError> {
        let (session, key) = (self.session, self.key.clone());
        let request = TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![put(&key, value.clone(), session.lease())],
            failure: vec![range(get(&key))],
        };
        let answer: TxnResponse = session.client().call(Method::Txn, &request, None).await?;
        let mine = if answer.succeeded {
            answer.header.unwrap_or_default().revision
        } else {
            let own = answer.responses.first().and_then(|op| match &op.response {
                Some(Response::ResponseRange(range)) => range.kvs.first(),
                _ => None,
            });
            let own = own.ok_or(LockError::Malformed)?;
            self.revision = Some(own.create_revision);
            if own.value != value {
                self.proclaim(value).await?;
            }
            own.create_revision
        };
        self.revision = Some(mine);
        super::wait_for_older(session.client(), &self.prefix, mine.saturating_sub(1)).await
    }

    /// Says something else as the leader, without another election.
    ///
    /// # Errors
    /// The session does not lead, or the call failed.
    pub async fn proclaim(&mut self, value: Bytes) -> Result<(), LockError> {
        let op = put(&self.key, value, self.session.lease());
        if self.if_mine(op).await?.succeeded {
            return Ok(());
        }
        self.revision = None;
        Err(LockError::NotLeader)
    }

    /// Stands for election no more. Nothing happens if the session does not.
    ///
    /// # Errors
    /// The call failed.
    pub async fn resign(&mut self) -> Result<(), LockError> {
        if self.revision.is_none() {
            return Ok(());
        }
        let delete = DeleteRangeRequest { key: self.key.clone(), ..DeleteRangeRequest::default() };
        let op = RequestOp { request: Some(Request::RequestDeleteRange(delete)) };
        let resigned = self.if_mine(op).await;
        self.revision = None;
        resigned.map(drop)
    }

    /// Does something if the key is still the one with which the session stands.
    async fn if_mine(&self, op: RequestOp) -> Result<TxnResponse, LockError> {
        let Some(revision) = self.revision else { return Err(LockError::NotLeader) };
        let request = TxnRequest {
            compare: vec![created_at(&self.key, revision)],
            success: vec![op],
            failure: Vec::new(),
        };
        Ok(self.session.client().call(Method::Txn, &request, None).await?)
    }

    /// Tells who leads, and what each leader proclaims, until that cannot be followed any more.
    //= etcd 3.7.3: client/v3/concurrency/election.go#observe
    pub async fn observe(&self, mut tell: impl FnMut(ResponseHeader, KeyValue)) -> LockError {
        let client = self.session.client();
        loop {
            let (header, leader) = match first_leader(client, &self.prefix).await {
                Ok(found) => found,
                Err(error) => return error,
            };
            let key = leader.key.clone();
            let from = header.revision.saturating_add(1);
            tell(header, leader);
            if let Err(error) = follow(client, key, from, &mut tell).await {
                return error;
            }
        }
    }
}

/// Who leads; waits until somebody does.
async fn first_leader(
    client: &Client,
    prefix: &str,
) -> Result<(ResponseHeader, KeyValue), LockError> {
    let request = one_by_creation(prefix, SortOrder::Ascend);
    let range_end = request.range_end.clone();
    let mut found: RangeResponse = client.call(Method::Range, &request, None).await?;
    let header = found.header.unwrap_or_default();
    if !found.kvs.is_empty() {
        return Ok((header, found.kvs.swap_remove(0)));
    }
    let mut watches = Watches::new(client, Leader::Awaited);
    watches.add(WatchCreateRequest {
        key: request.key,
        range_end,
        start_revision: header.revision,
        ..WatchCreateRequest::default()
    });
    loop {
        match watches.next().await {
            Told::Response(_, response) => {
                if response.canceled {
                    return Err(LockError::WatchLost(watches::why_canceled(&response)));
                }
                let mut header = response.header.unwrap_or_default();
                let mut events = response.events.into_iter();
                let put = events.find(|event| !watches::is_delete(event));
                let Some(kv) = put.and_then(|event| event.kv) else { continue };
                // The response may hold later revisions.
                header.revision = kv.mod_revision;
                return Ok((header, kv));
            }
            Told::Ended(_, error) => return Err(error.into()),
        }
    }
}

/// Tells what a leader proclaims until its key is gone.
async fn follow(
    client: &Client,
    key: Bytes,
    start_revision: i64,
    tell: &mut impl FnMut(ResponseHeader, KeyValue),
) -> Result<(), LockError> {
    let mut watches = Watches::new(client, Leader::Awaited);
    watches.add(WatchCreateRequest { key, start_revision, ..WatchCreateRequest::default() });
    loop {
        match watches.next().await {
            Told::Response(_, response) => {
                let header = response.header.unwrap_or_default();
                for event in &response.events {
                    if watches::is_delete(event) {
                        return Ok(());
                    }
                    tell(header, event.kv.clone().unwrap_or_default());
                }
                if response.canceled {
                    return Err(LockError::WatchLost(watches::why_canceled(&response)));
                }
            }
            Told::Ended(_, error) => return Err(error.into()),
        }
    }
}
