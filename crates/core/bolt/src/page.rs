//! Branch and leaf pages as typed, checked views of bytes.
//!
//! Invariant: a [`PageRef`] exists only if id, type, count and every offset were in range, so its
//! accessors cannot panic whatever the file holds. Key order is not part of it (that would cost a
//! comparison per key and fetch); searches on unordered keys give wrong answers, never faults.

use bytes::Bytes;

use crate::error::{Corruption, Flaw};

pub(crate) const HEADER: usize = 16;
pub(crate) const ELEMENT: usize = 16;
pub(crate) const BRANCH: u16 = 0x01;
pub(crate) const LEAF: u16 = 0x02;
pub(crate) const META: u16 = 0x04;
pub(crate) const FREELIST: u16 = 0x10;
/// Leaf element flag: the value is a bucket.
pub(crate) const BUCKET: u32 = 0x01;
/// No tree with two children per branch and 64-bit page ids is deeper.
pub(crate) const MAX_DEPTH: usize = 64;
/// Pages 0 and 1 are metas; trees start here.
pub(crate) const FIRST_DATA_PAGE: u64 = 2;

pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().expect("two bytes"))
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

/// The first 16 bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub id: u64,
    pub flags: u16,
    pub count: u16,
    pub overflow: u32,
}

impl Header {
    /// `bytes` holds at least [`HEADER`] bytes.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Self {
            id: u64_at(bytes, 0),
            flags: u16_at(bytes, 8),
            count: u16_at(bytes, 10),
            overflow: u32_at(bytes, 12),
        }
    }

    pub(crate) fn write(&self, bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.overflow.to_le_bytes());
    }

    /// What can be told from the first page of a run: how many pages to read.
    ///
    /// Caps the overflow by the high-water mark and, where the element table lies in `first`, by
    /// the content it describes: bbolt allocates what the content needs, boltdb one page more.
    pub(crate) fn run_len(&self, first: &[u8], id: u64, hwm: u64) -> Result<u64, Corruption> {
        if self.id != id {
            return Err(Corruption::new(id, Flaw::Id));
        }
        // What lies in it cannot be told then, nor how much it is.
        if let flaw @ Flaw::Flag(_) = wrong_type(self.flags) {
            return Err(Corruption::new(id, flaw));
        }
        let pages = u64::from(self.overflow) + 1;
        if id.checked_add(pages).is_none_or(|end| end > hwm) {
            return Err(Corruption::new(id, Flaw::Overflow));
        }
        let table = HEADER + ELEMENT * usize::from(self.count);
        if pages > 1 && table <= first.len() {
            let mut end = table as u64;
            for i in 0..usize::from(self.count) {
                let (pos, key, value) = element(first, i, self.flags == LEAF);
                end = end.max((HEADER + i * ELEMENT) as u64 + pos + key + value);
            }
            if u64::from(self.overflow) > end / first.len() as u64 {
                return Err(Corruption::new(id, Flaw::Overflow));
            }
        }
        Ok(pages)
    }
}

/// Position (from the element), key length and value length of element `i`.
fn element(bytes: &[u8], i: usize, leaf: bool) -> (u64, u64, u64) {
    let at = HEADER + i * ELEMENT;
    let field = |n: usize| u64::from(u32_at(bytes, at + 4 * n));
    if leaf { (field(1), field(2), field(3)) } else { (field(0), field(1), 0) }
}

/// What is wrong with a page of these flags, where another type belongs.
pub(crate) fn wrong_type(flags: u16) -> Flaw {
    match flags & !(BRANCH | LEAF | META | FREELIST) {
        0 => Flaw::Type,
        unknown => Flaw::Flag(unknown),
    }
}

/// A checked branch or leaf page, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRef<'a> {
    bytes: &'a [u8],
    count: usize,
    leaf: bool,
}

impl<'a> PageRef<'a> {
    /// Checks a whole run of pages that was read from page `id`.
    pub(crate) fn parse(bytes: &'a [u8], id: u64, hwm: u64) -> Result<Self, Corruption> {
        let fail = |flaw| Err(Corruption::new(id, flaw));
        if bytes.len() < HEADER {
            return fail(Flaw::Count);
        }
        let header = Header::read(bytes);
        if header.id != id {
            return fail(Flaw::Id);
        }
        match header.flags {
            LEAF => {}
            BRANCH if header.count == 0 => return fail(Flaw::Count),
            BRANCH => {}
            other => return fail(wrong_type(other)),
        }
        let page = Self::checked(bytes, &header).map_err(|flaw| Corruption::new(id, flaw))?;
        if !page.leaf {
            for i in 0..page.count {
                if !(FIRST_DATA_PAGE..hwm).contains(&page.child(i)) {
                    return fail(Flaw::Child);
                }
            }
        }
        Ok(page)
    }

    /// Checks the page image of an inline bucket; `within` is the page that holds it.
    pub(crate) fn parse_inline(bytes: &'a [u8], within: u64) -> Result<Self, Corruption> {
        let fail = || Corruption::new(within, Flaw::Bucket);
        if bytes.len() < HEADER {
            return Err(fail());
        }
        let header = Header::read(bytes);
        if header.flags != LEAF {
            return Err(fail());
        }
        Self::checked(bytes, &header).map_err(|_| fail())
    }

