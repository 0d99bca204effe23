//! Opening: the file, its lock, the meta, and the walk that finds free pages and fences.
//!
//! The walk reads each branch page once. Leaves are read whole where buckets may be nested in
//! them; for the fenced bucket only the headers of leaves with a gap behind them (FORMAT.md, "Free
//! pages"). Invariant: a file that would make two owners of one page is refused.

use std::path::Path;
use std::sync::Arc;

use env::{Access, Disk, File, MayBlock, Open};

use crate::db::{Db, Options};
use crate::error::{Corruption, Flaw, OpenError, ReadError};
use crate::fence::{FenceKey, FenceTree, Fences, Leaf};
use crate::freelist::{Freelist, Run};
use crate::meta::{META_PAGE_LEN, Meta, NO_FREELIST, Parsed};
use crate::page::{
    BUCKET, FIRST_DATA_PAGE, FREELIST, HEADER, Header, LEAF, MAX_DEPTH, Page, Root, parse_bucket,
    wrong_type,
};
use crate::source::Source;

const MIN_PAGE_SIZE: u32 = 1024;
const MAX_PAGE_SIZE: u32 = 1024 << 14;
const NEW_FILE_PAGES: usize = 4;

pub(crate) fn open(
    disk: &dyn Disk,
    path: &Path,
    may: &MayBlock,
    options: Options,
) -> Result<Db, OpenError> {
    check_page_size(options.page_size)?;
    let file = disk.open(may, path, Open::CreateOrWrite)?;
    file.try_lock()?;
    let mut found = if file.len()? == 0 { None } else { find_meta(&*file, may, options)? };
    if found.is_none() {
        create(&*file, may, options.page_size)?;
        if let Some(parent) = path.parent() {
            disk.sync_dir(may, parent)?;
        }
        found = find_meta(&*file, may, options)?;
    }
    let meta = found.ok_or(OpenError::Invalid)?;
    walk(file, may, meta, options)
}

pub(crate) fn open_to_read(
    disk: &dyn Disk,
    path: &Path,
    may: &MayBlock,
    options: Options,
) -> Result<Db, OpenError> {
    let file = disk.open(may, path, Open::Read)?;
    file.try_lock()?;
    let meta = find_meta(&*file, may, options)?.ok_or(OpenError::Invalid)?;
    walk(file, may, meta, options)
}

/// Finds what is free and where the fences stand.
fn walk(
    file: Arc<dyn File>,
    may: &MayBlock,
    meta: Meta,
    options: Options,
) -> Result<Db, OpenError> {
    let file_len = file.len()?;
    let pages = file_len / u64::from(meta.page_size);
    if meta.hwm > pages || !(FIRST_DATA_PAGE..meta.hwm).contains(&meta.root) {
        return Err(Corruption::new(meta.txid % 2, Flaw::Meta).into());
    }
    let source = Arc::new(Source::new(file, meta.page_size as usize));
    let mut walk = Walk { source: &source, may, meta, used: Bits::new(meta.hwm) };
    let stored_freelist = walk.stored_freelist()?;
    let fences = walk.trees(options.fenced_bucket)?;
    let mut freelist = Freelist::default();
    for run in walk.used.gaps(FIRST_DATA_PAGE, meta.hwm) {
        freelist.add(run);
    }
    Ok(Db { source, options, meta, freelist, stored_freelist, fences, file_len, poisoned: false })
}

fn check_page_size(size: u32) -> Result<(), OpenError> {
    let fits = size.is_power_of_two() && (MIN_PAGE_SIZE..=MAX_PAGE_SIZE).contains(&size);
    if fits { Ok(()) } else { Err(OpenError::PageSize(size)) }
}

