//! What is stored: log entries, the hard state, the membership and the name of a snapshot.
//!
//! These are the crate's own types; `wire` turns them into etcd's protobuf messages and back.

use bytes::Bytes;
use types::{Index, MemberId, Term};

/// What an entry's bytes mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// A request for the state machine, or nothing (a leader's first entry).
    #[default]
    Normal,
    /// An encoded [`ConfChange`](crate::ConfChange), the only kind that etcd applies.
    ConfChange,
    /// An encoded [`ConfChangeV2`](crate::ConfChangeV2).
    ConfChangeV2,
}

/// One entry of the log. Entries with equal term and index are equal on every member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that appended it.
    pub term: Term,
    /// Its position, from 1.
    pub index: Index,
    /// What `data` means.
    pub kind: EntryKind,
    /// The payload; shared, never copied.
    pub data: Bytes,
}

impl Entry {
    /// Its length in bytes as a protobuf message, which is what all size limits count.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let kind = if self.kind == EntryKind::Normal { 0 } else { 2 };
        let data = match self.data.len() {
            0 => 0,
            len => 1 + varint_len(len as u64) + len,
        };
        kind + 2 + varint_len(self.term.0) + varint_len(self.index.0) + data
    }

    pub(crate) fn id(&self) -> EntryId {
        EntryId { term: self.term, index: self.index }
    }
}

/// Bytes of `value` as a base-128 varint.
fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// The name of an entry. Two logs that hold the same id are equal up to it (log matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryId {
    pub term: Term,
    pub index: Index,
}

/// What a member must remember beside its log to keep its promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<MemberId>,
    /// The highest index it knows to be committed; may lag after a crash.
    pub commit: Index,
}

/// Who takes part. `voters_outgoing` is non-empty only between the two halves of a joint change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Members whose votes count, ascending.
    pub voters: Vec<MemberId>,
    /// Members that only receive the log, ascending.
    pub learners: Vec<MemberId>,
    /// The voters of the configuration being left; a majority of both sets is needed meanwhile.
    pub voters_outgoing: Vec<MemberId>,
    /// Outgoing voters that become learners when the joint configuration is left.
    pub learners_next: Vec<MemberId>,
    /// Whether the leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

/// The name of a snapshot: the state after `index`, whose entry had `term`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that the snapshot covers.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// The membership after that entry.
    pub conf_state: ConfState,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn encoded_len_is_the_length_of_the_protobuf() {
        for term in [0, 1, 127, 128, u64::MAX] {
            for len in [0, 1, 127, 128, 20_000] {
                for kind in [EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2] {
                    let entry = Entry {
                        term: Term(term),
                        index: Index(term / 3 + 1),
                        kind,
                        data: Bytes::from(vec![7; len]),
                    };
                    assert_eq!(entry.encoded_len(), entry.to_wire().encoded_len(), "{entry:?}");
                }
            }
        }
    }
}
