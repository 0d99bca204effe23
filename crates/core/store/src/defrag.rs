//! Copying the database into a fresh file while it is in use.
//!
//! The key bucket only grows at its end as long as no compaction deletes from it, so any newer read
//! transaction can serve the next step. The other buckets change in place and are small: the last
//! round copies them whole.
//!
//! The driver's part: pause [`crate::Store::compaction_step`] and commit the deletes it has emitted
//! (they are not in the copy otherwise: it never looks back); call [`Defrag::step`] with newest
//! read transactions until it is done and little came in meanwhile; hold the committer; call
//! [`Defrag::finish`]; sync, rename over the old file, sync the directory; go on with the database
//! returned, and give its read transaction to [`crate::Store::replace_backend`].

use std::fmt;
use std::ops::Bound;

use bolt::{CommitError, Db, ReadError, ReadTx, WriteError};
use env::{Access, MayBlock};

use crate::bucket::Bucket;
use crate::compact::Step;

/// Fill of copied pages: rows come in order and will not be inserted between.
const FILL: f64 = 0.9;
/// Bytes copied per transaction of the last round.
const ROUND_BYTES: usize = 4 << 20;

/// Why a copy failed. The original is untouched; the copy must be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefragError {
    /// Reading the original.
    Read(ReadError),
    /// Writing the copy.
    Write(WriteError),
    /// Committing the copy.
    Commit(CommitError),
}

impl fmt::Display for DefragError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "reading the database: {error}"),
            Self::Write(error) => write!(f, "writing the copy: {error}"),
            Self::Commit(error) => write!(f, "committing the copy: {error}"),
        }
    }
}

impl std::error::Error for DefragError {}

impl From<ReadError> for DefragError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<WriteError> for DefragError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<CommitError> for DefragError {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}

/// A copy in progress.
#[derive(Debug)]
pub struct Defrag {
    target: Db,
    /// The last row of the key bucket that was copied.
    last_row: Option<Vec<u8>>,
}

impl Defrag {
    /// Begins a copy into a new, empty database.
    #[must_use]
    pub fn new(target: Db) -> Self {
        Self { target, last_row: None }
    }

    /// Size of the copy so far, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.target.size_bytes()
    }

    /// Copies about `budget_bytes` of the key bucket; done if that reached its end in `source`.
    ///
    /// # Errors
    /// See [`DefragError`].
    pub fn step(
        &mut self,
        may: &MayBlock,
        source: &ReadTx,
        budget_bytes: usize,
    ) -> Result<Step, DefragError> {
        let last = self.last_row.take();
        let (last, step) = self.copy(may, source, Bucket::Key.name(), last, budget_bytes)?;
        self.last_row = last;
        Ok(step)
    }

    /// Copies what is left of the key bucket and all other buckets. Nothing may be committed to
    /// the original from `source` on.
    ///
    /// # Errors
    /// See [`DefragError`].
    pub fn finish(mut self, may: &MayBlock, source: &ReadTx) -> Result<Db, DefragError> {
        while self.step(may, source, ROUND_BYTES)? == Step::More {}
        for name in source.buckets(may)? {
            if *name != *Bucket::Key.name() {
                let (mut last, mut step) = (None, Step::More);
                while step == Step::More {
                    (last, step) = self.copy(may, source, &name, last, ROUND_BYTES)?;
                }
            }
        }
        Ok(self.target)
    }

    /// Copies rows behind `last` in one transaction; returns the last one copied.
    fn copy(
        &mut self,
        may: &MayBlock,
        source: &ReadTx,
        bucket: &[u8],
        mut last: Option<Vec<u8>>,
        budget_bytes: usize,
    ) -> Result<(Option<Vec<u8>>, Step), DefragError> {
        let mut tx = self.target.begin_write();
        tx.create_bucket(may, bucket)?;
        tx.set_fill_percent(bucket, FILL);
        let low = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut scan = source.scan(may, bucket, (low, Bound::Unbounded), Access::ScanOnce);
        let (mut left, mut step) = (budget_bytes.max(1), Step::Done);
        let mut copied = Vec::new();
        while let Some((key, value)) = scan.next_ref()? {
            tx.put(may, bucket, key, value)?;
            copied.clear();
            copied.extend_from_slice(key);
            left = left.saturating_sub(key.len() + value.len());
            if left == 0 {
                step = Step::More;
                break;
            }
        }
        drop(scan);
        if !copied.is_empty() {
            last = Some(copied);
        }
        tx.commit(may)?;
        Ok((last, step))
    }
}
