//! The border to etcd's protobuf messages: raft's own types to `raftpb` and back.
//!
//! Which optional fields are present is part of the bytes: they are those that raft v3.7.0 sets,
//! so that a message of ours is byte for byte a message of Go's. What comes in may have any of
//! them absent or zero (etcd 3.6 writes zeros). Decoding never panics and copies no payload.

use api::{odd, raftpb};
use bytes::Bytes;
use prost::Message as _;
use types::{Index, MemberId, Term};

use crate::confchange::{ConfChange, ConfChangeV2};
use crate::entry::{ConfState, Entry, EntryKind, HardState, SnapshotMeta};
use crate::error::WireError;
use crate::message::{Body, Message, Proposal, Rejection};

/// The context of a vote request that a leader's transfer causes.
//= etcd 3.7.1: raft/raft.go#campaignTransfer
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

impl EntryKind {
    /// The type as etcd's client of raft sets it: absent for a normal entry.
    fn to_wire(self) -> Option<i32> {
        match self {
            Self::Normal => None,
            Self::ConfChange => Some(raftpb::EntryType::EntryConfChange as i32),
            Self::ConfChangeV2 => Some(raftpb::EntryType::EntryConfChangeV2 as i32),
        }
    }

    fn from_wire(value: Option<i32>) -> Result<Self, WireError> {
        match value.unwrap_or(0) {
            0 => Ok(Self::Normal),
            1 => Ok(Self::ConfChange),
            2 => Ok(Self::ConfChangeV2),
            other => Err(WireError::UnknownEntryType(other)),
        }
    }
}

fn present(bytes: Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then_some(bytes)
}

fn index(value: Option<u64>) -> Index {
    Index(value.unwrap_or(0))
}

fn term(value: Option<u64>) -> Term {
    Term(value.unwrap_or(0))
}

impl Entry {
    /// As a protobuf message.
    #[must_use]
    pub fn to_wire(&self) -> raftpb::Entry {
        raftpb::Entry {
            r#type: self.kind.to_wire(),
            term: Some(self.term.0),
            index: Some(self.index.0),
            data: present(self.data.clone()),
        }
    }

    /// From a protobuf message.
    ///
    /// # Errors
    /// If its type does not exist.
    pub fn from_wire(wire: raftpb::Entry) -> Result<Self, WireError> {
        Ok(Self {
            term: term(wire.term),
            index: index(wire.index),
            kind: EntryKind::from_wire(wire.r#type)?,
            data: wire.data.unwrap_or_default(),
        })
    }
}

impl HardState {
    /// As a protobuf message; all fields are present.
    #[must_use]
    pub fn to_wire(&self) -> raftpb::HardState {
        raftpb::HardState {
            term: Some(self.term.0),
            vote: Some(self.vote.map_or(0, |id| id.0)),
            commit: Some(self.commit.0),
        }
    }

    /// From a protobuf message.
    #[must_use]
    pub fn from_wire(wire: &raftpb::HardState) -> Self {
        Self {
            term: term(wire.term),
            vote: wire.vote.filter(|&id| id != 0).map(MemberId),
            commit: index(wire.commit),
        }
    }
}

impl ConfState {
    /// As a protobuf message; `auto_leave` is always present.
    #[must_use]
    pub fn to_wire(&self) -> raftpb::ConfState {
        let ids = |ids: &[MemberId]| ids.iter().map(|id| id.0).collect();
        raftpb::ConfState {
            voters: ids(&self.voters),
            learners: ids(&self.learners),
            voters_outgoing: ids(&self.voters_outgoing),
            learners_next: ids(&self.learners_next),
            auto_leave: Some(self.auto_leave),
        }
    }

    /// From a protobuf message. Whether it makes sense is checked where it is used.
    #[must_use]
    pub fn from_wire(wire: &raftpb::ConfState) -> Self {
        let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
        Self {
            voters: ids(&wire.voters),
            learners: ids(&wire.learners),
            voters_outgoing: ids(&wire.voters_outgoing),
            learners_next: ids(&wire.learners_next),
            auto_leave: wire.auto_leave.unwrap_or(false),
        }
    }
}

impl SnapshotMeta {
    /// As a protobuf message.
    #[must_use]
    pub fn to_wire(&self) -> raftpb::SnapshotMetadata {
        raftpb::SnapshotMetadata {
            conf_state: Some(self.conf_state.to_wire()),
            index: Some(self.index.0),
            term: Some(self.term.0),
        }
    }

