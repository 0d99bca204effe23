//! Reading database files: status and hash.
//!
//! The file stays as it is: etcdutl's own commands may add to it, after which its checksum is
//! wrong.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cli::Exit;
use env::{Access, Disk, MayBlock};
use osenv::OsDisk;
use store::{Bucket, KvHash, Step, Store, meta};

/// What is in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C over names, keys and values of all buckets.
    pub hash: u32,
    /// The last revision.
    pub revision: u64,
    /// Live keys.
    pub keys: u64,
    /// Size of the database.
    pub size_bytes: u64,
    /// Storage version; empty before etcd 3.6.
    pub version: String,
}

pub(crate) fn failed(error: impl std::fmt::Display) -> Exit {
    Exit::new(Exit::ERROR, error.to_string())
}

/// Opens a database to look at it: nothing is ever written to the file.
///
/// # Errors
/// There is no such file, it is no database, or it stays locked for longer than `timeout` (0: as
/// long as it takes).
pub fn open_to_read(path: &Path, may: &MayBlock, timeout: Duration) -> Result<bolt::Db, Exit> {
    let found = std::fs::metadata(path)
        .map_err(|e| failed(format!("stat {}: {}", path.display(), osenv::error_text(&e))))?;
    if found.len() == 0 {
        return Err(failed(format!("{} is empty, so it is no database", path.display())));
    }
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let options = store::database_options();
    when_unlocked(timeout, || bolt::Db::open_to_read(Arc::clone(&disk), path, may, options))
}

/// Opens a database to change it, waiting for its lock no longer than `timeout` (0: as long as it
/// takes).
///
/// # Errors
/// It is no database, or it stays locked.
pub(crate) fn open_to_write(
    path: &Path,
    may: &MayBlock,
    timeout: Duration,
) -> Result<bolt::Db, Exit> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let options = store::database_options();
    when_unlocked(timeout, || bolt::Db::open(Arc::clone(&disk), path, may, options))
}

fn when_unlocked(
    timeout: Duration,
    open: impl Fn() -> Result<bolt::Db, bolt::OpenError>,
) -> Result<bolt::Db, Exit> {
    let began = Instant::now();
    loop {
        match open() {
            Err(bolt::OpenError::Locked) => {
                if !timeout.is_zero() && began.elapsed() > timeout {
                    return Err(failed("timeout"));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result.map_err(failed),
        }
    }
}

/// The main revision in a key of the `key` bucket.
pub(crate) fn main_revision(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Checks a snapshot and says what is in it.
///
/// # Errors
/// The file cannot be read, or is damaged.
//= etcd 3.7.1: etcdutl/snapshot/v3_snapshot.go#Status
pub fn status(path: &Path, timeout: Duration) -> Result<Status, Exit> {
    let may = MayBlock::on_this_thread();
    let db = open_to_read(path, &may, timeout)?;
    let read = db.begin_read();
    let found = read.check(&may).map_err(failed)?;
    if !found.is_empty() {
        let mut text =
            format!("snapshot file integrity check failed. {} errors found.\n", found.len());
        found.iter().for_each(|e| text.push_str(&format!("{e}\n")));
        return Err(failed(text.trim_end()));
    }
    let (mut hash, mut revision) = (0, 0);
    let mut live = BTreeSet::new();
    for bucket in read.buckets(&may).map_err(failed)? {
        hash = crc32c::crc32c_append(hash, &bucket);
        let everything = (Bound::Unbounded, Bound::Unbounded);
        let mut scan = read.scan(&may, &bucket, everything, Access::Scan);
        while let Some((key, value)) = scan.next_ref().map_err(failed)? {
            hash = crc32c::crc32c_append(hash, key);
            hash = crc32c::crc32c_append(hash, value);
            if *bucket != *Bucket::Key.name() {
                continue;
            }
            revision = main_revision(key);
            let kv = store::KeyValue::parse(value)
                .map_err(|_| failed("a revision holds no key-value"))?;
            if key.len() == 18 {
                live.remove(kv.key);
            } else if !live.contains(kv.key) {
                live.insert(kv.key.to_vec());
            }
        }
    }
    let version = read.get(&may, Bucket::Meta.name(), meta::STORAGE_VERSION).map_err(failed)?;
    Ok(Status {
        hash,
        revision,
        keys: live.len() as u64,
        size_bytes: read.size_bytes(),
        version: String::from_utf8_lossy(&version.unwrap_or_default()).into_owned(),
    })
}

/// The hash of the history up to a revision (0: all).
///
/// # Errors
/// The file cannot be read, or the revision is not in it.
pub fn hash_kv(path: &Path, revision: i64, timeout: Duration) -> Result<KvHash, Exit> {
    let may = MayBlock::on_this_thread();
    let db = open_to_read(path, &may, timeout)?;
    let store = Store::recover(&may, db.begin_read()).map_err(failed)?;
    let view = store.publish();
    let mut hasher = view.hash_kv(revision).map_err(|e| failed(format!("mvcc: {e}")))?;
    while hasher.step(&may, &view, 1 << 20).map_err(failed)? != Step::Done {}
    Ok(hasher.finish())
}
