//! Writing a log: appending, syncing, cutting segments, releasing and purging old ones.
//!
//! Invariants: a record is on disk only behind all earlier ones; after the first failed write or
//! sync nothing more is written (invariant 10); the directory appears under its name only with a
//! synced first segment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{raftpb, walpb};
use bytes::Bytes;
use env::{Disk, File, IoErrorKind, MayBlock, Open};
use prost::Message;
use types::limits::WAL_SEGMENT_BYTES;

use crate::error::{ReadError, WriteError};
use crate::reader::{self, Log};
use crate::record::{Encoder, RecordType};
use crate::segment::{self, Name};

/// Zeroes are written in whole blocks of the file system.
const ZERO_BLOCK_BYTES: u64 = 4_096;

/// A log open for writing.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    metadata: Bytes,
    hard_state: Option<raftpb::HardState>,
    encoder: Encoder,
    /// Encoded records that are not in the file yet.
    buffer: Vec<u8>,
    /// Segments on disk that are still needed, the last one being written; each is locked.
    segments: Vec<(Name, Arc<dyn File>)>,
    /// End of the records in the last segment, in bytes; the buffer goes there.
    end: u64,
    last_index: u64,
    segment_bytes: u64,
    /// The last segment holds written zeroes from `end` to here, if this is beyond `end`.
    zeroed: u64,
    poisoned: bool,
}

/// What a new log begins with besides its metadata.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// Entries that every member of a new cluster starts from.
    pub entries: Vec<raftpb::Entry>,
    /// The hard state that commits them.
    pub hard_state: Option<raftpb::HardState>,
    /// A snapshot that the log starts after (a restored member).
    pub snapshot: Option<walpb::Snapshot>,
}

/// Where a new log is written before it gets its name, at once and whole.
enum Place {
    /// In a directory beside, which becomes the log's.
    Aside(PathBuf),
    /// In a file of the log's directory, which is there already: a volume of its own, perhaps, or
    /// with files in it that are nobody's business (`lost+found`). etcd removes it with all that
    /// is in it, and fails where it is a volume.
    Within(PathBuf),
}

impl Place {
    fn of(disk: &dyn Disk, may: &MayBlock, dir: &Path) -> Result<Self, WriteError> {
        if disk.exists(may, dir)? {
            return Ok(Place::Within(dir.join("new-log.tmp")));
        }
        let mut tmp = dir.as_os_str().to_owned();
        tmp.push(".tmp");
        Ok(Place::Aside(PathBuf::from(tmp)))
    }
}

impl Wal {
    /// Whether a log is in the directory: any file named `*.wal`.
    ///
    /// # Errors
    /// The disk's.
    pub fn exists(disk: &dyn Disk, dir: &Path, may: &MayBlock) -> Result<bool, ReadError> {
        match disk.read_dir(may, dir) {
            Ok(entries) => Ok(entries.iter().any(|e| e.name.ends_with(".wal"))),
            Err(e) if e.kind == IoErrorKind::NotFound => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a log in `dir`, which must not exist; it appears there complete or not at all.
    /// A left-over `<dir>.tmp` is deleted.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    //= etcd 3.7.1: server/storage/wal/wal.go#Create
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        may: &MayBlock,
        metadata: Bytes,
        beginning: &Beginning,
    ) -> Result<Wal, WriteError> {
        let name = Name { sequence: 0, index: 0 };
        let place = Place::of(&*disk, may, dir)?;
        let file = match &place {
            Place::Aside(tmp) => {
                disk.remove_dir_all(may, tmp)?;
                disk.create_dir_all(may, tmp)?;
                disk.open(may, &tmp.join(name.to_string()), Open::CreateNew)?
            }
            Place::Within(part) => disk.open(may, part, Open::CreateTruncate)?,
        };
        file.try_lock()?;
        file.allocate(may, WAL_SEGMENT_BYTES)?;
        let mut wal = Wal {
            disk,
            dir: dir.to_path_buf(),
            metadata,
            hard_state: None,
            encoder: Encoder::new(0),
            buffer: Vec::new(),
            segments: vec![(name, file)],
            end: 0,
            last_index: 0,
            segment_bytes: WAL_SEGMENT_BYTES,
            zeroed: 0,
            poisoned: false,
        };
        wal.encoder.record(&mut wal.buffer, RecordType::Crc, &[]);
        wal.encoder.record(&mut wal.buffer, RecordType::Metadata, &wal.metadata);
        let origin = walpb::Snapshot { index: Some(0), term: Some(0), conf_state: None };
        wal.encoder.message(&mut wal.buffer, RecordType::Snapshot, &origin);
        for entry in &beginning.entries {
            wal.append(entry);
        }
        if let Some(state) = &beginning.hard_state {
            wal.append_hard_state(state);
        }
        if let Some(snapshot) = &beginning.snapshot {
            wal.append_snapshot(snapshot);
        }
        wal.write(may)?;
        wal.sync_all(may)?;
        let first = dir.join(name.to_string());
        match &place {
            Place::Aside(tmp) => {
                wal.disk.sync_dir(may, tmp)?;
                wal.disk.rename(may, tmp, dir)?;
                wal.disk.sync_dir(may, dir.parent().unwrap_or(Path::new("")))?;
            }
            Place::Within(part) => {
                wal.disk.rename(may, part, &first)?;
                wal.disk.sync_dir(may, dir)?;
            }
        }
        // The handle was opened by the temporary name; reopen so that messages name the real one.
        drop(wal.segments.pop());
        let file = wal.disk.open(may, &first, Open::Write)?;
        file.try_lock()?;
        wal.segments.push((name, file));
        Ok(wal)
    }

    /// Opens the log behind a snapshot at `(index, term)` and reads it; the space behind the last
    /// record is zeroed. A torn tail is repaired once.
    ///
    /// # Errors
    /// [`ReadError`]. A missing snapshot record is not an error here, as in etcd's write mode.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        may: &MayBlock,
        snapshot: (u64, u64),
    ) -> Result<(Wal, Log), ReadError> {
        let log = match reader::read_all(&*disk, dir, may, snapshot) {
            Err(torn @ ReadError::TornTail { .. }) => {
                if !reader::repair(&*disk, dir, may)? {
                    return Err(torn);
                }
                reader::read_all(&*disk, dir, may, snapshot)?
            }
            result => result?,
        };
        let mut segments = Vec::new();
        for name in &log.segments {
            let file = disk.open(may, &dir.join(name.to_string()), Open::Write)?;
            file.try_lock()?;
            segments.push((*name, file));
        }
        let wal = Wal {
            disk,
            dir: dir.to_path_buf(),
            metadata: log.metadata.clone(),
            hard_state: log.hard_state,
            encoder: Encoder::new(log.crc),
            buffer: Vec::new(),
            segments,
            end: log.end,
            last_index: log.last_index,
            segment_bytes: WAL_SEGMENT_BYTES,
            zeroed: 0,
            poisoned: false,
        };
        zero_to_end(&**wal.tail(), may, wal.end)?;
        Ok((wal, log))
    }

