//! From a header block to fields.
//!
//! Invariants: nothing is allocated for a field but its text, which the limit of the list bounds; a
//! field that the client repeats by its number costs no comparison and no copy.

use super::class::Class;
use super::huffman;
use super::table::{DynamicTable, ENTRY_OVERHEAD, Found, STATIC, TABLE_BYTES};
use super::{Error, StaticTags};

/// Bytes of a scratch buffer that is kept.
const KEPT_SCRATCH: usize = 256;

/// Takes the fields of one list.
pub(crate) trait Sink<T> {
    /// Whether more fields are wanted. If not, the block is still followed, for what it does to the
    /// dynamic table.
    fn is_open(&self) -> bool;
    /// Takes a field; `size` is what it counts in the list.
    fn field(&mut self, class: Class, tag: &T, name: &[u8], value: &[u8], size: usize);
}

/// The client's header compression, undone.
pub(crate) struct Decoder<T: 'static> {
    table: DynamicTable<T>,
    known: &'static [T],
    find_tag: fn(&[u8], &[u8]) -> T,
    /// Bytes of the longest text.
    longest: usize,
    name: Vec<u8>,
    value: Vec<u8>,
    /// Moves whenever a number may mean something else.
    epoch: u64,
    /// Whether a field of the block was read.
    has_field: bool,
}

impl<T: Clone> Decoder<T> {
    /// A decoder that refuses texts longer than `longest`.
    pub(crate) fn new(
        known: &'static StaticTags<T>,
        find_tag: fn(&[u8], &[u8]) -> T,
        longest: usize,
    ) -> Self {
        Self {
            table: DynamicTable::new(),
            known: &known.0,
            find_tag,
            longest,
            name: Vec::new(),
            value: Vec::new(),
            epoch: 0,
            has_field: false,
        }
    }

    /// Two blocks of the same bytes mean the same as long as this is the same.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Decodes what is whole of a piece of a block, and takes it off. What is left is the beginning
    /// of a field.
    ///
    /// # Errors
    /// [`Error::Malformed`]: the connection is lost, since nobody knows what later blocks mean.
    pub(crate) fn decode(
        &mut self,
        block: &mut &[u8],
        sink: &mut impl Sink<T>,
    ) -> Result<(), Error> {
        while !block.is_empty() {
            let mut rest = *block;
            match self.one(&mut rest, sink) {
                Ok(()) => {}
                Err(Error::Cut) => return Ok(()),
                Err(Error::Malformed) => return Err(Error::Malformed),
            }
            *block = rest;
        }
        Ok(())
    }

    /// The block is over: the next may begin with a change of the table's size again.
    pub(crate) fn end(&mut self) {
        self.has_field = false;
        for scratch in [&mut self.name, &mut self.value] {
            if scratch.capacity() > KEPT_SCRATCH {
                *scratch = Vec::new();
            }
        }
    }

    /// Gives back what is only used within a block.
    pub(crate) fn rest(&mut self) {
        (self.name, self.value) = (Vec::new(), Vec::new());
    }

    /// Decodes one field or change of size.
    fn one(&mut self, block: &mut &[u8], sink: &mut impl Sink<T>) -> Result<(), Error> {
        let (&first, rest) = block.split_first().ok_or(Error::Cut)?;
        if first & 0xe0 == 0x20 {
            return self.resize(block);
        }
        match first {
            0x80.. => {
                let number = match first {
                    // Nearly all of them.
                    ..0xff => {
                        *block = rest;
                        u64::from(first & 0x7f)
                    }
                    0xff => integer(block, 7)?,
                };
                let found = lookup(self.known, &self.table, number)?;
                emit(sink, found.class, found.tag, found.name, found.value);
            }
            0x40.. => self.literal(block, 6, Keep::Yes, sink)?,
            _ => self.literal(block, 4, Keep::No, sink)?,
        }
        self.has_field = true;
        Ok(())
    }