    /// From a protobuf message.
    #[must_use]
    pub fn from_wire(wire: &raftpb::SnapshotMetadata) -> Self {
        Self {
            index: index(wire.index),
            term: term(wire.term),
            conf_state: wire.conf_state.as_ref().map(ConfState::from_wire).unwrap_or_default(),
        }
    }
}

impl Message {
    /// The bytes that go to a peer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    /// The message in bytes from a peer. Payloads stay slices of `bytes`.
    ///
    /// # Errors
    /// See [`WireError`]; the peer is at fault.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        // A message may hold messages, and unknown fields groups: prost follows them however deep.
        Self::from_wire(odd::decode::<raftpb::Message>(bytes).map_err(|_| WireError::Protobuf)?)
    }

    /// As a protobuf message.
    #[must_use]
    #[expect(
        clippy::too_many_lines,
        reason = "a table: an arm of a few fields per kind of message"
    )]
    pub fn to_wire(&self) -> raftpb::Message {
        use raftpb::MessageType as T;
        let mut wire = raftpb::Message {
            to: Some(self.to.0),
            from: Some(self.from.0),
            term: (!matches!(self.body, Body::Propose(_) | Body::ReadIndex { .. }))
                .then_some(self.term.0),
            ..raftpb::Message::default()
        };
        let kind = match &self.body {
            Body::Propose(proposals) => {
                wire.entries = proposals.iter().map(Proposal::to_wire).collect();
                T::MsgProp
            }
            Body::Append { prev_index, prev_term, entries, commit } => {
                wire.index = Some(prev_index.0);
                wire.log_term = Some(prev_term.0);
                wire.entries = entries.iter().map(Entry::to_wire).collect();
                wire.commit = Some(commit.0);
                T::MsgApp
            }
            Body::AppendReply { index, rejected: None } => {
                wire.index = (index.0 != 0).then_some(index.0);
                T::MsgAppResp
            }
            Body::AppendReply { index, rejected: Some(rejection) } => {
                wire.index = Some(index.0);
                wire.reject = Some(true);
                wire.reject_hint = Some(rejection.hint.0);
                wire.log_term = Some(rejection.term.0);
                T::MsgAppResp
            }
            Body::Vote { last_index, last_term, transfer } => {
                vote_to_wire(&mut wire, *last_index, *last_term, *transfer);
                T::MsgVote
            }
            Body::PreVote { last_index, last_term, transfer } => {
                vote_to_wire(&mut wire, *last_index, *last_term, *transfer);
                T::MsgPreVote
            }
            Body::VoteReply { reject } => {
                wire.reject = reject.then_some(true);
                T::MsgVoteResp
            }
            Body::PreVoteReply { reject } => {
                wire.reject = reject.then_some(true);
                T::MsgPreVoteResp
            }
            Body::Snapshot { meta, data } => {
                wire.snapshot = Some(raftpb::Snapshot {
                    data: present(data.clone()),
                    metadata: Some(meta.to_wire()),
                });
                T::MsgSnap
            }
            Body::Heartbeat { commit, context } => {
                wire.commit = Some(commit.0);
                wire.context = present(context.clone());
                T::MsgHeartbeat
            }
            Body::HeartbeatReply { context } => {
                wire.context = present(context.clone());
                T::MsgHeartbeatResp
            }
            Body::TransferLeader => T::MsgTransferLeader,
            Body::TimeoutNow => T::MsgTimeoutNow,
            Body::ReadIndex { context } => {
                wire.entries = vec![context_to_wire(context)];
                T::MsgReadIndex
            }
            Body::ReadIndexReply { index, context } => {
                wire.index = Some(index.0);
                wire.entries = vec![context_to_wire(context)];
                T::MsgReadIndexResp
            }
            Body::Unknown(kind) => {
                wire.r#type = Some(*kind);
                return wire;
            }
        };
        wire.r#type = Some(kind as i32);
        wire
    }

    /// From a protobuf message.
    ///
    /// # Errors
    /// See [`WireError`]; the peer is at fault.
    pub fn from_wire(wire: raftpb::Message) -> Result<Self, WireError> {
        use raftpb::MessageType as T;
        let kind = wire.r#type.unwrap_or(0);
        let (from, to) = (MemberId(wire.from.unwrap_or(0)), MemberId(wire.to.unwrap_or(0)));
        let message_term = term(wire.term);
        let reject = wire.reject.unwrap_or(false);
        let (last_index, last_term) = (index(wire.index), term(wire.log_term));
        let context = wire.context.unwrap_or_default();
        let transfer = context == TRANSFER_CONTEXT;
        let body = match T::try_from(kind) {
            Ok(
                T::MsgHup
                | T::MsgBeat
                | T::MsgUnreachable
                | T::MsgSnapStatus
                | T::MsgCheckQuorum
                | T::MsgStorageAppend
                | T::MsgStorageAppendResp
                | T::MsgStorageApply
                | T::MsgStorageApplyResp,
            ) => return Err(WireError::LocalMessage(kind)),
            Ok(T::MsgProp) => Body::Propose(
                wire.entries.into_iter().map(Proposal::from_wire).collect::<Result<_, _>>()?,
            ),
            Ok(T::MsgApp) => Body::Append {
                prev_index: last_index,
                prev_term: last_term,
                entries: wire
                    .entries
                    .into_iter()
                    .map(Entry::from_wire)
                    .collect::<Result<_, _>>()?,
                commit: index(wire.commit),
            },
            Ok(T::MsgAppResp) => Body::AppendReply {
                index: last_index,
                rejected: reject
                    .then(|| Rejection { hint: index(wire.reject_hint), term: last_term }),
            },
            Ok(T::MsgVote) => Body::Vote { last_index, last_term, transfer },
            Ok(T::MsgPreVote) => Body::PreVote { last_index, last_term, transfer },
            Ok(T::MsgVoteResp) => Body::VoteReply { reject },
            Ok(T::MsgPreVoteResp) => Body::PreVoteReply { reject },
            Ok(T::MsgSnap) => {
                let snapshot = wire.snapshot.unwrap_or_default();
                let meta = snapshot.metadata.as_ref().map(SnapshotMeta::from_wire);
                Body::Snapshot {
                    meta: meta.unwrap_or_default(),
                    data: snapshot.data.unwrap_or_default(),
                }
            }
            Ok(T::MsgHeartbeat) => Body::Heartbeat { commit: index(wire.commit), context },
            Ok(T::MsgHeartbeatResp) => Body::HeartbeatReply { context },
            Ok(T::MsgTransferLeader) => Body::TransferLeader,
            Ok(T::MsgTimeoutNow) => Body::TimeoutNow,
            Ok(T::MsgReadIndex) => Body::ReadIndex { context: only_context(wire.entries)? },
            Ok(T::MsgReadIndexResp) => {
                Body::ReadIndexReply { index: last_index, context: only_context(wire.entries)? }
            }
            // A server never sends the former; the latter come from a later version.
            Ok(T::MsgForgetLeader) | Err(_) => Body::Unknown(kind),
        };
        Ok(Self { from, to, term: message_term, body })
    }
}

