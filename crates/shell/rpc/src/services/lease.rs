//! The Lease service.

use std::collections::VecDeque;
use std::rc::Rc;

use api::error::{ApiError, Status};
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use bytes::Bytes;
use env::Failpoint;
use machine::CommandKind;
use machine::Reply as Applied;
use member::{ApplierInput, NodeInput, Reply};
use prost::Message;
use types::LeaseId;

use crate::runtime::Runtime;
use crate::services::{decode, peers, unchanged};
use crate::{Body, Draft, Requests, Sender};

fn whole(message: &impl Message) -> Body {
    Body::Whole(Draft::of(message))
}

pub(super) async fn grant(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let mut request: LeaseGrantRequest = decode(message.clone())?;
    super::kv::check_quota(rt, machine::command::LEASE_COST).await?;
    let body = if request.id == 0 {
        //= etcd 3.7.1: server/etcdserver/v3_server.go#LeaseGrant
        while request.id == 0 {
            request.id = (rt.next_id().0 & (u64::MAX >> 1)) as i64;
        }
        request.encode_to_vec().into()
    } else {
        unchanged(message, &request)
    };
    let outcome = rt.propose(CommandKind::LeaseGrant, &body).await?;
    let Applied::LeaseGrant { id, ttl } = outcome.reply? else {
        unreachable!("a grant is answered by a grant")
    };
    Ok(whole(&LeaseGrantResponse {
        header: Some(rt.header(outcome.revision)),
        id: id.0,
        ttl,
        error: String::new(),
    }))
}

pub(super) async fn revoke(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: LeaseRevokeRequest = decode(message.clone())?;
    let outcome = rt.propose(CommandKind::LeaseRevoke, &unchanged(message, &request)).await?;
    outcome.reply?;
    Ok(whole(&LeaseRevokeResponse { header: Some(rt.header(outcome.revision)) }))
}

pub(super) async fn time_to_live(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: LeaseTimeToLiveRequest = decode(message)?;
    let lease = LeaseId(request.id);
    let mut response = LeaseTimeToLiveResponse { id: lease.0, ttl: -1, ..Default::default() };
    match rt.ask(|token| NodeInput::TimeToLive { token, lease }).await {
        Reply::TimeToLive(None) => {}
        Reply::TimeToLive(Some(time)) => {
            response.ttl = time.remaining;
            response.granted_ttl = time.granted;
            // What is committed may be on its way to apply (semantics G: etcd waits for it).
            if request.keys
                && rt.view_at(rt.handle.status.load().commit).await.is_ok()
                && let Reply::LeaseKeys(keys) =
                    rt.ask_applier(|token| ApplierInput::LeaseKeys { token, lease }).await?
            {
                response.keys = keys;
            }
        }
        Reply::Elsewhere(_) => {
            if let Some(answer) = peers::time_to_live_on_leader(rt, lease, request.keys).await? {
                response = answer;
            }
        }
        Reply::Refused(error) => return Err(error.into()),
        other => unreachable!("a time to live is answered by one, not {other:?}"),
    }
    response.header = Some(rt.header(rt.view().store.revision()));
    Ok(whole(&response))
}

pub(super) async fn leases(rt: &Rc<Runtime>) -> Result<Body, Status> {
    let leases = match rt.ask(NodeInput::Leases).await {
        Reply::Leases(leases) => leases,
        Reply::Refused(error) => return Err(error.into()),
        other => unreachable!("a list of leases is answered by one, not {other:?}"),
    };
    Ok(whole(&LeaseLeasesResponse {
        header: Some(rt.header(rt.view().store.revision())),
        leases: leases.into_iter().map(|id| LeaseStatus { id: id.0 }).collect(),
    }))
}

/// Keep-alives of a stream that are asked and answered together at most.
const KEEP_ALIVES_AT_ONCE: usize = 64;
/// Bytes of an answer in its envelope, about.
const RESPONSE_BYTES: usize = 64;

/// What has come already is asked together and answered together, in order.
pub(super) async fn keep_alive(
    rt: &Rc<Runtime>,
    mut requests: Requests,
    sender: Sender,
) -> Result<(), Status> {
    let mut asked = VecDeque::new();
    while let Some(message) = requests.next().await? {
        let mut next = Some(message);
        // How the stream ends behind what was asked, if it does.
        let mut end = None;
        while let Some(message) = next.take() {
            match super::decode_in_stream::<LeaseKeepAliveRequest>(message) {
                Ok(LeaseKeepAliveRequest { id }) => {
                    let lease = LeaseId(id);
                    // The revision is that from before the renewal, which may wait for the end of
                    // the lease.
                    //= etcd 3.7.1: server/etcdserver/api/v3rpc/lease.go#leaseKeepAlive
                    let revision = rt.view().store.revision();
                    let delay = rt.handle.failpoints.delay(Failpoint::BeforeCheckpointInLeaseRenew);
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    let wait =
                        rt.begin(|token| NodeInput::KeepAlive { token, lease, for_peer: false });
                    asked.push_back((id, revision, wait));
                }
                Err(status) => end = Some(Err(status)),
            }
            if end.is_none() && asked.len() < KEEP_ALIVES_AT_ONCE {
                match requests.next_now().await {
                    None => {}
                    Some(Ok(Some(message))) => next = Some(message),
                    Some(Ok(None)) => end = Some(Ok(())),
                    Some(Err(status)) => end = Some(Err(status)),
                }
            }
        }
        let mut responses = Vec::with_capacity(asked.len() * RESPONSE_BYTES);
        while let Some((id, revision, wait)) = asked.pop_front() {
            let ttl = match wait.await {
                Reply::KeepAlive(ttl) => {
                    rt.handle.metrics.lease_renewed.inc();
                    ttl
                }
                Reply::Elsewhere(_) => match peers::renew_on_leader(rt, LeaseId(id)).await {
                    Ok(ttl) => ttl,
                    Err(status) => {
                        end = Some(Err(status));
                        asked.clear();
                        break;
                    }
                },
                Reply::Refused(ApiError::LeaseNotFound) => 0,
                Reply::Refused(error) => {
                    end = Some(Err(error.into()));
                    asked.clear();
                    break;
                }
                other => unreachable!("a keep-alive is answered by one, not {other:?}"),
            };
            let header = Some(rt.header(revision));
            let response = LeaseKeepAliveResponse { header, id, ttl };
            sender.seal_into(&mut responses, &response);
        }
        if sender.send_sealed(responses.into()).await.is_err() {
            break;
        }
        if let Some(end) = end {
            return end;
        }
    }
    Ok(())
}
