//! One file: the durable image on the real disk, and over it what was written since.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

pub const PAGE: u64 = 4096;
const SECTOR: usize = 512;

type Page = Box<[u8; PAGE as usize]>;

/// The contents of a file, whatever its names are.
#[derive(Debug)]
pub struct Inode {
    /// The durable image.
    real: std::fs::File,
    /// Length of the durable image.
    real_len: u64,
    /// How much of the durable image still shows: less than its length after a truncation.
    shown: u64,
    /// Length now.
    pub len: u64,
    /// Pages written since the last sync, as they are now.
    dirty: BTreeMap<u64, Page>,
    /// Pages whose sync failed: still read, never written again, as a kernel that marks pages
    /// clean after an error does.
    lost: BTreeMap<u64, Page>,
    pub locked: bool,
}

impl Inode {
    pub fn new(real: std::fs::File) -> std::io::Result<Self> {
        let len = real.metadata()?.len();
        let (dirty, lost) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { real, real_len: len, shown: len, len, dirty, lost, locked: false })
    }

    pub fn real(&self) -> &std::fs::File {
        &self.real
    }

    fn page(&self, number: u64) -> std::io::Result<Page> {
        if let Some(page) = self.dirty.get(&number).or_else(|| self.lost.get(&number)) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE as usize]);
        let start = number * PAGE;
        let len = self.shown.saturating_sub(start).min(PAGE) as usize;
        self.real.read_exact_at(&mut page[..len], start)?;
        Ok(page)
    }

    pub fn write(&mut self, mut offset: u64, mut buf: &[u8]) -> std::io::Result<()> {
        while !buf.is_empty() {
            let (number, within) = (offset / PAGE, (offset % PAGE) as usize);
            let n = buf.len().min(PAGE as usize - within);
            if !self.dirty.contains_key(&number) {
                let page = self.page(number)?;
                self.lost.remove(&number);
                self.dirty.insert(number, page);
            }
            let page = self.dirty.get_mut(&number).expect("inserted above");
            page[within..within + n].copy_from_slice(&buf[..n]);
            buf = &buf[n..];
            offset += n as u64;
        }
        self.len = self.len.max(offset);
        Ok(())
    }

    /// Reads within the length; the caller has checked that.
    pub fn read(&self, mut offset: u64, mut buf: &mut [u8]) -> std::io::Result<()> {
        while !buf.is_empty() {
            let (number, within) = (offset / PAGE, (offset % PAGE) as usize);
            let n = buf.len().min(PAGE as usize - within);
            let page = self.page(number)?;
            buf[..n].copy_from_slice(&page[within..within + n]);
            buf = &mut buf[n..];
            offset += n as u64;
        }
        Ok(())
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            for pages in [&mut self.dirty, &mut self.lost] {
                pages.retain(|number, _| number * PAGE < len);
                if let Some(page) = pages.get_mut(&(len / PAGE)) {
                    page[(len % PAGE) as usize..].fill(0);
                }
            }
            self.shown = self.shown.min(len);
        }
        self.len = len;
    }

    /// Makes the durable image what the file is.
    pub fn sync(&mut self) -> std::io::Result<()> {
        if self.shown < self.real_len {
            self.real.set_len(self.shown)?;
        }
        for (number, page) in std::mem::take(&mut self.dirty) {
            let end = (self.len - number * PAGE).min(PAGE) as usize;
            self.real.write_all_at(&page[..end], number * PAGE)?;
        }
        if self.real.metadata()?.len() != self.len {
            self.real.set_len(self.len)?;
        }
        (self.real_len, self.shown) = (self.len, self.len);
        Ok(())
    }

    /// A sync that failed: what was not written by then never will be.
    pub fn fail_sync(&mut self) {
        self.lost.append(&mut self.dirty);
    }

    /// Writes some sectors of a dirty page to the durable image, as a kernel's writeback may at
    /// any time: which ones is `choice`, a bit per sector. Returns whether there was such a page.
    pub fn write_back(&mut self, nth: usize, choice: u64) -> std::io::Result<bool> {
        if self.dirty.is_empty() || self.shown < self.real_len {
            return Ok(false);
        }
        let (number, page) = self.dirty.iter().nth(nth % self.dirty.len()).expect("not empty");
        for sector in (0..PAGE as usize / SECTOR).filter(|s| choice >> s & 1 == 1) {
            let (from, at) = (sector * SECTOR, number * PAGE + (sector * SECTOR) as u64);
            let len = self.len.saturating_sub(at).min(SECTOR as u64) as usize;
            self.real.write_all_at(&page[from..from + len], at)?;
        }
        // The image may have grown; `shown` stays, because the page itself is still read from
        // memory, and between the old end and this page there is nothing but zeroes or pages that
        // are dirty too.
        self.real_len = self.real.metadata()?.len();
        if self.shown < self.real_len {
            // Without this the next sync would cut off what it is about to write anyway.
            self.shown = self.real_len.min(self.len);
        }
        Ok(true)
    }
}
