//! What members send each other.

use bytes::{Bytes, BytesMut};
use peer::codec::{AppendEncoder, encode_link_heartbeat, encode_message};
use raft::{Body, Entry, EntryKind, Message, SnapshotMeta};
use types::{Index, MemberId, Term};

fn message(body: Body) -> Message {
    Message { from: MemberId(2), to: MemberId(1), term: Term(3), body }
}

fn append(prev: u64, count: u64) -> Message {
    let entry = |n| Entry {
        index: Index(prev + 1 + n),
        term: Term(3),
        kind: EntryKind::Normal,
        data: Bytes::from(vec![b'd'; 20]),
    };
    message(Body::Append {
        prev_index: Index(prev),
        prev_term: Term(3),
        entries: (0..count).map(entry).collect(),
        commit: Index(prev),
    })
}

/// Both streams, in pieces of 7 and of 255 bytes.
#[must_use]
pub fn streams() -> Vec<Vec<u8>> {
    let mut appends = BytesMut::from(&[255][..]);
    let mut encoder = AppendEncoder::default();
    for one in [append(4, 2), append(6, 3), append(9, 0), append(2, 1), append(3, 1)] {
        encoder.encode(&one, &mut appends);
        AppendEncoder::encode_link_heartbeat(&mut appends);
    }
    let mut messages = BytesMut::from(&[7][..]);
    let context = Bytes::from_static(b"\0\0\0\0\0\0\0\x09");
    encode_message(&message(Body::Heartbeat { commit: Index(5), context }), &mut messages);
    encode_link_heartbeat(&mut messages);
    encode_message(&append(4, 2), &mut messages);
    vec![appends.to_vec(), messages.to_vec()]
}

/// Snapshots up to their databases.
#[must_use]
pub fn snapshot_heads() -> Vec<Vec<u8>> {
    let meta = SnapshotMeta { index: Index(40), term: Term(2), ..SnapshotMeta::default() };
    let data = Bytes::from_static(b"{}");
    let mut out = BytesMut::from(&[30][..]);
    encode_message(&message(Body::Snapshot { meta, data }), &mut out);
    out.extend_from_slice(b"and then the database");
    vec![out.to_vec()]
}

/// URLs, ids, versions, times, members.
#[must_use]
pub fn texts() -> Vec<Vec<u8>> {
    [
        "http://127.0.0.1:2380,unix://localhost:7,https://[::1]:2380",
        "8e9e05c52164694d",
        "3.7.1-rc.0+git",
        "2026-11-22T22:57:46.123456789+02:00",
        r#"[{"id":1,"peerURLs":["http://a:1"],"name":"a","clientURLs":null}]"#,
        r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
