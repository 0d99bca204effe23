//! Why an operation of the store failed: one enum per kind of operation.

use std::fmt;

use crate::kv::BadKeyValue;

/// Why a range cannot be answered; the client is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// The revision is older than the newest compaction.
    Compacted,
    /// The revision does not exist yet.
    FutureRevision,
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compacted => "required revision has been compacted",
            Self::FutureRevision => "required revision is a future revision",
        })
    }
}

impl std::error::Error for RangeError {}

/// Why a value cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// A compaction that is newer than the reader's revision has removed it.
    Compacted,
    /// The database's bytes are no `KeyValue`.
    BadKeyValue,
    /// The database failed.
    Backend(bolt::ReadError),
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted => f.write_str("value has been compacted"),
            Self::BadKeyValue => BadKeyValue.fmt(f),
            Self::Backend(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ValueError {}

impl From<bolt::ReadError> for ValueError {
    fn from(error: bolt::ReadError) -> Self {
        Self::Backend(error)
    }
}

impl From<BadKeyValue> for ValueError {
    fn from(_: BadKeyValue) -> Self {
        Self::BadKeyValue
    }
}

/// Why a compaction was refused; the client is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactError {
    /// At or before the newest compaction.
    Compacted,
    /// After the current revision.
    FutureRevision,
}

impl fmt::Display for CompactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compacted => "required revision has been compacted",
            Self::FutureRevision => "required revision is a future revision",
        })
    }
}

impl std::error::Error for CompactError {}

/// Why a database cannot be opened as a store; it is damaged or written by something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverError {
    /// A key of the `key` bucket is no revision; its bytes.
    BadRevisionKey(Vec<u8>),
    /// The value at this main revision and sub-revision is no `KeyValue`, or contradicts its key.
    BadRow {
        /// Main revision.
        main: u64,
        /// Sub-revision.
        sub: u64,
    },
    /// A value of the `meta` bucket has the wrong form; its key.
    BadMeta(&'static [u8]),
    /// The database failed.
    Backend(bolt::ReadError),
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRevisionKey(key) => write!(f, "key bucket holds a malformed key {key:02x?}"),
            Self::BadRow { main, sub } => write!(f, "key bucket holds a bad row at {main}/{sub}"),
            Self::BadMeta(key) => {
                write!(f, "meta bucket holds a bad {}", String::from_utf8_lossy(key))
            }
            Self::Backend(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RecoverError {}

impl From<bolt::ReadError> for RecoverError {
    fn from(error: bolt::ReadError) -> Self {
        Self::Backend(error)
    }
}
