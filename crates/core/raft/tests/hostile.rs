//! What a broken or hostile peer may send: nothing panics, and what cannot be is refused.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod support;

use bytes::Bytes;
use env::{Entropy, SplitMix};
use raft::{
    Body, ConfChange, ConfChangeV2, ConfState, Entry, EntryKind, Message, Proposal, Raft,
    Rejection, Role, SnapshotMeta, StepError, WireError,
};
use support::Cluster;
use types::{Index, MemberId, Term};

/// A cluster of three led by 1, with a few entries; nothing is on its way.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for data in ["a", "b", "c"] {
        cluster.propose(1, data);
    }
    cluster
}

fn message(from: u64, to: u64, term: u64, body: Body) -> Message {
    Message { from: MemberId(from), to: MemberId(to), term: Term(term), body }
}

fn append(prev: (u64, u64), entries: &[(u64, u64)], commit: u64) -> Body {
    let entry = |&(index, term): &(u64, u64)| Entry {
        index: Index(index),
        term: Term(term),
        ..Entry::default()
    };
    Body::Append {
        prev_index: Index(prev.0),
        prev_term: Term(prev.1),
        entries: entries.iter().map(entry).collect(),
        commit: Index(commit),
    }
}

#[test]
fn messages_that_cannot_be_are_refused_by_name() {
    let mut cluster = cluster();
    // Logs are 2..=5 in term 2, after the snapshot at 1.
    let heartbeat = |commit| Body::Heartbeat { commit: Index(commit), context: Bytes::new() };
    let reply = |index| Body::AppendReply { index: Index(index), rejected: None };
    let snapshot = |voters: &[u64]| Body::Snapshot {
        meta: SnapshotMeta {
            index: Index(50),
            term: Term(2),
            conf_state: ConfState {
                voters: voters.iter().copied().map(MemberId).collect(),
                ..ConfState::default()
            },
        },
        data: Bytes::new(),
    };
    let prev = |prev| StepError::MalformedEntries { prev: Index(prev) };
    let bad_change = Proposal { kind: EntryKind::ConfChange, data: Bytes::from_static(&[0xff]) };
    let last = Index(5);
    let table: Vec<(Message, StepError)> = vec![
        (message(0, 2, 2, heartbeat(1)), StepError::BadSender),
        (message(2, 2, 2, heartbeat(1)), StepError::BadSender),
        (message(1, 1, 2, reply(5)), StepError::BadSender),
        (message(1, 2, 0, heartbeat(1)), StepError::MissingTerm),
        (message(9, 1, 2, reply(5)), StepError::UnknownPeer(MemberId(9))),
        (message(2, 1, 2, reply(6)), StepError::AckBeyondLog { index: Index(6), last }),
        (message(1, 2, 2, heartbeat(6)), StepError::CommitBeyondLog { commit: Index(6), last }),
        (message(1, 2, 2, append((5, 2), &[(7, 2)], 5)), prev(5)),
        (message(1, 2, 2, append((5, 2), &[(6, 3)], 5)), prev(5)),
        (message(1, 2, 3, append((5, 2), &[(6, 3), (7, 2)], 5)), prev(5)),
        (message(1, 2, 2, append((5, 3), &[], 5)), prev(5)),
        (message(1, 2, 2, append((u64::MAX, 2), &[], 5)), prev(u64::MAX)),
        (
            message(1, 2, 3, append((5, 2), &[(6, 3)], u64::MAX)),
            StepError::MissingTerm, // accepted: see below
        ),
        (message(2, 1, 0, Body::Propose(vec![])), StepError::EmptyProposal),
        (message(2, 1, 0, Body::Propose(vec![bad_change])), StepError::MalformedConfChange),
    ];
    for (message, expected) in table {
        let to = message.to.0;
        let member = cluster.member(to);
        let got = member.raft.step(message.clone());
        if matches!(&message.body, Body::Append { commit: Index(u64::MAX), .. }) {
            // A commit index beyond the append is cut to what is known to match.
            assert_eq!(got, Ok(()));
            member.drain();
            assert_eq!(member.raft.status().commit, Index(6));
        } else {
            assert_eq!(got, Err(expected), "{message:?}");
        }
    }
    let refused = cluster.member(3).raft.step(message(1, 3, 2, snapshot(&[3, 3])));
    assert!(matches!(refused, Err(StepError::InvalidConfState(_))), "{refused:?}");
}

#[test]
fn what_is_committed_is_never_replaced() {
    let mut cluster = cluster();
    let member = cluster.member(2);
    // The log below the commit index is answered, whatever the entries are.
    member.raft.step(message(3, 2, 3, append((3, 2), &[(4, 3), (5, 3)], 5))).unwrap();
    member.drain();
    assert_eq!(member.sent.last().unwrap().body, {
        let index = Index(5);
        Body::AppendReply { index, rejected: None }
    });
    let terms: Vec<u64> = member.disk.entries.iter().map(|entry| entry.term.0).collect();
    assert_eq!(terms, [2, 2, 2, 2]);
}