    /// Sets the length at which a segment is cut, in bytes; etcd's is the default.
    pub fn set_segment_bytes(&mut self, bytes: u64) {
        self.segment_bytes = bytes;
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of records in the current segment, written or not.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end + self.buffer.len() as u64
    }

    /// Bytes of records that [`Wal::write`] would write now.
    #[must_use]
    pub fn unwritten_bytes(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// Adds an entry to what [`Wal::write`] will write.
    pub fn append(&mut self, entry: &raftpb::Entry) {
        self.last_index = entry.index.unwrap_or(0);
        self.encoder.message(&mut self.buffer, RecordType::Entry, entry);
    }

    /// Adds a hard state.
    pub fn append_hard_state(&mut self, state: &raftpb::HardState) {
        self.hard_state = Some(*state);
        self.encoder.message(&mut self.buffer, RecordType::State, state);
    }

    /// Adds a snapshot record. Invariant 3 is the caller's: what the record vouches for must be
    /// durable, and it must be synced before anything it replaces is released.
    pub fn append_snapshot(&mut self, snapshot: &walpb::Snapshot) {
        let index = snapshot.index.unwrap_or(0);
        assert!(index == 0 || snapshot.conf_state.is_some(), "etcd refuses a record without it");
        self.last_index = self.last_index.max(index);
        self.encoder.message(&mut self.buffer, RecordType::Snapshot, snapshot);
    }

    /// Writes what was appended to the file, without syncing it. Cuts the segment if it is full.
    ///
    /// # Errors
    /// [`WriteError`]; the log is then poisoned.
    pub fn write(&mut self, may: &MayBlock) -> Result<(), WriteError> {
        self.guard(|wal| {
            wal.flush(may)?;
            if wal.end >= wal.segment_bytes { wal.cut(may) } else { Ok(()) }
        })
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// [`WriteError`]; the log is then poisoned.
    pub fn sync(&mut self, may: &MayBlock) -> Result<(), WriteError> {
        self.guard(|wal| Ok(wal.tail().sync_data(may)?))
    }

    /// Bytes of written zeroes behind the records of the current segment.
    #[must_use]
    pub fn zeroed_ahead(&self) -> u64 {
        self.zeroed.saturating_sub(self.end())
    }

    /// Writes up to `bytes` of zeroes behind what [`Wal::zeroed_ahead`] counts, over reserved space
    /// that reads as zeroes already, and makes them durable. A record that is written there later
    /// changes no file-system metadata, so its sync is one write of the disk. Returns whether
    /// anything was written: not at the end of the segment, and not on a full disk, which is no
    /// error here.
    ///
    /// # Errors
    /// [`WriteError`]; the log is then poisoned: a failed sync may have lost records too.
    pub fn zero_ahead(&mut self, may: &MayBlock, bytes: usize) -> Result<bool, WriteError> {
        assert!(self.buffer.is_empty(), "what was appended is written first");
        self.guard(|wal| {
            let from = wal.zeroed.max(wal.end.next_multiple_of(ZERO_BLOCK_BYTES));
            let to = (from + bytes as u64).min(wal.tail().len()?);
            if from >= to {
                return Ok(false);
            }
            match wal.tail().write_at(may, &vec![0; (to - from) as usize], from) {
                Err(e) if e.kind == IoErrorKind::NoSpace => return Ok(false),
                result => result?,
            }
            wal.tail().sync_data(may)?;
            wal.zeroed = to;
            Ok(true)
        })
    }

    fn sync_all(&mut self, may: &MayBlock) -> Result<(), WriteError> {
        self.guard(|wal| Ok(wal.tail().sync_all(may)?))
    }

    /// Lets go of the segments that hold only entries below `index`, all but the last such; purge
    /// may then delete them.
    //= etcd 3.7.1: server/storage/wal/wal.go#ReleaseLockTo
    pub fn release_to(&mut self, index: u64) {
        let below = self.segments.iter().rposition(|(name, _)| name.index < index);
        if let Some(last_below) = below {
            self.segments.drain(..last_below);
        }
    }

    /// Deletes released segments, oldest first, while more than `keep` are there; 0 keeps all.
    /// Returns the names deleted.
    ///
    /// # Errors
    /// The disk's; a failed purge does not poison the log.
    pub fn purge(&self, may: &MayBlock, keep: u32) -> Result<Vec<Name>, ReadError> {
        let mut deleted = Vec::new();
        if keep == 0 {
            return Ok(deleted);
        }
        let names = segment::list(&*self.disk, &self.dir, may)?;
        let held = self.segments.first().map_or(u64::MAX, |(name, _)| name.sequence);
        let surplus = names.len().saturating_sub(keep as usize);
        for name in names.iter().take(surplus).take_while(|name| name.sequence < held) {
            self.disk.remove_file(may, &self.dir.join(name.to_string()))?;
            deleted.push(*name);
        }
        Ok(deleted)
    }

    fn tail(&self) -> &Arc<dyn File> {
        &self.segments.last().expect("a log has a segment").1
    }

    fn guard<T>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let result = f(self);
        self.poisoned = result.is_err();
        result
    }

    fn flush(&mut self, may: &MayBlock) -> Result<(), WriteError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.tail().write_at(may, &self.buffer, self.end)?;
        self.end += self.buffer.len() as u64;
        self.buffer.clear();
        // A burst may have grown it; what a usual group needs stays.
        self.buffer.shrink_to(1 << 20);
        Ok(())
    }

