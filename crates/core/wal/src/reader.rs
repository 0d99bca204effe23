//! Reading a log: records of all segments in order, with etcd's verdicts on what is wrong.
//!
//! Invariants: no allocation is larger than the file that asks for it; the running checksum is
//! checked over every record; only the end of the last segment may be called torn.

use std::path::Path;
use std::sync::Arc;

use api::{raftpb, walpb};
use bytes::Bytes;
use env::{Access, Disk, File, IoErrorKind, MayBlock, Open};
use prost::Message;

use crate::error::ReadError;
use crate::record::{self, LENGTH_BYTES, Record, RecordError, RecordType};
use crate::segment::{self, Name};

/// Bytes read at once; records are small beside it.
const WINDOW_BYTES: u64 = 1 << 20;

/// What a log holds after a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The metadata record's payload.
    pub metadata: Bytes,
    /// The last hard state, if one was written.
    pub hard_state: Option<raftpb::HardState>,
    /// Entries after the snapshot, ascending without gaps.
    pub entries: Vec<raftpb::Entry>,
    /// Index of the last entry record, also if it is at or below the snapshot; 0 without any.
    pub last_index: u64,
    /// Whether a record of the snapshot was found.
    pub snapshot_found: bool,
    /// The running checksum at the end.
    pub crc: u32,
    /// Where the last segment's valid records end, in bytes.
    pub end: u64,
    /// The segments that were read.
    pub segments: Vec<Name>,
}

/// Reads the records of consecutive segments.
pub(crate) struct Decoder<'a> {
    segments: Vec<(Name, Arc<dyn File>)>,
    current: usize,
    /// Where the valid records of the current segment end.
    valid: u64,
    len: u64,
    window: Vec<u8>,
    window_start: u64,
    crc: u32,
    may: &'a MayBlock,
}

impl<'a> Decoder<'a> {
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        names: &[Name],
        may: &'a MayBlock,
    ) -> Result<Self, ReadError> {
        let mut segments = Vec::new();
        for name in names {
            segments.push((*name, disk.open(may, &dir.join(name.to_string()), Open::Read)?));
        }
        let len = match segments.first() {
            Some((_, file)) => file.len()?,
            None => 0,
        };
        Ok(Self {
            segments,
            current: 0,
            valid: 0,
            len,
            window: Vec::new(),
            window_start: 0,
            crc: 0,
            may,
        })
    }

    fn segment_name(&self) -> String {
        self.segments[self.current].0.to_string()
    }

    fn torn(&self) -> ReadError {
        ReadError::TornTail { segment: self.segment_name(), valid: self.valid }
    }

    /// Bytes `[offset, offset + len)` of the current segment; the caller has checked the bounds.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8], ReadError> {
        let end = offset + len;
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || end > window_end {
            let want = WINDOW_BYTES.max(len).min(self.len - offset);
            self.window.resize(usize::try_from(want).expect("a file fits into memory"), 0);
            let file = &self.segments[self.current].1;
            match file.read_at(self.may, &mut self.window, offset, Access::Scan) {
                Err(e) if e.kind == IoErrorKind::UnexpectedEof => return Err(self.torn()),
                result => result?,
            }
            self.window_start = offset;
        }
        let at = (offset - self.window_start) as usize;
        Ok(&self.window[at..at + len as usize])
    }

    /// The next record, or `None` at the end of the last segment.
    //= etcd 3.7.1: server/storage/wal/decoder.go#decodeRecord
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ReadError> {
        let field = loop {
            if self.current == self.segments.len() {
                return Ok(None);
            }
            let left = self.len - self.valid;
            let field = if left == 0 {
                0
            } else if left < LENGTH_BYTES {
                return Err(self.torn());
            } else {
                let bytes = self.bytes(self.valid, LENGTH_BYTES)?;
                u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes were asked for"))
            };
            if field != 0 {
                break field;
            }
            if self.current + 1 == self.segments.len() {
                return Ok(None);
            }
            self.current += 1;
            self.valid = 0;
            self.window.clear();
            self.window_start = 0;
            self.len = self.segments[self.current].1.len()?;
        };
        let (length, padding) = record::frame_size(field);
        // etcd leaves the length field itself out of this sum; a record that only fits without it
        // ends in an unexpected EOF all the same.
        if length.saturating_add(padding) > self.len - self.valid - LENGTH_BYTES {
            return Err(self.torn());
        }
        let start = self.valid + LENGTH_BYTES;
        let last = self.current + 1 == self.segments.len();
        let mut crc = self.crc;
        let framed = Bytes::copy_from_slice(self.bytes(start, length + padding)?);
        match record::parse(&framed.slice(..length as usize), &mut crc) {
            Ok(record) => {
                self.crc = crc;
                self.valid = start + length + padding;
                Ok(Some(record))
            }
            Err(_) if last && record::is_torn(&framed, start) => Err(self.torn()),
            Err(RecordError::Crc) => {
                Err(ReadError::CrcMismatch { segment: self.segment_name(), offset: self.valid })
            }
            Err(RecordError::Malformed) => {
                Err(ReadError::Malformed { segment: self.segment_name(), offset: self.valid })
            }
        }
    }

    /// Checks a CRC record against the chain and goes on from it.
    pub(crate) fn reseed(&mut self, record: &Record) -> Result<(), ReadError> {
        if self.crc != 0 && self.crc != record.crc {
            return Err(ReadError::CrcMismatch {
                segment: self.segment_name(),
                offset: self.valid,
            });
        }
        self.crc = record.crc;
        Ok(())
    }

    fn malformed(&self) -> ReadError {
        ReadError::Malformed { segment: self.segment_name(), offset: self.valid }
    }
}