    fn checked(bytes: &'a [u8], header: &Header) -> Result<Self, Flaw> {
        let (count, leaf) = (usize::from(header.count), header.flags == LEAF);
        if HEADER + count * ELEMENT > bytes.len() {
            return Err(Flaw::Count);
        }
        for i in 0..count {
            let (pos, key, value) = element(bytes, i, leaf);
            if (HEADER + i * ELEMENT) as u64 + pos + key + value > bytes.len() as u64 {
                return Err(Flaw::Element);
            }
        }
        Ok(Self { bytes, count, leaf })
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.leaf
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Where in the page the key of element `i` starts, its length and that of the value behind it.
    pub(crate) fn place(&self, i: usize) -> (usize, usize, usize) {
        let (pos, key, value) = element(self.bytes, i, self.leaf);
        (HEADER + i * ELEMENT + pos as usize, key as usize, value as usize)
    }

    pub(crate) fn key(&self, i: usize) -> &'a [u8] {
        let (at, key, _) = self.place(i);
        &self.bytes[at..at + key]
    }

    /// The value of a leaf's element.
    pub(crate) fn value(&self, i: usize) -> &'a [u8] {
        let (at, key, value) = self.place(i);
        &self.bytes[at + key..at + key + value]
    }

    /// The flags of a leaf's element.
    pub(crate) fn flags(&self, i: usize) -> u32 {
        u32_at(self.bytes, HEADER + i * ELEMENT)
    }

    /// The page below a branch's element.
    pub(crate) fn child(&self, i: usize) -> u64 {
        u64_at(self.bytes, HEADER + i * ELEMENT + 8)
    }

    /// The first element whose key is not less than `key`, and whether it is equal.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> (usize, bool) {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return (middle, true),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        (low, false)
    }

    /// The element of a branch below which `key` belongs.
    pub(crate) fn child_index(&self, key: &[u8]) -> usize {
        match self.lower_bound(key) {
            (i, true) => i,
            (i, false) => i.saturating_sub(1),
        }
    }
}

/// A checked page that owns its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    bytes: Bytes,
    id: u64,
    count: usize,
    leaf: bool,
}

impl Page {
    pub(crate) fn parse(bytes: Bytes, id: u64, hwm: u64) -> Result<Self, Corruption> {
        let PageRef { count, leaf, .. } = PageRef::parse(&bytes, id, hwm)?;
        Ok(Self { bytes, id, count, leaf })
    }

    pub(crate) fn parse_inline(bytes: Bytes, within: u64) -> Result<Self, Corruption> {
        let PageRef { count, leaf, .. } = PageRef::parse_inline(&bytes, within)?;
        Ok(Self { bytes, id: within, count, leaf })
    }

    pub(crate) fn view(&self) -> PageRef<'_> {
        PageRef { bytes: &self.bytes, count: self.count, leaf: self.leaf }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn overflow(&self) -> u32 {
        Header::read(&self.bytes).overflow
    }

    /// The value of a leaf's element, sharing the page's memory.
    pub(crate) fn value_bytes(&self, i: usize) -> Bytes {
        let (at, key, value) = self.view().place(i);
        self.bytes.slice(at + key..at + key + value)
    }

    pub(crate) fn key_bytes(&self, i: usize) -> Bytes {
        let (at, key, _) = self.view().place(i);
        self.bytes.slice(at..at + key)
    }
}

/// Where a bucket's keys are: the decoded value of a bucket element.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    Page(u64),
    Inline(Page),
}

/// Length of a bucket value before an inline page.
pub(crate) const BUCKET_HEADER: usize = 16;

/// Decodes a bucket element's value into its root and sequence; `within` is the page it lies in.
pub(crate) fn parse_bucket(
    value: &Bytes,
    within: u64,
    hwm: u64,
) -> Result<(Root, u64), Corruption> {
    if value.len() < BUCKET_HEADER {
        return Err(Corruption::new(within, Flaw::Bucket));
    }
    let (page, sequence) = (u64_at(value, 0), u64_at(value, 8));
    let root = match page {
        0 => Root::Inline(Page::parse_inline(value.slice(BUCKET_HEADER..), within)?),
        _ if (FIRST_DATA_PAGE..hwm).contains(&page) => Root::Page(page),
        _ => return Err(Corruption::new(within, Flaw::Child)),
    };
    Ok((root, sequence))
}

/// Fuzz entry: decodes arbitrary bytes as a page (id and high-water mark taken from the bytes
/// themselves) and touches every element the way readers do.
#[doc(hidden)]
pub fn fuzz_page(data: &[u8]) {
    let id = if data.len() >= 8 { u64_at(data, 0) } else { 0 };
    for parsed in [PageRef::parse(data, id, id.saturating_add(64)), PageRef::parse_inline(data, 9)]
    {
        let Ok(page) = parsed else { continue };
        let mut sum = 0usize;
        for i in 0..page.count() {
            sum = sum.wrapping_add(page.key(i).len());
            if page.is_leaf() {
                sum = sum.wrapping_add(page.value(i).len() + page.flags(i) as usize);
                if page.flags(i) & BUCKET != 0 {
                    let value = Bytes::copy_from_slice(page.value(i));
                    let _ = parse_bucket(&value, id, u64::MAX);
                }
            } else {
                sum = sum.wrapping_add(page.child(i) as usize);
            }
            let (at, _) = page.lower_bound(page.key(i));
            assert!(at <= page.count() && page.child_index(page.key(i)) < page.count());
        }
        std::hint::black_box(sum);
    }
    if data.len() >= HEADER {
        let _ = Header::read(data).run_len(data, id, id.saturating_add(64));
    }
}
