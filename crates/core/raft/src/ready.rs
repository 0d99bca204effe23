//! The outputs. [`Raft::ready`] drains everything there is to do, in an order that is safe to
//! carry out field by field.
//!
//! A message that promises durability passes two gates. First its write: it joins the last write
//! handed out and is set free by [`Raft::persisted`] (invariant 2). Then, on members that do not
//! lead, committed membership changes: a vote or acknowledgement given under the old membership
//! could be counted under the new one.
//= etcd 3.7.1: server/etcdserver/raft.go#start (confChanged)

use env::sometimes;
use types::{Index, MemberId, WriteId};

use crate::entry::{Entry, HardState, SnapshotMeta};
use crate::message::Message;
use crate::probes;
use crate::raft::Raft;
use crate::status::Role;
use crate::unstable::push_reply;

/// A write for the log. Writes are carried out and completed in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// To report with [`Raft::persisted`].
    pub id: WriteId,
    /// A received snapshot to record before the rest; its data is already on disk.
    pub snapshot: Option<SnapshotMeta>,
    /// Entries, consecutive; those at or after the first replace what the log holds there.
    pub entries: Vec<Entry>,
    /// The hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// Whether it must be flushed before it is reported. False if only the commit index changed:
    /// losing that costs nothing.
    pub must_sync: bool,
}

/// An answer to [`Raft::read_index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// The asker's context.
    pub context: u64,
    /// A read at this applied index or later is linearizable.
    pub index: Index,
}

/// What is volatile and interesting to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftState {
    /// The leader of the current term, if known.
    pub leader: Option<MemberId>,
    /// This member's part.
    pub role: Role,
}

/// Everything there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The leader or the role, if either changed.
    pub soft: Option<SoftState>,
    /// A write; report it when it is durable. Later writes may be handed out before.
    pub persist: Option<Persist>,
    /// Messages that may leave now, in this order per receiver.
    pub messages: Vec<Message>,
    /// A snapshot to install in the state machine, before `committed`; its record is durable.
    /// Report it with [`Raft::applied`].
    pub install: Option<SnapshotMeta>,
    /// Entries to apply, each handed out once, all durable here. At most
    /// [`Config::max_bytes_per_apply`](crate::Config); there may be more at once.
    pub committed: Vec<Entry>,
    /// Answers to reads.
    pub read_states: Vec<ReadState>,
}

impl Ready {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Raft {
    /// Hands out everything to do now. Empty and cheap if there is nothing.
    pub fn ready(&mut self) -> Ready {
        let persist = self.next_write();
        self.open_gate();
        let soft = SoftState { leader: self.leader, role: self.role };
        let soft = (soft != self.reported_soft).then(|| {
            self.reported_soft = soft;
            soft
        });
        let max_bytes = self.config.max_bytes_per_apply;
        Ready {
            soft,
            persist,
            messages: std::mem::take(&mut self.out),
            install: self.install.take(),
            committed: self.log.next_committed(self.unstable.persisted(), max_bytes),
            read_states: std::mem::take(&mut self.read_states),
        }
    }

    /// Whether [`Raft::ready`] should be called: false means that it would return nothing.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.out.is_empty()
            || !self.read_states.is_empty()
            || self.install.is_some()
            || self.unstable.has_free()
            || (!self.gated.is_empty() && !self.gate_closed())
            || self.log.has_next_committed(self.unstable.persisted())
            || self.unstable.written() < self.log.last()
            || self.unstable.snapshot_unwritten()
            || self.hard_state() != self.reported_hard
            || SoftState { leader: self.leader, role: self.role } != self.reported_soft
    }

    pub(crate) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed() }
    }

    /// The next write, if anything changed since the last. Otherwise sets free what waits for no
    /// write; votes for ourselves among it may bring new changes, hence the loop.
    fn next_write(&mut self) -> Option<Persist> {
        loop {
            let hard = self.hard_state();
            let snapshot = self.unstable.snapshot_unwritten();
            if hard != self.reported_hard || snapshot || self.unstable.written() < self.log.last() {
                return Some(self.begin_write(hard, snapshot));
            }
            if !self.unstable.has_waiting() {
                return None;
            }
            let free = self.unstable.join_pending();
            self.release(free);
        }
    }

    fn begin_write(&mut self, hard: HardState, snapshot: bool) -> Persist {
        let old = self.reported_hard;
        self.reported_hard = hard;
        let entries = self.log.tail(self.unstable.written().next());
        let snapshot = if snapshot { self.log.installing().cloned() } else { None };
        let must_sync = !entries.is_empty()
            || snapshot.is_some()
            || (hard.term, hard.vote) != (old.term, old.vote);
        Persist {
            id: self.unstable.begin(self.log.last(), must_sync, self.ticks),
            snapshot,
            entries,
            hard_state: (hard != old).then_some(hard),
            must_sync,
        }
    }

    /// What these messages promise is durable: those to ourselves are handled, the others go on
    /// to the second gate.
    pub(crate) fn release(&mut self, messages: Vec<Message>) {
        for message in messages {
            if message.to == self.id() {
                // Only our own votes come here; a stale one is ignored by its term.
                let result = self.receive(message);
                debug_assert!(result.is_ok());
            } else {
                sometimes!(self.config.hooks, probes::GATED, self.gate_closed());
                push_reply(&mut self.gated, message);
            }
        }
    }

    fn gate_closed(&self) -> bool {
        self.role != Role::Leader && self.log.conf_change_unapplied()
    }

    fn open_gate(&mut self) {
        if !self.gated.is_empty() && !self.gate_closed() {
            self.out.append(&mut self.gated);
        }
    }
}