    //= RFC 7541, 6.3
    fn resize(&mut self, block: &mut &[u8]) -> Result<(), Error> {
        // The standard wants changes first in a block; Go lets them pass while the table is empty.
        if self.has_field && !self.table.is_empty() {
            return Err(Error::Malformed);
        }
        let size = integer(block, 5)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= TABLE_BYTES);
        self.table.resize(size.ok_or(Error::Malformed)?);
        self.epoch += 1;
        Ok(())
    }

    //= RFC 7541, 6.2
    fn literal(
        &mut self,
        block: &mut &[u8],
        bits: u32,
        keep: Keep,
        sink: &mut impl Sink<T>,
    ) -> Result<(), Error> {
        let Self { table, known, find_tag, longest, name: name_text, value: value_text, .. } = self;
        let number = integer(block, bits)?;
        let name = match number {
            0 => Some(Text::read(block, *longest)?),
            _ => None,
        };
        let value = Text::read(block, *longest)?;
        if keep == Keep::No && !sink.is_open() {
            return match name {
                Some(_) => Ok(()),
                None => lookup(known, table, number).map(|_| ()),
            };
        }
        let name = match &name {
            Some(text) => text.decode(name_text, *longest)?,
            None => {
                name_text.clear();
                name_text.extend_from_slice(lookup(known, table, number)?.name);
                &name_text[..]
            }
        };
        let value = value.decode(value_text, *longest)?;
        let (class, tag) = (Class::of(name, value), find_tag(name, value));
        emit(sink, class, &tag, name, value);
        if keep == Keep::Yes {
            table.insert(class, tag, name, value);
            self.epoch += 1;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }

    /// Bytes of memory besides the decoder itself.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.table.held() + self.name.capacity() + self.value.capacity()
    }
}

/// Whether a literal enters the dynamic table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

#[inline]
fn emit<T>(sink: &mut impl Sink<T>, class: Class, tag: &T, name: &[u8], value: &[u8]) {
    if sink.is_open() {
        sink.field(class, tag, name, value, name.len() + value.len() + ENTRY_OVERHEAD);
    }
}

/// The field of a number: the static table's come first.
//= RFC 7541, 2.3.3
#[inline]
fn lookup<'a, T>(
    known: &'static [T],
    table: &'a DynamicTable<T>,
    number: u64,
) -> Result<Found<'a, T>, Error> {
    let place = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
    let place = place.ok_or(Error::Malformed)?;
    let Some(dynamic) = place.checked_sub(STATIC.len()) else {
        let (name, value) = STATIC[place];
        let (name, value) = (name.as_bytes(), value.as_bytes());
        return Ok(Found { class: Class::of_static(place), tag: &known[place], name, value });
    };
    table.get(dynamic).ok_or(Error::Malformed)
}

/// Takes an integer off a block that begins in the last `bits` of its first byte.
//= RFC 7541, 5.1
//= grpc-go 1.82: golang.org/x/net/http2/hpack/hpack.go#readVarInt
#[inline]
fn integer(block: &mut &[u8], bits: u32) -> Result<u64, Error> {
    let mask = (1 << bits) - 1;
    let (&first, mut rest) = block.split_first().ok_or(Error::Cut)?;
    let mut value = u64::from(first & mask);
    if value == u64::from(mask) {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first().ok_or(Error::Cut)?;
            rest = after;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift >= 63 {
                return Err(Error::Malformed);
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// A text as it stands in a block.
struct Text<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

impl<'a> Text<'a> {
    //= RFC 7541, 5.2
    fn read(block: &mut &'a [u8], longest: usize) -> Result<Self, Error> {
        let is_huffman = block.first().ok_or(Error::Cut)? & 0x80 != 0;
        let length = integer(block, 7)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= longest);
        let length = length.ok_or(Error::Malformed)?;
        let (bytes, rest) = block.split_at_checked(length).ok_or(Error::Cut)?;
        *block = rest;
        Ok(Self { bytes, is_huffman })
    }

    fn decode<'b>(&self, scratch: &'b mut Vec<u8>, longest: usize) -> Result<&'b [u8], Error>
    where
        'a: 'b,
    {
        if !self.is_huffman {
            return Ok(self.bytes);
        }
        scratch.clear();
        huffman::decode(self.bytes, scratch, longest)?;
        Ok(scratch)
    }
}
