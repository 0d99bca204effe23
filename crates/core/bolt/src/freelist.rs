//! Which pages may be written: free extents, and pages that wait for readers.
//!
//! Never stored in the file. Invariants: extents are disjoint and not adjacent; a page is free,
//! pending, or neither, never two of them; a page freed by transaction f and born in transaction a
//! becomes free only when no reader t with a ≤ t < f is left.

use std::collections::{BTreeMap, BTreeSet};

/// A run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub page: u64,
    pub len: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    run: Run,
    /// The transaction that allocated the run; 0 if it is older than every reader.
    born: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Freelist {
    by_page: BTreeMap<u64, u64>,
    /// (length, page)
    by_len: BTreeSet<(u64, u64)>,
    free: u64,
    /// By the transaction that freed them.
    pending: BTreeMap<u64, Vec<Pending>>,
    /// All runs in `pending`, by page.
    held: BTreeMap<u64, u64>,
    /// Birth of the runs that some reader is older than.
    born: BTreeMap<u64, u64>,
}

impl Freelist {
    /// Number of free pages, pending ones not counted (as bbolt's `FreeCount`).
    pub(crate) fn free_pages(&self) -> u64 {
        self.free
    }

    /// Adds a run that is in use by nobody.
    ///
    /// # Panics
    /// If a page of it is free already: the tree would be destroyed later.
    pub(crate) fn add(&mut self, run: Run) {
        if run.len == 0 {
            return;
        }
        let Run { mut page, mut len } = run;
        self.free += len;
        if let Some((&before, &n)) = self.by_page.range(..=page).next_back() {
            assert!(before + n <= page, "page {page} is freed twice");
            if before + n == page {
                self.remove(before, n);
                page = before;
                len += n;
            }
        }
        if let Some((&after, &n)) = self.by_page.range(page..).next() {
            assert!(page + len <= after, "page {after} is freed twice");
            if page + len == after {
                self.remove(after, n);
                len += n;
            }
        }
        self.insert(page, len);
    }

    fn insert(&mut self, page: u64, len: u64) {
        self.by_page.insert(page, len);
        self.by_len.insert((len, page));
    }

    fn remove(&mut self, page: u64, len: u64) {
        self.by_page.remove(&page);
        self.by_len.remove(&(len, page));
    }

    /// Takes `n` adjacent pages: the lowest for one (keeps the file dense, and neighbours together
    /// in one write), else the shortest extent that is long enough.
    pub(crate) fn take(&mut self, n: u64) -> Option<u64> {
        let (page, len) = if n == 1 {
            self.by_page.first_key_value().map(|(&page, &len)| (page, len))?
        } else {
            self.by_len.range((n, 0)..).next().map(|&(len, page)| (page, len))?
        };
        self.remove(page, len);
        if len > n {
            self.insert(page + n, len - n);
        }
        self.free -= n;
        Some(page)
    }

    /// A page of `freed` that is free, pending or in `allocated` already, or in `freed` twice. The
    /// links that led to it are damaged.
    pub(crate) fn conflict(&self, freed: &[Run], allocated: &[Run]) -> Option<u64> {
        let known = |map: &BTreeMap<u64, u64>, run: &Run| {
            let before = map.range(..run.page + run.len).next_back();
            before.is_some_and(|(page, len)| page + len > run.page)
        };
        let listed = freed.iter().find(|run| known(&self.by_page, run) || known(&self.held, run));
        let mut all: Vec<Run> = freed.iter().chain(allocated).copied().collect();
        all.sort_unstable();
        let twice = all.windows(2).find(|pair| pair[0].page + pair[0].len > pair[1].page);
        listed.map(|run| run.page).or(twice.map(|pair| pair[1].page))
    }

    /// Records what transaction `txid` allocated, for [`Freelist::free`].
    pub(crate) fn allocated(&mut self, txid: u64, runs: impl IntoIterator<Item = Run>) {
        self.born.extend(runs.into_iter().map(|run| (run.page, txid)));
    }

