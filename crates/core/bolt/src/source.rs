//! Where checked pages come from: the open file, and the pins of its readers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use env::{Access, Cached, File, MayBlock, Run};

use crate::error::{Corruption, Flaw, ReadError};
use crate::page::{FIRST_DATA_PAGE, Header, MAX_DEPTH, Page};

/// How sorted pages are cut into reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunLimits {
    /// Pages of one read at most, a single long page excepted.
    pages: u64,
    /// Pages read for nothing rather than beginning another read.
    gap: u64,
}

/// Reads that may wait for the disk: 256 KiB of 4 KiB pages.
pub(crate) const BLOCKING: RunLimits = RunLimits { pages: 64, gap: 8 };
/// Reads of what is in memory: 64 KiB of 4 KiB pages, which stay in the processor's cache until
/// they are used. Nothing that was not asked for is touched: a page in a gap may be a free one that
/// nobody has read, and would turn a hit into a miss.
pub(crate) const NOWAIT: RunLimits = RunLimits { pages: 16, gap: 0 };

/// The file as the states of one [`crate::Db`] share it.
#[derive(Debug)]
pub(crate) struct Source {
    pub file: Arc<dyn File>,
    pub page_size: usize,
    /// Readers by transaction id. Shared by all threads; held for one map operation.
    pins: Mutex<BTreeMap<u64, usize>>,
}

impl Source {
    pub(crate) fn new(file: Arc<dyn File>, page_size: usize) -> Self {
        Self { file, page_size, pins: Mutex::new(BTreeMap::new()) }
    }

    pub(crate) fn pin(&self, txid: u64) {
        *self
            .pins
            .lock()
            .expect("no code panics while it holds this lock")
            .entry(txid)
            .or_insert(0) += 1;
    }

    pub(crate) fn unpin(&self, txid: u64) {
        let mut pins = self.pins.lock().expect("no code panics while it holds this lock");
        if let Some(count) = pins.get_mut(&txid) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&txid);
            }
        }
    }

    /// The number of pins.
    pub(crate) fn pin_count(&self) -> usize {
        let pins = self.pins.lock().expect("no code panics while it holds this lock");
        pins.values().sum()
    }

    /// The transaction ids that are pinned, ascending.
    pub(crate) fn pinned(&self) -> Vec<u64> {
        let pins = self.pins.lock().expect("no code panics while it holds this lock");
        pins.keys().copied().collect()
    }

    pub(crate) fn offset(&self, page: u64) -> u64 {
        page * self.page_size as u64
    }

    /// Reads a page and its overflow.
    pub(crate) fn page(
        &self,
        may: &MayBlock,
        id: u64,
        hwm: u64,
        access: Access,
    ) -> Result<Page, ReadError> {
        if !(FIRST_DATA_PAGE..hwm).contains(&id) {
            return Err(Corruption::new(id, Flaw::Child).into());
        }
        let mut bytes = vec![0; self.page_size];
        self.file.read_at(may, &mut bytes, self.offset(id), access)?;
        let header = Header::read(&bytes);
        let pages = header.run_len(&bytes, id, hwm)?;
        if pages > 1 {
            bytes.resize(self.page_size * pages as usize, 0);
            let rest = &mut bytes[self.page_size..];
            self.file.read_at(may, rest, self.offset(id + 1), access)?;
        }
        Ok(Page::parse(bytes.into(), id, hwm)?)
    }

    /// Reads a leaf of known length if it is in memory.
    pub(crate) fn try_page(
        &self,
        id: u64,
        overflow: u32,
        hwm: u64,
    ) -> Result<Option<Page>, ReadError> {
        let mut bytes = vec![0; self.run_bytes(id, overflow, hwm)?];
        match self.file.try_read_at(&mut bytes, self.offset(id))? {
            Cached::Miss => Ok(None),
            Cached::Hit => Ok(Some(self.parse_run(bytes.into(), id, overflow, hwm)?)),
        }
    }

    /// Reads a leaf of known length in one call.
    pub(crate) fn page_of_len(
        &self,
        may: &MayBlock,
        id: u64,
        overflow: u32,
        hwm: u64,
        access: Access,
    ) -> Result<Page, ReadError> {
        let mut bytes = vec![0; self.run_bytes(id, overflow, hwm)?];
        self.file.read_at(may, &mut bytes, self.offset(id), access)?;
        Ok(self.parse_run(bytes.into(), id, overflow, hwm)?)
    }

    fn run_bytes(&self, id: u64, overflow: u32, hwm: u64) -> Result<usize, Corruption> {
        let pages = u64::from(overflow) + 1;
        if id < FIRST_DATA_PAGE || id.checked_add(pages).is_none_or(|end| end > hwm) {
            return Err(Corruption::new(id, Flaw::Overflow));
        }
        Ok(self.page_size * pages as usize)
    }

    fn parse_run(
        &self,
        bytes: Bytes,
        id: u64,
        overflow: u32,
        hwm: u64,
    ) -> Result<Page, Corruption> {
        let page = Page::parse(bytes, id, hwm)?;
        if page.overflow() != overflow {
            return Err(Corruption::new(id, Flaw::Overflow));
        }
        Ok(page)
    }

    /// Reads the pages `ids` in few reads, sorted by place; the result is in the order of `ids`.
    pub(crate) fn pages(
        &self,
        may: &MayBlock,
        ids: &[u64],
        hwm: u64,
        access: Access,
    ) -> Result<Vec<Page>, ReadError> {
        if let [id] = ids {
            return Ok(vec![self.page(may, *id, hwm, access)?]);
        }
        let mut order: Vec<(u64, usize)> = ids.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let groups: Vec<&[(u64, usize)]> = runs(&order, BLOCKING, |(id, _)| (*id, 1)).collect();
        let mut buffers = Vec::with_capacity(groups.len());
        for group in &groups {
            let (first, last) = (group[0].0, group[group.len() - 1].0);
            if first < FIRST_DATA_PAGE || last >= hwm {
                let out = if first < FIRST_DATA_PAGE { first } else { last };
                return Err(Corruption::new(out, Flaw::Child).into());
            }
            buffers.push(vec![0; self.page_size * (last - first + 1) as usize]);
        }
        let mut reads: Vec<Run<'_>> = Vec::with_capacity(groups.len());
        for (group, buf) in groups.iter().zip(&mut buffers) {
            reads.push(Run { offset: self.offset(group[0].0), buf });
        }
        self.file.read_many(may, &mut reads, access)?;
        let mut pages: Vec<Option<Page>> = vec![None; ids.len()];
        for (group, bytes) in groups.into_iter().zip(buffers) {
            let (first, bytes) = (group[0].0, Bytes::from(bytes));
            for (id, at) in group {
                let start = self.page_size * (id - first) as usize;
                let head = &bytes[start..start + self.page_size];
                let len = self.page_size * Header::read(head).run_len(head, *id, hwm)? as usize;
                let page = if start + len <= bytes.len() {
                    Page::parse(bytes.slice(start..start + len), *id, hwm)?
                } else {
                    self.page(may, *id, hwm, access)?
                };
                pages[*at] = Some(page);
            }
        }
        Ok(pages.into_iter().map(|p| p.expect("every id belongs to a run")).collect())
    }

    /// The leaf of the tree at `root` in which `key` belongs.
    pub(crate) fn find_leaf(
        &self,
        may: &MayBlock,
        root: u64,
        key: &[u8],
        hwm: u64,
    ) -> Result<Page, ReadError> {
        let mut id = root;
        for _ in 0..MAX_DEPTH {
            let page = self.page(may, id, hwm, Access::Point)?;
            let view = page.view();
            if view.is_leaf() {
                return Ok(page);
            }
            id = view.child(view.child_index(key));
        }
        Err(Corruption::new(id, Flaw::Depth).into())
    }
}

