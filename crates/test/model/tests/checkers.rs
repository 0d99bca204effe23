//! Every checker accepts right histories and refuses each kind of wrong one.

mod common;

use api::error::ApiError;
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, HashKvResponse, LeaseGrantRequest,
    LeaseKeepAliveResponse, PutRequest, RangeRequest, ResponseHeader, WatchResponse,
};
use common::history;
use model::oracle::check_hashes;
use model::{History, Operation, Outcome, Property, Request, Response, check};

const SEEDS: std::ops::Range<u64> = 0..20;

/// Spoils right histories and expects each that could be spoilt to be refused, for this reason.
fn refuses(property: Property, mut spoil: impl FnMut(&mut History) -> bool) {
    let mut spoilt = 0;
    for seed in SEEDS {
        let mut history = history(seed, 120);
        if spoil(&mut history) {
            spoilt += 1;
            match check(&history) {
                Ok(_) => panic!("seed {seed}: accepted"),
                Err(violation) => assert_eq!(violation.property, property, "{violation}"),
            }
        }
    }
    assert!(spoilt > SEEDS.end / 2, "only {spoilt} histories could be spoilt");
}

fn revision_mut(response: &mut Response) -> &mut i64 {
    let header = match response {
        Response::Range(r) => &mut r.header,
        Response::Put(r) => &mut r.header,
        Response::DeleteRange(r) => &mut r.header,
        Response::Txn(r) => &mut r.header,
        other => panic!("not spoilt by this test: {other:?}"),
    };
    &mut header.as_mut().expect("answers have headers").revision
}

/// The responses with events of one leg.
fn events(history: &mut History, watch: usize, leg: usize) -> Vec<&mut WatchResponse> {
    let responses = history.watches[watch].legs[leg].responses.iter_mut().map(|(_, r)| r);
    responses.filter(|r| !r.events.is_empty()).collect()
}

#[test]
fn right_histories_are_accepted() {
    for seed in SEEDS {
        let history = history(seed, 400);
        let report = check(&history).unwrap_or_else(|v| panic!("seed {seed}: {v}"));
        assert!(report.searched && report.revisions > 150 && report.events > 150, "{report:?}");
    }
}

#[test]
fn a_revision_given_to_two_writes_is_refused() {
    refuses(Property::Revisions, |history| {
        let is_put =
            |op: &&mut Operation| matches!(op.outcome, Outcome::Answered(Response::Put(_)));
        let mut puts = history.operations.iter_mut().filter(is_put);
        let first = puts.next().expect("there are puts").response().expect("answered").revision();
        let Some(Operation { outcome: Outcome::Answered(second), .. }) = puts.next() else {
            return false;
        };
        *revision_mut(second) = first;
        true
    });
}

#[test]
fn an_acknowledged_write_that_left_no_trace_is_refused() {
    refuses(Property::Revisions, |history| {
        // Someone else's content is what watches saw at its revision.
        let answered = |op: &&mut Operation| op.response().is_some();
        for op in history.operations.iter_mut().filter(answered) {
            if let Request::Put(put) = &mut op.request {
                put.value = "lost".into();
                return true;
            }
        }
        false
    });
}

#[test]
fn a_revision_that_nobody_made_is_refused() {
    refuses(Property::Phantom, |history| {
        let writes_unseen = |op: &Operation| {
            let leases = matches!(op.request, Request::LeaseGrant(_) | Request::LeaseRevoke(_));
            op.outcome == Outcome::Unknown && !leases
        };
        history.operations.retain(|op| !writes_unseen(op));
        let made = history.operations.iter().position(|op| {
            matches!(op.outcome, Outcome::Answered(Response::Put(_))) && op.call > 8_000
        });
        made.map(|at| history.operations.remove(at)).is_some()
    });
}

