//! The Lock and Election services on both servers: equal answers, keys and refusals.

mod elections;
mod locks;
mod rights;

use std::time::Duration;

use api::etcdserverpb::{PutRequest, RangeRequest};
use api::v3electionpb::{CampaignRequest, CampaignResponse, LeaderKey};
use api::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;
use conform::grpc::envelope;
use conform::{Failure, Session, Stream};
use prost::Message;

const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const PROCLAIM: &str = "/v3electionpb.Election/Proclaim";
const LEADER: &str = "/v3electionpb.Election/Leader";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const RESIGN: &str = "/v3electionpb.Election/Resign";

const UNKNOWN: u16 = 2;
/// Longest time that anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn fails<A: std::fmt::Debug>(answer: Result<A, Failure>, code: u16, text: &str) {
    assert_eq!(answer.expect_err("must be refused"), Failure { code, message: text.into() });
}

fn bytes(text: &str) -> Bytes {
    text.to_owned().into()
}

fn lock_request(name: &str, lease: i64) -> LockRequest {
    LockRequest { name: bytes(name), lease }
}

async fn lock(s: &mut Session, name: &str, lease: i64) -> Result<LockResponse, Failure> {
    s.call(LOCK, &lock_request(name, lease)).await
}

async fn unlock(s: &mut Session, key: &str) -> Result<UnlockResponse, Failure> {
    s.call(UNLOCK, &UnlockRequest { key: bytes(key) }).await
}

async fn campaign(
    s: &mut Session,
    name: &str,
    lease: i64,
    value: &str,
) -> Result<CampaignResponse, Failure> {
    let request = CampaignRequest { name: bytes(name), lease, value: bytes(value) };
    s.call(CAMPAIGN, &request).await
}

/// A call that waits.
async fn begin(s: &Session, path: &str, request: &impl Message) -> Stream {
    s.client().open(path, Some(envelope(&request.encode_to_vec())), true).await
}

/// The keys under a prefix, oldest first.
async fn keys(s: &Session, prefix: &str) -> Vec<String> {
    let (key, mut end) = (bytes(prefix), prefix.as_bytes().to_vec());
    *end.last_mut().expect("a prefix") += 1;
    let request = RangeRequest {
        key,
        range_end: end.into(),
        sort_order: 1,
        sort_target: 2,
        ..RangeRequest::default()
    };
    let answer = s.client().call("/etcdserverpb.KV/Range", &request).await;
    let answer: api::etcdserverpb::RangeResponse = answer.expect("a range succeeds");
    let names = answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
    names.collect()
}

/// Waits until these are the keys under a prefix, oldest first.
async fn until_keys(s: &Session, prefix: &str, wanted: &[&str]) {
    let waiting = async {
        while keys(s, prefix).await != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("the keys are {:?}, not {wanted:?}", keys(s, prefix).await);
    }
}

fn leader_key(name: &str, key: &str, rev: i64, lease: i64) -> Option<LeaderKey> {
    Some(LeaderKey { name: bytes(name), key: bytes(key), rev, lease })
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}
