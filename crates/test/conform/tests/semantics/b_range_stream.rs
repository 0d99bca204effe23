//! B16 to B20: `RangeStream`.

use std::time::Duration;

use api::etcdserverpb::RangeStreamResponse;
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use conform::{Failure, Masked, Session, on_shared_pair};
use prost::Message;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
const PATH: &str = "/etcdserverpb.KV/RangeStream";
const UNIMPLEMENTED: u16 = 12;

/// Every message of the answer; they go into the transcript.
async fn stream(s: &mut Session, request: &RangeRequest) -> Result<Vec<RangeResponse>, Failure> {
    let body = conform::grpc::envelope(&request.encode_to_vec());
    let mut stream = s.client().open(PATH, Some(body), true).await;
    let mut messages = Vec::new();
    let result = loop {
        match stream.next::<RangeStreamResponse>(PATIENCE).await {
            Ok(Some(message)) => {
                let mut range = message.range_response.expect("every message has one");
                range.mask();
                messages.push(range);
            }
            Ok(None) => break Ok(messages),
            Err(failure) => break Err(failure),
        }
    };
    s.note(format!("{result:?}"));
    result
}

async fn fill(s: &mut Session, keys: usize, size: usize) {
    for n in 0..keys {
        let (path, request) = ("/etcdserverpb.KV/Put", put(&format!("k{n:04}"), &"v".repeat(size)));
        let answer: Result<api::etcdserverpb::PutResponse, _> =
            s.client().call(path, &request).await;
        answer.expect("a plain put succeeds");
    }
}

#[test]
fn b16_orders_and_filters_are_not_streamed() {
    on_shared_pair(async |s| {
        fill(s, 3, 1).await;
        for order in [SortOrder::Ascend, SortOrder::Descend] {
            for target in [SortTarget::Key, SortTarget::Mod, SortTarget::Value] {
                let request = RangeRequest {
                    sort_order: order as i32,
                    sort_target: target as i32,
                    ..range("k", "l")
                };
                let answer = stream(s, &request).await;
                let allowed = order == SortOrder::Ascend && target == SortTarget::Key;
                assert_eq!(answer.map_err(|e| e.code).err(), (!allowed).then_some(UNIMPLEMENTED));
            }
        }
        for request in [
            RangeRequest { min_mod_revision: 1, ..range("k", "l") },
            RangeRequest { max_mod_revision: 1, ..range("k", "l") },
            RangeRequest { min_create_revision: 1, ..range("k", "l") },
            RangeRequest { max_create_revision: 1, ..range("k", "l") },
        ] {
            assert_eq!(stream(s, &request).await.unwrap_err().code, UNIMPLEMENTED);
        }
        // What Range refuses, this refuses too.
        fails(stream(s, &range("", "")).await, INVALID, "etcdserver: key is not provided");
        let unknown = RangeRequest { sort_order: 9, ..range("k", "l") };
        fails(stream(s, &unknown).await, INVALID, "etcdserver: invalid sort option");
    });
}

#[test]
fn b16_the_first_message_has_ten_keys_and_later_ones_double() {
    on_shared_pair(async |s| {
        fill(s, 200, 10).await;
        let messages = stream(s, &range("k", "l")).await.unwrap();
        let sizes: Vec<_> = messages.iter().map(|m| m.kvs.len()).collect();
        assert_eq!(sizes, [10, 20, 40, 80, 50]);
        // Messages near the limit of a request do not grow.
        fill(s, 30, 300_000).await;
        let messages = stream(s, &range("k", "l")).await.unwrap();
        assert!(messages.iter().all(|m| m.kvs.len() <= 160));
    });
}

#[test]
fn b17_only_the_last_message_has_header_more_and_count() {
    on_shared_pair(async |s| {
        fill(s, 35, 10).await;
        let revision = s.revision().await;
        let messages = stream(s, &range("k", "l")).await.unwrap();
        let (last, others) = messages.split_last().expect("there are some");
        for message in others {
            assert!(message.header.is_none() && !message.more && message.count == 0);
        }
        assert_eq!((revision_of(last.header), last.count, last.more), (revision, 35, false));
        let old = RangeRequest { revision: revision - 20, ..range("k", "l") };
        let messages = stream(s, &old).await.unwrap();
        let keys: usize = messages.iter().map(|m| m.kvs.len()).sum();
        assert_eq!(keys, 15);
        fails(
            stream(s, &RangeRequest { revision: revision + 1, ..range("k", "l") }).await,
            OUT_OF_RANGE,
            FUTURE,
        );
    });
}

#[test]
fn b18_the_count_covers_what_the_limit_left_out() {
    on_shared_pair(async |s| {
        fill(s, 60, 10).await;
        for limit in [1, 9, 10, 11, 29, 30, 31, 59, 60, 61, -1] {
            let request = RangeRequest { limit, ..range("k", "l") };
            let messages = stream(s, &request).await.unwrap();
            let keys: usize = messages.iter().map(|m| m.kvs.len()).sum();
            let wanted = if limit < 0 { 60 } else { 60.min(limit as usize) };
            assert_eq!(keys, wanted, "limit {limit}");
            let last = messages.last().unwrap();
            assert_eq!((last.count, last.more), (60, wanted < 60), "limit {limit}");
        }
        let count = RangeRequest { count_only: true, ..range("k", "l") };
        let messages = stream(s, &count).await.unwrap();
        assert_eq!((messages.len(), messages[0].count, messages[0].kvs.len()), (1, 60, 0));
        let none = stream(s, &range("x", "y")).await.unwrap();
        assert_eq!((none.len(), none[0].count), (1, 0));
    });
}

#[test]
fn b19_all_messages_together_are_the_unary_answer() {
    on_shared_pair(async |s| {
        fill(s, 75, 50).await;
        for request in [
            range("k", "l"),
            range("k0010", ""),
            range("", "\0"),
            range("k", "\0"),
            RangeRequest { limit: 33, ..range("k", "l") },
            RangeRequest { keys_only: true, ..range("k", "l") },
            RangeRequest { serializable: true, ..range("k0030", "l") },
        ] {
            if request.key.is_empty() {
                continue;
            }
            let messages = stream(s, &request).await.unwrap();
            let mut whole = messages.last().unwrap().clone();
            whole.kvs = messages.iter().flat_map(|m| m.kvs.clone()).collect();
            assert_eq!(whole, s.range(&request).await.unwrap());
        }
    });
}

#[test]
fn b20_a_compaction_beyond_the_revision_of_a_stream_ends_it() {
    on_shared_pair(async |s| {
        fill(s, 200, 100_000).await;
        let slow = s.connect(65_535).await;
        let body = conform::grpc::envelope(&range("k", "l").encode_to_vec());
        let mut stream = slow.open(PATH, Some(body), true).await;
        let first = stream.next::<RangeStreamResponse>(PATIENCE).await.unwrap();
        assert_eq!(first.unwrap().range_response.unwrap().kvs.len(), 10);
        let last = s.set("k0199", "new").await;
        s.compact(last, true).await.unwrap();
        let mut keys = 10;
        let failure = loop {
            match stream.next::<RangeStreamResponse>(PATIENCE).await {
                Ok(Some(message)) => keys += message.range_response.unwrap().kvs.len(),
                Ok(None) => panic!("it went on to its end, {keys} keys"),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure, Failure { code: OUT_OF_RANGE, message: COMPACTED.into() });
        assert!(keys < 200);
    });
}
