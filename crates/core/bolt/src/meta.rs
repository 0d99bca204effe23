//! The meta page: where a state of the database begins.

use crate::page::{HEADER, Header, META, u32_at, u64_at};

const MAGIC: u32 = 0xED0C_DAED;
pub(crate) const VERSION: u32 = 2;
/// `freelist` of a meta that stores none.
pub(crate) const NO_FREELIST: u64 = u64::MAX;
const META_LEN: usize = 64;
const SUMMED: usize = 56;
/// Bytes of a meta page that carry information.
pub(crate) const META_PAGE_LEN: usize = HEADER + META_LEN;

/// One state of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub page_size: u32,
    pub root: u64,
    pub sequence: u64,
    pub freelist: u64,
    /// High-water mark: page ids below it belong to the database.
    pub hwm: u64,
    pub txid: u64,
}

/// What the bytes of a meta page are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Valid(Meta),
    /// Whole, but of a version that is not ours.
    Version(u32),
    Invalid,
}

impl Meta {
    /// Decodes a page's first [`META_PAGE_LEN`] bytes.
    pub(crate) fn parse(page: &[u8]) -> Parsed {
        if page.len() < META_PAGE_LEN {
            return Parsed::Invalid;
        }
        let m = &page[HEADER..META_PAGE_LEN];
        if u32_at(m, 0) != MAGIC || u64_at(m, SUMMED) != fnv1a(&m[..SUMMED]) {
            return Parsed::Invalid;
        }
        if u32_at(m, 4) != VERSION {
            return Parsed::Version(u32_at(m, 4));
        }
        Parsed::Valid(Self {
            page_size: u32_at(m, 8),
            root: u64_at(m, 16),
            sequence: u64_at(m, 24),
            freelist: u64_at(m, 32),
            hwm: u64_at(m, 40),
            txid: u64_at(m, 48),
        })
    }

    /// Fills the start of a zeroed page that will lie at page `id`.
    pub(crate) fn write(&self, id: u64, page: &mut [u8]) {
        Header { id, flags: META, count: 0, overflow: 0 }.write(page);
        let m = &mut page[HEADER..META_PAGE_LEN];
        m[..4].copy_from_slice(&MAGIC.to_le_bytes());
        m[4..8].copy_from_slice(&VERSION.to_le_bytes());
        m[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        m[12..16].fill(0);
        let fields = [self.root, self.sequence, self.freelist, self.hwm, self.txid];
        for (i, field) in fields.into_iter().enumerate() {
            m[16 + 8 * i..24 + 8 * i].copy_from_slice(&field.to_le_bytes());
        }
        let sum = fnv1a(&m[..SUMMED]);
        m[SUMMED..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// FNV-1a, 64 bit (Fowler, Noll, Vo).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_survives_the_round_trip_and_no_flipped_bit() {
        let meta = Meta { page_size: 4096, root: 3, sequence: 7, freelist: 2, hwm: 4, txid: 1 };
        let mut page = [0; META_PAGE_LEN];
        meta.write(1, &mut page);
        assert_eq!(Meta::parse(&page), Parsed::Valid(meta));
        for bit in HEADER * 8..META_PAGE_LEN * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Meta::parse(&page), Parsed::Invalid, "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn fnv_matches_its_published_vector() {
        assert_eq!(fnv1a(b"foobar"), 0x85944171f73967e8);
    }
}