fn vote_to_wire(wire: &mut raftpb::Message, last: Index, last_term: Term, transfer: bool) {
    wire.index = Some(last.0);
    wire.log_term = Some(last_term.0);
    wire.context = transfer.then(|| Bytes::from_static(TRANSFER_CONTEXT));
}

/// Read indexes carry their context as the data of an entry.
fn context_to_wire(context: &Bytes) -> raftpb::Entry {
    raftpb::Entry { data: Some(context.clone()), ..raftpb::Entry::default() }
}

fn only_context(entries: Vec<raftpb::Entry>) -> Result<Bytes, WireError> {
    let [entry] = <[raftpb::Entry; 1]>::try_from(entries).map_err(|_| WireError::NoContext)?;
    Ok(entry.data.unwrap_or_default())
}

impl Proposal {
    fn to_wire(&self) -> raftpb::Entry {
        raftpb::Entry {
            r#type: self.kind.to_wire(),
            data: present(self.data.clone()),
            ..raftpb::Entry::default()
        }
    }

    fn from_wire(wire: raftpb::Entry) -> Result<Self, WireError> {
        let kind = EntryKind::from_wire(wire.r#type)?;
        Ok(Self { kind, data: wire.data.unwrap_or_default() })
    }
}

/// Decodes arbitrary bytes as everything that comes from a peer or a log; what decodes must
/// survive a round trip.
#[doc(hidden)]
pub fn fuzz_message(bytes: &[u8]) {
    let data = Bytes::copy_from_slice(bytes);
    if let Ok(message) = Message::decode(data.clone()) {
        let again = Message::decode(message.encode().into()).expect("our own bytes decode");
        // Proposals and read indexes belong to no term, so theirs is not sent on.
        assert_eq!(again.body, message.body);
        assert_eq!((again.from, again.to), (message.from, message.to));
    }
    if let Ok(change) = ConfChange::decode(data.clone()) {
        assert_eq!(ConfChange::decode(change.encode()), Ok(change));
    }
    if let Ok(change) = ConfChangeV2::decode(data) {
        assert_eq!(ConfChangeV2::decode(change.encode()), Ok(change));
    }
}