#[test]
fn a_read_of_other_content_is_refused() {
    refuses(Property::Reads, |history| {
        // What an answered write left: of others, answers are evidence.
        let written: Vec<i64> = history
            .operations
            .iter()
            .filter_map(|op| op.response())
            .filter(|r| matches!(r, Response::Put(_)))
            .map(Response::revision)
            .collect();
        history.operations.iter_mut().any(|op| match &mut op.outcome {
            Outcome::Answered(Response::Range(r)) => {
                let kv = r.kvs.iter_mut().find(|kv| written.contains(&kv.mod_revision));
                kv.map(|kv| kv.value = "never written".into()).is_some()
            }
            _ => false,
        })
    });
}

#[test]
fn a_stale_read_is_refused_unless_it_may_be_stale() {
    let stale = |serializable: bool, one_member: bool| {
        let mut history = history(3, 120);
        history.one_member = one_member;
        let old = history.operations.iter().find(|op| {
            matches!(&op.request, Request::Range(r) if r.revision == 0) && op.response().is_some()
        });
        let mut old = old.expect("there are reads").clone();
        (old.call, old.returned) = (11_000, Some(11_100));
        if let Request::Range(r) = &mut old.request {
            r.serializable = serializable;
        }
        history.operations.push(old);
        check(&history)
    };
    let refused = stale(false, false).expect_err("a stale linearizable read");
    assert_eq!(refused.property, Property::RealTime);
    assert!(stale(true, false).is_ok());
    assert!(stale(true, true).is_err(), "one member never goes back");
}

#[test]
fn a_compacted_revision_that_is_answered_is_refused() {
    refuses(Property::Compaction, |history| {
        let early = history.operations.iter().find(|op| {
            matches!(&op.request, Request::Range(r) if r.revision > 0) && op.call < 3_000
        });
        let Some(mut read) = early.filter(|op| op.response().is_some()).cloned() else {
            return false;
        };
        read.call = 20_000;
        read.returned = Some(20_001);
        history.one_member = false;
        let newest = model::Replay::of(history).expect("still right").newest();
        let Outcome::Answered(answer) = &mut read.outcome else { return false };
        *revision_mut(answer) = newest;
        history.operations.push(read);
        true
    });
}

#[test]
fn refusals_need_a_reason() {
    refuses(Property::Compaction, |history| {
        let read = RangeRequest { key: "k1".into(), revision: 2, ..RangeRequest::default() };
        history.operations.push(Operation {
            client: 1,
            call: 1_000,
            returned: Some(1_001),
            request: Request::Range(read),
            outcome: Outcome::Refused(ApiError::Compacted.into()),
        });
        true
    });
}

#[test]
fn hashes_that_differ_are_refused() {
    refuses(Property::Hashes, |history| {
        for hash in [1, 2] {
            let response = HashKvResponse {
                header: Some(ResponseHeader { revision: 2, ..Default::default() }),
                hash,
                compact_revision: -1,
                hash_revision: 2,
            };
            history.operations.push(Operation {
                client: 1,
                call: 20_000,
                returned: Some(20_100),
                request: Request::HashKv(2),
                outcome: Outcome::Answered(Response::HashKv(response)),
            });
        }
        history.one_member = false;
        true
    });
}

/// A hash at revision 9, compacted to 5 before.
fn hash_at_nine(call: u64, hash: u32) -> Operation {
    let response =
        HashKvResponse { hash, compact_revision: 5, hash_revision: 9, ..Default::default() };
    Operation {
        client: 1,
        call,
        returned: Some(call + 1),
        request: Request::HashKv(9),
        outcome: Outcome::Answered(Response::HashKv(response)),
    }
}

#[test]
fn a_lagging_member_may_tell_the_hash_of_before_a_compaction_and_nobody_a_third() {
    let mut history = History::default();
    let request = CompactionRequest { revision: 9, physical: false };
    history.operations.push(Operation {
        client: 1,
        call: 100,
        returned: Some(110),
        request: Request::Compact(request),
        outcome: Outcome::Answered(Response::Compact(CompactionResponse::default())),
    });
    history.operations.extend([hash_at_nine(50, 1), hash_at_nine(120, 1), hash_at_nine(121, 2)]);
    assert!(check_hashes(&history).is_ok(), "one of them lags");
    let one_member = History { one_member: true, ..history.clone() };
    assert!(check_hashes(&one_member).is_err(), "alone it cannot");
    history.operations.push(hash_at_nine(122, 3));
    assert!(check_hashes(&history).is_err());
}