/// Cuts items sorted by page into groups worth one read each. `place` gives page and length.
pub(crate) fn runs<'a, T>(
    items: &'a [T],
    limits: RunLimits,
    place: impl Fn(&T) -> (u64, u64) + 'a,
) -> impl Iterator<Item = &'a [T]> + 'a {
    let mut rest = items;
    std::iter::from_fn(move || {
        let (first, len) = place(rest.first()?);
        let mut end = first + len;
        let mut n = 1;
        for item in &rest[1..] {
            let (page, len) = place(item);
            if page > end + limits.gap || page + len > first + limits.pages {
                break;
            }
            end = end.max(page + len);
            n += 1;
        }
        let (run, tail) = rest.split_at(n);
        rest = tail;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::{BLOCKING, NOWAIT, runs};

    #[test]
    fn runs_bridge_small_gaps_and_stay_short() {
        let pages: Vec<u64> = vec![2, 3, 5, 14, 30, 60, 61, 62, 200];
        let cut: Vec<Vec<u64>> = runs(&pages, BLOCKING, |p| (*p, 1)).map(<[u64]>::to_vec).collect();
        assert_eq!(cut, [vec![2, 3, 5, 14], vec![30], vec![60, 61, 62], vec![200]]);
        let cut: Vec<&[u64]> = runs(&pages[..5], NOWAIT, |p| (*p, 1)).collect();
        assert_eq!(cut, [&[2, 3][..], &[5], &[14], &[30]], "without waiting no gap is read");
        let long: Vec<u64> = (0..200).collect();
        assert!(runs(&long, BLOCKING, |p| (*p, 1)).all(|r| r.len() <= 64));
        assert!(runs(&long, NOWAIT, |p| (*p, 1)).all(|r| r.len() <= 16));
    }
}
