//! The log in memory: entries after a base, and how far they are committed, handed out, applied.
//!
//! Invariants: `base <= applied <= handed <= committed <= last` except while a snapshot waits to
//! be installed (then `applied` and `handed` lag behind the base); committed entries are never
//! truncated; `conf_changes` lists exactly the membership changes in the log whose application
//! was not reported. What of it is durable is `unstable`'s business.
//= etcd 3.7.1: raft/log.go, raft/log_unstable.go

use std::collections::VecDeque;

use types::{Index, Term};

use crate::config::Recovered;
use crate::entry::{Entry, EntryId, EntryKind, SnapshotMeta};
use crate::error::ConfigError;

/// Positions beyond this are refused, from peers and from our own proposals, so that no index
/// arithmetic can overflow. A log that fills it at a billion entries per second takes 292 years.
pub(crate) const MAX_INDEX: u64 = u64::MAX >> 1;

/// Terms beyond this are refused from peers: elections cannot have come so far, and who adopted
/// the highest number could never hold another election.
pub(crate) const MAX_TERM: u64 = u64::MAX >> 1;

pub(crate) struct Log {
    /// The last entry that is not in memory any more (or never was).
    base: EntryId,
    /// `entries[i]` has index `base.index + 1 + i`.
    entries: VecDeque<Entry>,
    committed: Index,
    applied: Index,
    handed: Index,
    conf_changes: VecDeque<Index>,
    /// A snapshot that replaced the log and is not yet installed in the state machine.
    installing: Option<SnapshotMeta>,
}

impl Log {
    pub fn recover(recovered: Recovered, applied: Index) -> Result<Self, ConfigError> {
        let (index, term) = recovered.snapshot;
        let mut previous = EntryId { term, index };
        for entry in &recovered.entries {
            if entry.index.0 != previous.index.0 + 1
                || entry.term < previous.term
                || entry.index.0 > MAX_INDEX
            {
                return Err(ConfigError::EntriesOutOfOrder { index: entry.index });
            }
            previous = entry.id();
        }
        let last = previous.index;
        let commit = recovered.hard_state.commit;
        if commit > last {
            return Err(ConfigError::CommitBeyondLog { commit, last });
        }
        if applied > last || applied < index {
            return Err(ConfigError::AppliedOutsideLog { applied, snapshot: index, last });
        }
        let conf_changes = recovered
            .entries
            .iter()
            .filter(|entry| entry.kind != EntryKind::Normal && entry.index > applied)
            .map(|entry| entry.index)
            .collect();
        Ok(Self {
            base: EntryId { term, index },
            entries: recovered.entries.into(),
            // What was applied had been committed, even if the hard state that says so was lost.
            committed: commit.max(applied),
            applied,
            handed: applied,
            conf_changes,
            installing: None,
        })
    }

    pub fn first(&self) -> Index {
        self.base.index.next()
    }

    pub fn last(&self) -> Index {
        Index(self.base.index.0 + self.entries.len() as u64)
    }

    pub fn last_id(&self) -> EntryId {
        self.entries.back().map_or(self.base, Entry::id)
    }

    pub fn committed(&self) -> Index {
        self.committed
    }

    pub fn applied(&self) -> Index {
        self.applied
    }

    pub fn installing(&self) -> Option<&SnapshotMeta> {
        self.installing.as_ref()
    }

    /// The term at `index`, if it is known: from the base to the end.
    pub fn term(&self, index: Index) -> Option<Term> {
        match index.0.checked_sub(self.base.index.0)? {
            0 => Some(self.base.term),
            offset => self.entries.get(usize::try_from(offset - 1).ok()?).map(|entry| entry.term),
        }
    }

    pub fn matches(&self, id: EntryId) -> bool {
        self.term(id.index) == Some(id.term)
    }

    /// Whether a log that ends at `other` holds everything committed that this one might.
    pub fn is_up_to_date(&self, other: EntryId) -> bool {
        let own = self.last_id();
        (other.term, other.index) >= (own.term, own.index)
    }

    fn offset(&self, index: Index) -> usize {
        usize::try_from(index.0 - self.base.index.0 - 1).expect("an entry in memory")
    }

    /// Entries `from..=to` up to `max_bytes` of encoding, but at least one if there is any.
    pub fn entries(&self, from: Index, to: Index, max_bytes: usize) -> Vec<Entry> {
        assert!(from > self.base.index && to <= self.last(), "entries that are not in memory");
        if from > to {
            return Vec::new();
        }
        let range = self.offset(from)..self.offset(to) + 1;
        let mut size = 0;
        let count = self
            .entries
            .range(range.clone())
            .take_while(|entry| {
                let first = size == 0;
                size += entry.encoded_len();
                first || size <= max_bytes
            })
            .count();
        self.entries.range(range.start..range.start + count).cloned().collect()
    }

