//! Files and directories as deterministic code sees them.
//!
//! Whether a call may block is part of its type: without a [`MayBlock`] only
//! [`File::try_read_at`] compiles, so a thread that answers clients cannot wait for the disk.
//! Nothing here retries: an error is returned once and the caller decides (invariant 10).

use std::fmt;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Permission to block on the disk. Made only where pool, log, commit and recovery threads start,
/// and by the simulator for a step that does such work.
#[derive(Debug)]
pub struct MayBlock(());

impl MayBlock {
    /// Grants the permission. Call this only at the start of a thread (or program) that serves no
    /// client connection.
    #[must_use]
    pub fn on_this_thread() -> Self {
        Self(())
    }
}

/// What a read that must not block found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// The buffer is filled.
    Hit,
    /// The bytes are not in memory (or the file cannot tell): read again with a [`MayBlock`].
    Miss,
}

/// How a blocking read will be followed by others; a hint for read-ahead and cache use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// One place, others elsewhere.
    Point,
    /// Neighbours follow and will be wanted again.
    Scan,
    /// Neighbours follow; leave no trace in the cache.
    ScanOnce,
}

/// One piece of a scattered read.
#[derive(Debug)]
pub struct Run<'a> {
    /// Byte offset in the file.
    pub offset: u64,
    /// Filled completely on success.
    pub buf: &'a mut [u8],
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Existing file, reading only.
    Read,
    /// Existing file, reading and writing.
    Write,
    /// Reading and writing, made with mode 0600 if missing.
    CreateOrWrite,
    /// Made with mode 0600; fails if the name exists.
    CreateNew,
    /// Made with mode 0600; an existing file is emptied.
    CreateTruncate,
    /// Made with mode 0666 less the umask; an existing file is emptied (`.snap` files).
    CreateTruncateShared,
}

/// What an operation on the disk was, for error texts and fault injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum IoOp {
    Open,
    Read,
    Write,
    Sync,
    SetLen,
    Allocate,
    Lock,
    Rename,
    Remove,
    CreateDir,
    ReadDir,
    SyncDir,
    Stat,
}

impl IoOp {
    /// The operation as Go names it in front of a path.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            IoOp::Open => "open",
            IoOp::Read => "read",
            IoOp::Write => "write",
            IoOp::Sync | IoOp::SyncDir => "sync",
            IoOp::SetLen => "truncate",
            IoOp::Allocate => "fallocate",
            IoOp::Lock => "flock",
            IoOp::Rename => "rename",
            IoOp::Remove => "remove",
            IoOp::CreateDir => "mkdir",
            IoOp::ReadDir => "readdir",
            IoOp::Stat => "stat",
        }
    }
}

/// The kinds of failure that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoErrorKind {
    /// No such file or directory.
    NotFound,
    /// The name exists already.
    AlreadyExists,
    /// The caller lacks the right.
    PermissionDenied,
    /// The device is full (ENOSPC) or over quota.
    NoSpace,
    /// A read ended before its buffer was full.
    UnexpectedEof,
    /// The lock is held elsewhere.
    Locked,
    /// This file system cannot do it.
    Unsupported,
    /// The device failed (EIO), or anything else.
    Other,
}

/// A failed operation on the disk, with what it was done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// The operation.
    pub op: IoOp,
    /// The kind, for decisions.
    pub kind: IoErrorKind,
    /// The path the file was opened by.
    pub path: PathBuf,
    /// The operating system's text, or the injector's.
    pub text: String,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.op.name(), self.path.display(), self.text)
    }
}

impl std::error::Error for IoError {}

/// An open file with positioned I/O. Offsets and lengths are bytes.
pub trait File: Send + Sync + fmt::Debug {
    /// The path by which the file was opened, for messages.
    fn path(&self) -> &Path;

    /// Current length.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> Result<u64, IoError>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As [`File::len`].
    fn is_empty(&self) -> Result<bool, IoError> {
        Ok(self.len()? == 0)
    }

    /// Reads without waiting for the disk. On [`Cached::Miss`] the buffer's content is unspecified.
    ///
    /// # Errors
    /// A read past the end of the file is [`IoErrorKind::UnexpectedEof`], never a miss. Device
    /// errors show as a miss; the blocking read reports them.
    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<Cached, IoError>;