/// Reads the log behind a snapshot at `(index, term)`; (0, 0) reads all of it.
///
/// # Errors
/// [`ReadError`]; [`ReadError::TornTail`] of the last segment can be mended with [`repair`].
/// [`ReadError::SnapshotNotFound`] is not raised here: see [`Log::snapshot_found`].
//= etcd 3.7.1: server/storage/wal/wal.go#ReadAll
pub fn read_all(
    disk: &dyn Disk,
    dir: &Path,
    may: &MayBlock,
    (index, term): (u64, u64),
) -> Result<Log, ReadError> {
    let names = segment::list(disk, dir, may)?;
    let names = segment::select(&names, index)?;
    let mut decoder = Decoder::open(disk, dir, names, may)?;
    let mut log = Log { segments: names.to_vec(), ..Log::default() };
    let mut metadata: Option<Bytes> = None;
    while let Some(record) = decoder.next()? {
        match RecordType::from_number(record.kind) {
            Some(RecordType::Entry) => {
                let entry = raftpb::Entry::decode(record.data).map_err(|_| decoder.malformed())?;
                let at = entry.index.unwrap_or(0);
                if at > index {
                    let offset = at - index - 1;
                    if offset > log.entries.len() as u64 {
                        let expected = index + log.entries.len() as u64 + 1;
                        return Err(ReadError::EntryGap { index: at, expected });
                    }
                    log.entries.truncate(offset as usize);
                    log.entries.push(entry);
                }
                log.last_index = at;
            }
            Some(RecordType::State) => {
                let state =
                    raftpb::HardState::decode(record.data).map_err(|_| decoder.malformed())?;
                log.hard_state = Some(state);
            }
            Some(RecordType::Metadata) => match &metadata {
                Some(known) if *known != record.data => return Err(ReadError::MetadataConflict),
                _ => metadata = Some(record.data),
            },
            Some(RecordType::Crc) => decoder.reseed(&record)?,
            Some(RecordType::Snapshot) => {
                let snapshot =
                    walpb::Snapshot::decode(record.data).map_err(|_| decoder.malformed())?;
                if snapshot.index.unwrap_or(0) == index {
                    if snapshot.term.unwrap_or(0) != term {
                        return Err(ReadError::SnapshotMismatch);
                    }
                    log.snapshot_found = true;
                }
            }
            None => return Err(ReadError::UnexpectedKind(record.kind)),
        }
    }
    log.metadata = metadata.unwrap_or_default();
    log.crc = decoder.crc;
    log.end = decoder.valid;
    Ok(log)
}

