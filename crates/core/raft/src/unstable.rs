//! Which part of the log is durable, and which messages wait until more of it is.
//!
//! Writes are handed out with rising ids and complete in that order. Each remembers how much of
//! the log *as it is now* it makes durable: a truncation lowers that number in every write under
//! way, so the late completion of a write whose entries were replaced claims nothing.
//! A message that promises durability joins the last write handed out (invariant 2).
//!
//! This replaces etcd's comparison of terms in `MsgStorageAppendResp`, whose ABA problem is
//! described at raft/rawnode.go#newStorageAppendRespMsg.

use std::collections::VecDeque;

use types::{Index, WriteId};

use crate::message::{Body, Message};

struct Pending {
    id: WriteId,
    /// Entries up to here are durable with this write, if no later truncation says otherwise.
    covers: Index,
    /// The snapshot that this write records.
    snapshot: Option<Index>,
    /// When it was handed out.
    tick: u64,
    must_sync: bool,
    messages: Vec<Message>,
}

/// What the completion of writes sets free.
#[derive(Default)]
pub(crate) struct Completed {
    pub messages: Vec<Message>,
    /// The last snapshot that became durable.
    pub snapshot: Option<Index>,
}

pub(crate) struct Unstable {
    next_id: WriteId,
    /// Entries up to here were handed out to be written, or are durable.
    written: Index,
    /// Entries up to here are durable.
    persisted: Index,
    pending: VecDeque<Pending>,
    /// Messages for the next write.
    waiting: Vec<Message>,
    /// A snapshot for the next write.
    snapshot: Option<Index>,
}

impl Unstable {
    pub fn new(last: Index) -> Self {
        Self {
            next_id: WriteId(1),
            written: last,
            persisted: last,
            pending: VecDeque::new(),
            waiting: Vec::new(),
            snapshot: None,
        }
    }

    pub fn persisted(&self) -> Index {
        self.persisted
    }

    pub fn written(&self) -> Index {
        self.written
    }