#[test]
fn a_lease_that_ends_early_is_refused() {
    refuses(Property::Leases, |history| {
        let lease = history.operations.iter().find_map(|op| match &op.request {
            Request::LeaseGrant(LeaseGrantRequest { id, .. }) if op.response().is_some() => {
                Some((*id, op.returned.expect("answered")))
            }
            _ => None,
        });
        let Some((id, granted)) = lease else { return false };
        history.operations.retain(|op| !matches!(op.request, Request::LeaseRevoke(_)));
        history.watches.clear();
        history.operations.retain(|op| op.call < granted + 10);
        history.operations.push(Operation {
            client: 1,
            call: granted + 10,
            returned: Some(granted + 11),
            request: Request::LeaseKeepAlive(id),
            outcome: Outcome::Answered(Response::LeaseKeepAlive(LeaseKeepAliveResponse {
                header: None,
                id,
                ttl: 0,
            })),
        });
        model::Replay::of(history).is_ok()
    });
}

#[test]
fn events_out_of_order_are_refused() {
    refuses(Property::Ordered, |history| {
        let leg = &mut history.watches[1].legs[1];
        let count = leg.responses.len();
        // [created, events…, progress]: the first two events again at the end.
        if count < 5 || leg.responses[2].1.events.is_empty() {
            return false;
        }
        let again = leg.responses[1].clone();
        leg.responses.insert(count - 1, again);
        true
    });
}

#[test]
fn an_event_that_comes_twice_is_refused() {
    refuses(Property::Unique, |history| {
        let responses = &mut history.watches[0].legs[0].responses;
        let again = responses[responses.len() - 2].clone();
        let at = responses.len() - 1;
        responses.insert(at, again);
        true
    });
}

#[test]
fn a_transaction_in_parts_is_refused_unless_fragments_were_asked_for() {
    let split = |history: &mut History, fragment: bool| {
        let leg = &mut history.watches[0].legs[0];
        let large = leg.responses.iter().position(|(_, r)| r.events.len() > 1)?;
        leg.request.fragment = fragment;
        let (at, mut rest) = leg.responses[large].clone();
        leg.responses[large].1.events.truncate(1);
        leg.responses[large].1.fragment = fragment;
        rest.events.remove(0);
        leg.responses.insert(large + 1, (at, rest));
        Some(())
    };
    refuses(Property::Atomic, |history| split(history, false).is_some());
    let mut history = history(1, 120);
    split(&mut history, true).expect("there is a transaction");
    check(&history).unwrap_or_else(|v| panic!("{v}"));
}

#[test]
fn a_missing_event_is_refused() {
    refuses(Property::Reliable, |history| {
        let leg = &mut history.watches[0].legs[0];
        leg.responses.remove(leg.responses.len() / 2);
        true
    });
}

#[test]
fn an_event_missing_at_the_end_is_refused() {
    refuses(Property::Reliable, |history| {
        let leg = &mut history.watches[0].legs[0];
        let end = leg.responses.len() - 2;
        leg.responses.truncate(end);
        true
    });
}

#[test]
fn resuming_elsewhere_is_refused() {
    refuses(Property::Resumable, |history| {
        history.watches[1].legs[1].request.start_revision += 1;
        true
    });
    refuses(Property::Resumable, |history| {
        // Served from one revision too early.
        let leg = &mut history.watches[1].legs[1];
        let from = leg.request.start_revision;
        let first = history.watches[1].legs[0].responses.iter().rev().nth(1).cloned();
        let Some(first) = first.filter(|(_, r)| !r.events.is_empty()) else { return false };
        assert!(first.1.events[0].kv.as_ref().is_some_and(|kv| kv.mod_revision < from));
        history.watches[1].legs[1].responses.insert(1, first);
        true
    });
}

