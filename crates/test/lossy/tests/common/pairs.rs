//! Writers that remember what was acknowledged.

use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use bytes::Bytes;
use conform::Client;

use crate::common::block_on;

/// Keys that a writer writes together in its transaction number `n`.
fn keys(writer: u64, n: u64) -> [String; 2] {
    [format!("a/{writer}/{n:06}"), format!("b/{writer}/{n:06}")]
}

/// Writes pairs of keys, each pair in one transaction, until the server is gone or `limit` are
/// acknowledged. Returns how many were.
pub async fn write_pairs(port: u16, writer: u64, from: u64, limit: u64, size: usize) -> u64 {
    let Ok(client) = Client::try_connect(port, 1 << 20).await else { return from };
    for n in from..limit {
        let put = |key: String| RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.into(),
                value: Bytes::from(vec![b'v'; size]),
                ..Default::default()
            })),
        };
        let success = keys(writer, n).into_iter().map(put).collect();
        let request = TxnRequest { success, ..Default::default() };
        let call = client.call::<TxnResponse>("/etcdserverpb.KV/Txn", &request);
        if call.await.is_err() {
            return n;
        }
    }
    limit
}

/// Writes with several writers at once; returns what was acknowledged to each.
pub fn write_all(port: u16, from: &[u64], limit: u64, size: usize) -> Vec<u64> {
    block_on(async {
        let writers: Vec<_> = (0u64..)
            .zip(from)
            .map(|(writer, &from)| tokio::spawn(write_pairs(port, writer, from, limit, size)))
            .collect();
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.push(writer.await.expect("a writer does not panic"));
        }
        acknowledged
    })
}

/// Every acknowledged pair is there; of others both keys or neither, and at most the one that was
/// on its way. Returns how many pairs of each writer are there.
pub fn check_pairs(port: u16, acknowledged: &[u64], context: &str) -> Vec<u64> {
    let answer: RangeResponse = block_on(async {
        let client = Client::connect(port).await;
        let zero = Bytes::from_static(b"\0");
        let all = RangeRequest {
            key: zero.clone(),
            range_end: zero,
            keys_only: true,
            ..Default::default()
        };
        client.call("/etcdserverpb.KV/Range", &all).await.expect("a range is answered")
    });
    let mut found: Vec<&Bytes> = answer.kvs.iter().map(|kv| &kv.key).collect();
    found.sort_unstable();
    let has = |key: &str| found.binary_search(&&Bytes::copy_from_slice(key.as_bytes())).is_ok();
    let mut there = Vec::new();
    let mut expected = 0;
    for (writer, &last) in (0u64..).zip(acknowledged) {
        for n in 0..last {
            for key in keys(writer, n) {
                assert!(has(&key), "{context}: {key} was acknowledged and is lost");
            }
        }
        let [a, b] = keys(writer, last);
        assert_eq!(has(&a), has(&b), "{context}: half a transaction");
        let count = last + u64::from(has(&a));
        expected += 2 * count as usize;
        there.push(count);
    }
    assert_eq!(found.len(), expected, "{context}: keys that nobody wrote");
    there
}
