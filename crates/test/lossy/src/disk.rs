//! The disk itself.
//!
//! The real directory holds the durable state and nothing else: file contents reach it at
//! `fsync`, names at the sync of their directory (and every earlier change of names with them, as
//! a journal has it). Optionally a thread writes random sectors and name changes back early, so
//! that a kill finds mixtures of old and new as a power cut does.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use env::{
    Access, Cached, Disk, Entropy, Entry, File, FileKind, IoError, IoErrorKind, IoOp, MayBlock,
    Open, SplitMix,
};
use rustix::fs::{FlockOperation, flock};

use crate::fault::Faults;
use crate::inode::Inode;
use crate::names::{Names, Node};

/// A disk over one directory; clones share it.
#[derive(Clone, Debug)]
pub struct LossyDisk {
    names: Arc<Mutex<Names>>,
    faults: Arc<Faults>,
}

fn error(op: IoOp, kind: IoErrorKind, path: &Path, text: &str) -> IoError {
    IoError { op, kind, path: path.to_path_buf(), text: text.to_owned() }
}

/// A failure of the real disk beneath: no test can go on.
fn real<T>(result: std::io::Result<T>) -> T {
    result.expect("the real disk beneath works")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

impl LossyDisk {
    /// The directory `root`, with what survived in it. Files without a durable name lie in
    /// `<root>.limbo`. No other process may use either.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(root: &Path, faults: Faults) -> std::io::Result<Self> {
        let names = Names::load(root, &root.with_extension("limbo"))?;
        Ok(Self { names: Arc::new(Mutex::new(names)), faults: Arc::new(faults) })
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        lock(&self.names)
    }

    /// Writes random sectors and name changes back before their time, for ever.
    ///
    /// # Panics
    /// If no thread can be started.
    pub fn write_back_at_random(&self, seed: u64) {
        let disk = self.clone();
        std::thread::spawn(move || {
            let mut entropy = SplitMix::new(seed);
            loop {
                std::thread::sleep(Duration::from_micros(200 + entropy.below(2_000)));
                disk.write_back(&mut entropy);
            }
        });
    }

    /// Writes some unsynced sectors of one file, and perhaps some name changes.
    pub fn write_back(&self, entropy: &mut dyn Entropy) {
        let files = {
            let mut names = self.names();
            if entropy.below(8) == 0 {
                let count = entropy.below(names.pending() as u64 + 1) as usize;
                real(names.write_back(count));
            }
            names.files()
        };
        if !files.is_empty() {
            let inode = &files[entropy.below(files.len() as u64) as usize];
            let (nth, sectors) = (entropy.below(1 << 20) as usize, entropy.next_u64());
            real(lock(inode).write_back(nth, sectors));
        }
    }
}

#[derive(Debug)]
struct LossyFile {
    inode: Arc<Mutex<Inode>>,
    path: PathBuf,
    faults: Arc<Faults>,
    holds_lock: AtomicBool,
}

impl Drop for LossyFile {
    fn drop(&mut self) {
        if self.holds_lock.load(Ordering::SeqCst) {
            let mut inode = lock(&self.inode);
            inode.locked = false;
            real(flock(inode.real(), FlockOperation::Unlock).map_err(Into::into));
        }
    }
}

