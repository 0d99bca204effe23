//! The storage version: which etcd may open this database.
//!
//! It follows the cluster version (semantics M3). A raised one is written at once. A lowered one
//! promises that a server of that version can read everything here, and it could not read what the
//! log says of the higher version: so it waits until a snapshot covers that (semantics M10).

use bytes::Bytes;
use store::{Bucket, Op};
use types::{Index, Version};

/// The first version that stores one.
//= etcd 3.7.1: server/storage/schema/schema.go (schemaChanges)
const FIRST: Version = Version { major: 3, minor: 6 };

/// What is stored, and what is to come.
#[derive(Debug, Default)]
pub(crate) struct StorageVersion {
    /// In the database, and durable.
    stored: Option<Bytes>,
    /// Given to the database: with which batch it becomes durable, once that is known.
    written: Option<(Option<u64>, Bytes)>,
    /// What it must be lowered to once a snapshot covers an entry.
    lower: Option<(Index, Bytes)>,
}

fn parse(text: &[u8]) -> Option<Version> {
    std::str::from_utf8(text).ok().and_then(Version::parse)
}

impl StorageVersion {
    /// A database says `stored`.
    pub(crate) fn new(stored: Option<Bytes>) -> Self {
        Self { stored, ..Self::default() }
    }

    /// What the database durably says.
    pub(crate) fn stored(&self) -> Option<&Bytes> {
        self.stored.as_ref()
    }

    /// Whether it is to be lowered once a snapshot was made.
    pub(crate) fn is_to_be_lowered(&self) -> bool {
        self.lower.is_some()
    }

    /// The cluster has this version from entry `index` on, and the newest snapshot covers
    /// `covered`. What is to be written now, if anything.
    pub(crate) fn follow(&mut self, cluster: &str, index: Index, covered: Index) -> Option<Op> {
        self.lower = None;
        let wanted = Version::parse(cluster).filter(|version| *version >= FIRST)?;
        let newest = self.written.as_ref().map(|(_, version)| version).or(self.stored.as_ref());
        let newest = newest.and_then(|stored| parse(stored));
        if newest == Some(wanted) {
            return None;
        }
        let value = Bytes::from(wanted.to_string());
        if newest > Some(wanted) && covered < index {
            self.lower = Some((index, value));
            return None;
        }
        Some(self.write(value))
    }

    /// A snapshot covers everything up to `covered`.
    pub(crate) fn snapshot_saved(&mut self, covered: Index) -> Option<Op> {
        let (_, value) = self.lower.take_if(|(index, _)| *index <= covered)?;
        Some(self.write(value))
    }

    fn write(&mut self, value: Bytes) -> Op {
        self.written = Some((None, value.clone()));
        let key = Bytes::from_static(store::meta::STORAGE_VERSION);
        Op { bucket: Bucket::Meta, key, value: Some(value) }
    }

    /// What was given out is in this batch. Whether something was.
    pub(crate) fn sealed(&mut self, number: u64) -> bool {
        match &mut self.written {
            Some((batch @ None, _)) => {
                *batch = Some(number);
                true
            }
            _ => false,
        }
    }

    /// The database durably holds this batch.
    pub(crate) fn committed(&mut self, number: u64) {
        let durable = |batch: Option<u64>| batch.is_some_and(|batch| batch <= number);
        if let Some((_, value)) = self.written.take_if(|(batch, _)| durable(*batch)) {
            self.stored = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: &'static str) -> StorageVersion {
        StorageVersion::new(Some(Bytes::from_static(version.as_bytes())))
    }

    fn value(op: Option<Op>) -> Option<String> {
        op.map(|op| String::from_utf8(op.value.expect("it is set").to_vec()).expect("text"))
    }

    #[test]
    fn a_raised_version_is_written_at_once_and_shown_once_durable() {
        let mut version = at("3.6.0");
        assert_eq!(value(version.follow("3.7.0", Index(9), Index(1))).as_deref(), Some("3.7.0"));
        assert!(version.sealed(4));
        version.committed(3);
        assert_eq!(version.stored().map(|v| &v[..]), Some(&b"3.6.0"[..]));
        version.committed(4);
        assert_eq!(version.stored().map(|v| &v[..]), Some(&b"3.7.0"[..]));
        assert!(!version.sealed(5));
    }

    #[test]
    fn a_lowered_version_waits_for_a_snapshot_of_its_entry() {
        let mut version = at("3.7.0");
        assert_eq!(version.follow("3.6.0", Index(9), Index(1)), None);
        assert!(version.is_to_be_lowered());
        assert_eq!(version.snapshot_saved(Index(8)), None);
        assert_eq!(value(version.snapshot_saved(Index(9))).as_deref(), Some("3.6.0"));
        assert_eq!(version.snapshot_saved(Index(10)), None);
    }

    #[test]
    fn what_a_snapshot_covers_already_is_lowered_at_once() {
        assert_eq!(
            value(at("3.7.0").follow("3.6.0", Index(9), Index(9))).as_deref(),
            Some("3.6.0")
        );
    }

    #[test]
    fn a_downgrade_that_is_taken_back_lowers_nothing() {
        let mut version = at("3.7.0");
        assert_eq!(version.follow("3.6.0", Index(9), Index(1)), None);
        assert_eq!(version.follow("3.7.0", Index(10), Index(1)), None);
        assert_eq!(version.snapshot_saved(Index(11)), None);
    }

    #[test]
    fn versions_before_the_first_that_stores_one_are_not_stored() {
        assert_eq!(StorageVersion::default().follow("3.0.0", Index(9), Index(1)), None);
        assert_eq!(StorageVersion::default().follow("3.5.0", Index(9), Index(1)), None);
        let mut none = StorageVersion::default();
        assert_eq!(value(none.follow("3.6.0", Index(9), Index(1))).as_deref(), Some("3.6.0"));
    }
}
