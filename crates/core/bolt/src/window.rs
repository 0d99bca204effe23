//! Many revisions at once: sorted by page, read in runs.
//!
//! Measured in `readpath`: 136 ns per value for neighbours, against 671 with a read per value.
//! Memory is one run (64 pages) or the longest leaf, whatever the number of revisions.

use env::{Access, MayBlock};

use crate::error::{Corruption, Flaw, ReadError};
use crate::fence::{FenceKey, revision_key};
use crate::page::{BUCKET, PageRef};
use crate::read::ReadTx;
use crate::source::runs;

struct Wanted {
    page: u64,
    pages: u64,
    input: usize,
    /// Where the leaf begins, for the slot guess.
    first_main: u64,
}

impl ReadTx {
    /// Reads revisions (main, sub) of the fenced bucket. `each` gets every input position once,
    /// in the order of pages, not of inputs, with the value, or `None` if there is no such
    /// revision. A tombstone counts as one.
    ///
    /// # Errors
    /// A damaged page or a failed disk; some positions may have been reported before.
    pub fn get_many(
        &self,
        may: &MayBlock,
        revs: &[(u64, u64)],
        each: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), ReadError> {
        let mut wanted = Vec::with_capacity(revs.len());
        for (input, &(main, sub)) in revs.iter().enumerate() {
            // A leaf whose separator is the very tombstone holds it; else the live key and the
            // tombstone belong in the same leaf.
            let key = FenceKey::new(main, sub, true);
            match self.fence_tree().zip(key).and_then(|(tree, key)| tree.locate(key)) {
                Some(leaf) => wanted.push(Wanted {
                    page: leaf.page,
                    pages: u64::from(leaf.overflow) + 1,
                    input,
                    first_main: leaf.key.main,
                }),
                None => {
                    let mut value = self.get_revision(may, main, sub, false)?;
                    if value.is_none() {
                        value = self.get_revision(may, main, sub, true)?;
                    }
                    each(input, value.as_deref());
                }
            }
        }
        wanted.sort_unstable_by_key(|w| (w.page, w.input));
        let access = if wanted.len() < 4 { Access::Point } else { Access::Scan };
        let (source, hwm) = (&self.state.source, self.state.meta.hwm);
        let mut bytes = Vec::new();
        for run in runs(&wanted, |w| (w.page, w.pages)) {
            let first = run[0].page;
            let end = run.iter().map(|w| w.page + w.pages).max().unwrap_or(first);
            if end > hwm {
                return Err(Corruption::new(first, Flaw::Overflow).into());
            }
            bytes.resize(source.page_size * (end - first) as usize, 0);
            source.file.read_at(may, &mut bytes, source.offset(first), access)?;
            let mut parsed: Option<(u64, PageRef<'_>)> = None;
            for w in run {
                let view = match parsed {
                    Some((page, view)) if page == w.page => view,
                    _ => {
                        let start = source.page_size * (w.page - first) as usize;
                        let len = source.page_size * w.pages as usize;
                        let view = PageRef::parse(&bytes[start..start + len], w.page, hwm)?;
                        if !view.is_leaf() {
                            return Err(Corruption::new(w.page, Flaw::Type).into());
                        }
                        parsed = Some((w.page, view));
                        view
                    }
                };
                let (main, sub) = revs[w.input];
                each(w.input, find(view, main, sub, main.saturating_sub(w.first_main)));
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
