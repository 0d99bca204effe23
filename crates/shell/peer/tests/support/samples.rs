//! Messages of every kind, and databases.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use env::MayBlock;
use raft::{Body, ConfState, Entry, EntryKind, Message, Proposal, Rejection, SnapshotMeta};
use types::{Index, MemberId, Term};

pub fn message(from: u64, to: u64, term: u64, body: Body) -> Message {
    Message { from: MemberId(from), to: MemberId(to), term: Term(term), body }
}

pub fn entry(index: u64, term: u64, data: Bytes) -> Entry {
    Entry { index: Index(index), term: Term(term), kind: EntryKind::Normal, data }
}

/// An append of entries after `prev`, all of one term.
pub fn append(from: u64, to: u64, prev: u64, count: u64, payload: usize) -> Message {
    let entries = (0..count).map(|n| entry(prev + 1 + n, 7, vec![n as u8; payload].into()));
    let body = Body::Append {
        prev_index: Index(prev),
        prev_term: Term(7),
        entries: entries.collect(),
        commit: Index(prev),
    };
    message(from, to, 7, body)
}

/// One of each, but appends and snapshots.
pub fn every_kind(from: u64, to: u64) -> Vec<Message> {
    let context = Bytes::from_static(b"\0\0\0\0\0\0\0\x09");
    let change = Proposal { kind: EntryKind::ConfChange, data: Bytes::from_static(b"change") };
    let put = Proposal { kind: EntryKind::Normal, data: Bytes::from_static(b"put") };
    let bodies = [
        Body::Propose(vec![put, change]),
        Body::AppendReply { index: Index(9), rejected: None },
        Body::AppendReply { index: Index(0), rejected: None },
        Body::AppendReply {
            index: Index(9),
            rejected: Some(Rejection { hint: Index(4), term: Term(3) }),
        },
        Body::Vote { last_index: Index(9), last_term: Term(3), transfer: true },
        Body::VoteReply { reject: false },
        Body::VoteReply { reject: true },
        Body::PreVote { last_index: Index(9), last_term: Term(3), transfer: false },
        Body::PreVoteReply { reject: true },
        Body::Heartbeat { commit: Index(5), context: context.clone() },
        Body::Heartbeat { commit: Index(0), context: Bytes::new() },
        Body::HeartbeatReply { context: context.clone() },
        Body::TransferLeader,
        Body::TimeoutNow,
        Body::ReadIndex { context: context.clone() },
        Body::ReadIndexReply { index: Index(8), context },
    ];
    let of_term = |body: &Body| match body {
        Body::Propose(_) | Body::ReadIndex { .. } => 0,
        _ => 4,
    };
    bodies.into_iter().map(|body| message(from, to, of_term(&body), body)).collect()
}

pub fn snapshot(from: u64, to: u64, index: u64) -> Message {
    let conf_state = ConfState { voters: vec![MemberId(1), MemberId(2)], ..ConfState::default() };
    let meta = SnapshotMeta { index: Index(index), term: Term(4), conf_state };
    let data = Bytes::from_static(b"{\"Root\":{}}");
    message(from, to, 4, Body::Snapshot { meta, data })
}

/// A database of some megabytes, and the bytes of its snapshot.
pub fn database(dir: &Path, megabytes: u32) -> (bolt::ReadTx, Vec<u8>) {
    let read = unread_database(dir, megabytes);
    let mut bytes = vec![0; read.file_len_of_snapshot() as usize];
    read.read_snapshot(&MayBlock::on_this_thread(), 0, &mut bytes).unwrap();
    (read, bytes)
}

/// A database of some megabytes.
pub fn unread_database(dir: &Path, megabytes: u32) -> bolt::ReadTx {
    let may = MayBlock::on_this_thread();
    let options = bolt::Options::default();
    let mut db = bolt::Db::open(Arc::new(osenv::OsDisk), &dir.join("db"), &may, options).unwrap();
    let mut tx = db.begin_write();
    tx.create_bucket(&may, b"key").unwrap();
    tx.commit(&may).unwrap();
    for megabyte in 0..megabytes {
        let mut tx = db.begin_write();
        for n in 0..64 {
            let value = vec![n as u8; 16 * 1024];
            tx.put(&may, b"key", &(megabyte * 64 + n).to_be_bytes(), &value).unwrap();
        }
        tx.commit(&may).unwrap();
    }
    db.begin_read()
}
