//! What can be wrong with a log. Texts are etcd's where operators know them.

use std::fmt;

use env::IoError;

/// Why a log cannot be read. Unless said otherwise the bytes on disk are at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The disk failed.
    Io(IoError),
    /// The directory holds no segment, or none that reaches back to the snapshot.
    FileNotFound {
        /// Index the log was to be read from.
        index: u64,
    },
    /// A segment is missing in the middle.
    SequenceGap {
        /// The first number of the sequence that was expected.
        from: u64,
    },
    /// The last record was not written completely; [`crate::repair`] cuts it off.
    TornTail {
        /// File name of the segment.
        segment: String,
        /// Where the valid records end, in bytes.
        valid: u64,
    },
    /// A checksum differs where no write can have been torn.
    CrcMismatch {
        /// File name of the segment.
        segment: String,
        /// Where the record begins, in bytes.
        offset: u64,
    },
    /// A record is not protobuf, where no write can have been torn.
    Malformed {
        /// File name of the segment.
        segment: String,
        /// Where the record begins, in bytes.
        offset: u64,
    },
    /// Segments name different members or clusters.
    MetadataConflict,
    /// A snapshot record has the wanted index but another term.
    SnapshotMismatch,
    /// No snapshot record has the wanted index.
    SnapshotNotFound,
    /// An entry leaves a gap behind the one before it.
    EntryGap {
        /// Index of the entry.
        index: u64,
        /// Index that was due.
        expected: u64,
    },
    /// A record of a type that this version does not know.
    UnexpectedKind(i64),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io(e) => e.fmt(f),
            ReadError::FileNotFound { index } => {
                write!(f, "wal: file not found which matches the snapshot index '{index}'")
            }
            ReadError::SequenceGap { from } => write!(
                f,
                "wal: file sequence numbers (starting from {from}) do not increase continuously"
            ),
            ReadError::TornTail { segment, valid } => {
                write!(f, "unexpected EOF (in {segment} after byte {valid})")
            }
            ReadError::CrcMismatch { segment, offset } => {
                write!(f, "wal: crc mismatch (in {segment} at byte {offset})")
            }
            ReadError::Malformed { segment, offset } => {
                write!(f, "wal: malformed record (in {segment} at byte {offset})")
            }
            ReadError::MetadataConflict => f.write_str("wal: conflicting metadata found"),
            ReadError::SnapshotMismatch => f.write_str("wal: snapshot mismatch"),
            ReadError::SnapshotNotFound => f.write_str("wal: snapshot not found"),
            ReadError::EntryGap { index, expected } => {
                write!(f, "wal: slice bounds out of range (entry {index} where {expected} was due)")
            }
            ReadError::UnexpectedKind(kind) => write!(f, "unexpected block type {kind}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<IoError> for ReadError {
    fn from(e: IoError) -> Self {
        ReadError::Io(e)
    }
}

/// Why a log cannot be written. The process must end before it acknowledges anything more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The disk failed.
    Io(IoError),
    /// An earlier write or sync failed; what is on disk is unknown.
    Poisoned,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Io(e) => e.fmt(f),
            WriteError::Poisoned => f.write_str("wal: an earlier write failed"),
        }
    }
}

impl std::error::Error for WriteError {}

impl From<IoError> for WriteError {
    fn from(e: IoError) -> Self {
        WriteError::Io(e)
    }
}
