//! Where the bytes of a change are: in memory while the log holds them, else in the database.

use bytes::Bytes;
use env::MayBlock;

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
        let mut stored = Vec::with_capacity(refs.len());
        let mut places = Vec::with_capacity(refs.len());
        for (i, r) in (0u32..).zip(refs) {
            if r.main >= self.log.from() {
                each(i as usize, self.log.value(r.main, r.sub).as_deref());
            } else {
                stored.push((r.main, u64::from(r.sub)));
                places.push(i);
            }
        }
        match self.backend {
            None => places.iter().for_each(|&i| each(i as usize, None)),
            Some(_) if stored.is_empty() => {}
            Some(backend) => {
                backend.get_many(may, &stored, &mut |i, value| each(places[i] as usize, value))?;
            }
        }
        Ok(())
    }
}
