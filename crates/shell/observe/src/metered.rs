//! A disk that measures: writes and flushes of the log, flushes of `.snap` files.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::Metrics;
use env::{Access, Cached, Disk, Entry, File, IoError, MayBlock, Open, Run};

/// Measures what passes through to `disk`.
#[derive(Debug)]
pub struct MeteredDisk {
    /// The disk itself.
    pub disk: Arc<dyn Disk>,
    /// Where the figures go.
    pub metrics: Arc<Metrics>,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Log,
    Snap,
}

/// The files whose flushes etcd measures: segments of the log (`N.tmp` before they are in use) and
/// `.snap` files.
fn kind(path: &Path) -> Option<FileKind> {
    let stem = path.file_stem()?.to_str()?;
    match path.extension()?.to_str()? {
        "wal" => Some(FileKind::Log),
        "tmp" if stem.bytes().all(|b| b.is_ascii_digit()) => Some(FileKind::Log),
        "snap" => Some(FileKind::Snap),
        _ => None,
    }
}

impl Disk for MeteredDisk {
    fn open(&self, may: &MayBlock, path: &Path, open: Open) -> Result<Arc<dyn File>, IoError> {
        let file = self.disk.open(may, path, open)?;
        let Some(kind) = kind(path) else { return Ok(file) };
        let metrics = Arc::clone(&self.metrics);
        Ok(Arc::new(MeteredFile { file, kind, opened: Instant::now(), metrics }))
    }

    fn create_dir_all(&self, may: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.disk.create_dir_all(may, path)
    }

    fn rename(&self, may: &MayBlock, from: &Path, to: &Path) -> Result<(), IoError> {
        self.disk.rename(may, from, to)
    }

    fn remove_file(&self, may: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.disk.remove_file(may, path)
    }

    fn remove_dir_all(&self, may: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.disk.remove_dir_all(may, path)
    }

    fn read_dir(&self, may: &MayBlock, path: &Path) -> Result<Vec<Entry>, IoError> {
        self.disk.read_dir(may, path)
    }

    fn sync_dir(&self, may: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.disk.sync_dir(may, path)
    }

    fn exists(&self, may: &MayBlock, path: &Path) -> Result<bool, IoError> {
        self.disk.exists(may, path)
    }
}

#[derive(Debug)]
struct MeteredFile {
    file: Arc<dyn File>,
    kind: FileKind,
    /// A `.snap` file is opened, written and flushed in one go.
    opened: Instant,
    metrics: Arc<Metrics>,
}

impl MeteredFile {
    fn flush(&self, flush: impl FnOnce(&dyn File) -> Result<(), IoError>) -> Result<(), IoError> {
        let began = Instant::now();
        let result = flush(&*self.file);
        let took = began.elapsed().as_secs_f64();
        match self.kind {
            FileKind::Log => self.metrics.wal_fsync.observe(took),
            FileKind::Snap => {
                self.metrics.snap_fsync.observe(took);
                self.metrics.timings.snap_save.observe(self.opened.elapsed().as_secs_f64());
            }
        }
        result
    }
}

impl File for MeteredFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn len(&self) -> Result<u64, IoError> {
        self.file.len()
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<Cached, IoError> {
        self.file.try_read_at(buf, offset)
    }

    fn read_at(
        &self,
        may: &MayBlock,
        buf: &mut [u8],
        offset: u64,
        access: Access,
    ) -> Result<(), IoError> {
        self.file.read_at(may, buf, offset, access)
    }

    fn read_many(
        &self,
        may: &MayBlock,
        runs: &mut [Run<'_>],
        access: Access,
    ) -> Result<(), IoError> {
        self.file.read_many(may, runs, access)
    }

    fn write_vectored_at(
        &self,
        may: &MayBlock,
        bufs: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<(), IoError> {
        let began = Instant::now();
        self.file.write_vectored_at(may, bufs, offset)?;
        if self.kind == FileKind::Log {
            let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
            self.metrics.wal_write.observe(began.elapsed().as_secs_f64());
            self.metrics.wal_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    fn sync_data(&self, may: &MayBlock) -> Result<(), IoError> {
        self.flush(|file| file.sync_data(may))
    }

    fn sync_all(&self, may: &MayBlock) -> Result<(), IoError> {
        self.flush(|file| file.sync_all(may))
    }

    fn set_len(&self, may: &MayBlock, len: u64) -> Result<(), IoError> {
        self.file.set_len(may, len)
    }

    fn allocate(&self, may: &MayBlock, len: u64) -> Result<(), IoError> {
        self.file.allocate(may, len)
    }

    fn try_lock(&self) -> Result<(), IoError> {
        self.file.try_lock()
    }
}
