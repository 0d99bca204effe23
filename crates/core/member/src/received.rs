//! A database received from a peer: where it is kept, and how it replaces this member's.
//!
//! The peer plane writes it, durably, as `%016x.snap.db` beside the database, under the snapshot's
//! index. Its record in the log makes it count; from then on a start finishes what a crash
//! interrupted, so the rename may come at any time after.
//= etcd 3.7.1: server/storage/backend.go#RecoverSnapshotBackend, snap/db.go

use std::path::{Path, PathBuf};
use std::sync::Arc;

use env::{Disk, IoError, MayBlock};
use store::{Bucket, meta};
use types::Index;

use crate::committer::CommitFailure;

const SUFFIX: &str = ".snap.db";

/// Where the database of the snapshot at `index` waits.
#[must_use]
pub fn path(dir: &Path, index: Index) -> PathBuf {
    dir.join(format!("{:016x}{SUFFIX}", index.0))
}

/// Whether the file can become the database of the snapshot at `index`: all of its structure is
/// there, and it holds no more than its name says. etcd finds out when it is too late.
///
/// # Errors
/// Why not.
pub fn check(
    disk: &Arc<dyn Disk>,
    file: &Path,
    may: &MayBlock,
    index: Index,
) -> Result<(), String> {
    let options = store::database_options();
    let db = bolt::Db::open(Arc::clone(disk), file, may, options).map_err(|e| e.to_string())?;
    let stored = db.begin_read().get(may, Bucket::Meta.name(), meta::CONSISTENT_INDEX);
    let stored = stored.map_err(|e| e.to_string())?;
    let holds = stored.and_then(|bytes| Some(u64::from_be_bytes(*bytes.first_chunk()?)));
    match holds {
        Some(holds) if holds <= index.0 => Ok(()),
        Some(holds) => Err(format!("the database of snapshot {index} holds entry {holds}")),
        None => Err("the database names no entry that it holds".to_owned()),
    }
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
