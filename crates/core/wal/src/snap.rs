//! `.snap` files: a raft snapshot's metadata in an envelope with a checksum.

use std::path::{Path, PathBuf};

use api::{raftpb, snappb};
use bytes::Bytes;
use env::{Access, Disk, IoError, MayBlock, Open};
use prost::Message;

/// Why a `.snap` file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapError {
    /// The disk failed.
    Io(IoError),
    /// The file is empty.
    Empty,
    /// The envelope or the snapshot in it is not protobuf, or holds nothing.
    Malformed,
    /// The checksum differs.
    CrcMismatch,
}

impl std::fmt::Display for SnapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SnapError::Io(e) => e.fmt(f),
            SnapError::Empty => f.write_str("snap: empty snapshot"),
            SnapError::Malformed => f.write_str("snap: malformed snapshot"),
            SnapError::CrcMismatch => f.write_str("snap: crc mismatch"),
        }
    }
}

impl std::error::Error for SnapError {}

impl From<IoError> for SnapError {
    fn from(e: IoError) -> Self {
        SnapError::Io(e)
    }
}

/// The file name of a snapshot at this term and index.
#[must_use]
pub fn file_name(term: u64, index: u64) -> String {
    format!("{term:016x}-{index:016x}.snap")
}

/// The term and index in a file name; `None` for other files.
#[must_use]
pub fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
    let number = |s: &str| {
        let plain = s.len() == 16 && s.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| u64::from_str_radix(s, 16).ok()).flatten()
    };
    Some((number(term)?, number(index)?))
}

/// Parses the bytes of a `.snap` file.
///
/// # Errors
/// [`SnapError`] other than `Io`.
//= etcd 3.7.1: server/etcdserver/api/snap/snapshotter.go#Read
pub fn decode(bytes: &Bytes) -> Result<raftpb::Snapshot, SnapError> {
    if bytes.is_empty() {
        return Err(SnapError::Empty);
    }
    let envelope = snappb::Snapshot::decode(bytes.clone()).map_err(|_| SnapError::Malformed)?;
    let data = envelope.data.unwrap_or_default();
    let crc = envelope.crc.unwrap_or(0);
    if data.is_empty() || crc == 0 {
        return Err(SnapError::Empty);
    }
    if crc32c::crc32c(&data) != crc {
        return Err(SnapError::CrcMismatch);
    }
    raftpb::Snapshot::decode(data).map_err(|_| SnapError::Malformed)
}

/// The bytes of a `.snap` file.
#[must_use]
pub fn encode(snapshot: &raftpb::Snapshot) -> Vec<u8> {
    let data: Bytes = snapshot.encode_to_vec().into();
    snappb::Snapshot { crc: Some(crc32c::crc32c(&data)), data: Some(data) }.encode_to_vec()
}

/// Writes a `.snap` file into `dir` and syncs it and its name. Returns its path.
///
/// # Errors
/// The disk's. The caller writes no WAL record for a snapshot that failed here (invariant 3).
pub fn write(
    disk: &dyn Disk,
    dir: &Path,
    may: &MayBlock,
    snapshot: &raftpb::Snapshot,
) -> Result<PathBuf, SnapError> {
    let metadata = snapshot.metadata.clone().unwrap_or_default();
    let name = file_name(metadata.term.unwrap_or(0), metadata.index.unwrap_or(0));
    let path = dir.join(name);
    let file = disk.open(may, &path, Open::CreateTruncateShared)?;
    file.write_at(may, &encode(snapshot), 0)?;
    file.sync_all(may)?;
    disk.sync_dir(may, dir)?;
    Ok(path)
}

/// Reads a `.snap` file.
///
/// # Errors
/// [`SnapError`].
pub fn read(disk: &dyn Disk, path: &Path, may: &MayBlock) -> Result<raftpb::Snapshot, SnapError> {
    let file = disk.open(may, path, Open::Read)?;
    let len = usize::try_from(file.len()?).map_err(|_| SnapError::Malformed)?;
    let mut bytes = vec![0; len];
    file.read_at(may, &mut bytes, 0, Access::Scan)?;
    decode(&bytes.into())
}

