//! Checking a whole state, as bbolt's `Tx.Check`: reachability, page types, order of keys, and
//! where a list of free pages is known, that every page is used or free and not both.
//= bbolt 1.5.0: tx_check.go#Tx.Check

use bytes::Bytes;
use env::{Access, MayBlock};

use crate::error::{Corruption, Flaw, ReadError};
use crate::freelist::Run;
use crate::meta::NO_FREELIST;
use crate::page::{
    BUCKET, FIRST_DATA_PAGE, FREELIST, HEADER, Header, MAX_DEPTH, Root, parse_bucket, u64_at,
    wrong_type,
};
use crate::read::{ReadTx, State};

/// What a check found; the page and what is wrong with it.
pub type CheckError = Corruption;

/// Findings after which a check gives up.
const MAX_FINDINGS: usize = 1_000;
/// Nesting of buckets that a check follows.
const MAX_NESTING: usize = 64;

impl ReadTx {
    /// Walks the whole state and returns what is wrong, at most 1,000 findings.
    ///
    /// # Errors
    /// A failed disk; damaged pages are findings.
    pub fn check(&self, may: &MayBlock) -> Result<Vec<CheckError>, ReadError> {
        check(&self.state, may, None)
    }
}

/// `lists` is what the writer knows: free runs, and the freelist page that is still used.
pub(crate) fn check(
    state: &State,
    may: &MayBlock,
    lists: Option<(&[Run], Option<Run>)>,
) -> Result<Vec<CheckError>, ReadError> {
    let hwm = state.meta.hwm;
    let mut check = Check { state, may, seen: vec![false; hwm as usize], found: Vec::new() };
    check.seen[..2].fill(true);
    let mut free = None;
    if state.meta.freelist != NO_FREELIST {
        free = check.stored_freelist(state.meta.freelist)?;
    }
    check.tree(state.meta.root, None, None, MAX_DEPTH, MAX_NESTING)?;
    if let Some((runs, stored)) = lists {
        if let Some(run) = stored.filter(|_| state.meta.freelist == NO_FREELIST) {
            check.mark(run.page, run.len);
        }
        free = Some(runs.iter().flat_map(|run| run.page..run.page + run.len).collect());
    }
    if let Some(free) = free {
        check.account(&free);
    }
    check.found.truncate(MAX_FINDINGS);
    Ok(check.found)
}

struct Check<'a> {
    state: &'a State,
    may: &'a MayBlock,
    seen: Vec<bool>,
    found: Vec<Corruption>,
}

impl Check<'_> {
    fn finding(&mut self, page: u64, flaw: Flaw) {
        self.found.push(Corruption::new(page, flaw));
    }

    /// Marks a run as reached; false if part of it was already.
    fn mark(&mut self, page: u64, len: u64) -> bool {
        let mut new = true;
        for id in page..page + len {
            match self.seen.get_mut(id as usize) {
                None => self.finding(id, Flaw::Overflow),
                Some(seen) if *seen => {
                    self.finding(id, Flaw::Twice);
                    new = false;
                }
                Some(seen) => *seen = true,
            }
        }
        new
    }

    /// Checks a subtree whose keys are in `from..to` and returns its last key.
    fn tree(
        &mut self,
        id: u64,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        depth: usize,
        nesting: usize,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        if self.found.len() >= MAX_FINDINGS {
            return Ok(None);
        }
        if depth == 0 || nesting == 0 {
            self.finding(id, Flaw::Depth);
            return Ok(None);
        }
        let State { source, meta, .. } = self.state;
        let page = match source.page(self.may, id, meta.hwm, Access::ScanOnce) {
            Ok(page) => page,
            Err(ReadError::Corrupt(corruption)) => {
                self.found.push(corruption);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !self.mark(id, u64::from(page.overflow()) + 1) {
            return Ok(None);
        }
        let view = page.view();
        let mut last: Option<Vec<u8>> = from.map(<[u8]>::to_vec);
        let mut below = None;
        for i in 0..view.count() {
            let key = view.key(i);
            let ordered = match &last {
                Some(last) if i == 0 => &last[..] <= key,
                Some(last) => &last[..] < key,
                None => true,
            };
            if !ordered || to.is_some_and(|to| key >= to) {
                self.finding(id, Flaw::Order);
            }
            last = Some(key.to_vec());
            if !view.is_leaf() {
                let to = if i + 1 < view.count() { Some(view.key(i + 1)) } else { to };
                below = self.tree(view.child(i), Some(key), to, depth - 1, nesting)?;
                if below.is_some() {
                    last.clone_from(&below);
                }
            } else if view.flags(i) & BUCKET != 0 {
                self.bucket(&page.value_bytes(i), id, nesting)?;
            }
        }
        if view.is_leaf() { Ok(last.filter(|_| view.count() > 0)) } else { Ok(below) }
    }

    fn bucket(&mut self, value: &Bytes, within: u64, nesting: usize) -> Result<(), ReadError> {
        match parse_bucket(value, within, self.state.meta.hwm) {
            Err(corruption) => self.found.push(corruption),
            Ok((Root::Inline(page), _)) => {
                let view = page.view();
                if (1..view.count()).any(|i| view.key(i - 1) >= view.key(i)) {
                    self.finding(within, Flaw::Order);
                }
            }
            Ok((Root::Page(root), _)) => {
                self.tree(root, None, None, MAX_DEPTH, nesting - 1)?;
            }
        }
        Ok(())
    }

    /// Reads the list that Go stored and marks its own pages.
    fn stored_freelist(&mut self, page: u64) -> Result<Option<Vec<u64>>, ReadError> {
        let State { source, meta, .. } = self.state;
        if !(FIRST_DATA_PAGE..meta.hwm).contains(&page) {
            self.finding(page, Flaw::Meta);
            return Ok(None);
        }
        let mut bytes = vec![0; source.page_size];
        source.file.read_at(self.may, &mut bytes, source.offset(page), Access::Point)?;
        let header = Header::read(&bytes);
        let len = u64::from(header.overflow) + 1;
        if header.id != page || header.flags != FREELIST || len > meta.hwm - page {
            self.finding(page, wrong_type(header.flags));
            return Ok(None);
        }
        bytes.resize(source.page_size * len as usize, 0);
        let rest = &mut bytes[source.page_size..];
        if !rest.is_empty() {
            source.file.read_at(self.may, rest, source.offset(page + 1), Access::Point)?;
        }
        self.mark(page, len);
        let (count, start) = match header.count {
            0xFFFF => (u64_at(&bytes, HEADER), HEADER + 8),
            count => (u64::from(count), HEADER),
        };
        let room = (bytes.len() - start) as u64 / 8;
        if count > room {
            self.finding(page, Flaw::Count);
            return Ok(None);
        }
        Ok(Some((0..count as usize).map(|i| u64_at(&bytes, start + 8 * i)).collect()))
    }

    /// Every page must be reached or free, not both.
    fn account(&mut self, free: &[u64]) {
        let mut listed = vec![false; self.seen.len()];
        for &page in free {
            match listed.get_mut(page as usize) {
                Some(listed) if !*listed && !self.seen[page as usize] => *listed = true,
                _ => self.finding(page, Flaw::Free),
            }
        }
        let lost = self.seen.iter().zip(&listed).enumerate();
        let lost = lost.filter(|(_, (seen, listed))| !**seen && !**listed);
        let lost: Vec<u64> = lost.map(|(page, _)| page as u64).collect();
        for page in lost {
            self.finding(page, Flaw::Free);
        }
    }
}
