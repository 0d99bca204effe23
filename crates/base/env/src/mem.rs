//! A disk in memory that loses what was not synced.
//!
//! Contents are sparse pages; a page that was written since the last sync remembers its durable
//! image. [`MemDisk::crash`] throws unsynced state away, or keeps a seeded mixture of old and new
//! 512-byte sectors, as a power cut may. Directory changes become durable in order, by
//! [`Disk::sync_dir`]; a crash keeps a prefix of the others. [`Fault`]s fail a chosen operation.
//!
//! Invariants: what was synced survives every crash, byte for byte; an open file that outlives a
//! crash returns errors; nothing depends on time, threads or the order of hash maps.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::IoSlice;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{
    Access, Cached, Disk, Entry, File, FileKind, IoError, IoErrorKind, IoOp, MayBlock, Open,
};
use crate::entropy::Entropy;

const PAGE: u64 = 4096;
const SECTOR: usize = 512;

/// Which operation fails, and how. Operations that can fail are counted from 0 in program order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number of the first operation that fails.
    pub at: u64,
    /// Only operations of this kind are counted and failed; every kind if `None`.
    pub only: Option<IoOp>,
    /// The error that is returned.
    pub kind: IoErrorKind,
    /// Every later operation of that kind fails too (a dead device), or just one (a bad block).
    pub permanent: bool,
    /// A failing write leaves a prefix of its bytes behind, which ends with a whole sector.
    pub torn: bool,
}

type Page = Box<[u8; PAGE as usize]>;

#[derive(Debug, Default)]
struct Inode {
    len: u64,
    durable_len: u64,
    pages: BTreeMap<u64, Page>,
    /// The durable image of each page changed since the last sync; `None` is a page of zeroes.
    undo: BTreeMap<u64, Option<Page>>,
    locked: bool,
}