/// The snapshots that the log vouches for: records whose index the last hard state has committed,
/// in the order they were written. A torn tail ends the reading without an error.
///
/// # Errors
/// [`ReadError`] other than a torn tail.
//= etcd 3.7.1: server/storage/wal/wal.go#ValidSnapshotEntries
pub fn snapshots(
    disk: &dyn Disk,
    dir: &Path,
    may: &MayBlock,
) -> Result<Vec<walpb::Snapshot>, ReadError> {
    let names = segment::list(disk, dir, may)?;
    let first = *names.first().ok_or(ReadError::FileNotFound { index: 0 })?;
    segment::check_sequence(&names, first.sequence)?;
    let names = &names[..];
    let mut decoder = Decoder::open(disk, dir, names, may)?;
    let (mut found, mut commit) = (Vec::new(), 0);
    loop {
        let record = match decoder.next() {
            Ok(Some(record)) => record,
            Ok(None) | Err(ReadError::TornTail { .. }) => break,
            Err(e) => return Err(e),
        };
        match RecordType::from_number(record.kind) {
            Some(RecordType::Snapshot) => {
                let snapshot =
                    walpb::Snapshot::decode(record.data).map_err(|_| decoder.malformed())?;
                found.push(snapshot);
            }
            Some(RecordType::State) => {
                let state =
                    raftpb::HardState::decode(record.data).map_err(|_| decoder.malformed())?;
                commit = state.commit.unwrap_or(0);
            }
            Some(RecordType::Crc) => decoder.reseed(&record)?,
            Some(RecordType::Metadata | RecordType::Entry) | None => {}
        }
    }
    found.retain(|s| s.index.unwrap_or(0) <= commit);
    Ok(found)
}

/// Cuts a torn tail off the last segment, after keeping a copy as `<name>.broken`. Returns whether
/// the log can be read now; `false` means that something else is wrong with it.
///
/// # Errors
/// The disk's.
//= etcd 3.7.1: server/storage/wal/repair.go#Repair
pub fn repair(disk: &dyn Disk, dir: &Path, may: &MayBlock) -> Result<bool, ReadError> {
    let names = segment::list(disk, dir, may)?;
    let Some(last) = names.last() else {
        return Ok(false);
    };
    let mut decoder = Decoder::open(disk, dir, std::slice::from_ref(last), may)?;
    loop {
        match decoder.next() {
            Ok(Some(record)) if record.kind == RecordType::Crc as i64 => {
                if decoder.reseed(&record).is_err() {
                    return Ok(false);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(true),
            Err(ReadError::TornTail { valid, .. }) => {
                let path = dir.join(last.to_string());
                let file = disk.open(may, &path, Open::Write)?;
                let broken_path = dir.join(format!("{last}.broken"));
                let broken = disk.open(may, &broken_path, Open::CreateTruncate)?;
                copy(&*file, &*broken, may)?;
                file.set_len(may, valid)?;
                file.sync_all(may)?;
                return Ok(true);
            }
            Err(ReadError::Io(e)) => return Err(e.into()),
            Err(_) => return Ok(false),
        }
    }
}

fn copy(from: &dyn File, to: &dyn File, may: &MayBlock) -> Result<(), ReadError> {
    let len = from.len()?;
    let mut buf = vec![0; WINDOW_BYTES.min(len) as usize];
    let mut offset = 0;
    while offset < len {
        let piece = &mut buf[..WINDOW_BYTES.min(len - offset) as usize];
        from.read_at(may, piece, offset, Access::ScanOnce)?;
        to.write_at(may, piece, offset)?;
        offset += piece.len() as u64;
    }
    to.sync_all(may)?;
    Ok(())
}
