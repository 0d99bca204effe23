//! Right histories, made by running the model itself as the server.

use api::error::Status;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest, WatchCreateRequest,
    WatchResponse,
};
use bytes::Bytes;
use env::{Entropy, SplitMix};
use model::{History, Leg, Operation, Outcome, Request, State, Watch};

pub fn key(n: u64) -> Bytes {
    Bytes::from(format!("k{n}"))
}

pub fn put(key: Bytes, value: &str) -> PutRequest {
    PutRequest { key, value: value.to_owned().into(), prev_kv: true, ..PutRequest::default() }
}

pub fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn all() -> RangeRequest {
    RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() }
}

fn request(entropy: &mut SplitMix, n: u64, state: &State) -> Request {
    let key = key(entropy.below(6));
    match entropy.below(12) {
        0..=4 => Request::Put(put(key, &n.to_string())),
        5 => Request::DeleteRange(DeleteRangeRequest { key, prev_kv: true, ..Default::default() }),
        6 => {
            let compare = Compare {
                key: key.clone(),
                target: CompareTarget::Version as i32,
                result: CompareResult::Greater as i32,
                target_union: Some(TargetUnion::Version(0)),
                ..Compare::default()
            };
            let delete = DeleteRangeRequest { key: key.clone(), ..Default::default() };
            let success = vec![
                op(Op::RequestDeleteRange(delete)),
                op(Op::RequestPut(put("t1".into(), &n.to_string()))),
                op(Op::RequestRange(all())),
            ];
            let failure = vec![op(Op::RequestPut(put("t2".into(), &n.to_string())))];
            Request::Txn(TxnRequest { compare: vec![compare], success, failure })
        }
        7 => {
            let id = 100 + n as i64;
            Request::LeaseGrant(LeaseGrantRequest { id, ttl: 5 })
        }
        8 => match state.leases().keys().next() {
            Some(id) if entropy.below(2) == 0 => {
                Request::LeaseRevoke(LeaseRevokeRequest { id: *id })
            }
            Some(id) => Request::Put(PutRequest { lease: *id, ..put(key, &n.to_string()) }),
            None => Request::Put(put(key, &n.to_string())),
        },
        9 => {
            let back = entropy.below(4) as i64;
            let revision = (state.revision() - back).max(state.compact_revision()).max(1);
            Request::Range(RangeRequest { revision, ..all() })
        }
        _ => Request::Range(RangeRequest { sort_target: entropy.below(5) as i32, ..all() }),
    }
}

/// Sequential calls whose times overlap, and three watches.
pub fn history(seed: u64, operations: u64) -> History {
    let mut entropy = SplitMix::new(seed);
    let mut state = State::default();
    let mut history = History { one_member: true, ..History::default() };
    for n in 0..operations {
        let at = 1_000 + n * 100;
        let mut request = request(&mut entropy, n, &state);
        if n == operations / 2 {
            let revision = state.revision() / 2;
            request = Request::Compact(CompactionRequest { revision, physical: false });
        }
        let outcome = match state.apply(&request) {
            Ok(answer) => {
                Outcome::Answered(answer.expect("the model answers all these").to_response())
            }
            Err(error) => Outcome::Refused(Status::from(error)),
        };
        let unknown = n % 23 == 7;
        history.operations.push(Operation {
            client: (n % 3) as u32,
            call: at - entropy.below(150),
            returned: Some(at + entropy.below(150)),
            request,
            outcome: if unknown { Outcome::Unknown } else { outcome },
        });
    }
    let end = 1_000 + operations * 100;
    let everything = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: 1,
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    let some = WatchCreateRequest {
        key: "k".into(),
        range_end: "l".into(),
        filters: vec![1],
        progress_notify: true,
        ..everything.clone()
    };
    history.watches.push(watch(&state, &[everything], end));
    let middle = state.revision() / 2 + 1;
    let resumed = WatchCreateRequest { start_revision: middle, ..some.clone() };
    history.watches.push(watch(&state, &[some, resumed], end));
    history
}

/// A watch that is given everything, leg by leg, with progress at the end of each.
pub fn watch(state: &State, requests: &[WatchCreateRequest], end: u64) -> Watch {
    let mut legs = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        let upto = requests.get(i + 1).map_or(state.revision() + 1, |next| next.start_revision);
        let header = |revision| Some(ResponseHeader { revision, ..ResponseHeader::default() });
        let created =
            WatchResponse { created: true, header: header(upto - 1), ..WatchResponse::default() };
        let mut responses = vec![(end, created)];
        for revision in request.start_revision..upto {
            let mut events = Vec::new();
            for change in state.changes(revision) {
                if model::watch::wants(request, change) {
                    let mut event = change.event();
                    event.prev_kv = state.kv(&change.key, revision - 1);
                    events.push(event);
                }
            }
            if !events.is_empty() {
                let header = header(revision);
                responses.push((end, WatchResponse { header, events, ..Default::default() }));
            }
        }
        let header = header(upto - 1);
        responses.push((end, WatchResponse { header, ..WatchResponse::default() }));
        let must_reach = Some(upto - 1);
        // Opened before anything was compacted.
        legs.push(Leg { request: request.clone(), opened: 1, responses, must_reach });
    }
    Watch { client: 9, legs }
}
