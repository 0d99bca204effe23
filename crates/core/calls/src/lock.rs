//! The Lock service: whoever's key is the oldest under the lock's name holds it.
//!
//! //= etcd 3.7.3: server/etcdserver/api/v3lock/lock.go

use std::rc::Rc;

use api::error::{Code, Status};
use api::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, TxnRequest};
use api::method::Method;
use api::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;

use crate::answer::{Answer, Body};
use crate::contest::{self, Contender, created_at, first_of, get, get_key, oldest, put, session};
use crate::decode::decode;
use crate::dispatch::{Call, Calls};
use crate::inner::Inner;

pub(crate) fn lock(calls: &Rc<Calls>, call: &Call<'_>, message: Bytes) -> Result<Answer, Status> {
    let request: LockRequest = decode(message)?;
    let inner = Inner::of(calls, call);
    Ok(Answer::Waits(Box::pin(async move { Ok(Body::of(&acquire(inner, request).await?)) })))
}

//= etcd 3.7.3: client/v3/concurrency/mutex.go#Lock
async fn acquire(inner: Inner, request: LockRequest) -> Result<LockResponse, Status> {
    let lease = session(&inner, request.lease).await?;
    let prefix = contest::prefix(&request.name);
    let key = contest::key(&prefix, lease);
    let txn = TxnRequest {
        compare: vec![created_at(&key, 0)],
        success: vec![put(&key, &Bytes::new(), lease), get(oldest(&prefix))],
        failure: vec![get(get_key(&key)), get(oldest(&prefix))],
    };
    let (contender, entered) = Contender::enter(&inner, key.clone(), txn).await?;
    let holder = first_of(entered.responses.get(1));
    if holder.is_none_or(|holder| holder.create_revision == contender.revision()) {
        contender.stay();
        return Ok(LockResponse { header: entered.header, key });
    }
    let waited = match contender.wait(&prefix).await {
        Ok(()) => inner.range(get_key(&key)).await,
        Err(status) => Err(status),
    };
    match waited {
        Ok(own) if own.kvs.is_empty() => {
            contender.stay();
            Err(Status::new(Code::Unknown, "mutex: session is expired"))
        }
        Ok(own) => {
            contender.stay();
            Ok(LockResponse { header: own.header, key })
        }
        Err(status) => {
            contender.leave().await;
            Err(status)
        }
    }
}

pub(crate) fn unlock(calls: &Rc<Calls>, call: &Call<'_>, message: Bytes) -> Result<Answer, Status> {
    let UnlockRequest { key } = decode(message)?;
    let inner = Inner::of(calls, call);
    Ok(Answer::Waits(Box::pin(async move {
        let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let deleted: DeleteRangeResponse = inner.call(Method::DeleteRange, &request).await?;
        Ok(Body::of(&UnlockResponse { header: deleted.header }))
    })))
}
