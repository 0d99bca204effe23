//! The general search, on histories that name no revisions where it matters.

mod common;

use api::error::ApiError;
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse, PutRequest,
    PutResponse, ResponseHeader,
};
use model::{History, Operation, Outcome, Request, Response, Search, linearize};

fn granted(call: u64, returned: u64, outcome: Outcome) -> Operation {
    let request = Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 10 });
    Operation { client: 1, call, returned: Some(returned), request, outcome }
}

fn answered() -> Outcome {
    let header = Some(ResponseHeader { revision: 1, ..ResponseHeader::default() });
    let response = LeaseGrantResponse { header, id: 7, ttl: 10, error: String::new() };
    Outcome::Answered(Response::LeaseGrant(response))
}

fn refused_put(call: u64, returned: u64) -> Operation {
    let request = Request::Put(PutRequest { key: "k".into(), lease: 7, ..Default::default() });
    let outcome = Outcome::Refused(ApiError::LeaseNotFound.into());
    Operation { client: 2, call, returned: Some(returned), request, outcome }
}

fn linearizable(operations: Vec<Operation>) -> Search {
    linearize(&History { operations, ..History::default() }, 1_000)
}

#[test]
fn what_overlaps_may_come_in_any_order() {
    let operations = vec![granted(10, 20, answered()), refused_put(15, 30)];
    assert_eq!(linearizable(operations), Search::Linearizable(vec![1, 0]));
}

#[test]
fn what_returned_before_comes_before() {
    let second = 1_000_000_000;
    let operations = vec![granted(10, 20, answered()), refused_put(21, 30)];
    assert!(matches!(linearizable(operations), Search::Impossible { .. }));
    let operations = vec![granted(10, 20, answered()), refused_put(21, 10 * second + 11)];
    assert!(matches!(linearizable(operations), Search::Linearizable(_)), "it may have ended");
}

#[test]
fn one_of_two_grants_of_one_lease_fails() {
    let exists = Outcome::Refused(ApiError::LeaseExists.into());
    let both = vec![granted(10, 20, answered()), granted(12, 22, answered())];
    assert!(matches!(linearizable(both), Search::Impossible { .. }));
    let one = vec![granted(10, 20, exists), granted(12, 22, answered())];
    assert_eq!(linearizable(one), Search::Linearizable(vec![1, 0]));
}

#[test]
fn an_unknown_grant_explains_what_follows() {
    let put = Request::Put(PutRequest { key: "k".into(), lease: 7, ..Default::default() });
    let mut state = model::State::default();
    state.apply(&Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 10 })).expect("granted");
    let answer = state.apply(&put).expect("accepted").expect("answered").to_response();
    let outcome = Outcome::Answered(answer);
    let put = Operation { client: 2, call: 5, returned: Some(6), request: put, outcome };
    let operations = vec![granted(1, 2, Outcome::Unknown), put.clone()];
    assert_eq!(linearizable(operations), Search::Linearizable(vec![0, 1]));
    assert!(matches!(linearizable(vec![put]), Search::Impossible { .. }));
}

/// A put that made `revision`, one that a compaction to 2 may come before or after, and the latter
/// with the revision that it told.
fn put_and_compaction(told: i64, second_put: (u64, u64)) -> Vec<Operation> {
    let header = |revision| Some(ResponseHeader { revision, ..ResponseHeader::default() });
    let put = |(call, returned), revision| {
        let request = Request::Put(PutRequest { key: "k".into(), ..Default::default() });
        let answer = PutResponse { header: header(revision), ..PutResponse::default() };
        let outcome = Outcome::Answered(Response::Put(answer));
        Operation { client: 1, call, returned: Some(returned), request, outcome }
    };
    let compaction = |call, returned, outcome| {
        let request = Request::Compact(CompactionRequest { revision: 2, physical: true });
        Operation { client: 2, call, returned: Some(returned), request, outcome }
    };
    let done = Outcome::Answered(Response::Compact(CompactionResponse { header: header(told) }));
    let refused = Outcome::Refused(ApiError::Compacted.into());
    vec![
        put((10, 20), 2),
        compaction(25, 60, done),
        // Compacted before the second put may have come.
        compaction(26, 28, refused),
        put(second_put, 3),
    ]
}

#[test]
fn a_compaction_may_tell_a_revision_that_came_while_it_was_done() {
    let during = put_and_compaction(3, (30, 40));
    assert!(matches!(linearizable(during), Search::Linearizable(_)));
    let before = put_and_compaction(2, (21, 24));
    assert!(matches!(linearizable(before), Search::Impossible { .. }), "it came after revision 3");
}

#[test]
fn histories_of_thousands_are_searched_in_order() {
    let history = common::history(5, 3_000);
    let found = linearize(&history, 200_000);
    let Search::Linearizable(order) = found else { panic!("it is right: {found:?}") };
    let answered = history.operations.iter().filter(|op| op.outcome != Outcome::Unknown).count();
    assert!(order.len() >= answered);
}