/// Writes an empty database: first the pages, then, when they are durable, the metas.
fn create(file: &dyn File, may: &MayBlock, page_size: u32) -> Result<(), OpenError> {
    let ps = page_size as usize;
    let mut bytes = vec![0; NEW_FILE_PAGES * ps];
    Header { id: 2, flags: FREELIST, count: 0, overflow: 0 }.write(&mut bytes[2 * ps..]);
    Header { id: 3, flags: LEAF, count: 0, overflow: 0 }.write(&mut bytes[3 * ps..]);
    file.write_at(may, &bytes, 0)?;
    file.sync_all(may)?;
    for txid in 0..2u64 {
        let meta = Meta { page_size, root: 3, sequence: 0, freelist: 2, hwm: 4, txid };
        meta.write(txid, &mut bytes[txid as usize * ps..]);
    }
    file.write_at(may, &bytes[..2 * ps], 0)?;
    file.sync_all(may)?;
    Ok(())
}

/// The valid meta with the highest transaction; `None` if the creation of the file was cut off.
//= bbolt 1.5.0: db.go#DB.getPageSize
fn find_meta(file: &dyn File, may: &MayBlock, options: Options) -> Result<Option<Meta>, OpenError> {
    let len = file.len()?;
    let read = |at: u64| -> Result<Parsed, OpenError> {
        let mut bytes = [0; META_PAGE_LEN];
        if at + META_PAGE_LEN as u64 > len {
            return Ok(Parsed::Invalid);
        }
        file.read_at(may, &mut bytes, at, Access::Point)?;
        Ok(Meta::parse(&bytes))
    };
    let mut unknown = None;
    let mut keep = |parsed: Parsed| match parsed {
        Parsed::Valid(meta) => Some(meta),
        Parsed::Version(v) => {
            unknown = Some(v);
            None
        }
        Parsed::Invalid => None,
    };
    let zero = keep(read(0)?);
    let one = match zero {
        Some(meta) => keep(read(u64::from(meta.page_size))?),
        None => {
            let mut one = None;
            for shift in 0..=14 {
                let at = 1024u64 << shift;
                one = keep(read(at)?).filter(|meta| u64::from(meta.page_size) == at);
                if one.is_some() {
                    break;
                }
            }
            one
        }
    };
    let best = match (zero, one) {
        (Some(a), Some(b)) if b.txid > a.txid => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    };
    if let Some(meta) = best {
        check_page_size(meta.page_size)?;
        return Ok(Some(meta));
    }
    if let Some(version) = unknown {
        return Err(OpenError::Version(version));
    }
    let ps = u64::from(options.page_size);
    if len > NEW_FILE_PAGES as u64 * ps {
        return Err(OpenError::Invalid);
    }
    let mut bytes = vec![0; len.min(2 * ps) as usize];
    file.read_at(may, &mut bytes, 0, Access::Point)?;
    if bytes.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(OpenError::Invalid) }
}

/// One bit per page.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: u64) -> Self {
        Self(vec![0; len.div_ceil(64) as usize])
    }

    fn get(&self, i: u64) -> bool {
        self.0[(i / 64) as usize] >> (i % 64) & 1 == 1
    }

    /// Sets a bit; says whether it was clear.
    fn set(&mut self, i: u64) -> bool {
        let word = &mut self.0[(i / 64) as usize];
        let clear = *word >> (i % 64) & 1 == 0;
        *word |= 1 << (i % 64);
        clear
    }

    /// Runs of clear bits in `from..to`, ascending.
    fn gaps(&self, from: u64, to: u64) -> Vec<Run> {
        let mut gaps = Vec::new();
        let mut page = from;
        while page < to {
            if self.get(page) {
                page += 1;
                continue;
            }
            let start = page;
            while page < to && !self.get(page) {
                page += 1;
            }
            gaps.push(Run { page: start, len: page - start });
        }
        gaps
    }
}

struct Walk<'a> {
    source: &'a Source,
    may: &'a MayBlock,
    meta: Meta,
    used: Bits,
}