#[test]
fn the_highest_term_ends_elections_but_not_the_process() {
    let mut cluster = cluster();
    let member = cluster.member(2);
    let heartbeat = Body::Heartbeat { commit: Index(0), context: Bytes::new() };
    let refused = member.raft.step(message(3, 2, u64::MAX, heartbeat.clone()));
    assert_eq!(refused, Err(StepError::ImpossibleTerm(Term(u64::MAX))));
    let highest = u64::MAX >> 1;
    member.raft.step(message(3, 2, highest, heartbeat)).unwrap();
    for _ in 0..100 {
        member.raft.tick();
    }
    member.raft.campaign();
    member.drain();
    assert_eq!((member.raft.term(), member.role()), (Term(highest), Role::Follower));
}

#[test]
fn message_types_that_we_do_not_know_only_tell_their_term() {
    let mut cluster = cluster();
    for kind in [23, 24, 1000, -1] {
        cluster.member(2).raft.step(message(1, 2, 2, Body::Unknown(kind))).unwrap();
    }
    cluster.settle();
    assert_eq!(cluster.member(2).raft.leader(), Some(MemberId(1)));
}

/// Numbers that tend to be special.
fn number(rng: &mut SplitMix) -> u64 {
    match rng.below(8) {
        0 => 0,
        1 => u64::MAX - rng.below(2),
        2 => (u64::MAX >> 1) - 1 + rng.below(3),
        3 => rng.next_u64(),
        _ => rng.below(10),
    }
}

fn bytes(rng: &mut SplitMix) -> Bytes {
    let len = [0, 1, 7, 8, 9][rng.below(5) as usize];
    (0..len).map(|_| rng.below(256) as u8).collect::<Vec<u8>>().into()
}

fn hostile(rng: &mut SplitMix, member: &Raft) -> Message {
    let status = member.status();
    // Often plausible, so that it gets past the first checks.
    let term =
        if rng.below(3) > 0 { status.term.0.saturating_add(rng.below(2)) } else { number(rng) };
    let near = |rng: &mut SplitMix, at: u64| {
        if rng.below(3) > 0 { at.saturating_sub(rng.below(3)) } else { number(rng) }
    };
    let index = Index(near(rng, status.last.0));
    let entry_term = Term(near(rng, term));
    let conf_ids =
        |rng: &mut SplitMix| (0..rng.below(4)).map(|_| MemberId(rng.below(5))).collect::<Vec<_>>();
    let body = match rng.below(17) {
        0..=3 => {
            let mut entries = Vec::new();
            for i in 0..rng.below(4) {
                entries.push(Entry {
                    index: Index(index.0.wrapping_add(1 + i)),
                    term: if rng.below(8) == 0 { Term(number(rng)) } else { Term(term) },
                    kind: [EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2]
                        [rng.below(3) as usize],
                    data: bytes(rng),
                });
            }
            let prev_term = status
                .last
                .0
                .checked_sub(index.0)
                .map_or(entry_term, |_| member.entry_term(index).unwrap_or(entry_term));
            let commit = Index(near(rng, status.last.0));
            Body::Append { prev_index: index, prev_term, entries, commit }
        }
        4 => Body::AppendReply { index, rejected: None },
        5 => {
            let rejected = Some(Rejection { hint: Index(number(rng)), term: Term(number(rng)) });
            Body::AppendReply { index, rejected }
        }
        6 => Body::Vote { last_index: index, last_term: entry_term, transfer: rng.below(2) == 0 },
        7 => Body::PreVote { last_index: index, last_term: entry_term, transfer: false },
        8 => Body::VoteReply { reject: rng.below(2) == 0 },
        9 => Body::PreVoteReply { reject: rng.below(2) == 0 },
        10 => {
            let conf_state = ConfState {
                voters: conf_ids(rng),
                learners: conf_ids(rng),
                voters_outgoing: conf_ids(rng),
                learners_next: conf_ids(rng),
                auto_leave: rng.below(2) == 0,
            };
            let conf_state = if rng.below(2) == 0 { status.conf_state } else { conf_state };
            let meta = SnapshotMeta { index, term: entry_term, conf_state };
            Body::Snapshot { meta, data: bytes(rng) }
        }
        11 => Body::Heartbeat { commit: index, context: bytes(rng) },
        12 => Body::HeartbeatReply { context: bytes(rng) },
        13 => Body::TransferLeader,
        14 => Body::TimeoutNow,
        15 => Body::ReadIndex { context: bytes(rng) },
        _ => Body::Propose(vec![Proposal { kind: EntryKind::ConfChangeV2, data: bytes(rng) }]),
    };
    message(rng.below(5), status.id.0, term, body)
}

/// Does what is ready, rejecting membership changes that cannot be.
fn work(raft: &mut Raft) {
    while raft.has_ready() {
        let ready = raft.ready();
        if let Some(persist) = ready.persist {
            raft.persisted(persist.id);
        }
        if let Some(meta) = ready.install {
            raft.applied(meta.index);
        }
        for entry in ready.committed {
            match entry.kind {
                EntryKind::Normal => {}
                EntryKind::ConfChange => {
                    let change = ConfChange::decode(entry.data).ok();
                    let change = change.filter(|change| raft.check_conf_change(change).is_ok());
                    raft.conf_applied(entry.index, change);
                }
                EntryKind::ConfChangeV2 => {
                    let change = ConfChangeV2::decode(entry.data).ok();
                    let change = change.filter(|change| raft.check_conf_change_v2(change).is_ok());
                    raft.conf_applied_v2(entry.index, change);
                }
            }
            raft.applied(entry.index);
        }
        for message in ready.messages {
            assert_eq!(Message::decode(message.encode().into()), Ok(message));
        }
    }
}

