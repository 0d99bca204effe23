//! The real disk.
//!
//! Positioned I/O on plain descriptors, no memory maps: a bad block is an error, never a signal.
//! `try_read_at` uses `preadv2(RWF_NOWAIT)`; file systems that refuse the flag always miss, and
//! the caller reads again where it may block.

use std::fs::OpenOptions;
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use env::{
    Access, Cached, Disk, Entry, File, FileKind, IoError, IoErrorKind, IoOp, MayBlock, Open,
};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

#[derive(Debug)]
struct OsFile {
    file: std::fs::File,
    path: PathBuf,
}

fn error(op: IoOp, path: &Path, source: &std::io::Error) -> IoError {
    use std::io::ErrorKind as Kind;
    let kind = match source.kind() {
        Kind::NotFound => IoErrorKind::NotFound,
        Kind::AlreadyExists => IoErrorKind::AlreadyExists,
        Kind::PermissionDenied => IoErrorKind::PermissionDenied,
        Kind::StorageFull | Kind::QuotaExceeded => IoErrorKind::NoSpace,
        Kind::UnexpectedEof => IoErrorKind::UnexpectedEof,
        Kind::WouldBlock => IoErrorKind::Locked,
        Kind::Unsupported => IoErrorKind::Unsupported,
        _ => IoErrorKind::Other,
    };
    IoError { op, kind, path: path.to_path_buf(), text: crate::error_text(source) }
}

/// What a path names: an empty one, as [`Path::parent`] gives for a name alone, is the current
/// directory.
fn named(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

impl OsFile {
    fn fail(&self, op: IoOp) -> impl FnOnce(std::io::Error) -> IoError + '_ {
        move |e| error(op, &self.path, &e)
    }

    fn fail_errno(&self, op: IoOp) -> impl FnOnce(Errno) -> IoError + '_ {
        move |e| error(op, &self.path, &e.into())
    }
}

impl File for OsFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.file.metadata().map_err(self.fail(IoOp::Stat))?.len())
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<Cached, IoError> {
        let wanted = buf.len();
        match preadv2(&self.file, &mut [IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT) {
            Ok(n) if n == wanted => Ok(Cached::Hit),
            Ok(0) => Err(IoError {
                op: IoOp::Read,
                kind: IoErrorKind::UnexpectedEof,
                path: self.path.clone(),
                text: "unexpected EOF".to_owned(),
            }),
            // Short, would block, refused, or failed: the blocking read tells which.
            Ok(_) | Err(_) => Ok(Cached::Miss),
        }
    }

    fn read_at(&self, _: &MayBlock, buf: &mut [u8], offset: u64, _: Access) -> Result<(), IoError> {
        self.file.read_exact_at(buf, offset).map_err(self.fail(IoOp::Read))
    }

    fn write_vectored_at(
        &self,
        _: &MayBlock,
        bufs: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<(), IoError> {
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        let written = match bufs {
            [one] => {
                return self.file.write_all_at(one, offset).map_err(self.fail(IoOp::Write));
            }
            // IOV_MAX is 1024 on Linux; what is beyond it goes the slow way below.
            many => loop {
                match rustix::io::pwritev(&self.file, &many[..many.len().min(1024)], offset) {
                    Err(Errno::INTR) => {}
                    result => break result.map_err(self.fail_errno(IoOp::Write))?,
                }
            },
        };
        if written == total {
            return Ok(());
        }
        let (mut skip, mut at) = (written, offset + written as u64);
        for buf in bufs {
            let gone = skip.min(buf.len());
            skip -= gone;
            if gone < buf.len() {
                self.file.write_all_at(&buf[gone..], at).map_err(self.fail(IoOp::Write))?;
                at += (buf.len() - gone) as u64;
            }
        }
        Ok(())
    }

    fn sync_data(&self, _: &MayBlock) -> Result<(), IoError> {
        self.file.sync_data().map_err(self.fail(IoOp::Sync))
    }

    fn sync_all(&self, _: &MayBlock) -> Result<(), IoError> {
        self.file.sync_all().map_err(self.fail(IoOp::Sync))
    }

    fn set_len(&self, _: &MayBlock, len: u64) -> Result<(), IoError> {
        self.file.set_len(len).map_err(self.fail(IoOp::SetLen))
    }

    fn allocate(&self, may: &MayBlock, len: u64) -> Result<(), IoError> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // As etcd does where the file system cannot reserve: a sparse file of that length.
            //= etcd 3.7.1: client/pkg/fileutil/preallocate_unix.go#preallocExtend
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {
                if self.len()? < len {
                    self.set_len(may, len)
                } else {
                    Ok(())
                }
            }
            Err(e) => Err(self.fail_errno(IoOp::Allocate)(e)),
        }
    }

    fn try_lock(&self) -> Result<(), IoError> {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(self.fail_errno(IoOp::Lock))
    }
}

