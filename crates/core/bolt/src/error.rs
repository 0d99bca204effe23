//! What can go wrong, by operation. Bytes from the file never panic; they end here.

use std::fmt;

use env::{IoError, IoErrorKind};

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// The id in the header is not the place where the page lies.
    Id,
    /// The type is not the one that belongs here.
    Type,
    /// It has a flag that bbolt 1.5 does not know: a newer program wrote it, compressed perhaps.
    Flag(u16),
    /// The element table does not fit the page, or a branch has no child.
    Count,
    /// The page and its overflow exceed the high-water mark, or its content.
    Overflow,
    /// A key or value lies outside the page.
    Element,
    /// A child, or a bucket's root, is not a data page below the high-water mark.
    Child,
    /// The value of a bucket is too short or its inline page is malformed.
    Bucket,
    /// A tree is deeper than any that can exist.
    Depth,
    /// A page is reached twice.
    Twice,
    /// Keys do not ascend, or exceed what the parent allows.
    Order,
    /// The high-water mark lies behind the end of the file, or the meta is inconsistent in itself.
    Meta,
    /// A free page is in use or listed twice, or a page is neither used nor free.
    Free,
}

/// A damaged page; the file or the device is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Corruption {
    /// Where it was seen.
    pub page: u64,
    /// What it is.
    pub flaw: Flaw,
}

impl Corruption {
    pub(crate) fn new(page: u64, flaw: Flaw) -> Self {
        Self { page, flaw }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.flaw {
            Flaw::Id => "has another page's id",
            Flaw::Type => "has the wrong type",
            Flaw::Flag(flag) => {
                return write!(
                    f,
                    "page {} has the flag {flag:#x}, which is unknown here: a newer version wrote it",
                    self.page
                );
            }
            Flaw::Count => "has an impossible element count",
            Flaw::Overflow => "has an impossible overflow",
            Flaw::Element => "has an element out of bounds",
            Flaw::Child => "refers to a page out of bounds",
            Flaw::Bucket => "holds a malformed bucket",
            Flaw::Depth => "is deeper than a tree can be",
            Flaw::Twice => "is referenced more than once",
            Flaw::Order => "has keys out of order",
            Flaw::Meta => "describes an impossible database",
            Flaw::Free => "is wrongly listed or missing as free",
        };
        write!(f, "page {} {what}", self.page)
    }
}

impl std::error::Error for Corruption {}

/// Why a database could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another open file holds the lock: wait and try again.
    Locked,
    /// Neither meta page is valid: this is no bbolt file, or it is beyond repair.
    Invalid,
    /// A version that this program does not know (invariant 13).
    Version(u32),
    /// The page size asked for or found is not a power of two from 1 KiB to 16 MiB.
    PageSize(u32),
    /// A page is damaged.
    Corrupt(Corruption),
    /// The disk failed.
    Io(IoError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Locked => f.write_str("the database is locked by another process"),
            OpenError::Invalid => f.write_str("invalid database"),
            OpenError::Version(v) => {
                write!(f, "database format version {v} is unknown; bbolt files have version 2")
            }
            OpenError::PageSize(n) => write!(f, "page size {n} is not supported"),
            OpenError::Corrupt(e) => write!(f, "corrupt database: {e}"),
            OpenError::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<IoError> for OpenError {
    fn from(e: IoError) -> Self {
        if e.kind == IoErrorKind::Locked { OpenError::Locked } else { OpenError::Io(e) }
    }
}

impl From<Corruption> for OpenError {
    fn from(e: Corruption) -> Self {
        OpenError::Corrupt(e)
    }
}

impl From<ReadError> for OpenError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Corrupt(c) => OpenError::Corrupt(c),
            ReadError::Io(e) => OpenError::Io(e),
        }
    }
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// A page is damaged.
    Corrupt(Corruption),
    /// The disk failed.
    Io(IoError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Corrupt(e) => write!(f, "corrupt database: {e}"),
            ReadError::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<IoError> for ReadError {
    fn from(e: IoError) -> Self {
        ReadError::Io(e)
    }
}

impl From<Corruption> for ReadError {
    fn from(e: Corruption) -> Self {
        ReadError::Corrupt(e)
    }
}

/// Why an operation of a write transaction was refused; the transaction is as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The bucket does not exist; the caller is at fault.
    NoBucket,
    /// Empty key or bucket name; the caller is at fault.
    EmptyKey,
    /// Key over 32,768 bytes; the caller is at fault.
    LongKey,
    /// Value over 2^31 − 2 bytes; the caller is at fault.
    LongValue,
    /// A bucket stands where a value was meant, or the other way round.
    Incompatible,
    /// An earlier commit failed in a way that left the file's state unknown (invariant 10).
    Poisoned,
    /// A page is damaged.
    Corrupt(Corruption),
    /// The disk failed.
    Io(IoError),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::NoBucket => f.write_str("bucket not found"),
            WriteError::EmptyKey => f.write_str("key required"),
            WriteError::LongKey => f.write_str("key too large"),
            WriteError::LongValue => f.write_str("value too large"),
            WriteError::Incompatible => f.write_str("incompatible value"),
            WriteError::Poisoned => f.write_str("an earlier commit failed; reopen the database"),
            WriteError::Corrupt(e) => write!(f, "corrupt database: {e}"),
            WriteError::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for WriteError {}

impl From<ReadError> for WriteError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Corrupt(c) => WriteError::Corrupt(c),
            ReadError::Io(e) => WriteError::Io(e),
        }
    }
}

impl From<Corruption> for WriteError {
    fn from(e: Corruption) -> Self {
        WriteError::Corrupt(e)
    }
}

/// Why a commit failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// An earlier commit failed in a way that left the file's state unknown (invariant 10).
    Poisoned,
    /// A page that had to be read is damaged. Nothing was changed.
    Corrupt(Corruption),
    /// Reading, growing or writing failed before anything became visible. The transaction is
    /// rolled back; the database may be used again.
    RolledBack(IoError),
    /// A sync, or the write of the meta page, failed: whether the transaction is durable is
    /// unknown. The database refuses every later write.
    Unknown(IoError),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitError::Poisoned => f.write_str("an earlier commit failed; reopen the database"),
            CommitError::Corrupt(e) => write!(f, "corrupt database: {e}"),
            CommitError::RolledBack(e) => write!(f, "commit rolled back: {e}"),
            CommitError::Unknown(e) => write!(f, "commit failed: {e}"),
        }
    }
}

impl std::error::Error for CommitError {}

impl From<ReadError> for CommitError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Corrupt(c) => CommitError::Corrupt(c),
            ReadError::Io(e) => CommitError::RolledBack(e),
        }
    }
}
