//! The simulated disk: [`MemDisk`], which may be made to lie about syncing the log.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use env::mem::MemDisk;
use env::{Access, Cached, Disk, Entry, File, IoError, MayBlock, Open};

/// A disk; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    pub(crate) mem: MemDisk,
    /// Syncs of the log do nothing.
    pub(crate) lies: bool,
}

#[derive(Debug)]
struct LyingFile(Arc<dyn File>);

impl File for LyingFile {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn len(&self) -> Result<u64, IoError> {
        self.0.len()
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<Cached, IoError> {
        self.0.try_read_at(buf, offset)
    }

    fn read_at(
        &self,
        may: &MayBlock,
        buf: &mut [u8],
        offset: u64,
        access: Access,
    ) -> Result<(), IoError> {
        self.0.read_at(may, buf, offset, access)
    }

    fn write_vectored_at(
        &self,
        may: &MayBlock,
        bufs: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<(), IoError> {
        self.0.write_vectored_at(may, bufs, offset)
    }

    fn sync_data(&self, _: &MayBlock) -> Result<(), IoError> {
        Ok(())
    }

    // Segments begin with a real sync: a log that never appears would be found too easily.
    fn sync_all(&self, may: &MayBlock) -> Result<(), IoError> {
        self.0.sync_all(may)
    }

    fn set_len(&self, may: &MayBlock, len: u64) -> Result<(), IoError> {
        self.0.set_len(may, len)
    }

    fn allocate(&self, may: &MayBlock, len: u64) -> Result<(), IoError> {
        self.0.allocate(may, len)
    }

    fn try_lock(&self) -> Result<(), IoError> {
        self.0.try_lock()
    }
}

impl Disk for SimDisk {
    fn open(&self, may: &MayBlock, path: &Path, open: Open) -> Result<Arc<dyn File>, IoError> {
        let file = self.mem.open(may, path, open)?;
        let is_log = path.extension().is_some_and(|e| e == "wal");
        Ok(if self.lies && is_log { Arc::new(LyingFile(file)) } else { file })
    }

    fn create_dir_all(&self, may: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.mem.create_dir_all(may, path)
    }

    fn rename(&self, may: &MayBlock, from: &Path, to: &Path) -> Result<(), IoError> {
        self.mem.rename(may, from, to)
    }

    fn remove_file(&self, may: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.mem.remove_file(may, path)
    }

    fn remove_dir_all(&self, may: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.mem.remove_dir_all(may, path)
    }

    fn read_dir(&self, may: &MayBlock, path: &Path) -> Result<Vec<Entry>, IoError> {
        self.mem.read_dir(may, path)
    }

    fn sync_dir(&self, may: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.mem.sync_dir(may, path)
    }

    fn exists(&self, may: &MayBlock, path: &Path) -> Result<bool, IoError> {
        self.mem.exists(may, path)
    }
}