/// The `.snap` files of a directory, newest first.
///
/// # Errors
/// The disk's.
pub fn list(disk: &dyn Disk, dir: &Path, may: &MayBlock) -> Result<Vec<String>, SnapError> {
    let entries = disk.read_dir(may, dir)?;
    let mut names: Vec<_> =
        entries.into_iter().map(|e| e.name).filter(|n| parse_name(n).is_some()).collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Deletes the oldest `.snap` files beyond the newest `keep` up to the one that the log vouches for,
/// `recorded` (term, index); 0 keeps all. A newer one may be on its way to its record, and does not
/// count yet. Returns the names of those deleted.
///
/// # Errors
/// The disk's.
pub fn purge(
    disk: &dyn Disk,
    dir: &Path,
    may: &MayBlock,
    keep: u32,
    recorded: (u64, u64),
) -> Result<Vec<String>, SnapError> {
    if keep == 0 {
        return Ok(Vec::new());
    }
    let names = list(disk, dir, may)?.into_iter();
    let counted = names.filter(|name| parse_name(name).is_some_and(|place| place <= recorded));
    let surplus: Vec<_> = counted.skip(keep as usize).collect();
    for name in &surplus {
        disk.remove_file(may, &dir.join(name))?;
    }
    Ok(surplus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use env::mem::MemDisk;

    #[test]
    fn a_snapshot_reads_back_and_never_as_another_one() {
        let disk = MemDisk::new();
        let may = MayBlock::on_this_thread();
        let dir = Path::new("/snap");
        disk.create_dir_all(&may, dir).unwrap();
        let conf_state = raftpb::ConfState {
            voters: vec![7],
            auto_leave: Some(false),
            ..raftpb::ConfState::default()
        };
        let snapshot = raftpb::Snapshot {
            data: Some(Bytes::from_static(b"{}")),
            metadata: Some(raftpb::SnapshotMetadata {
                conf_state: Some(conf_state),
                index: Some(10),
                term: Some(2),
            }),
        };
        let path = write(&disk, dir, &may, &snapshot).unwrap();
        assert!(path.ends_with("0000000000000002-000000000000000a.snap"));
        assert_eq!(read(&disk, &path, &may).unwrap(), snapshot);
        let bytes = encode(&snapshot);
        let mut accepted = 0;
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            if let Ok(got) = decode(&flipped.into()) {
                assert_eq!(got, snapshot, "byte {at}");
                accepted += 1;
            }
        }
        assert!(accepted <= 1, "only bits of the checksum beyond 32 are without effect");
    }

    #[test]
    fn a_snapshot_without_data_is_one() {
        // etcd's coming minor sends none: the members are in the database.
        let metadata =
            raftpb::SnapshotMetadata { index: Some(10), term: Some(2), conf_state: None };
        for data in [None, Some(Bytes::new())] {
            let snapshot = raftpb::Snapshot { data, metadata: Some(metadata.clone()) };
            let read = decode(&encode(&snapshot).into()).unwrap();
            assert_eq!(read.metadata.as_ref(), Some(&metadata));
            assert!(read.data.unwrap_or_default().is_empty());
        }
    }

    #[test]
    fn purge_keeps_the_newest_that_are_recorded() {
        let disk = MemDisk::new();
        let may = MayBlock::on_this_thread();
        disk.create_dir_all(&may, Path::new("/s")).unwrap();
        for index in 1..=8 {
            let name = format!("/s/{}", file_name(2, index));
            disk.open(&may, Path::new(&name), Open::CreateNew).unwrap();
        }
        // The eighth has no record yet: a start may still need the fifth before it.
        assert_eq!(purge(&disk, Path::new("/s"), &may, 5, (2, 7)).unwrap().len(), 2);
        assert_eq!(list(&disk, Path::new("/s"), &may).unwrap()[5], file_name(2, 3));
        assert_eq!(purge(&disk, Path::new("/s"), &may, 1, (1, 9)).unwrap().len(), 0);
    }
}