    pub fn snapshot_unwritten(&self) -> bool {
        self.snapshot.is_some()
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether messages wait and no write is under way that they could join.
    pub fn has_free(&self) -> bool {
        !self.waiting.is_empty() && self.pending.is_empty()
    }

    /// Holds a message until everything that is in memory now is durable.
    pub fn hold(&mut self, message: Message) {
        push_reply(&mut self.waiting, message);
    }

    /// Hands out a write of everything up to `last`, which the held messages wait for.
    pub fn begin(&mut self, last: Index, must_sync: bool, tick: u64) -> WriteId {
        let id = self.next_id;
        self.next_id = WriteId(id.0 + 1);
        self.written = last;
        self.pending.push_back(Pending {
            id,
            covers: last,
            snapshot: self.snapshot.take(),
            tick,
            must_sync,
            messages: std::mem::take(&mut self.waiting),
        });
        id
    }

    /// Nothing is left to write: the held messages join the last write under way. Returns them
    /// if there is none, because then everything they promise is durable.
    pub fn join_pending(&mut self) -> Vec<Message> {
        match self.pending.back_mut() {
            Some(write) => {
                write.messages.append(&mut self.waiting);
                Vec::new()
            }
            None => std::mem::take(&mut self.waiting),
        }
    }

    /// The writes up to `id` are durable.
    ///
    /// # Panics
    /// If `id` is not under way: it was never handed out, or completes twice.
    pub fn complete(&mut self, id: WriteId) -> Completed {
        assert!(
            id < self.next_id && self.pending.front().is_some_and(|write| write.id <= id),
            "write {id} is not under way"
        );
        let mut completed = Completed::default();
        while self.pending.front().is_some_and(|write| write.id <= id) {
            let write = self.pending.pop_front().expect("the front was just seen");
            self.persisted = self.persisted.max(write.covers);
            completed.snapshot = write.snapshot.or(completed.snapshot);
            if completed.messages.is_empty() {
                completed.messages = write.messages;
            } else {
                completed.messages.extend(write.messages);
            }
        }
        completed
    }

    /// The entries from `index` on were replaced.
    pub fn truncated(&mut self, index: Index) {
        let kept = Index(index.0 - 1);
        self.written = self.written.min(kept);
        self.persisted = self.persisted.min(kept);
        for write in &mut self.pending {
            write.covers = write.covers.min(kept);
        }
    }

    /// The whole log was replaced by the snapshot at `index`.
    pub fn restored(&mut self, index: Index) {
        for write in &mut self.pending {
            write.covers = Index(0);
        }
        self.persisted = Index(0);
        self.written = index;
        self.snapshot = Some(index);
    }

    /// When the oldest write that waits for the disk was handed out.
    pub fn oldest_sync(&self) -> Option<u64> {
        self.pending.iter().find(|write| write.must_sync).map(|write| write.tick)
    }
}

/// Queues a message, replacing an acknowledgement that it says more than: so a queue that waits
/// for a slow disk or state machine does not grow with every append.
//= etcd 3.7.1: server/etcdserver/raft.go#processMessages (sentAppResp)
pub(crate) fn push_reply(queue: &mut Vec<Message>, message: Message) {
    if let Body::AppendReply { index: new, rejected: None } = message.body
        && let Some(last) = queue.last_mut()
        && let Body::AppendReply { index: old, rejected: None } = last.body
        && (last.to, last.term) == (message.to, message.term)
        && old <= new
    {
        *last = message;
        return;
    }
    queue.push(message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{MemberId, Term};

    #[test]
    fn an_acknowledgement_takes_the_place_of_one_that_says_less() {
        let reply = |to, term, index| Message {
            from: MemberId(1),
            to: MemberId(to),
            term: Term(term),
            body: Body::AppendReply { index: Index(index), rejected: None },
        };
        let mut queue = Vec::new();
        for message in
            [reply(2, 5, 7), reply(2, 5, 9), reply(2, 5, 8), reply(3, 5, 8), reply(3, 6, 8)]
        {
            push_reply(&mut queue, message);
        }
        assert_eq!(queue, [reply(2, 5, 9), reply(2, 5, 8), reply(3, 5, 8), reply(3, 6, 8)]);
    }

    #[test]
    fn a_late_completion_claims_nothing_that_was_replaced() {
        // Entries 5..=7 are replaced by others, then by equal ones again (the ABA problem).
        let mut unstable = Unstable::new(Index(4));
        let first = unstable.begin(Index(7), true, 0);
        unstable.truncated(Index(5));
        let second = unstable.begin(Index(6), true, 0);
        unstable.truncated(Index(5));
        let third = unstable.begin(Index(7), true, 0);
        unstable.complete(first);
        assert_eq!(unstable.persisted(), Index(4));
        unstable.complete(second);
        assert_eq!(unstable.persisted(), Index(4));
        unstable.complete(third);
        assert_eq!(unstable.persisted(), Index(7));
    }

    #[test]
    fn truncation_takes_durability_back() {
        let mut unstable = Unstable::new(Index(9));
        unstable.truncated(Index(6));
        assert_eq!((unstable.persisted(), unstable.written()), (Index(5), Index(5)));
    }

    #[test]
    fn writes_before_a_snapshot_say_nothing_about_the_new_log() {
        let mut unstable = Unstable::new(Index(4));
        let old = unstable.begin(Index(30), true, 0);
        unstable.restored(Index(20));
        assert!(unstable.complete(old).snapshot.is_none());
        assert_eq!(unstable.persisted(), Index(0));
        let new = unstable.begin(Index(20), true, 0);
        assert_eq!(unstable.complete(new).snapshot, Some(Index(20)));
        assert_eq!(unstable.persisted(), Index(20));
    }

    #[test]
    fn one_completion_covers_all_earlier_writes() {
        let mut unstable = Unstable::new(Index(0));
        unstable.begin(Index(1), true, 0);
        let second = unstable.begin(Index(2), true, 0);
        unstable.complete(second);
        assert_eq!(unstable.persisted(), Index(2));
    }

    #[test]
    #[should_panic(expected = "not under way")]
    fn a_write_completes_once() {
        let mut unstable = Unstable::new(Index(0));
        let id = unstable.begin(Index(1), true, 0);
        unstable.complete(id);
        unstable.complete(id);
    }
}
