//! A database received from a peer: where it waits, and how it takes the place of ours.
//!
//! The peer plane writes it, durably, as `%016x.snap.db` beside the database, under the snapshot's
//! index. Its record in the log makes it count; from then on a start finishes what a crash
//! interrupted, so the rename may come at any time after.
//= etcd 3.7.1: server/storage/backend.go#RecoverSnapshotBackend, snap/db.go

use std::path::{Path, PathBuf};

use env::{Disk, IoError, MayBlock};
use store::Bucket;
use types::Index;

use crate::committer::CommitFailure;

const SUFFIX: &str = ".snap.db";

/// Where the database of the snapshot at `index` waits.
#[must_use]
pub fn path(dir: &Path, index: Index) -> PathBuf {
    dir.join(format!("{:016x}{SUFFIX}", index.0))
}

/// Lets it take the database's place.
///
/// # Errors
/// The disk's. It is then unknown which file a restart finds.
pub(crate) fn rename(
    disk: &dyn Disk,
    dir: &Path,
    may: &MayBlock,
    index: Index,
) -> Result<(), IoError> {
    disk.rename(may, &path(dir, index), &dir.join("db"))?;
    disk.sync_dir(may, dir)
}

/// Removes those that were never installed, or that newer ones have overtaken.
///
/// # Errors
/// The disk's.
pub(crate) fn remove_all(disk: &dyn Disk, dir: &Path, may: &MayBlock) -> Result<(), IoError> {
    for entry in disk.read_dir(may, dir)? {
        if entry.name.ends_with(SUFFIX) {
            disk.remove_file(may, &dir.join(&entry.name))?;
        }
    }
    Ok(())
}

/// Makes the buckets that a database does not have yet.
///
/// # Errors
/// [`CommitFailure`].
pub(crate) fn create_buckets(db: &mut bolt::Db, may: &MayBlock) -> Result<(), CommitFailure> {
    let existing = db.begin_read().buckets(may).map_err(CommitFailure::Read)?;
    if Bucket::ALL.iter().all(|bucket| existing.iter().any(|name| name == bucket.name())) {
        return Ok(());
    }
    let mut tx = db.begin_write();
    store::create_buckets(&mut tx, may)?;
    tx.commit(may)?;
    Ok(())
}
