//! Revisions and their form as keys of the `key` bucket.
//!
//! //= etcd 3.7.1: server/storage/mvcc/revision.go

use types::{Revision, SubRevision};

/// Bytes of a revision as a key: main, `_`, sub.
const REV_BYTES: usize = 17;
const SEPARATOR: u8 = b'_';
const TOMBSTONE_MARK: u8 = b't';

/// The place of one change in the order of all changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rev {
    /// The transaction.
    pub main: Revision,
    /// The change within it, from 0.
    pub sub: SubRevision,
}

impl Rev {
    /// The first change of a main revision.
    #[must_use]
    pub fn first_of(main: Revision) -> Self {
        Self { main, sub: SubRevision(0) }
    }

    pub(crate) fn new(main: u64, sub: u32) -> Self {
        Self { main: to_revision(main), sub: SubRevision(i64::from(sub)) }
    }

    /// Main and sub as the index holds them; `None` if no change has this place.
    pub(crate) fn place(self) -> Option<(u64, u32)> {
        Some((u64::try_from(self.main.0).ok()?, u32::try_from(self.sub.0).ok()?))
    }
}

/// A main revision of the index as the API shows it.
pub(crate) fn to_revision(main: u64) -> Revision {
    Revision(i64::try_from(main).expect("revisions come from an i64 that counts up from 1"))
}

/// The key of a change in the `key` bucket: 17 bytes, 18 for a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevKey {
    bytes: [u8; REV_BYTES + 1],
    len: usize,
}

impl RevKey {
    pub(crate) fn new(main: u64, sub: u64, tombstone: bool) -> Self {
        let mut bytes = [TOMBSTONE_MARK; REV_BYTES + 1];
        bytes[..8].copy_from_slice(&main.to_be_bytes());
        bytes[8] = SEPARATOR;
        bytes[9..REV_BYTES].copy_from_slice(&sub.to_be_bytes());
        Self { bytes, len: REV_BYTES + usize::from(tombstone) }
    }

    /// The bytes as they stand in the bucket.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A key of the `key` bucket, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParsedRev {
    pub(crate) main: u64,
    pub(crate) sub: u64,
    pub(crate) tombstone: bool,
}

impl ParsedRev {
    /// `None` if the bytes are no revision: wrong length, separator or mark, or negative.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (rev, mark) = key.split_at_checked(REV_BYTES)?;
        let tombstone = match mark {
            [] => false,
            [TOMBSTONE_MARK] => true,
            _ => return None,
        };
        let number = |bytes: &[u8]| {
            let number = u64::from_be_bytes(bytes.try_into().ok()?);
            i64::try_from(number).is_ok().then_some(number)
        };
        if rev[8] != SEPARATOR {
            return None;
        }
        Some(Self { main: number(&rev[..8])?, sub: number(&rev[9..])?, tombstone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_keys_have_etcds_bytes_and_parse_back() {
        let put = RevKey::new(0x0102, 3, false);
        assert_eq!(put.as_bytes(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03");
        let tombstone = RevKey::new(0x0102, 3, true);
        assert_eq!(tombstone.as_bytes(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
        let parsed = ParsedRev::parse(tombstone.as_bytes());
        assert_eq!(parsed, Some(ParsedRev { main: 0x0102, sub: 3, tombstone: true }));
    }

    #[test]
    fn other_bytes_are_no_revision() {
        let good = RevKey::new(7, 0, true);
        for broken in [
            &good.as_bytes()[..16],
            &[good.as_bytes(), b"t"].concat(),
            b"\0\0\0\0\0\0\x01\x02-\0\0\0\0\0\0\0\x03",
            b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03x",
            b"\xff\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03",
        ] {
            assert_eq!(ParsedRev::parse(broken), None, "{broken:?}");
        }
    }
}