    /// Entries `from..=last`, however large.
    pub fn tail(&self, from: Index) -> Vec<Entry> {
        if from > self.last() {
            return Vec::new();
        }
        self.entries.range(self.offset(from)..).cloned().collect()
    }

    pub fn append(&mut self, entry: Entry) {
        debug_assert!(entry.index == self.last().next() && entry.term >= self.last_id().term);
        if entry.kind != EntryKind::Normal {
            self.conf_changes.push_back(entry.index);
        }
        self.entries.push_back(entry);
    }

    pub fn reserve(&mut self, additional: usize) {
        self.entries.reserve(additional);
    }

    /// Drops the entries from `index` on.
    pub fn truncate(&mut self, index: Index) {
        assert!(index > self.committed, "committed entries are never truncated");
        self.entries.truncate(self.offset(index));
        while self.conf_changes.back().is_some_and(|&change| change >= index) {
            self.conf_changes.pop_back();
        }
    }

    /// Raises the commit index; a lower one changes nothing.
    pub fn commit_to(&mut self, index: Index) {
        assert!(index <= self.last(), "only what is in the log can be committed");
        self.committed = self.committed.max(index);
    }

    /// Commits up to `index` if its entry is of `term`; true if the commit index rose.
    /// Entries of earlier terms are committed only by a later one (Raft paper, 5.4.2).
    pub fn maybe_commit(&mut self, index: Index, term: Term) -> bool {
        let rises = index > self.committed && self.term(index) == Some(term);
        if rises {
            self.committed = index;
        }
        rises
    }

    /// Whether a committed membership change is not yet reported as applied.
    pub fn conf_change_unapplied(&self) -> bool {
        self.conf_changes.front().is_some_and(|&index| index <= self.committed)
    }

    pub fn has_next_committed(&self, persisted: Index) -> bool {
        self.installing.is_none() && self.handed < self.committed.min(persisted)
    }

    /// The next entries for the state machine, up to `max_bytes` but at least one; handed out
    /// once. None while a snapshot is being installed.
    pub fn next_committed(&mut self, persisted: Index, max_bytes: usize) -> Vec<Entry> {
        if !self.has_next_committed(persisted) {
            return Vec::new();
        }
        let to = self.committed.min(persisted);
        let entries = self.entries(self.handed.next(), to, max_bytes);
        self.handed = Index(self.handed.0 + entries.len() as u64);
        entries
    }

    pub fn applied_to(&mut self, index: Index) {
        assert!(
            index <= self.handed,
            "index {index} is applied, but only {} was handed out",
            self.handed
        );
        assert!(
            self.conf_changes.front().is_none_or(|&change| change > index),
            "a membership change at or below {index} was not reported by conf_applied"
        );
        self.applied = self.applied.max(index);
        if self.installing.as_ref().is_some_and(|snapshot| snapshot.index <= self.applied) {
            self.installing = None;
        }
    }

    /// Takes the report on a membership change; false if a snapshot has covered it meanwhile.
    pub fn conf_applied(&mut self, index: Index) -> bool {
        if self.installing.as_ref().is_some_and(|snapshot| index <= snapshot.index) {
            return false;
        }
        assert!(
            self.conf_changes.front() == Some(&index) && index <= self.handed,
            "entry {index} is not the next handed-out membership change"
        );
        self.conf_changes.pop_front();
        self.applied = self.applied.max(index);
        true
    }

    /// Forgets entries up to `index`, keeping its term.
    pub fn compact(&mut self, index: Index) {
        if index <= self.base.index {
            return;
        }
        assert!(index <= self.applied, "only applied entries can be forgotten");
        let term = self.term(index).expect("applied entries are in the log");
        self.entries.drain(..=self.offset(index));
        self.base = EntryId { term, index };
        if self.entries.capacity() > 4 * self.entries.len().max(1024) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// Replaces the whole log by a snapshot that waits for its installation.
    pub fn restore(&mut self, snapshot: SnapshotMeta) {
        assert!(snapshot.index > self.committed, "a snapshot never takes committed entries back");
        self.base = EntryId { term: snapshot.term, index: snapshot.index };
        self.entries.clear();
        self.conf_changes.clear();
        self.committed = snapshot.index;
        self.installing = Some(snapshot);
    }

    /// The snapshot may be installed now: everything after it is handed out once it is applied.
    pub fn hand_out_snapshot(&mut self, index: Index) {
        self.handed = index;
    }

    /// The largest index at or below `index` whose term is at most `term` or unknown, with its
    /// term (0 if unknown): where another log with that entry may still agree with this one.
    //= etcd 3.7.1: raft/log.go#findConflictByTerm
    pub fn find_conflict_by_term(&self, index: Index, term: Term) -> (Index, Term) {
        let mut index = index;
        while index.0 > 0 {
            match self.term(index) {
                None => return (index, Term(0)),
                Some(own) if own <= term => return (index, own),
                Some(_) => index = Index(index.0 - 1),
            }
        }
        (Index(0), Term(0))
    }
}
