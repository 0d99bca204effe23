//! Bytes that arrived and were not read yet.
//!
//! Invariant: what lies within one piece is given as a slice of it; only what straddles pieces is
//! copied, once.

use bytes::{Bytes, BytesMut};

/// A queue of bytes with whole reads only.
#[derive(Debug, Default)]
pub struct Input {
    /// Read first: the newest piece, or what was gathered of several.
    now: Bytes,
    /// Gathers while a read needs more than `now`; `now` is empty then.
    gathered: BytesMut,
}

impl Input {
    /// Adds a piece.
    pub fn feed(&mut self, piece: Bytes) {
        if self.now.is_empty() && self.gathered.is_empty() {
            self.now = piece;
            return;
        }
        if !self.now.is_empty() {
            self.gathered.extend_from_slice(&self.now);
            self.now = Bytes::new();
        }
        self.gathered.extend_from_slice(&piece);
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.now.len() + self.gathered.len()
    }

    /// Whether no byte waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next `count` bytes, if they are there.
    pub fn take(&mut self, count: usize) -> Option<Bytes> {
        if self.len() < count {
            return None;
        }
        if !self.gathered.is_empty() {
            self.now = std::mem::take(&mut self.gathered).freeze();
        }
        Some(self.now.split_to(count))
    }

    /// The number in the 8 bytes from `at`, if they are there.
    #[must_use]
    pub fn peek_u64(&self, at: usize) -> Option<u64> {
        let bytes = if self.gathered.is_empty() { &self.now[..] } else { &self.gathered[..] };
        let eight = bytes.get(at..at.checked_add(8)?)?;
        Some(u64::from_be_bytes(eight.try_into().expect("eight bytes")))
    }

    /// The next byte, if it is there.
    #[must_use]
    pub fn peek_u8(&self) -> Option<u8> {
        self.now.first().or(self.gathered.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_one_piece_is_not_copied() {
        let piece = Bytes::from_static(b"abcdef");
        let mut input = Input::default();
        input.feed(piece.clone());
        let taken = input.take(3).unwrap();
        assert_eq!(taken.as_ptr(), piece.as_ptr());
        assert_eq!(input.take(4), None);
        input.feed(Bytes::from_static(b"gh"));
        assert_eq!(input.take(5).unwrap(), &b"defgh"[..]);
        assert!(input.is_empty());
    }
}
