//! Header compression (RFC 7541).
//!
//! A header block is a list of instructions: take field 3 of the static table, take this text and
//! remember it, take field 62, which is the newest of those remembered. Both sides must follow
//! every block, in order, or their tables differ and nothing means anything any more.

mod class;
mod decoder;
mod encoder;
mod huffman;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use class::Class;
pub(crate) use decoder::{Decoder, Sink};
pub(crate) use encoder::Encoder;

/// The tags of HPACK's static table.
#[derive(Debug)]
pub struct StaticTags<T>(Vec<T>);

impl<T> StaticTags<T> {
    /// Asks the protocol for the tag of each entry.
    #[must_use]
    pub fn of<P: crate::Protocol<Tag = T>>() -> Self {
        Self::by(P::tag)
    }

    fn by(find_tag: fn(&[u8], &[u8]) -> T) -> Self {
        let tag = |(name, value): &(&str, &str)| find_tag(name.as_bytes(), value.as_bytes());
        Self(table::STATIC.iter().map(tag).collect())
    }
}

/// Why decoding stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The block ends within a field.
    Cut,
    /// No header block has these bytes.
    Malformed,
}
