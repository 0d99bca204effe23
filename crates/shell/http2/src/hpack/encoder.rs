//! From fields to a header block.
//!
//! The few fields that nearly every answer has are put into the client's dynamic table once and
//! never dropped, so that they are one byte each from then on. Texts are not Huffman-coded: what is
//! left is short and seldom.
//! Invariant: the entries' sizes add up to no more than the client allows.

use super::table::{ENTRY_OVERHEAD, TABLE_BYTES};
use crate::protocol::{Field, Indexing};

/// Fields that are kept in the client's table.
const MOST_ENTRIES: usize = 16;
/// The first number of the dynamic table.
const FIRST_DYNAMIC: usize = super::table::STATIC.len() + 1;
/// The number of `content-type` in the static table.
const CONTENT_TYPE: usize = 31;
/// The number of `:status` in the static table.
const STATUS: usize = 8;

struct Entry {
    /// The name, then the value.
    text: Box<[u8]>,
    name: usize,
}

impl Entry {
    fn name(&self) -> &[u8] {
        &self.text[..self.name]
    }

    /// Whether it is this field.
    fn is(&self, field: &Field<'_>) -> bool {
        self.text.len() == field.name.len() + field.value.len()
            && self.name == field.name.len()
            && is_same(&self.text[..self.name], field.name)
            && is_same(&self.text[self.name..], field.value)
    }
}

/// Compares texts of the same length. They are short and looked at several times for each answer,
/// for which a call of the library's comparison would be dear.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    match (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        (Some(end), Some(other_end)) => {
            let (whole, other_whole) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
            end == other_end && whole.iter().zip(other_whole).all(|(one, other)| one == other)
        }
        _ => one.iter().zip(other).all(|(one, other)| one == other),
    }
}

/// Header compression of answers.
pub(crate) struct Encoder {
    /// The oldest first.
    entries: Vec<Entry>,
    /// Sum of the entries' sizes.
    size: usize,
    /// What the client allows, and we use.
    max_size: usize,
    /// The smallest size since the last block, if the client has set any: it must be told that we
    /// keep to it.
    to_tell: Option<usize>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), size: 0, max_size: TABLE_BYTES, to_tell: None }
    }

    /// The client's SETTINGS_HEADER_TABLE_SIZE. More than the default is not used.
    pub(crate) fn allow(&mut self, size: u32) {
        let size = usize::try_from(size).unwrap_or(TABLE_BYTES).min(TABLE_BYTES);
        if size == self.max_size && self.to_tell.is_none() {
            return;
        }
        self.max_size = size;
        let smallest = self.to_tell.map_or(size, |smallest| smallest.min(size));
        self.to_tell = Some(smallest);
        if smallest < self.size {
            self.entries.clear();
            self.size = 0;
        }
    }

    /// Gives back what the table has no use for.
    pub(crate) fn rest(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// Begins a block.
    //= RFC 7541, 4.2
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(smallest) = self.to_tell.take() else { return };
        // What did not fit was dropped here at once, all of it; the client drops the oldest only,
        // and Go's takes a second size only if its table is empty.
        if smallest < self.max_size || self.entries.is_empty() {
            self.entries.clear();
            self.size = 0;
            integer(out, 0x20, 5, 0);
        }
        if self.max_size > 0 {
            integer(out, 0x20, 5, self.max_size);
        }
    }

    /// Appends `:status`.
    pub(crate) fn status(out: &mut Vec<u8>, status: u16) {
        let number = match status {
            200 => 8,
            204 => 9,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                integer(out, 0, 4, STATUS);
                return text(out, status.to_string().as_bytes());
            }
        };
        out.push(0x80 | number);
    }

    /// Appends a field.
    pub(crate) fn field(&mut self, out: &mut Vec<u8>, field: &Field<'_>) {
        let newest = FIRST_DYNAMIC + self.entries.len() - 1;
        if let Some(age) = self.entries.iter().position(|entry| entry.is(field)) {
            return integer(out, 0x80, 7, newest - age);
        }
        let same_name = || self.entries.iter().position(|entry| entry.name() == field.name);
        let name = static_name(field.name).or_else(|| Some(newest - same_name()?));
        let size = field.name.len() + field.value.len() + ENTRY_OVERHEAD;
        let fits = self.size + size <= self.max_size && self.entries.len() < MOST_ENTRIES;
        if field.indexing == Indexing::Indexed && fits {
            self.size += size;
            let text = [field.name, field.value].concat().into();
            self.entries.push(Entry { text, name: field.name.len() });
            literal(out, (0x40, 6), name, field);
        } else {
            literal(out, (0, 4), name, field);
        }
    }

    /// Appends a field in a way that means the same at any time.
    pub(crate) fn timeless(out: &mut Vec<u8>, field: &Field<'_>) {
        literal(out, (0, 4), static_name(field.name), field);
    }

    /// Bytes of memory besides the encoder itself.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.entries.iter().map(|entry| entry.text.len()).sum::<usize>()
    }
}

fn static_name(name: &[u8]) -> Option<usize> {
    (name == b"content-type").then_some(CONTENT_TYPE)
}

/// Appends a field with its text. `kind` is the first byte's mark and the bits behind it.
fn literal(out: &mut Vec<u8>, kind: (u8, u32), name: Option<usize>, field: &Field<'_>) {
    integer(out, kind.0, kind.1, name.unwrap_or(0));
    if name.is_none() {
        text(out, field.name);
    }
    text(out, field.value);
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

//= RFC 7541, 5.1
#[inline]
fn integer(out: &mut Vec<u8>, mark: u8, bits: u32, value: usize) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        return out.push(mark | value as u8);
    }
    out.push(mark | mask as u8);
    let mut left = value - mask;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}
