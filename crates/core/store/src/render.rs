//! Whole answers to ranges within a transaction, which see the group that is being applied.

use env::MayBlock;

use crate::error::ValueError;
use crate::kv::{KeyValue, put_kvs_field};
use crate::range::{ByValue, Entries, Ranged};
use crate::store::Store;

impl Store {
    /// The `kvs` fields of a plan made within a transaction, and whether the limit cut keys off.
    /// Values come from memory as long as they are there, else this waits for the disk.
    ///
    /// # Errors
    /// A value was compacted since the plan, or the database's.
    pub fn render(&self, may: &MayBlock, ranged: Ranged) -> Result<(Vec<u8>, bool), ValueError> {
        let mut out = Vec::new();
        let refs = match &ranged.entries {
            Entries::Inline(elements) => {
                elements.iter().for_each(|element| put_kvs_field(&mut out, element));
                return Ok((out, ranged.more));
            }
            Entries::Refs(refs) => refs,
            Entries::Walk { .. } => unreachable!("a plan within a transaction holds its places"),
        };
        let mut values = Vec::with_capacity(refs.len());
        for at in refs {
            values.push(self.value(may, at.rev())?.ok_or(ValueError::Compacted)?);
        }
        let mut more = ranged.more;
        let Some(ByValue { descending, limit, strip }) = ranged.by_value else {
            values.iter().for_each(|value| put_kvs_field(&mut out, value));
            return Ok((out, more));
        };
        let mut parsed = Vec::with_capacity(values.len());
        for value in &values {
            parsed.push(KeyValue::parse(value)?);
        }
        parsed.sort_by(|a, b| a.value.cmp(b.value));
        if descending {
            parsed.reverse();
        }
        if let Some(limit) = limit.and_then(|l| usize::try_from(l).ok())
            && parsed.len() > limit
        {
            more = true;
            parsed.truncate(limit);
        }
        let mut encoded = Vec::new();
        for mut kv in parsed {
            if strip {
                kv.value = &[];
            }
            encoded.clear();
            kv.encode(&mut encoded);
            put_kvs_field(&mut out, &encoded);
        }
        Ok((out, more))
    }
}