#[test]
fn progress_ahead_of_events_is_refused() {
    refuses(Property::Bookmarkable, |history| {
        let leg = &mut history.watches[0].legs[0];
        let last = leg.responses.len() - 1;
        leg.responses.swap(last, last - 1);
        true
    });
}

#[test]
fn a_wrong_state_before_is_refused() {
    refuses(Property::PrevKv, |history| {
        for response in events(history, 0, 0).into_iter().rev() {
            if let Some(prev) = &mut response.events[0].prev_kv {
                prev.value = "other".into();
                return true;
            }
        }
        false
    });
    refuses(Property::PrevKv, |history| {
        // Newer than the compaction: it must be there.
        for response in events(history, 0, 0).into_iter().rev() {
            if response.events[0].prev_kv.take().is_some() {
                return true;
            }
        }
        false
    });
}

#[test]
fn an_event_of_another_content_is_refused() {
    refuses(Property::Revisions, |history| {
        for response in events(history, 0, 0).into_iter().rev() {
            if let Some(kv) = response.events[0].kv.as_mut().filter(|kv| kv.version > 0) {
                kv.version += 1;
                return true;
            }
        }
        false
    });
}

#[test]
fn an_event_of_other_keys_is_refused() {
    refuses(Property::Events, |history| {
        let everything = history.watches[0].legs[0].responses.clone();
        let leg = &mut history.watches[1].legs[1];
        let start = leg.request.start_revision;
        let foreign = everything.into_iter().find(|(_, r)| {
            let first = r.events.first().and_then(|e| e.kv.as_ref());
            r.events.len() == 1
                && first.is_some_and(|kv| kv.key[0] == b't' && kv.mod_revision >= start)
        });
        let Some(foreign) = foreign else { return false };
        leg.responses.truncate(1);
        leg.must_reach = None;
        let first = foreign.1.events[0].kv.as_ref().map_or(0, |kv| kv.mod_revision);
        leg.request.start_revision = first;
        history.watches[1].legs.remove(0);
        history.watches[1].legs[0].responses.push(foreign);
        true
    });
}

#[test]
fn a_cancellation_needs_a_compaction_that_hurts() {
    refuses(Property::Cancelled, |history| {
        let target = history.operations.iter().find_map(|op| match &op.request {
            Request::Compact(CompactionRequest { revision, .. }) => Some(*revision),
            _ => None,
        });
        let compact_revision = target.expect("one was asked for");
        let leg = &mut history.watches[0].legs[0];
        leg.must_reach = None;
        let cancelled = WatchResponse { canceled: true, compact_revision, ..Default::default() };
        leg.responses.push((20_000, cancelled));
        true
    });
}

#[test]
fn unknown_writes_may_have_happened_late_or_never() {
    let put = |call, returned, key: &str, value: &str, outcome| Operation {
        client: 1,
        call,
        returned,
        request: Request::Put(PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        }),
        outcome,
    };
    let mut state = model::State::default();
    let late = put(1, None, "a", "late", Outcome::Unknown);
    let never = put(2, None, "a", "never", Outcome::Unknown);
    let mut answer = |request: &Request| {
        let answer = state.apply(request).expect("accepted").expect("the model answers");
        Outcome::Answered(answer.to_response())
    };
    let mut first = put(10, Some(20), "b", "1", Outcome::Unknown);
    first.outcome = answer(&first.request);
    answer(&late.request);
    let read = Request::Range(RangeRequest { key: "a".into(), ..RangeRequest::default() });
    let outcome = answer(&read);
    let read = Operation { client: 2, call: 30, returned: Some(40), request: read, outcome };
    let operations = vec![late, never, first, read];
    let history = History { operations, ..History::default() };
    let report = check(&history).unwrap_or_else(|v| panic!("{v}"));
    assert_eq!(report.revisions, 2);
    let mut reversed = history;
    // What was read before it was asked for.
    reversed.operations[0].call = 50;
    reversed.operations.remove(1);
    assert_eq!(check(&reversed).expect_err("from the future").property, Property::Phantom);
}