    /// Ends the current segment and begins the next.
    //= etcd 3.7.1: server/storage/wal/wal.go#cut
    fn cut(&mut self, may: &MayBlock) -> Result<(), WriteError> {
        let (last, file) = self.segments.last().expect("a log has a segment");
        file.set_len(may, self.end)?;
        file.sync_all(may)?;
        let sequence = last.sequence + 1;
        let name = Name { sequence, index: self.last_index + 1 };
        let tmp = self.dir.join(format!("{}.tmp", sequence % 2));
        let file = self.disk.open(may, &tmp, Open::CreateTruncate)?;
        file.try_lock()?;
        file.allocate(may, WAL_SEGMENT_BYTES)?;
        self.encoder.record(&mut self.buffer, RecordType::Crc, &[]);
        self.encoder.record(&mut self.buffer, RecordType::Metadata, &self.metadata);
        if let Some(state) = &self.hard_state {
            self.encoder.message(&mut self.buffer, RecordType::State, state);
        }
        file.write_at(may, &self.buffer, 0)?;
        file.sync_all(may)?;
        let path = self.dir.join(name.to_string());
        self.disk.rename(may, &tmp, &path)?;
        self.disk.sync_dir(may, &self.dir)?;
        drop(file);
        let file = self.disk.open(may, &path, Open::Write)?;
        file.try_lock()?;
        self.end = self.buffer.len() as u64;
        self.zeroed = 0;
        self.buffer.clear();
        self.segments.push((name, file));
        Ok(())
    }
}

/// Zeroes a file from `from` to its end: a torn write may have left sectors behind a zero length
/// that would spoil later records. Cut and reserved again, so that nothing is written.
//= etcd 3.7.1: client/pkg/fileutil/fileutil.go#ZeroToEnd
fn zero_to_end(file: &dyn File, may: &MayBlock, from: u64) -> Result<(), ReadError> {
    let len = file.len()?;
    if from == len {
        return Ok(());
    }
    file.set_len(may, from)?;
    match file.allocate(may, len) {
        // A full disk is met again by the first append, which fails cleanly.
        Err(e) if e.kind == IoErrorKind::NoSpace => Ok(file.set_len(may, len)?),
        result => Ok(result?),
    }
}

/// The payload of a metadata record.
#[must_use]
pub fn metadata(member: types::MemberId, cluster: types::ClusterId) -> Bytes {
    let metadata =
        api::etcdserverpb::Metadata { node_id: Some(member.0), cluster_id: Some(cluster.0) };
    metadata.encode_to_vec().into()
}
