//! The open database, owned by its one writer.
//!
//! Owns the lock, the current meta, the freelist and the fences. Invariants: the freelist holds
//! exactly the pages that neither the current state nor a stored freelist page covers, and those
//! that readers wait for; after a failed sync every write is refused.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use env::{Disk, MayBlock};

use crate::error::{OpenError, ReadError};
use crate::fence::Fences;
use crate::freelist::{Freelist, Run};
use crate::meta::Meta;
use crate::read::{ReadTx, State};
use crate::source::Source;
use crate::write::{SuspendedTx, WriteTx};

/// How a database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Page size of a new file, bytes: a power of two from 1 KiB to 16 MiB. An existing file has
    /// its own.
    pub page_size: u32,
    /// The bucket whose keys are revisions (17 bytes, tombstones 18) and for which fences are
    /// kept; etcd's is `key`. With other keys in it, it is served without fences.
    pub fenced_bucket: Option<&'static [u8]>,
}

impl Default for Options {
    fn default() -> Self {
        Self { page_size: 4096, fenced_bucket: None }
    }
}

/// An open database. Dropping it ends writing; readers go on, and the file stays locked until the
/// last of them is dropped.
#[derive(Debug)]
pub struct Db {
    pub(crate) source: Arc<Source>,
    pub(crate) options: Options,
    pub(crate) meta: Meta,
    pub(crate) freelist: Freelist,
    /// The freelist page that Go left in the file; freed by the first commit.
    pub(crate) stored_freelist: Option<Run>,
    pub(crate) fences: Fences,
    pub(crate) file_len: u64,
    pub(crate) poisoned: bool,
}

impl Db {
    /// Opens a database, or makes a new one if the file is missing or empty. Takes the file's
    /// lock, without waiting. Reads every branch page and the leaves of all buckets but the
    /// fenced one.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if another open file holds the lock: wait and try again. The others
    /// mean that the file, the device or the options are at fault.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        may: &MayBlock,
        options: Options,
    ) -> Result<Self, OpenError> {
        crate::open::open(&*disk, path, may, options)
    }

    /// Opens a database that exists, to be read only: nothing is written to the file, whatever it
    /// holds, and it need not be writable. Takes the file's lock as [`Db::open`] does. A write
    /// transaction would fail at its commit.
    ///
    /// # Errors
    /// As [`Db::open`]; an empty file, or one whose creation was cut off, is
    /// [`OpenError::Invalid`].
    pub fn open_to_read(
        disk: Arc<dyn Disk>,
        path: &Path,
        may: &MayBlock,
        options: Options,
    ) -> Result<Self, OpenError> {
        crate::open::open_to_read(&*disk, path, may, options)
    }

    /// The current state, pinned. Touches memory only.
    #[must_use]
    pub fn begin_read(&self) -> ReadTx {
        ReadTx::new(State {
            source: Arc::clone(&self.source),
            meta: self.meta,
            fences: self.fences.clone(),
            fenced_bucket: self.options.fenced_bucket,
            free_pages: self.freelist.free_pages(),
            root_leaf: OnceLock::new(),
        })
    }

    /// Begins the write transaction. Pages that no reader needs any more become free.
    #[must_use]
    pub fn begin_write(&mut self) -> WriteTx<'_> {
        self.release();
        WriteTx::new(self)
    }

    /// Goes on with a write transaction that was put aside. Pages that no reader needs any more
    /// become free.
    ///
    /// # Panics
    /// If it is of another database, or something was committed since it began.
    #[must_use]
    pub fn resume(&mut self, suspended: SuspendedTx) -> WriteTx<'_> {
        self.release();
        WriteTx::resumed(self, suspended)
    }

    fn release(&mut self) {
        // The current state is what the next reader gets, so it counts as pinned.
        let mut readers = self.source.pinned();
        readers.push(self.meta.txid);
        self.freelist.release(&readers);
    }

    /// etcd's database size: high-water mark times page size, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.meta.hwm * self.source.page_size as u64
    }

    /// etcd's size in use: [`Db::size_bytes`] less the free pages (pages that readers still hold
    /// count as used), in bytes.
    #[must_use]
    pub fn size_in_use_bytes(&self) -> u64 {
        (self.meta.hwm - self.freelist.free_pages()) * self.source.page_size as u64
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.meta.page_size
    }

    /// The current state's transaction id.
    #[must_use]
    pub fn txid(&self) -> u64 {
        self.meta.txid
    }

    /// Whether a commit failed so that nothing can be written until the database is reopened.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// [`ReadTx::check`] of the current state, and that every page is used or free, not both.
    ///
    /// # Errors
    /// A failed disk.
    pub fn check(&self, may: &MayBlock) -> Result<Vec<crate::CheckError>, ReadError> {
        let tx = self.begin_read();
        let free: Vec<Run> = self.freelist.runs().collect();
        let stored = self.stored_freelist;
        crate::check::check(&tx.state, may, Some((&free, stored)))
    }
}
