//! Linearizable reads without the log: a leader notes its commit index, then makes sure with a
//! round of heartbeats that it still led when it was asked (thesis, 6.4).
//!
//! Invariants: a read is answered only after this term's first commit (before it, the commit index
//! may be behind what an earlier leader committed), and only when a quorum answered a heartbeat
//! sent after the read arrived. Reads are confirmed in the order of their arrival: a heartbeat
//! carries the number of reads it confirms, an answer the same number.
//!
//! Unlike etcd, a sole voter also waits for the first commit of its term: its commit index is not
//! flushed, so after a crash it may be behind what was acknowledged.
//= etcd 3.7.1: raft/read_only.go

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use env::sometimes;
use types::{Index, MemberId};

use crate::message::Body;
use crate::probes;
use crate::raft::Raft;

/// Reads that wait on one leader. More are dropped; their askers ask again after 500 ms.
const MAX_WAITING_READS: usize = 10_000;

struct Read {
    from: MemberId,
    context: Bytes,
    /// The commit index when it was asked for.
    index: Index,
}

/// The reads that wait on this leader.
#[derive(Default)]
pub(crate) struct ReadIndexes {
    /// Before the first commit of the term. Kept across terms: answering late is harmless.
    early: Vec<(MemberId, Bytes)>,
    unconfirmed: VecDeque<Read>,
    /// Reads confirmed in this term; the first of `unconfirmed` is number `confirmed + 1`.
    confirmed: u64,
    /// The highest number that each member acknowledged.
    acks: BTreeMap<MemberId, u64>,
}

impl ReadIndexes {
    pub fn reset(&mut self) {
        self.unconfirmed.clear();
        self.confirmed = 0;
        self.acks.clear();
    }

    /// The token that confirms all waiting reads; empty if none wait.
    pub fn heartbeat_context(&self) -> Bytes {
        if self.unconfirmed.is_empty() {
            return Bytes::new();
        }
        let number = self.confirmed + self.unconfirmed.len() as u64;
        Bytes::copy_from_slice(&number.to_le_bytes())
    }

    fn acknowledge(&mut self, from: MemberId, number: u64) {
        let acked = self.acks.entry(from).or_default();
        *acked = number.max(*acked);
    }

    fn full(&self) -> bool {
        self.early.len() + self.unconfirmed.len() >= MAX_WAITING_READS
    }
}

impl Raft {
    pub(crate) fn read_index_as_leader(&mut self, from: MemberId, context: Bytes) {
        if !self.committed_in_term() {
            sometimes!(self.config.hooks, probes::READ_EARLY);
            if !self.read_indexes.full() {
                self.read_indexes.early.push((from, context));
            }
        } else if self.tracker.is_sole_voter(self.id()) {
            self.answer_read(from, context, self.log.committed());
        } else if !self.read_indexes.full() {
            let index = self.log.committed();
            self.read_indexes.unconfirmed.push_back(Read { from, context, index });
            let number = self.read_indexes.confirmed + self.read_indexes.unconfirmed.len() as u64;
            self.read_indexes.acknowledge(self.id(), number);
            self.broadcast_heartbeat();
        }
    }

    /// The first entry of the term may have been committed: the early reads can go on.
    pub(crate) fn release_pending_reads(&mut self) {
        if self.read_indexes.early.is_empty() || !self.committed_in_term() {
            return;
        }
        for (from, context) in std::mem::take(&mut self.read_indexes.early) {
            self.read_index_as_leader(from, context);
        }
    }

    /// A heartbeat was answered: confirms the reads that a quorum has acknowledged.
    pub(crate) fn reads_acknowledged(&mut self, from: MemberId, context: &[u8]) {
        let Some(number) = context.first_chunk::<8>() else { return };
        self.read_indexes.acknowledge(from, u64::from_le_bytes(*number));
        let acks = &self.read_indexes.acks;
        let reached = self.tracker.quorum_reached(|id| acks.get(&id).copied().unwrap_or(0));
        while self.read_indexes.confirmed < reached {
            // A peer may claim more than was ever asked.
            let Some(read) = self.read_indexes.unconfirmed.pop_front() else { return };
            self.read_indexes.confirmed += 1;
            self.answer_read(read.from, read.context, read.index);
        }
    }

    fn answer_read(&mut self, from: MemberId, context: Bytes, index: Index) {
        if from == self.id() {
            self.push_read_state(index, &context);
        } else {
            self.send(from, Body::ReadIndexReply { index, context });
        }
    }

    fn committed_in_term(&self) -> bool {
        self.log.term(self.log.committed()) == Some(self.term)
    }
}