    /// Reads exactly `buf.len()` bytes.
    ///
    /// # Errors
    /// [`IoErrorKind::UnexpectedEof`] past the end, or the device's error.
    fn read_at(
        &self,
        may: &MayBlock,
        buf: &mut [u8],
        offset: u64,
        access: Access,
    ) -> Result<(), IoError>;

    /// Reads several runs, each completely; the order of `runs` is the order of reading.
    ///
    /// # Errors
    /// As [`File::read_at`]; earlier runs may be filled.
    fn read_many(
        &self,
        may: &MayBlock,
        runs: &mut [Run<'_>],
        access: Access,
    ) -> Result<(), IoError> {
        for run in runs {
            self.read_at(may, run.buf, run.offset, access)?;
        }
        Ok(())
    }

    /// Writes all of `buf`, extending the file if needed.
    ///
    /// # Errors
    /// The device's; part of the bytes may have been written.
    fn write_at(&self, may: &MayBlock, buf: &[u8], offset: u64) -> Result<(), IoError> {
        self.write_vectored_at(may, &[IoSlice::new(buf)], offset)
    }

    /// Writes all buffers one after another from `offset`.
    ///
    /// # Errors
    /// As [`File::write_at`].
    fn write_vectored_at(
        &self,
        may: &MayBlock,
        bufs: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<(), IoError>;

    /// Makes written data, and the length if it grew, durable (`fdatasync`).
    ///
    /// # Errors
    /// The device's. Never retry it: the kernel may have dropped the pages (invariant 10).
    fn sync_data(&self, may: &MayBlock) -> Result<(), IoError>;

    /// Makes data and all metadata durable (`fsync`).
    ///
    /// # Errors
    /// As [`File::sync_data`].
    fn sync_all(&self, may: &MayBlock) -> Result<(), IoError>;

    /// Sets the length; bytes gained are zero.
    ///
    /// # Errors
    /// The operating system's.
    fn set_len(&self, may: &MayBlock, len: u64) -> Result<(), IoError>;

    /// Reserves space for `[0, len)` and extends the file to `len` if shorter (`fallocate`).
    ///
    /// # Errors
    /// [`IoErrorKind::NoSpace`] or [`IoErrorKind::Unsupported`].
    fn allocate(&self, may: &MayBlock, len: u64) -> Result<(), IoError>;

    /// Takes the exclusive advisory lock (`flock`) without waiting; it ends when the last handle
    /// to this open file is dropped.
    ///
    /// # Errors
    /// [`IoErrorKind::Locked`] if another open file holds it.
    fn try_lock(&self) -> Result<(), IoError>;
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last component of the path. Names that are not UTF-8 are not listed.
    pub name: String,
    /// File or directory.
    pub kind: FileKind,
    /// Length in bytes, 0 for directories.
    pub len: u64,
}

/// A file system. A change of names is durable only after [`Disk::sync_dir`] of their directory.
/// An empty path is the current directory: [`Path::parent`] gives it for a relative name alone.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// [`IoErrorKind::NotFound`], [`IoErrorKind::AlreadyExists`], or the operating system's.
    fn open(&self, may: &MayBlock, path: &Path, open: Open) -> Result<Arc<dyn File>, IoError>;

    /// Makes a directory and its parents with mode 0700; one that exists is no error.
    ///
    /// # Errors
    /// The operating system's.
    fn create_dir_all(&self, may: &MayBlock, path: &Path) -> Result<(), IoError>;

    /// Renames a file or directory, replacing a file of that name.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, may: &MayBlock, from: &Path, to: &Path) -> Result<(), IoError>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`IoErrorKind::NotFound`], or the operating system's.
    fn remove_file(&self, may: &MayBlock, path: &Path) -> Result<(), IoError>;

    /// Removes a directory with all that is in it; a missing one is no error.
    ///
    /// # Errors
    /// The operating system's.
    fn remove_dir_all(&self, may: &MayBlock, path: &Path) -> Result<(), IoError>;

    /// The names in a directory, ascending by bytes.
    ///
    /// # Errors
    /// [`IoErrorKind::NotFound`], or the operating system's.
    fn read_dir(&self, may: &MayBlock, path: &Path) -> Result<Vec<Entry>, IoError>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As [`File::sync_data`].
    fn sync_dir(&self, may: &MayBlock, path: &Path) -> Result<(), IoError>;

    /// Whether a file or directory has this name.
    ///
    /// # Errors
    /// The operating system's, other than "not found".
    fn exists(&self, may: &MayBlock, path: &Path) -> Result<bool, IoError>;
}