impl Disk for OsDisk {
    fn open(&self, _: &MayBlock, path: &Path, open: Open) -> Result<Arc<dyn File>, IoError> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match open {
            Open::Read => {}
            Open::Write => {
                options.write(true);
            }
            Open::CreateOrWrite => {
                options.write(true).create(true);
            }
            Open::CreateNew => {
                options.write(true).create_new(true);
            }
            Open::CreateTruncate => {
                options.write(true).create(true).truncate(true);
            }
            Open::CreateTruncateShared => {
                options.write(true).create(true).truncate(true).mode(0o666);
            }
        }
        let file = options.open(path).map_err(|e| error(IoOp::Open, path, &e))?;
        Ok(Arc::new(OsFile { file, path: path.to_path_buf() }))
    }

    fn create_dir_all(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(named(path)).map_err(|e| error(IoOp::CreateDir, path, &e))
    }

    fn rename(&self, _: &MayBlock, from: &Path, to: &Path) -> Result<(), IoError> {
        std::fs::rename(from, to).map_err(|e| error(IoOp::Rename, from, &e))
    }

    fn remove_file(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        std::fs::remove_file(path).map_err(|e| error(IoOp::Remove, path, &e))
    }

    fn remove_dir_all(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        match std::fs::remove_dir_all(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|e| error(IoOp::Remove, path, &e)),
        }
    }

    fn read_dir(&self, _: &MayBlock, path: &Path) -> Result<Vec<Entry>, IoError> {
        let fail = |e: std::io::Error| error(IoOp::ReadDir, path, &e);
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(named(path)).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = match entry.metadata() {
                // Removed between the listing and the look.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                result => result.map_err(fail)?,
            };
            let (kind, len) = if metadata.is_dir() {
                (FileKind::Directory, 0)
            } else {
                (FileKind::File, metadata.len())
            };
            entries.push(Entry { name, kind, len });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn sync_dir(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        let fail = |e: std::io::Error| error(IoOp::SyncDir, path, &e);
        std::fs::File::open(named(path)).map_err(fail)?.sync_all().map_err(fail)
    }

    fn exists(&self, _: &MayBlock, path: &Path) -> Result<bool, IoError> {
        named(path).try_exists().map_err(|e| error(IoOp::Stat, path, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_buffers_land_one_after_another() {
        let dir = tempfile::tempdir().unwrap();
        let may = MayBlock::on_this_thread();
        let file = OsDisk.open(&may, &dir.path().join("f"), Open::CreateNew).unwrap();
        let pieces: Vec<Vec<u8>> = (0..3000u32).map(|i| vec![i as u8; 7]).collect();
        let slices: Vec<_> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        file.write_vectored_at(&may, &slices, 5).unwrap();
        let mut got = vec![0; 21_000];
        file.read_at(&may, &mut got, 5, Access::Scan).unwrap();
        assert_eq!(got, pieces.concat());
    }

    #[test]
    fn an_empty_path_is_the_current_directory() {
        let may = MayBlock::on_this_thread();
        let parent = Path::new("a-name-alone").parent().unwrap();
        OsDisk.create_dir_all(&may, parent).unwrap();
        OsDisk.sync_dir(&may, parent).unwrap();
        assert!(OsDisk.exists(&may, parent).unwrap());
        assert!(!OsDisk.read_dir(&may, parent).unwrap().is_empty());
    }

    #[test]
    fn a_second_open_file_cannot_lock() {
        let dir = tempfile::tempdir().unwrap();
        let may = MayBlock::on_this_thread();
        let path = dir.path().join("f");
        let first = OsDisk.open(&may, &path, Open::CreateOrWrite).unwrap();
        let second = OsDisk.open(&may, &path, Open::CreateOrWrite).unwrap();
        first.try_lock().unwrap();
        assert_eq!(second.try_lock().unwrap_err().kind, IoErrorKind::Locked);
        drop(first);
        second.try_lock().unwrap();
    }

    #[test]
    fn reading_past_the_end_is_an_error_either_way() {
        let dir = tempfile::tempdir().unwrap();
        let may = MayBlock::on_this_thread();
        let file = OsDisk.open(&may, &dir.path().join("f"), Open::CreateNew).unwrap();
        file.write_at(&may, b"abc", 0).unwrap();
        let mut buf = [0; 2];
        let at_end = file.try_read_at(&mut buf, 3);
        assert!(matches!(at_end, Err(IoError { kind: IoErrorKind::UnexpectedEof, .. })));
        let blocking = file.read_at(&may, &mut buf, 2, Access::Point);
        assert_eq!(blocking.unwrap_err().kind, IoErrorKind::UnexpectedEof);
    }

    #[test]
    fn files_and_directories_get_etcds_modes() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let may = MayBlock::on_this_thread();
        let member = dir.path().join("d/member");
        OsDisk.create_dir_all(&may, &member).unwrap();
        OsDisk.open(&may, &member.join("db"), Open::CreateNew).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&member), mode(&member.join("db"))), (0o700, 0o600));
    }
}