    /// Records runs that states from `txid` on do not use.
    pub(crate) fn free(&mut self, txid: u64, runs: Vec<Run>) {
        let pending = self.pending.entry(txid).or_default();
        for run in runs {
            let born = self.born.remove(&run.page).unwrap_or(0);
            pending.push(Pending { run, born });
            self.held.insert(run.page, run.len);
        }
    }

    /// Makes pending runs free that no reader needs; `readers` are the transaction ids of all
    /// readers there are and, as none is younger than it, of the state a new one would get.
    pub(crate) fn release(&mut self, readers: &[u64]) {
        let oldest = readers.iter().copied().min().unwrap_or(u64::MAX);
        // With no reader before its birth, it makes no difference when a run was born.
        self.born.retain(|_, born| *born > oldest);
        let mut released = Vec::new();
        self.pending.retain(|&freed, runs| {
            runs.retain(|p| {
                let needed = readers.iter().any(|&t| p.born <= t && t < freed);
                if !needed {
                    released.push(p.run);
                }
                needed
            });
            !runs.is_empty()
        });
        for run in released {
            self.held.remove(&run.page);
            self.add(run);
        }
    }

    /// Every free and pending run, for checks.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> {
        let free = self.by_page.iter().map(|(&page, &len)| Run { page, len });
        free.chain(self.pending.values().flatten().map(|p| p.run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(page: u64, len: u64) -> Run {
        Run { page, len }
    }

    fn extents(list: &Freelist) -> Vec<Run> {
        list.runs().collect()
    }

    #[test]
    fn neighbours_melt_into_one_extent() {
        let mut list = Freelist::default();
        for page in [4, 8, 6, 5, 7] {
            list.add(run(page, 1));
        }
        assert_eq!(extents(&list), [run(4, 5)]);
        assert_eq!(list.free_pages(), 5);
        assert_eq!(list.by_len.len(), 1);
    }

    #[test]
    fn one_page_comes_from_the_front_and_long_runs_from_the_best_fit() {
        let mut list = Freelist::default();
        for r in [run(10, 3), run(20, 8), run(40, 4)] {
            list.add(r);
        }
        assert_eq!(list.take(4), Some(40));
        assert_eq!(list.take(1), Some(10));
        assert_eq!(list.take(5), Some(20));
        assert_eq!(list.take(4), None);
        assert_eq!(extents(&list), [run(11, 2), run(25, 3)]);
    }

    #[test]
    fn a_reader_keeps_only_the_pages_it_can_see() {
        let mut list = Freelist::default();
        list.allocated(3, [run(30, 1)]);
        list.allocated(7, [run(70, 1)]);
        list.release(&[5]);
        list.free(9, vec![run(30, 1), run(70, 1), run(90, 1)]);
        list.release(&[5, 9]);
        assert_eq!(list.free_pages(), 1, "born after the reader and freed: nobody sees page 70");
        assert_eq!(list.take(1), Some(70));
        list.release(&[9]);
        assert_eq!(list.free_pages(), 2);
    }

    #[test]
    fn a_page_that_is_free_or_pending_cannot_be_freed() {
        let mut list = Freelist::default();
        list.add(run(10, 5));
        list.free(3, vec![run(20, 4)]);
        assert_eq!(list.conflict(&[run(15, 5), run(24, 1)], &[run(30, 2)]), None);
        assert_eq!(list.conflict(&[run(14, 1)], &[]), Some(14));
        assert_eq!(list.conflict(&[run(8, 3)], &[]), Some(8));
        assert_eq!(list.conflict(&[run(23, 2)], &[]), Some(23));
        assert_eq!(list.conflict(&[run(31, 1)], &[run(30, 2)]), Some(31));
        assert_eq!(list.conflict(&[run(40, 2), run(41, 1)], &[]), Some(41));
        list.release(&[3]);
        assert_eq!(list.free_pages(), 9);
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_page_cannot_be_free_twice() {
        let mut list = Freelist::default();
        list.add(run(4, 4));
        list.add(run(6, 1));
    }
}