#[test]
fn nothing_that_a_peer_sends_panics() {
    let mut accepted = 0_u32;
    for seed in support::seeds(0..400) {
        let mut rng = SplitMix::new(seed);
        let mut cluster = cluster();
        let at = 1 + rng.below(3);
        let raft = &mut cluster.member(at).raft;
        for _ in 0..200 {
            let message = hostile(&mut rng, raft);
            accepted += u32::from(raft.step(message).is_ok());
            if rng.below(3) == 0 {
                work(raft);
            }
            match rng.below(20) {
                0 => raft.tick(),
                1 => raft.campaign(),
                2 => raft.read_index(rng.next_u64()),
                3 => {
                    let _ = raft.propose(vec![bytes(&mut rng)]);
                }
                4 => raft.compact(raft.status().applied),
                _ => {}
            }
        }
        work(raft);
    }
    assert!(accepted > 2_000, "many messages get past the gateway: {accepted}");
}

#[test]
fn the_corpus_of_the_decoder_replays() {
    let mut corpus: Vec<Vec<u8>> = vec![vec![], vec![0xff; 20]];
    for body in [
        Body::Propose(vec![Proposal { kind: EntryKind::Normal, data: Bytes::from_static(b"x") }]),
        append((3, 2), &[(4, 2), (5, 3)], 3),
        Body::AppendReply { index: Index(7), rejected: None },
        Body::AppendReply {
            index: Index(7),
            rejected: Some(Rejection { hint: Index(5), term: Term(2) }),
        },
        Body::Vote { last_index: Index(7), last_term: Term(2), transfer: true },
        Body::PreVoteReply { reject: true },
        Body::Heartbeat { commit: Index(5), context: Bytes::from_static(&[1; 8]) },
        Body::Snapshot {
            meta: SnapshotMeta {
                index: Index(9),
                term: Term(2),
                conf_state: ConfState { voters: vec![MemberId(1)], ..ConfState::default() },
            },
            data: Bytes::from_static(b"{}"),
        },
        Body::ReadIndexReply { index: Index(9), context: Bytes::from_static(&[2; 8]) },
        Body::Unknown(99),
    ] {
        corpus.push(message(1, 2, 3, body).encode());
    }
    corpus.push(ConfChange { id: 5, ..ConfChange::default() }.encode().to_vec());
    let changes = vec![raft::ConfChangeSingle::default()];
    corpus.push(ConfChangeV2 { changes, ..ConfChangeV2::default() }.encode().to_vec());
    let mut rng = SplitMix::new(1);
    for bytes in corpus {
        raft::fuzz_message(&bytes);
        for end in 0..bytes.len() {
            raft::fuzz_message(&bytes[..end]);
        }
        for _ in 0..200 {
            let mut bytes = bytes.clone();
            for _ in 0..=rng.below(3) {
                if !bytes.is_empty() {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] = rng.below(256) as u8;
                }
            }
            raft::fuzz_message(&bytes);
        }
    }
}

#[test]
fn a_message_of_etcd_36_with_explicit_zeros_reads_the_same() {
    // An empty entry of 3.6: type, term and index written, the type being 0.
    let old: &[u8] = &[
        0x08, 3, 0x10, 2, 0x18, 1, 0x20, 2, 0x28, 2, 0x30, 3, 0x3a, 6, 0x08, 0, 0x10, 2, 0x18, 4,
        0x40, 3, 0x50, 0, 0x58, 0,
    ];
    let message = Message::decode(Bytes::from_static(old)).unwrap();
    assert_eq!(message, self::message(1, 2, 2, append((3, 2), &[(4, 2)], 3)));
    // Ours, and 3.7's, is shorter.
    assert_eq!(message.encode().len(), old.len() - 2 - 4);
}

#[test]
fn bytes_that_nest_without_end_are_refused_or_read_but_never_followed_down() {
    // Unknown groups in one another, and messages in messages (`responses`, field 14).
    let groups = [0xfb, 0x01].repeat(400_000);
    assert_eq!(Message::decode(groups.into()), Err(WireError::Protobuf));
    let mut nested: Vec<u8> = Vec::new();
    let mut lens = Vec::new();
    let mut len = 0_usize;
    for _ in 0..200_000 {
        lens.push(len);
        let mut varint = Vec::new();
        prost::encoding::encode_varint(len as u64, &mut varint);
        len += 1 + varint.len();
    }
    for len in lens.iter().rev() {
        nested.push(14 << 3 | 2);
        prost::encoding::encode_varint(*len as u64, &mut nested);
    }
    assert_eq!(Message::decode(nested.into()), Err(WireError::Protobuf));
}
