//! A client that draws operations, and remembers what it asked and saw.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use api::error::{Code, Status};
use api::etcdserverpb::compare::{CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{
    CompactionRequest, Compare, DefragmentRequest, DefragmentResponse, DeleteRangeRequest,
    HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use bytes::Bytes;
use env::{Entropy, SplitMix};
use model::{Operation, Outcome, Request, Response};
use prost::Message;

use super::Clock;
use crate::grpc::{Client, Failure, envelope};

/// One client: draws an operation, runs it, remembers it.
pub struct Caller {
    number: u32,
    entropy: SplitMix,
    clock: Clock,
    /// The newest revision that any client was shown.
    newest: Rc<Cell<i64>>,
    drawn: u64,
    /// Longest pause between its calls, microseconds; [`PAUSE_US`] unless set.
    pub pause_us: u64,
    pub(super) operations: Vec<Operation>,
    /// Statuses that do not say whether the operation had an effect.
    pub(super) unclear: Vec<Failure>,
}

const KEYS: u64 = 24;
/// How long a client waits for an answer; one that comes later is not known to it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest pause between a client's calls, microseconds.
pub const PAUSE_US: u64 = 12_000;

impl Caller {
    /// A client of this number; what it draws is the seed's and the number's. All clients of a
    /// history share clock and newest revision. Number 0 also defragments.
    #[must_use]
    pub fn new(number: u32, seed: u64, clock: Clock, newest: &Rc<Cell<i64>>) -> Self {
        let entropy = SplitMix::new(seed ^ u64::from(number) << 32);
        let newest = Rc::clone(newest);
        Self {
            number,
            entropy,
            clock,
            newest,
            drawn: 0,
            pause_us: PAUSE_US,
            operations: Vec::new(),
            unclear: Vec::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.entropy.below(bound)
    }

    fn key(&mut self) -> Bytes {
        format!("k{:02}", self.below(KEYS)).into()
    }

    /// A value that is written once.
    fn value(&mut self) -> Bytes {
        let pad = [0, 10, 200, 3_000][self.below(4) as usize];
        format!("{}.{}.{}", self.number, self.drawn, "x".repeat(pad)).into()
    }

    /// Leases have few ids, so that clients meet, but each is granted only once or twice.
    fn lease(&mut self) -> i64 {
        let group = self.drawn / 40 * 100 + 1;
        (group + self.below(16)) as i64
    }

    fn put(&mut self) -> PutRequest {
        let lease = if self.below(5) == 0 { self.lease() } else { 0 };
        let prev_kv = self.below(4) == 0;
        PutRequest { key: self.key(), value: self.value(), lease, prev_kv, ..Default::default() }
    }

    fn range(&mut self) -> RangeRequest {
        let range_end = if self.below(3) == 0 { self.key() } else { Bytes::new() };
        let newest = self.newest.get() as u64;
        let revision = if self.below(4) == 0 { newest - self.below(newest.min(50)) } else { 0 };
        RangeRequest {
            key: self.key(),
            range_end,
            revision: revision as i64,
            limit: [0, 0, 3][self.below(3) as usize],
            serializable: self.below(3) == 0,
            ..Default::default()
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let range_end = if self.below(6) == 0 { self.key() } else { Bytes::new() };
        DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.below(3) == 0 }
    }

    fn txn(&mut self) -> TxnRequest {
        let version = self.below(3) as i64;
        let compare = Compare {
            target: CompareTarget::Version as i32,
            result: self.below(3) as i32,
            key: self.key(),
            target_union: Some(TargetUnion::Version(version)),
            ..Default::default()
        };
        let (a, b, range) = (self.put(), self.put(), self.range());
        let op = |request| RequestOp { request: Some(request) };
        let mut success = vec![op(Op::RequestPut(PutRequest { lease: 0, ..a.clone() }))];
        if a.key != b.key {
            success.push(op(Op::RequestPut(PutRequest { lease: 0, ..b })));
        }
        let read = RangeRequest { revision: 0, serializable: false, ..range };
        let gone = DeleteRangeRequest { key: self.key(), ..Default::default() };
        let failure = vec![op(Op::RequestRange(read)), op(Op::RequestDeleteRange(gone))];
        TxnRequest { compare: vec![compare], success, failure }
    }

    fn draw(&mut self) -> Request {
        self.drawn += 1;
        match self.below(100) {
            0..=39 => Request::Put(self.put()),
            40..=59 => Request::Range(self.range()),
            60..=71 => Request::Txn(self.txn()),
            72..=81 => Request::DeleteRange(self.delete()),
            82..=86 => {
                // Most outlive the test; some end by themselves, with their keys.
                let ttl = [1_000, 1_000, 1_000, 2][self.below(4) as usize];
                Request::LeaseGrant(LeaseGrantRequest { id: self.lease(), ttl })
            }
            87..=90 => Request::LeaseKeepAlive(self.lease()),
            91..=92 => Request::LeaseRevoke(LeaseRevokeRequest { id: self.lease() }),
            93..=94 => {
                let revision = self.newest.get() - self.below(300) as i64;
                let physical = self.below(2) == 0;
                Request::Compact(CompactionRequest { revision: revision.max(1), physical })
            }
            _ => Request::HashKv(0),
        }
    }

    /// Runs drawn operations until the server is gone, does not answer for [`PATIENCE`], or nobody
    /// wants more.
    pub async fn run(&mut self, server: SocketAddr, wants_more: impl Fn() -> bool) {
        let connect = Client::try_connect_to(server, 1 << 20);
        let Ok(Ok(client)) = tokio::time::timeout(PATIENCE, connect).await else { return };
        while wants_more() {
            tokio::time::sleep(Duration::from_micros(self.below(self.pause_us))).await;
            if self.number == 0 && self.below(60) == 0 {
                let path = "/etcdserverpb.Maintenance/Defragment";
                let done = client.call::<DefragmentResponse>(path, &DefragmentRequest {});
                if done.await.is_err_and(|e| e.code == 999) {
                    return;
                }
            }
            let request = self.draw();
            let gone = self.call(&client, request).await;
            if gone {
                return;
            }
        }
    }

    /// Runs one operation and remembers it, whatever comes of it; tells whether the server is gone.
    pub async fn call(&mut self, client: &Client, request: Request) -> bool {
        let (client_number, call) = (self.number, self.clock.now());
        // Noted before it is asked: whoever gives up waiting does not take it back.
        self.operations.push(Operation {
            client: client_number,
            call,
            returned: None,
            request: request.clone(),
            outcome: Outcome::Unknown,
        });
        let result = tokio::time::timeout(PATIENCE, call_one(client, &request)).await;
        let result =
            result.unwrap_or_else(|_| Err(Failure { code: 999, message: "no answer".into() }));
        let gone = matches!(&result, Err(e) if e.code == 999);
        let outcome = match result {
            Ok(response) => {
                self.newest.set(self.newest.get().max(response.revision()));
                Outcome::Answered(response)
            }
            Err(e) if e.code == 999 => Outcome::Unknown,
            Err(e) => {
                let code = Code::ALL.get(usize::from(e.code)).copied().unwrap_or(Code::Unknown);
                let outcome = Outcome::of_error(Status::new(code, e.message.clone()));
                if outcome == Outcome::Unknown {
                    self.unclear.push(e);
                }
                outcome
            }
        };
        let noted = self.operations.last_mut().expect("noted above");
        (noted.returned, noted.outcome) = (Some(self.clock.now()), outcome);
        gone
    }

    /// A write of a key that no other client touches.
    pub fn probe(&mut self) -> Request {
        self.drawn += 1;
        let value = self.value();
        Request::Put(PutRequest { key: "probe".into(), value, ..Default::default() })
    }

    /// Whether the last operation was answered.
    #[must_use]
    pub fn was_answered(&self) -> bool {
        let last = self.operations.last();
        last.is_some_and(|operation| matches!(operation.outcome, Outcome::Answered(_)))
    }
}

async fn call_one(client: &Client, request: &Request) -> Result<Response, Failure> {
    let kv = |method: &str| format!("/etcdserverpb.KV/{method}");
    let lease = |method: &str| format!("/etcdserverpb.Lease/{method}");
    Ok(match request {
        Request::Range(r) => Response::Range(client.call(&kv("Range"), r).await?),
        Request::Put(r) => Response::Put(client.call(&kv("Put"), r).await?),
        Request::DeleteRange(r) => Response::DeleteRange(client.call(&kv("DeleteRange"), r).await?),
        Request::Txn(r) => Response::Txn(client.call(&kv("Txn"), r).await?),
        Request::Compact(r) => Response::Compact(client.call(&kv("Compact"), r).await?),
        Request::LeaseGrant(r) => Response::LeaseGrant(client.call(&lease("LeaseGrant"), r).await?),
        Request::LeaseRevoke(r) => {
            Response::LeaseRevoke(client.call(&lease("LeaseRevoke"), r).await?)
        }
        Request::LeaseKeepAlive(id) => {
            let message = LeaseKeepAliveRequest { id: *id }.encode_to_vec();
            let body = Some(envelope(&message));
            let mut stream = client.try_open(&lease("LeaseKeepAlive"), body, true).await?;
            let answer = stream.next_raw().await?.expect("every keep-alive is answered");
            Response::LeaseKeepAlive(
                LeaseKeepAliveResponse::decode(answer).expect("the method's message"),
            )
        }
        Request::HashKv(revision) => {
            let request = HashKvRequest { revision: *revision };
            Response::HashKv(client.call("/etcdserverpb.Maintenance/HashKV", &request).await?)
        }
        Request::LeaseExpire(_) => unreachable!("nobody asks for it"),
    })
}
