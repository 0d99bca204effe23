//! The high halves of version counters beyond 32 bits: rare, so they live in a side table.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::Record;

/// The main revisions from which on a key's version has another high half, ascending.
type Steps = Vec<(u64, u32)>;

/// The steps of the keys that have any.
///
/// A key enters once in 2^32 updates, so entries are never removed: a stale one is never asked
/// for, as only a record with its flag set looks here.
#[derive(Clone, Debug, Default)]
pub(crate) struct WideVersions(Arc<BTreeMap<Vec<u8>, Steps>>);

impl WideVersions {
    /// The whole version of `record`, which belongs to `key`.
    pub(crate) fn version(&self, key: &[u8], record: &Record) -> u64 {
        let mut high = 0;
        if record.has_wide_version() {
            let steps = self.0.get(key).expect("a wide version was noted when it was set");
            let next = steps.partition_point(|step| step.0 <= record.main);
            high = steps[next.checked_sub(1).expect("noted at or before the record")].1;
        }
        u64::from(high) << 32 | u64::from(record.version)
    }

    /// Notes that the version of `key` went from `old` to `new` at main revision `main`.
    pub(crate) fn note(&mut self, key: &[u8], main: u64, old: u64, new: u64) {
        if new >> 32 != old >> 32 && new >> 32 != 0 {
            let high = (new >> 32) as u32;
            Arc::make_mut(&mut self.0).entry(key.to_vec()).or_default().push((main, high));
        }
    }
}
