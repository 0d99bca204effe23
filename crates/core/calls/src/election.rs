//! The Election service: whoever's key is the oldest under the election's name leads, and its value
//! is what it proclaims.
//!
//! //= etcd 3.7.3: server/etcdserver/api/v3election/election.go

use std::rc::Rc;

use api::error::{Code, Status};
use api::etcdserverpb::{RangeResponse, ResponseHeader, TxnRequest, WatchCreateRequest};
use api::mvccpb::KeyValue;
use api::mvccpb::event::EventType;
use api::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use bytes::Bytes;

use crate::answer::{Answer, Body};
use crate::contest::{
    self, Contender, created_at, delete, first_of, get, get_key, oldest, prefix_end, put,
    revision_of, session,
};
use crate::decode::decode;
use crate::dispatch::{Call, Calls};
use crate::inner::Inner;
use crate::stream::{self, Gone, Out, Serving, context_canceled};

fn refused(text: &'static str) -> Status {
    Status::new(Code::Unknown, text)
}

fn missing_leader() -> Status {
    refused("\"leader\" field must be provided")
}

fn not_leader() -> Status {
    refused("election: not leader")
}

pub(crate) fn campaign(
    calls: &Rc<Calls>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: CampaignRequest = decode(message)?;
    let inner = Inner::of(calls, call);
    Ok(Answer::Waits(Box::pin(async move { Ok(Body::of(&win(inner, request).await?)) })))
}

//= etcd 3.7.3: client/v3/concurrency/election.go#Campaign
async fn win(inner: Inner, request: CampaignRequest) -> Result<CampaignResponse, Status> {
    let CampaignRequest { name, lease, value } = request;
    let lease = session(&inner, lease).await?;
    let prefix = contest::prefix(&name);
    let key = contest::key(&prefix, lease);
    let txn = TxnRequest {
        compare: vec![created_at(&key, 0)],
        success: vec![put(&key, &value, lease)],
        failure: vec![get(get_key(&key))],
    };
    let (contender, entered) = Contender::enter(&inner, key.clone(), txn).await?;
    let rev = contender.revision();
    let own = first_of(entered.responses.first()).filter(|_| !entered.succeeded);
    if own.is_some_and(|own| own.value != value) {
        let leader = LeaderKey { name: name.clone(), key: key.clone(), rev, lease };
        if let Err(status) = announce(&inner, &leader, &value).await {
            contender.leave().await;
            return Err(status);
        }
    }
    let waited = contender.wait(&prefix).await;
    // A candidate that cannot see who is before it stays one.
    contender.stay();
    waited?;
    let leader = Some(LeaderKey { name, key, rev, lease });
    Ok(CampaignResponse { header: entered.header, leader })
}

/// Sets the value of a leader.
//= etcd 3.7.3: client/v3/concurrency/election.go#Proclaim
async fn announce(
    inner: &Inner,
    leader: &LeaderKey,
    value: &Bytes,
) -> Result<Option<ResponseHeader>, Status> {
    let txn = TxnRequest {
        compare: vec![created_at(&leader.key, leader.rev)],
        success: vec![put(&leader.key, value, leader.lease)],
        failure: Vec::new(),
    };
    let answer = inner.txn(txn).await?;
    if answer.succeeded { Ok(answer.header) } else { Err(not_leader()) }
}

pub(crate) fn proclaim(
    calls: &Rc<Calls>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let ProclaimRequest { leader, value } = decode(message)?;
    let mut leader = leader.ok_or_else(missing_leader)?;
    let inner = Inner::of(calls, call);
    Ok(Answer::Waits(Box::pin(async move {
        leader.lease = session(&inner, leader.lease).await?;
        let header = announce(&inner, &leader, &value).await?;
        Ok(Body::of(&ProclaimResponse { header }))
    })))
}

pub(crate) fn resign(calls: &Rc<Calls>, call: &Call<'_>, message: Bytes) -> Result<Answer, Status> {
    let ResignRequest { leader } = decode(message)?;
    let leader = leader.ok_or_else(missing_leader)?;
    let inner = Inner::of(calls, call);
    Ok(Answer::Waits(Box::pin(async move {
        session(&inner, leader.lease).await?;
        let answer = inner.txn(delete(&leader.key, leader.rev)).await?;
        Ok(Body::of(&ResignResponse { header: answer.header }))
    })))
}

pub(crate) fn leader(calls: &Rc<Calls>, call: &Call<'_>, message: Bytes) -> Result<Answer, Status> {
    let LeaderRequest { name } = decode(message)?;
    let inner = Inner::of(calls, call);
    Ok(Answer::Waits(Box::pin(async move {
        let RangeResponse { header, kvs, .. } =
            inner.range(oldest(&contest::prefix(&name))).await?;
        let kv = kvs.into_iter().next().ok_or_else(|| refused("election: no leader"))?;
        Ok(Body::of(&LeaderResponse { header, kv: Some(kv) }))
    })))
}

pub(crate) fn observe(calls: &Rc<Calls>, call: &Call<'_>, message: Bytes, sink: Out) -> Serving {
    let inner = Inner::of(calls, call);
    Box::pin(async move {
        let LeaderRequest { name } = decode(message)?;
        let prefix = contest::prefix(&name);
        match follow(&inner, &prefix, &sink).await {
            Ok(Gone) => Err(context_canceled()),
            // etcd's observer closes its channel whatever happened, which ends the call well.
            //= etcd 3.7.3: client/v3/concurrency/election.go#observe
            Err(_) => Ok(()),
        }
    })
}

/// Tells who leads, and what it proclaims, until the client is gone.
///
/// # Errors
/// The keys cannot be read or watched.
async fn follow(inner: &Inner, prefix: &Bytes, sink: &Out) -> Result<Gone, Status> {
    loop {
        let RangeResponse { header, kvs, .. } = inner.range(oldest(prefix)).await?;
        let (header, kv) = match kvs.into_iter().next() {
            Some(kv) => (header, kv),
            None => first_put(inner, prefix, revision_of(header.as_ref())).await?,
        };
        let key = kv.key.clone();
        let start_revision = revision_of(header.as_ref()).saturating_add(1);
        if stream::send(&**sink, &LeaderResponse { header, kv: Some(kv) }).await.is_err() {
            return Ok(Gone);
        }
        let create = WatchCreateRequest { key, start_revision, ..WatchCreateRequest::default() };
        let mut watching = inner.watch(create);
        'leads: loop {
            let response = watching.events().await?;
            for event in response.events {
                if event.r#type == EventType::Delete as i32 {
                    break 'leads;
                }
                let told = LeaderResponse { header: response.header, kv: event.kv };
                if stream::send(&**sink, &told).await.is_err() {
                    return Ok(Gone);
                }
            }
        }
    }
}

/// The first key that is put under a prefix, with the revision at which it is.
async fn first_put(
    inner: &Inner,
    prefix: &Bytes,
    start_revision: i64,
) -> Result<(Option<ResponseHeader>, KeyValue), Status> {
    let create = WatchCreateRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        start_revision,
        ..WatchCreateRequest::default()
    };
    let mut watching = inner.watch(create);
    loop {
        let response = watching.events().await?;
        let mut puts = response.events.into_iter().filter(|e| e.r#type == EventType::Put as i32);
        if let Some(kv) = puts.find_map(|event| event.kv) {
            let revision = kv.mod_revision;
            let header = response.header.map(|header| ResponseHeader { revision, ..header });
            return Ok((header, kv));
        }
    }
}