impl File for LossyFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(lock(&self.inode).len)
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<Cached, IoError> {
        self.read_at(&MayBlock::on_this_thread(), buf, offset, Access::Point)?;
        Ok(Cached::Hit)
    }

    fn read_at(&self, _: &MayBlock, buf: &mut [u8], offset: u64, _: Access) -> Result<(), IoError> {
        self.faults.check(IoOp::Read, &self.path)?;
        let inode = lock(&self.inode);
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > inode.len) {
            let kind = IoErrorKind::UnexpectedEof;
            return Err(error(IoOp::Read, kind, &self.path, "unexpected EOF"));
        }
        real(inode.read(offset, buf));
        Ok(())
    }

    fn write_vectored_at(
        &self,
        _: &MayBlock,
        bufs: &[IoSlice<'_>],
        mut offset: u64,
    ) -> Result<(), IoError> {
        let fault = self.faults.check(IoOp::Write, &self.path);
        let mut inode = lock(&self.inode);
        if let Err(e) = fault {
            // A failing write leaves a part behind.
            let first = bufs.first().map_or(&[][..], |b| b);
            real(inode.write(offset, &first[..first.len() / 2]));
            return Err(e);
        }
        for buf in bufs {
            real(inode.write(offset, buf));
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn sync_data(&self, _: &MayBlock) -> Result<(), IoError> {
        let fault = self.faults.check(IoOp::Sync, &self.path);
        let mut inode = lock(&self.inode);
        if fault.is_err() {
            inode.fail_sync();
            return fault;
        }
        real(inode.sync());
        Ok(())
    }

    fn sync_all(&self, may: &MayBlock) -> Result<(), IoError> {
        self.sync_data(may)
    }

    fn set_len(&self, _: &MayBlock, len: u64) -> Result<(), IoError> {
        self.faults.check(IoOp::SetLen, &self.path)?;
        lock(&self.inode).set_len(len);
        Ok(())
    }

    fn allocate(&self, _: &MayBlock, len: u64) -> Result<(), IoError> {
        self.faults.check(IoOp::Allocate, &self.path)?;
        let mut inode = lock(&self.inode);
        let longer = inode.len.max(len);
        inode.set_len(longer);
        Ok(())
    }

    fn try_lock(&self) -> Result<(), IoError> {
        let locked = || error(IoOp::Lock, IoErrorKind::Locked, &self.path, "locked elsewhere");
        let mut inode = lock(&self.inode);
        if self.holds_lock.load(Ordering::SeqCst) {
            return Ok(());
        }
        if inode.locked {
            return Err(locked());
        }
        // Another process has its own memory, but the same real file.
        flock(inode.real(), FlockOperation::NonBlockingLockExclusive).map_err(|_| locked())?;
        inode.locked = true;
        self.holds_lock.store(true, Ordering::SeqCst);
        Ok(())
    }
}

impl Disk for LossyDisk {
    fn open(&self, _: &MayBlock, path: &Path, open: Open) -> Result<Arc<dyn File>, IoError> {
        self.faults.check(IoOp::Open, path)?;
        let fail = |kind, text| Err(error(IoOp::Open, kind, path, text));
        let mut names = self.names();
        let inode = match (names.get(path), open) {
            (Some(Node::Dir), _) => return fail(IoErrorKind::Other, "is a directory"),
            (Some(Node::File(_)), Open::CreateNew) => {
                return fail(IoErrorKind::AlreadyExists, "file exists");
            }
            (Some(Node::File(inode)), _) => inode,
            (None, Open::Read | Open::Write) => {
                return fail(IoErrorKind::NotFound, "no such file or directory");
            }
            (None, _) => {
                if !matches!(path.parent().and_then(|p| names.get(p)), Some(Node::Dir)) {
                    return fail(IoErrorKind::NotFound, "no such file or directory");
                }
                let mode = if open == Open::CreateTruncateShared { 0o666 } else { 0o600 };
                real(names.create(path, mode))
            }
        };
        if matches!(open, Open::CreateTruncate | Open::CreateTruncateShared) {
            lock(&inode).set_len(0);
        }
        let (path, faults) = (path.to_path_buf(), Arc::clone(&self.faults));
        Ok(Arc::new(LossyFile { inode, path, faults, holds_lock: AtomicBool::new(false) }))
    }

    fn create_dir_all(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        let mut names = self.names();
        let mut ancestors: Vec<_> = path.ancestors().collect();
        ancestors.reverse();
        for dir in ancestors {
            match names.get(dir) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => {
                    let kind = IoErrorKind::AlreadyExists;
                    return Err(error(IoOp::CreateDir, kind, dir, "not a directory"));
                }
                None => names.make_dir(dir),
            }
        }
        Ok(())
    }

    fn rename(&self, _: &MayBlock, from: &Path, to: &Path) -> Result<(), IoError> {
        self.faults.check(IoOp::Rename, from)?;
        let mut names = self.names();
        if names.get(from).is_none() {
            let kind = IoErrorKind::NotFound;
            return Err(error(IoOp::Rename, kind, from, "no such file or directory"));
        }
        names.rename(from, to);
        Ok(())
    }

    fn remove_file(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.faults.check(IoOp::Remove, path)?;
        let mut names = self.names();
        if !matches!(names.get(path), Some(Node::File(_))) {
            let kind = IoErrorKind::NotFound;
            return Err(error(IoOp::Remove, kind, path, "no such file or directory"));
        }
        names.remove(path);
        Ok(())
    }

    fn remove_dir_all(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.faults.check(IoOp::Remove, path)?;
        let mut names = self.names();
        if names.get(path).is_some() {
            names.remove(path);
        }
        Ok(())
    }

    fn read_dir(&self, _: &MayBlock, path: &Path) -> Result<Vec<Entry>, IoError> {
        let names = self.names();
        if !matches!(names.get(path), Some(Node::Dir)) {
            let kind = IoErrorKind::NotFound;
            return Err(error(IoOp::ReadDir, kind, path, "no such file or directory"));
        }
        let entry = |(path, node): (PathBuf, Node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            let (kind, len) = match node {
                Node::Dir => (FileKind::Directory, 0),
                Node::File(inode) => (FileKind::File, lock(&inode).len),
            };
            Some(Entry { name, kind, len })
        };
        Ok(names.children(path).into_iter().filter_map(entry).collect())
    }

    fn sync_dir(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        self.faults.check(IoOp::SyncDir, path)?;
        real(self.names().sync(path));
        Ok(())
    }

    fn exists(&self, _: &MayBlock, path: &Path) -> Result<bool, IoError> {
        Ok(self.names().get(path).is_some())
    }
}

#[cfg(test)]
mod tests;
