//! The first log of a new cluster, which every founding member writes by itself.

use bytes::Bytes;
use types::{Index, MemberId, Term};

use crate::confchange::{ConfChange, ConfChangeKind};
use crate::entry::{Entry, EntryKind, HardState};

/// The hard state and log that a founding member writes before it starts: one entry per member
/// that adds it as a voter, in ascending order of ids, in term 1, all committed. `members` holds
/// each id with the JSON document that the membership store reads.
///
/// The result is equal on all members if `members` is. [`Recovered`](crate::Recovered) for it has
/// an empty membership: the members join as the entries are applied.
///
/// # Panics
/// If `members` is empty or an id occurs twice.
//= etcd 3.7.1: raft/bootstrap.go#Bootstrap
#[must_use]
pub fn bootstrap(members: &[(MemberId, Bytes)]) -> (HardState, Vec<Entry>) {
    let mut members: Vec<_> = members.to_vec();
    members.sort_by_key(|(id, _)| *id);
    assert!(!members.is_empty(), "a cluster has members");
    assert!(members.is_sorted_by(|a, b| a.0 < b.0), "a member is listed once");
    let term = Term(1);
    let entries: Vec<Entry> = (1..)
        .zip(members)
        .map(|(index, (node, context))| {
            let change = ConfChange { id: 0, kind: ConfChangeKind::AddNode, node, context };
            Entry { term, index: Index(index), kind: EntryKind::ConfChange, data: change.encode() }
        })
        .collect();
    let commit = Index(entries.len() as u64);
    (HardState { term, vote: None, commit }, entries)
}
