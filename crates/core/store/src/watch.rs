//! What watchers read: the newest changes from memory, older ones from the database.

use std::ops::Bound;

use bytes::Bytes;
use env::{Access, MayBlock};
use types::Revision;

use crate::bucket::Bucket;
use crate::error::ValueError;
use crate::rev::{ParsedRev, Rev, RevKey};
use crate::revlog::Tail;
use crate::view::View;

/// Memory that one change takes besides its value.
const PER_CHANGE_BYTES: usize = size_of::<Change>();

/// One change of a key, read from the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub rev: Rev,
    /// Whether the key was deleted.
    pub tombstone: bool,
    /// The stored `KeyValue`; only the key in a tombstone.
    pub stored: Bytes,
}

/// A chunk of history.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Changes in (main, sub) order.
    pub changes: Vec<Change>,
    /// Where the next chunk begins; `None` if this one reached the end that was asked for.
    pub next: Option<Rev>,
}

impl View {
    /// Main revision from which on [`View::tail`] has every change.
    #[must_use]
    pub fn tail_start(&self) -> Revision {
        crate::rev::to_revision(self.log.from())
    }

    /// The changes at or after `from`, out of memory; `None` if memory does not reach back that
    /// far: read [`View::history`] first.
    #[must_use]
    pub fn tail(&self, from: Rev) -> Option<Tail<'_>> {
        let (main, sub) = from.place()?;
        (main >= self.log.from()).then(|| self.log.events(main, sub, self.revision))
    }

    /// Reads changes from `from` up to and including main revision `to` out of the database, until
    /// about `budget_bytes` of them are held. A chunk ends between two main revisions unless one
    /// alone exceeds the budget; `next` then has a sub-revision. Stops where [`View::tail`] begins.
    ///
    /// Versions that a compaction removed are absent: compare with
    /// [`View::compact_revision`] first.
    ///
    /// # Errors
    /// The database is damaged or its disk failed.
    pub fn history(
        &self,
        may: &MayBlock,
        from: Rev,
        to: Revision,
        budget_bytes: usize,
    ) -> Result<History, ValueError> {
        let mut history = History::default();
        let last = to.0.min(self.revision().0).min(self.tail_start().0 - 1);
        let (Some(backend), Some((main, sub))) = (&self.backend, from.place()) else {
            return Ok(history);
        };
        let Ok(last) = u64::try_from(last) else { return Ok(history) };
        if main > last {
            return Ok(history);
        }
        let low = RevKey::new(main, u64::from(sub), false);
        let high = RevKey::new(last + 1, 0, false);
        let range = (Bound::Included(low.as_bytes()), Bound::Excluded(high.as_bytes()));
        let mut scan = backend.scan(may, Bucket::Key.name(), range, Access::Scan);
        let mut held = 0;
        // Bytes and number of changes up to the last end of a main revision.
        let mut whole = 0;
        while let Some((key, value)) = scan.next_ref()? {
            let parsed = ParsedRev::parse(key).ok_or(ValueError::BadKeyValue)?;
            let sub = u32::try_from(parsed.sub).map_err(|_| ValueError::BadKeyValue)?;
            let rev = Rev::new(parsed.main, sub);
            if history.changes.last().is_some_and(|c| c.rev.main != rev.main) {
                whole = history.changes.len();
            }
            if held >= budget_bytes && !history.changes.is_empty() {
                history.next = Some(rev);
                if whole > 0 && whole < history.changes.len() {
                    history.next = Some(history.changes[whole].rev);
                    history.changes.truncate(whole);
                }
                break;
            }
            held += value.len() + PER_CHANGE_BYTES;
            let stored = Bytes::copy_from_slice(value);
            history.changes.push(Change { rev, tombstone: parsed.tombstone, stored });
        }
        Ok(history)
    }
}