impl Walk<'_> {
    fn mark(&mut self, page: u64, len: u64) -> Result<(), Corruption> {
        for id in page..page + len {
            if !self.used.set(id) {
                return Err(Corruption::new(id, Flaw::Twice));
            }
        }
        Ok(())
    }

    /// The freelist page of a Go file: it counts as used until our first commit.
    fn stored_freelist(&mut self) -> Result<Option<Run>, OpenError> {
        let Meta { freelist: page, hwm, .. } = self.meta;
        if page == NO_FREELIST {
            return Ok(None);
        }
        if !(FIRST_DATA_PAGE..hwm).contains(&page) {
            return Err(Corruption::new(self.meta.txid % 2, Flaw::Meta).into());
        }
        let header = self.header(page)?;
        let len = u64::from(header.overflow) + 1;
        if header.id != page {
            return Err(Corruption::new(page, Flaw::Id).into());
        }
        if header.flags != FREELIST {
            return Err(Corruption::new(page, wrong_type(header.flags)).into());
        }
        if len > hwm - page {
            return Err(Corruption::new(page, Flaw::Overflow).into());
        }
        self.mark(page, len)?;
        Ok(Some(Run { page, len }))
    }

    fn header(&self, page: u64) -> Result<Header, ReadError> {
        let mut bytes = [0; HEADER];
        let at = self.source.offset(page);
        self.source.file.read_at(self.may, &mut bytes, at, Access::Point)?;
        Ok(Header::read(&bytes))
    }

    /// Marks every page of every bucket and builds the fences.
    fn trees(&mut self, fenced: Option<&'static [u8]>) -> Result<Fences, OpenError> {
        let mut fences = if fenced.is_some() { Fences::Missing } else { Fences::Unknown };
        let (mut fenced_root, hwm) = (None, self.meta.hwm);
        let mut level = vec![self.meta.root];
        // Buckets below the root bucket, found on the way.
        let mut buckets = Vec::new();
        for _ in 0..MAX_DEPTH {
            level = self.level(&level, |page, i| {
                let (root, _) = parse_bucket(&page.value_bytes(i), page.id(), hwm)?;
                if fenced == Some(page.view().key(i)) {
                    match root {
                        Root::Page(root) => fenced_root = Some(root),
                        Root::Inline(page) => fences = Fences::Inline(page),
                    }
                } else if let Root::Page(root) = root {
                    buckets.push(root);
                }
                Ok(())
            })?;
            if level.is_empty() {
                break;
            }
        }
        if !level.is_empty() {
            return Err(Corruption::new(level[0], Flaw::Depth).into());
        }
        for root in buckets {
            self.bucket(root)?;
        }
        let Some(root) = fenced_root else { return Ok(fences) };
        match self.fenced(root)? {
            Some(leaves) => {
                let leaves = self.overflows(leaves)?;
                // Their order was checked, so what may not fit is a page id.
                Ok(FenceTree::build(leaves).map_or(Fences::Unknown, Fences::Tree))
            }
            None => Ok(Fences::Unknown),
        }
    }

    /// Marks the pages of one level of a tree, calls `bucket` for each bucket element in leaves
    /// and returns the children.
    fn level(
        &mut self,
        level: &[u64],
        mut bucket: impl FnMut(&Page, usize) -> Result<(), Corruption>,
    ) -> Result<Vec<u64>, OpenError> {
        let mut next = Vec::new();
        for ids in level.chunks(64) {
            for page in self.source.pages(self.may, ids, self.meta.hwm, Access::Scan)? {
                self.mark(page.id(), u64::from(page.overflow()) + 1)?;
                let view = page.view();
                for i in 0..view.count() {
                    if !view.is_leaf() {
                        next.push(view.child(i));
                    } else if view.flags(i) & BUCKET != 0 {
                        bucket(&page, i)?;
                    }
                }
            }
        }
        if next.len() as u64 > self.meta.hwm {
            return Err(Corruption::new(next[0], Flaw::Twice).into());
        }
        Ok(next)
    }

    /// Marks a bucket's tree and all buckets nested in it.
    fn bucket(&mut self, root: u64) -> Result<(), OpenError> {
        let mut level = vec![root];
        let hwm = self.meta.hwm;
        // Nested buckets join the next level, so the bound is on pages, not on depth: a page that
        // is met twice is an error, thus the walk ends.
        while !level.is_empty() {
            let mut nested = Vec::new();
            let mut next = self.level(&level, |page, i| {
                let (root, _) = parse_bucket(&page.value_bytes(i), page.id(), hwm)?;
                if let Root::Page(root) = root {
                    nested.push(root);
                }
                Ok(())
            })?;
            next.append(&mut nested);
            level = next;
        }
        Ok(())
    }

    /// Walks the branches of the fenced bucket; returns its leaves, marked by their first pages,
    /// or `None` if it has other keys (its tree is marked whole then).
    fn fenced(&mut self, root: u64) -> Result<Option<Vec<Leaf>>, OpenError> {
        let (source, may, hwm) = (self.source, self.may, self.meta.hwm);
        let mut level = vec![Leaf { key: FenceKey::MIN, page: root, overflow: 0 }];
        for _ in 0..MAX_DEPTH {
            // All leaves of a tree have the same depth, so one tells for its level.
            if source.page(may, level[0].page, hwm, Access::Point)?.view().is_leaf() {
                for leaf in &level {
                    self.mark(leaf.page, 1)?;
                }
                if let Some(pair) = level.windows(2).find(|pair| pair[0].key >= pair[1].key) {
                    return Err(Corruption::new(pair[1].page, Flaw::Order).into());
                }
                return Ok(Some(level));
            }
            let mut next = Vec::new();
            let mut strange = false;
            let ids: Vec<u64> = level.iter().map(|branch| branch.page).collect();
            for (done, ids) in ids.chunks(64).enumerate() {
                for (i, page) in source.pages(may, ids, hwm, Access::Scan)?.iter().enumerate() {
                    let view = page.view();
                    if view.is_leaf() {
                        return Err(Corruption::new(page.id(), Flaw::Type).into());
                    }
                    let keys = (0..view.count()).map(|i| FenceKey::parse(view.key(i)));
                    let pages = (0..view.count()).map(|i| view.child(i));
                    for (key, page) in keys.zip(pages) {
                        strange |= key.is_none();
                        next.push(Leaf { key: key.unwrap_or(FenceKey::MIN), page, overflow: 0 });
                    }
                    if strange {
                        // Unmarked so far are this branch, those right of it and all children.
                        let rest = &level[done * 64 + i..];
                        return self.strange(rest.iter().map(|b| b.page), &next, view.count());
                    }
                    self.mark(page.id(), u64::from(page.overflow()) + 1)?;
                    if next.len() as u64 > hwm {
                        return Err(Corruption::new(page.id(), Flaw::Twice).into());
                    }
                }
            }
            level = next;
        }
        Err(Corruption::new(root, Flaw::Depth).into())
    }

    /// Marks the rest of a tree that turned out to have other keys than revisions.
    fn strange(
        &mut self,
        branches: impl Iterator<Item = u64>,
        children: &[Leaf],
        of_first_branch: usize,
    ) -> Result<Option<Vec<Leaf>>, OpenError> {
        // The children of the first branch are found again through it.
        let before = &children[..children.len() - of_first_branch];
        let rest: Vec<u64> = branches.chain(before.iter().map(|leaf| leaf.page)).collect();
        for page in rest {
            self.bucket(page)?;
        }
        Ok(None)
    }

    /// Completes the leaves with their overflow and marks it. Called when all else is marked.
    fn overflows(&mut self, mut leaves: Vec<Leaf>) -> Result<Vec<Leaf>, OpenError> {
        let hwm = self.meta.hwm;
        let mut unsure: Vec<(u64, usize)> = leaves
            .iter()
            .enumerate()
            .filter(|(_, leaf)| leaf.page + 1 < hwm && !self.used.get(leaf.page + 1))
            .map(|(i, leaf)| (leaf.page, i))
            .collect();
        unsure.sort_unstable();
        for (page, i) in unsure {
            let header = self.header(page)?;
            if header.id != page {
                return Err(Corruption::new(page, Flaw::Id).into());
            }
            if header.flags != LEAF {
                return Err(Corruption::new(page, wrong_type(header.flags)).into());
            }
            if u64::from(header.overflow) >= hwm - page {
                return Err(Corruption::new(page, Flaw::Overflow).into());
            }
            self.mark(page + 1, u64::from(header.overflow))?;
            leaves[i].overflow = header.overflow;
        }
        Ok(leaves)
    }
}
