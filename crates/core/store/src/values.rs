//! Where the bytes of a change are: in memory while the log holds them, else in the database.

use bytes::Bytes;
use env::{Cached, MayBlock};

use crate::error::ValueError;
use crate::range::ValueRef;
use crate::revlog::LogSnapshot;

/// What a lookup that must not wait found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The stored `KeyValue`.
    Found(Bytes),
    /// No such change, or compacted and removed since.
    Absent,
    /// On disk and not in memory: ask again where blocking is allowed.
    Cold,
}

/// The two places, borrowed from the store or a View.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) log: &'a LogSnapshot,
    pub(crate) backend: Option<&'a bolt::ReadTx>,
}

impl Sources<'_> {
    /// Puts only: no reader asks for the value of a tombstone by its place.
    pub(crate) fn try_value(&self, main: u64, sub: u32) -> Result<Lookup, ValueError> {
        if main >= self.log.from() {
            return Ok(self.log.value(main, sub).map_or(Lookup::Absent, Lookup::Found));
        }
        let Some(backend) = self.backend else { return Ok(Lookup::Absent) };
        Ok(match backend.try_get(main, u64::from(sub), false)? {
            bolt::Lookup::Found(value) => Lookup::Found(value),
            bolt::Lookup::Absent => Lookup::Absent,
            bolt::Lookup::Cold => Lookup::Cold,
        })
    }

    pub(crate) fn value(
        &self,
        may: &MayBlock,
        main: u64,
        sub: u32,
    ) -> Result<Option<Bytes>, ValueError> {
        if main >= self.log.from() {
            return Ok(self.log.value(main, sub));
        }
        let Some(backend) = self.backend else { return Ok(None) };
        Ok(backend.get_revision(may, main, u64::from(sub), false)?)
    }

    /// Calls `each` once per reference with its position and value, in any order. Ascending
    /// references cost least.
    pub(crate) fn values<'r>(
        &self,
        may: &MayBlock,
        refs: impl ExactSizeIterator<Item = &'r ValueRef>,
        each: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), ValueError> {
        let stored = self.logged(refs, each);
        if let Some(backend) = self.backend.filter(|_| !stored.revs.is_empty()) {
            backend.get_many(may, &stored.revs, &mut |i, value| each(stored.position(i), value))?;
        }
        Ok(())
    }

    /// As [`Sources::values`] without waiting for the disk. On [`Cached::Miss`] some references were
    /// not reported.
    pub(crate) fn try_values<'r>(
        &self,
        refs: impl ExactSizeIterator<Item = &'r ValueRef>,
        each: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<Cached, ValueError> {
        let stored = self.logged(refs, each);
        match self.backend {
            Some(backend) if !stored.revs.is_empty() => {
                let each = &mut |i, value: Option<&[u8]>| each(stored.position(i), value);
                Ok(backend.try_get_many(&stored.revs, each)?)
            }
            _ => Ok(Cached::Hit),
        }
    }

    /// Reports what the log holds, and what nothing holds if there is no database; gives the rest.
    fn logged<'r>(
        &self,
        refs: impl ExactSizeIterator<Item = &'r ValueRef>,
        each: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Stored {
        let (revs, places) = (Vec::with_capacity(refs.len()), Vec::with_capacity(refs.len()));
        let mut stored = Stored { revs, places };
        for (i, r) in (0u32..).zip(refs) {
            if r.main >= self.log.from() {
                each(i as usize, self.log.value(r.main, r.sub).as_deref());
            } else if self.backend.is_none() {
                each(i as usize, None);
            } else {
                stored.revs.push((r.main, u64::from(r.sub)));
                stored.places.push(i);
            }
        }
        stored
    }
}

/// References to the database among others.
struct Stored {
    revs: Vec<(u64, u64)>,
    /// Where each stood among all.
    places: Vec<u32>,
}

impl Stored {
    fn position(&self, i: usize) -> usize {
        self.places[i] as usize
    }
}
