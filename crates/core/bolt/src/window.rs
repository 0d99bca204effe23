//! Many revisions at once: sorted by page, read in runs.
//!
//! Measured in `readpath`: 136 ns per value for neighbours, against 671 with a read per value.
//! Memory is one run (64 pages, 16 where nothing may wait) or the longest leaf, and 24 bytes per
//! revision.

use env::{Access, Cached, MayBlock};

use crate::error::{Corruption, Flaw, ReadError};
use crate::fence::{FenceKey, Leaf, Near, revision_key};
use crate::page::{BUCKET, FIRST_DATA_PAGE, Header, PageRef};
use crate::read::{Lookup, ReadTx};
use crate::source::{BLOCKING, NOWAIT, runs};

/// Inputs in a row that belong in one leaf: 24 bytes, as lists of a million keys have many.
struct Wanted {
    /// Fits, as the pages of fences do.
    page: u32,
    overflow: u32,
    /// Where the leaf begins, for the slot guess.
    first_main: u64,
    first: u32,
    end: u32,
}

impl Wanted {
    fn new(leaf: Leaf, input: u32) -> Self {
        let page = u32::try_from(leaf.page).expect("a fence keeps its page in 32 bits");
        let Leaf { key, overflow, .. } = leaf;
        Self { page, overflow, first_main: key.main, first: input, end: input + 1 }
    }

    /// First page and number of pages.
    fn place(&self) -> (u64, u64) {
        (u64::from(self.page), u64::from(self.overflow) + 1)
    }
}

impl ReadTx {
    /// Reads revisions (main, sub) of the fenced bucket. `each` gets every input position once,
    /// in the order of pages, not of inputs, with the value, or `None` if there is no such
    /// revision. A tombstone counts as one. Ascending revisions cost least: their leaves are found
    /// one from the other, and all that belongs to an input is read in order.
    ///
    /// # Errors
    /// A damaged page or a failed disk; some positions may have been reported before.
    ///
    /// # Panics
    /// With 2^32 revisions or more.
    pub fn get_many(
        &self,
        may: &MayBlock,
        revs: &[(u64, u64)],
        each: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), ReadError> {
        let (wanted, unplaced) = self.places(revs);
        for input in unplaced {
            let (main, sub) = revs[input];
            let mut value = self.get_revision(may, main, sub, false)?;
            if value.is_none() {
                value = self.get_revision(may, main, sub, true)?;
            }
            each(input, value.as_deref());
        }
        let access = if revs.len() < 4 { Access::Point } else { Access::Scan };
        let source = &self.state.source;
        let mut bytes = Vec::new();
        for run in runs(&wanted, BLOCKING, Wanted::place) {
            let (first, len) = self.span(run)?;
            bytes.resize(len, 0);
            source.file.read_at(may, &mut bytes, source.offset(first), access)?;
            self.deliver(&bytes, run, revs, each)?;
        }
        Ok(())
    }

    /// As [`ReadTx::get_many`] for live revisions, without waiting for the disk: only leaves that
    /// were asked for are read, each once. Memory is one run ([`NOWAIT`]) or the longest leaf. On
    /// [`Cached::Miss`] some positions were not reported.
    ///
    /// # Errors
    /// A damaged page, or a file that ends too early.
    ///
    /// # Panics
    /// With 2^32 revisions or more.
    pub fn try_get_many(
        &self,
        revs: &[(u64, u64)],
        each: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<Cached, ReadError> {
        let (wanted, unplaced) = self.places(revs);
        for input in unplaced {
            let (main, sub) = revs[input];
            match self.try_get(main, sub, false)? {
                Lookup::Found(value) => each(input, Some(&value)),
                Lookup::Absent => each(input, None),
                Lookup::Cold => return Ok(Cached::Miss),
            }
        }
        let source = &self.state.source;
        let mut buffer = Vec::new();
        for run in runs(&wanted, NOWAIT, Wanted::place) {
            let (first, len) = self.span(run)?;
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            let bytes = &mut buffer[..len];
            if source.file.try_read_at(bytes, source.offset(first))? == Cached::Miss {
                return Ok(Cached::Miss);
            }
            self.deliver(bytes, run, revs, each)?;
        }
        Ok(Cached::Hit)
    }

    /// The leaves where revisions belong, sorted by page, and the positions of those that no fence
    /// places.
    fn places(&self, revs: &[(u64, u64)]) -> (Vec<Wanted>, Vec<usize>) {
        let (mut wanted, mut unplaced) = (Vec::<Wanted>::with_capacity(revs.len()), Vec::new());
        let (tree, mut near) = (self.fence_tree(), Near::default());
        for (input, &(main, sub)) in (0..).zip(revs) {
            // A leaf whose separator is the very tombstone holds it; else the live key and the
            // tombstone belong in the same leaf.
            let key = FenceKey::new(main, sub, true);
            match tree.zip(key).and_then(|(tree, key)| tree.locate_near(key, &mut near)) {
                Some(leaf) => match wanted.last_mut() {
                    Some(last) if last.place().0 == leaf.page && last.end == input => {
                        last.end = input + 1;
                    }
                    _ => wanted.push(Wanted::new(leaf, input)),
                },
                None => unplaced.push(input as usize),
            }
        }
        wanted.sort_unstable_by_key(|w| w.page);
        (wanted, unplaced)
    }

    /// First page of a run and its length in bytes.
    fn span(&self, run: &[Wanted]) -> Result<(u64, usize), Corruption> {
        let first = run[0].place().0;
        let ends = run.iter().map(Wanted::place).map(|(page, pages)| page + pages);
        let end = ends.max().unwrap_or(first);
        if first < FIRST_DATA_PAGE || end > self.state.meta.hwm {
            return Err(Corruption::new(first, Flaw::Overflow));
        }
        Ok((first, self.state.source.page_size * (end - first) as usize))
    }

    /// Checks the leaves of a run that was read, and reports what was wanted of them.
    fn deliver(
        &self,
        bytes: &[u8],
        run: &[Wanted],
        revs: &[(u64, u64)],
        each: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Corruption> {
        let (page_size, hwm) = (self.state.source.page_size, self.state.meta.hwm);
        let first = run[0].place().0;
        for w in run {
            let (page, pages) = w.place();
            let start = page_size * (page - first) as usize;
            let bytes = &bytes[start..start + page_size * pages as usize];
            let view = PageRef::parse(bytes, page, hwm)?;
            if !view.is_leaf() {
                return Err(Corruption::new(page, Flaw::Type));
            }
            if Header::read(bytes).overflow != w.overflow {
                return Err(Corruption::new(page, Flaw::Overflow));
            }
            let inputs = w.first as usize..w.end as usize;
            for (input, &(main, sub)) in inputs.clone().zip(&revs[inputs]) {
                each(input, find(view, main, sub, main.saturating_sub(w.first_main)));
            }
        }
        Ok(())
    }
}

/// The value of a revision, live or tombstone.
fn find<'p>(view: PageRef<'p>, main: u64, sub: u64, guess: u64) -> Option<&'p [u8]> {
    let (bytes, _) = revision_key(main, sub, true);
    let (live, tombstone) = (&bytes[..17], &bytes[..]);
    let is_it = |i: usize| i < view.count() && (view.key(i) == live || view.key(i) == tombstone);
    let at = match usize::try_from(guess) {
        Ok(i) if is_it(i) => i,
        _ => view.lower_bound(live).0,
    };
    (is_it(at) && view.flags(at) & BUCKET == 0).then(|| view.value(at))
}