#[derive(Clone, Debug)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Clone, Debug)]
enum DirOp {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl DirOp {
    fn touches(&self, dir: &Path) -> bool {
        let within = |p: &Path| p.parent() == Some(dir);
        match self {
            DirOp::Link(p, _) | DirOp::Unlink(p) => within(p),
            DirOp::Rename(a, b) => within(a) || within(b),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            DirOp::Link(p, node) => {
                names.insert(p.clone(), node.clone());
            }
            DirOp::Unlink(p) => names.retain(|n, _| !n.starts_with(p)),
            DirOp::Rename(a, b) => {
                let moved: Vec<_> = names
                    .iter()
                    .filter(|(n, _)| n.starts_with(a))
                    .map(|(n, _)| n.clone())
                    .collect();
                names.retain(|n, _| !n.starts_with(b) || n.starts_with(a));
                for old in moved {
                    let node = names.remove(&old).expect("listed above");
                    let rest = old.strip_prefix(a).expect("filtered above");
                    let new = if rest.as_os_str().is_empty() { b.clone() } else { b.join(rest) };
                    names.insert(new, node);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    unsynced: Vec<DirOp>,
    inodes: Vec<Inode>,
    operations: u64,
    flushes: u64,
    counted: u64,
    fault: Option<Fault>,
    capacity: Option<u64>,
    cold: bool,
    cold_blocks: BTreeSet<u64>,
    lying: Option<&'static str>,
}

/// A file system in memory; clones share it.
#[derive(Clone, Debug)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
    /// Cleared by a crash, so that handles from before it fail.
    alive: Arc<Mutex<Arc<AtomicBool>>>,
}

impl Default for MemDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemDisk {
    /// An empty disk with only the root directory, which is durable.
    #[must_use]
    pub fn new() -> Self {
        let mut state = State::default();
        for names in [&mut state.names, &mut state.durable_names] {
            names.insert(PathBuf::from("/"), Node::Dir);
        }
        Self {
            state: Arc::new(Mutex::new(state)),
            alive: Arc::new(Mutex::new(Arc::new(AtomicBool::new(true)))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Fails one (or every later) operation; `None` heals the disk. Counting starts anew.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.counted = 0;
    }

    /// Whether reads that must not wait miss, as if nothing were in the page cache.
    pub fn set_cold(&self, cold: bool) {
        self.state().cold = cold;
    }

    /// The 4 KiB blocks, counted from 0 in every file, that reads which must not wait
    /// miss; replaces those named before.
    pub fn set_cold_blocks(&self, blocks: impl IntoIterator<Item = u64>) {
        self.state().cold_blocks = blocks.into_iter().collect();
    }

    /// `fdatasync` of files with this extension says that it was done, and does nothing.
    pub fn set_lying(&self, extension: Option<&'static str>) {
        self.state().lying = extension;
    }

    /// Bytes of file pages beyond which writes fail with [`IoErrorKind::NoSpace`].
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Operations counted so far that a [`Fault`] could have hit.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Syncs of files and directories so far, those that failed among them.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// Cuts the power: handles die, locks end, and of what was not synced only what `entropy`
    /// chooses survives: a prefix of the name changes, and any mixture of old and new sectors.
    /// Without `entropy` nothing unsynced survives.
    pub fn crash(&self, mut entropy: Option<&mut dyn Entropy>) {
        let mut alive = self.alive.lock().expect("no code panics while it holds this lock");
        alive.store(false, Ordering::SeqCst);
        *alive = Arc::new(AtomicBool::new(true));
        let state = &mut *self.state();
        let keep = match &mut entropy {
            Some(e) => e.below(state.unsynced.len() as u64 + 1) as usize,
            None => 0,
        };
        for op in state.unsynced.drain(..).take(keep) {
            op.apply(&mut state.durable_names);
        }
        state.unsynced.clear();
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            inode.locked = false;
            let grown = inode.len > inode.durable_len;
            let keep_len = grown && entropy.as_mut().is_some_and(|e| e.below(2) == 0);
            for (number, old) in std::mem::take(&mut inode.undo) {
                let mut image = old.unwrap_or_else(|| Box::new([0; PAGE as usize]));
                if let (Some(e), Some(new)) = (&mut entropy, inode.pages.get(&number)) {
                    let choice = e.next_u64();
                    for sector in 0..PAGE as usize / SECTOR {
                        if choice >> sector & 1 == 1 {
                            let at = sector * SECTOR..(sector + 1) * SECTOR;
                            image[at.clone()].copy_from_slice(&new[at]);
                        }
                    }
                }
                inode.pages.insert(number, image);
            }
            if !keep_len {
                inode.truncate(inode.durable_len);
                inode.len = inode.durable_len;
            }
            inode.undo.clear();
            inode.durable_len = inode.len;
        }
    }

    fn error(op: IoOp, kind: IoErrorKind, path: &Path, text: &str) -> IoError {
        IoError { op, kind, path: path.to_path_buf(), text: text.to_owned() }
    }

    /// Counts an operation and returns the planted error if it is the one.
    fn check(state: &mut State, op: IoOp, path: &Path) -> Result<(), IoError> {
        state.operations += 1;
        state.flushes += u64::from(matches!(op, IoOp::Sync | IoOp::SyncDir));
        let Some(fault) = state.fault else { return Ok(()) };
        if fault.only.is_some_and(|only| only != op) {
            return Ok(());
        }
        let number = state.counted;
        state.counted += 1;
        if number == fault.at || (fault.permanent && number > fault.at) {
            return Err(Self::error(op, fault.kind, path, "injected fault"));
        }
        Ok(())
    }

    fn change_name(&self, op: IoOp, path: &Path, change: DirOp) -> Result<(), IoError> {
        let state = &mut *self.state();
        Self::check(state, op, path)?;
        change.apply(&mut state.names);
        state.unsynced.push(change);
        Ok(())
    }
}

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(p) => out.push(p),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

impl Inode {
    fn remember(&mut self, number: u64) {
        if !self.undo.contains_key(&number) {
            self.undo.insert(number, self.pages.get(&number).cloned());
        }
    }

    fn write(&mut self, mut offset: u64, mut buf: &[u8]) {
        while !buf.is_empty() {
            let (number, within) = (offset / PAGE, (offset % PAGE) as usize);
            let n = buf.len().min(PAGE as usize - within);
            self.remember(number);
            let page = self.pages.entry(number).or_insert_with(|| Box::new([0; PAGE as usize]));
            page[within..within + n].copy_from_slice(&buf[..n]);
            buf = &buf[n..];
            offset += n as u64;
        }
        self.len = self.len.max(offset);
    }

    fn read(&self, mut offset: u64, mut buf: &mut [u8]) {
        while !buf.is_empty() {
            let (number, within) = (offset / PAGE, (offset % PAGE) as usize);
            let n = buf.len().min(PAGE as usize - within);
            match self.pages.get(&number) {
                Some(page) => buf[..n].copy_from_slice(&page[within..within + n]),
                None => buf[..n].fill(0),
            }
            buf = &mut buf[n..];
            offset += n as u64;
        }
    }

    /// Drops the bytes from `len` on.
    fn truncate(&mut self, len: u64) {
        let gone: Vec<u64> = self.pages.range(len.div_ceil(PAGE)..).map(|(n, _)| *n).collect();
        for number in gone {
            self.remember(number);
            self.pages.remove(&number);
        }
        if !len.is_multiple_of(PAGE) && self.pages.contains_key(&(len / PAGE)) {
            self.remember(len / PAGE);
            let page = self.pages.get_mut(&(len / PAGE)).expect("checked above");
            page[(len % PAGE) as usize..].fill(0);
        }
    }

    fn sync(&mut self) {
        self.undo.clear();
        self.durable_len = self.len;
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    inode: usize,
    path: PathBuf,
    alive: Arc<AtomicBool>,
    holds_lock: AtomicBool,
}

impl MemFile {
    fn with<T>(
        &self,
        op: IoOp,
        f: impl FnOnce(&mut Inode) -> Result<T, IoError>,
    ) -> Result<T, IoError> {
        let mut state = self.disk.state();
        if !self.alive.load(Ordering::SeqCst) {
            return Err(MemDisk::error(op, IoErrorKind::Other, &self.path, "power lost"));
        }
        MemDisk::check(&mut state, op, &self.path)?;
        f(&mut state.inodes[self.inode])
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        if self.holds_lock.load(Ordering::SeqCst) && self.alive.load(Ordering::SeqCst) {
            self.disk.state().inodes[self.inode].locked = false;
        }
    }
}

impl File for MemFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64, IoError> {
        self.with(IoOp::Stat, |inode| Ok(inode.len))
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<Cached, IoError> {
        self.read_at(&MayBlock::on_this_thread(), buf, offset, Access::Point)?;
        let state = self.disk.state();
        let blocks = offset / PAGE..(offset + buf.len() as u64).div_ceil(PAGE);
        let cold = state.cold || state.cold_blocks.range(blocks).next().is_some();
        Ok(if cold { Cached::Miss } else { Cached::Hit })
    }

    fn read_at(&self, _: &MayBlock, buf: &mut [u8], offset: u64, _: Access) -> Result<(), IoError> {
        self.with(IoOp::Read, |inode| {
            if offset.checked_add(buf.len() as u64).is_none_or(|end| end > inode.len) {
                let kind = IoErrorKind::UnexpectedEof;
                return Err(MemDisk::error(IoOp::Read, kind, &self.path, "unexpected EOF"));
            }
            inode.read(offset, buf);
            Ok(())
        })
    }

    fn write_vectored_at(
        &self,
        _: &MayBlock,
        bufs: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<(), IoError> {
        let mut bytes = Vec::new();
        for buf in bufs {
            bytes.extend_from_slice(buf);
        }
        let mut state = self.disk.state();
        if !self.alive.load(Ordering::SeqCst) {
            return Err(MemDisk::error(IoOp::Write, IoErrorKind::Other, &self.path, "power lost"));
        }
        let fault = MemDisk::check(&mut state, IoOp::Write, &self.path);
        let torn = state.fault.is_some_and(|f| f.torn);
        let used: u64 = state.inodes.iter().map(|i| i.pages.len() as u64 * PAGE).sum();
        let full = state.capacity.is_some_and(|cap| used.saturating_add(bytes.len() as u64) > cap);
        let inode = &mut state.inodes[self.inode];
        match fault {
            Err(e) => {
                if torn {
                    let half = offset + bytes.len() as u64 / 2;
                    let whole = half - half % SECTOR as u64;
                    inode.write(offset, &bytes[..whole.saturating_sub(offset) as usize]);
                }
                Err(e)
            }
            Ok(()) if full => Err(MemDisk::error(
                IoOp::Write,
                IoErrorKind::NoSpace,
                &self.path,
                "no space left on device",
            )),
            Ok(()) => {
                inode.write(offset, &bytes);
                Ok(())
            }
        }
    }

    fn sync_data(&self, may: &MayBlock) -> Result<(), IoError> {
        let lying = self.disk.state().lying.map(OsStr::new);
        if lying.is_some() && lying == self.path.extension() {
            return self.with(IoOp::Sync, |_| Ok(()));
        }
        self.sync_all(may)
    }

    fn sync_all(&self, _: &MayBlock) -> Result<(), IoError> {
        self.with(IoOp::Sync, |inode| {
            inode.sync();
            Ok(())
        })
    }

    fn set_len(&self, _: &MayBlock, len: u64) -> Result<(), IoError> {
        self.with(IoOp::SetLen, |inode| {
            inode.truncate(len);
            inode.len = len;
            Ok(())
        })
    }

    fn allocate(&self, _: &MayBlock, len: u64) -> Result<(), IoError> {
        self.with(IoOp::Allocate, |inode| {
            inode.len = inode.len.max(len);
            Ok(())
        })
    }

    fn try_lock(&self) -> Result<(), IoError> {
        self.with(IoOp::Lock, |inode| {
            if inode.locked && !self.holds_lock.load(Ordering::SeqCst) {
                let kind = IoErrorKind::Locked;
                return Err(MemDisk::error(IoOp::Lock, kind, &self.path, "locked elsewhere"));
            }
            inode.locked = true;
            self.holds_lock.store(true, Ordering::SeqCst);
            Ok(())
        })
    }
}

impl Disk for MemDisk {
    fn open(&self, may: &MayBlock, path: &Path, open: Open) -> Result<Arc<dyn File>, IoError> {
        let path = normal(path);
        let alive = self.alive.lock().expect("no code panics while it holds this lock").clone();
        let inode = {
            let state = &mut *self.state();
            Self::check(state, IoOp::Open, &path)?;
            let fail = |kind, text| Err(Self::error(IoOp::Open, kind, &path, text));
            match (state.names.get(&path), open) {
                (Some(Node::Dir), _) => return fail(IoErrorKind::Other, "is a directory"),
                (Some(Node::File(_)), Open::CreateNew) => {
                    return fail(IoErrorKind::AlreadyExists, "file exists");
                }
                (Some(Node::File(inode)), _) => *inode,
                (None, Open::Read | Open::Write) => {
                    return fail(IoErrorKind::NotFound, "no such file or directory");
                }
                (None, _) => {
                    let parent = path.parent().unwrap_or(Path::new("/"));
                    if !matches!(state.names.get(parent), Some(Node::Dir)) {
                        return fail(IoErrorKind::NotFound, "no such file or directory");
                    }
                    let inode = state.inodes.len();
                    state.inodes.push(Inode::default());
                    let op = DirOp::Link(path.clone(), Node::File(inode));
                    op.apply(&mut state.names);
                    state.unsynced.push(op);
                    inode
                }
            }
        };
        let file =
            MemFile { disk: self.clone(), inode, path, alive, holds_lock: AtomicBool::new(false) };
        if matches!(open, Open::CreateTruncate | Open::CreateTruncateShared) {
            file.set_len(may, 0)?;
        }
        Ok(Arc::new(file))
    }

    fn create_dir_all(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        let path = normal(path);
        let state = &mut *self.state();
        Self::check(state, IoOp::CreateDir, &path)?;
        let mut ancestors: Vec<_> = path.ancestors().collect();
        ancestors.reverse();
        for dir in ancestors {
            match state.names.get(dir) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => {
                    let kind = IoErrorKind::AlreadyExists;
                    return Err(Self::error(IoOp::CreateDir, kind, dir, "not a directory"));
                }
                None => {
                    let op = DirOp::Link(dir.to_path_buf(), Node::Dir);
                    op.apply(&mut state.names);
                    state.unsynced.push(op);
                }
            }
        }
        Ok(())
    }

    fn rename(&self, _: &MayBlock, from: &Path, to: &Path) -> Result<(), IoError> {
        let (from, to) = (normal(from), normal(to));
        if !self.state().names.contains_key(&from) {
            let kind = IoErrorKind::NotFound;
            return Err(Self::error(IoOp::Rename, kind, &from, "no such file or directory"));
        }
        let change = DirOp::Rename(from.clone(), to);
        self.change_name(IoOp::Rename, &from, change)
    }

    fn remove_file(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        let path = normal(path);
        if !matches!(self.state().names.get(&path), Some(Node::File(_))) {
            let kind = IoErrorKind::NotFound;
            return Err(Self::error(IoOp::Remove, kind, &path, "no such file or directory"));
        }
        self.change_name(IoOp::Remove, &path, DirOp::Unlink(path.clone()))
    }

    fn remove_dir_all(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        let path = normal(path);
        self.change_name(IoOp::Remove, &path, DirOp::Unlink(path.clone()))
    }

    fn read_dir(&self, _: &MayBlock, path: &Path) -> Result<Vec<Entry>, IoError> {
        let path = normal(path);
        let state = &mut *self.state();
        Self::check(state, IoOp::ReadDir, &path)?;
        if !matches!(state.names.get(&path), Some(Node::Dir)) {
            let kind = IoErrorKind::NotFound;
            return Err(Self::error(IoOp::ReadDir, kind, &path, "no such file or directory"));
        }
        let mut entries = Vec::new();
        for (name, node) in &state.names {
            let Some(last) = name.file_name().filter(|_| name.parent() == Some(&path)) else {
                continue;
            };
            let Some(name) = last.to_str() else { continue };
            let (kind, len) = match node {
                Node::Dir => (FileKind::Directory, 0),
                Node::File(inode) => (FileKind::File, state.inodes[*inode].len),
            };
            entries.push(Entry { name: name.to_owned(), kind, len });
        }
        Ok(entries)
    }

    fn sync_dir(&self, _: &MayBlock, path: &Path) -> Result<(), IoError> {
        let path = normal(path);
        let state = &mut *self.state();
        Self::check(state, IoOp::SyncDir, &path)?;
        // Names change in order in the journals of common file systems: syncing one directory
        // carries every earlier change along.
        let Some(last) = state.unsynced.iter().rposition(|op| op.touches(&path)) else {
            return Ok(());
        };
        for op in state.unsynced.drain(..=last) {
            op.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn exists(&self, _: &MayBlock, path: &Path) -> Result<bool, IoError> {
        let path = normal(path);
        let state = &mut *self.state();
        Self::check(state, IoOp::Stat, &path)?;
        Ok(state.names.contains_key(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SplitMix;

    fn may() -> MayBlock {
        MayBlock::on_this_thread()
    }

    fn read(file: &dyn File, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        file.read_at(&may(), &mut buf, offset, Access::Point).unwrap();
        buf
    }

    #[test]
    fn a_cold_disk_answers_only_reads_that_may_wait() {
        let disk = MemDisk::new();
        let file = disk.open(&may(), Path::new("/f"), Open::CreateNew).unwrap();
        file.write_at(&may(), b"bytes", 0).unwrap();
        assert_eq!(file.try_read_at(&mut [0; 5], 0), Ok(Cached::Hit));
        disk.set_cold(true);
        assert_eq!(file.try_read_at(&mut [0; 5], 0), Ok(Cached::Miss));
        assert_eq!(read(&*file, 0, 5), b"bytes");
        assert!(file.try_read_at(&mut [0; 6], 0).is_err(), "past the end is never a miss");
        disk.set_cold(false);
        disk.set_cold_blocks([1]);
        assert_eq!(file.try_read_at(&mut [0; 5], 0), Ok(Cached::Hit));
        disk.set_cold_blocks([0]);
        assert_eq!(file.try_read_at(&mut [0; 5], 0), Ok(Cached::Miss));
    }

    #[test]
    fn a_crash_keeps_synced_bytes_and_drops_the_others() {
        let disk = MemDisk::new();
        let path = Path::new("/f");
        let file = disk.open(&may(), path, Open::CreateNew).unwrap();
        file.write_at(&may(), b"durable", 0).unwrap();
        file.sync_data(&may()).unwrap();
        disk.sync_dir(&may(), Path::new("/")).unwrap();
        file.write_at(&may(), b"unsynced tail", 3).unwrap();
        disk.crash(None);
        assert!(file.write_at(&may(), b"x", 0).is_err(), "a handle from before the crash is dead");
        let file = disk.open(&may(), path, Open::Read).unwrap();
        assert_eq!(file.len().unwrap(), 7);
        assert_eq!(read(&*file, 0, 7), b"durable");
    }

    #[test]
    fn a_lying_disk_loses_what_it_said_was_durable() {
        let disk = MemDisk::new();
        disk.set_lying(Some("wal"));
        for (path, kept) in [("/a.wal", 3), ("/b.db", 6)] {
            let file = disk.open(&may(), Path::new(path), Open::CreateNew).unwrap();
            file.write_at(&may(), b"all", 0).unwrap();
            file.sync_all(&may()).unwrap();
            disk.sync_dir(&may(), Path::new("/")).unwrap();
            file.write_at(&may(), b"more", 2).unwrap();
            file.sync_data(&may()).unwrap();
            disk.crash(None);
            let file = disk.open(&may(), Path::new(path), Open::Read).unwrap();
            assert_eq!(file.len().unwrap(), kept);
        }
    }

    #[test]
    fn a_crash_loses_names_that_were_not_synced() {
        let disk = MemDisk::new();
        disk.create_dir_all(&may(), Path::new("/d")).unwrap();
        disk.sync_dir(&may(), Path::new("/")).unwrap();
        disk.open(&may(), Path::new("/d/a"), Open::CreateNew).unwrap();
        disk.crash(None);
        assert!(!disk.exists(&may(), Path::new("/d/a")).unwrap());
        assert!(disk.exists(&may(), Path::new("/d")).unwrap());
    }

    #[test]
    fn a_torn_write_is_a_mixture_of_sectors() {
        let mut mixed = false;
        for seed in 0..64 {
            let disk = MemDisk::new();
            let path = Path::new("/f");
            let file = disk.open(&may(), path, Open::CreateNew).unwrap();
            file.write_at(&may(), &[1; 4096], 0).unwrap();
            file.sync_data(&may()).unwrap();
            disk.sync_dir(&may(), Path::new("/")).unwrap();
            file.write_at(&may(), &[2; 4096], 0).unwrap();
            disk.crash(Some(&mut SplitMix::new(seed)));
            let got = read(&*disk.open(&may(), path, Open::Read).unwrap(), 0, 4096);
            for sector in got.chunks(SECTOR) {
                assert!(sector.iter().all(|b| *b == sector[0]), "sectors are atomic");
            }
            mixed |= got.contains(&1) && got.contains(&2);
        }
        assert!(mixed);
    }

    #[test]
    fn renaming_a_directory_moves_what_is_in_it() {
        let disk = MemDisk::new();
        disk.create_dir_all(&may(), Path::new("/a.tmp")).unwrap();
        disk.open(&may(), Path::new("/a.tmp/f"), Open::CreateNew).unwrap();
        disk.rename(&may(), Path::new("/a.tmp"), Path::new("/a")).unwrap();
        disk.sync_dir(&may(), Path::new("/")).unwrap();
        disk.crash(None);
        let names = disk.read_dir(&may(), Path::new("/a")).unwrap();
        assert_eq!(names.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["f"]);
    }

    #[test]
    fn shrinking_and_growing_shows_zeroes() {
        let disk = MemDisk::new();
        let file = disk.open(&may(), Path::new("/f"), Open::CreateNew).unwrap();
        file.write_at(&may(), &[7; 9000], 0).unwrap();
        file.set_len(&may(), 100).unwrap();
        file.set_len(&may(), 9000).unwrap();
        assert_eq!(read(&*file, 99, 2), [7, 0]);
        assert_eq!(read(&*file, 8000, 1000), vec![0; 1000]);
    }

    #[test]
    fn a_fault_hits_the_chosen_operation() {
        let disk = MemDisk::new();
        let file = disk.open(&may(), Path::new("/f"), Open::CreateNew).unwrap();
        disk.set_fault(Some(Fault {
            at: 1,
            only: Some(IoOp::Sync),
            kind: IoErrorKind::Other,
            permanent: false,
            torn: false,
        }));
        file.sync_data(&may()).unwrap();
        assert_eq!(file.sync_data(&may()).unwrap_err().kind, IoErrorKind::Other);
        file.sync_data(&may()).unwrap();
    }
}
