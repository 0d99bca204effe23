//! The tables of fields that a block refers to by number.
//!
//! Every entry of the dynamic table carries what was found about it when it was inserted: whether
//! it is allowed ([`Class`]), and what it means (the protocol's tag).
//! Invariant: the entries' texts lie in one buffer of at most twice their length and [`SLACK`].

use std::collections::VecDeque;

use super::class::Class;

/// Bytes that an entry counts besides its text.
//= RFC 7541, 4.1
pub(super) const ENTRY_OVERHEAD: usize = 32;

/// Bytes of the dynamic table: the default, which the server does not change.
//= RFC 9113, 6.5.2
pub(super) const TABLE_BYTES: usize = 4_096;

/// Bytes of dropped texts that are not worth moving the rest.
const SLACK: usize = 128;

struct Entry<T> {
    /// Where the text begins, counted from the beginning of the connection, modulo 2^32.
    start: u32,
    name: u16,
    value: u16,
    class: Class,
    tag: T,
}

/// A field that was looked up.
pub(super) struct Found<'a, T> {
    pub(super) class: Class,
    pub(super) tag: &'a T,
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The client's dynamic table, as its blocks fill it.
pub(super) struct DynamicTable<T> {
    /// The newest first, as they are numbered.
    entries: VecDeque<Entry<T>>,
    text: Vec<u8>,
    /// Where `text` begins, as [`Entry::start`] counts.
    base: u32,
    /// Sum of the entries' sizes.
    size: usize,
    /// What the client allows itself.
    max_size: usize,
}

impl<T> DynamicTable<T> {
    pub(super) fn new() -> Self {
        let (entries, text) = (VecDeque::new(), Vec::new());
        Self { entries, text, base: 0, size: 0, max_size: TABLE_BYTES }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry<T>>()
    }

    /// The entry of this number; 0 is the newest.
    pub(super) fn get(&self, number: usize) -> Option<Found<'_, T>> {
        let entry = self.entries.get(number)?;
        let start = entry.start.wrapping_sub(self.base) as usize;
        let (name, value) = (usize::from(entry.name), usize::from(entry.value));
        let (name, value) = self.text[start..start + name + value].split_at(name);
        Some(Found { class: entry.class, tag: &entry.tag, name, value })
    }

    /// Inserts a field, and drops the oldest for it. One that is larger than the table empties it.
    //= RFC 7541, 4.4
    pub(super) fn insert(&mut self, class: Class, tag: T, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(size);
        if size > self.max_size {
            return;
        }
        self.compact();
        let start = self.base.wrapping_add(self.text.len() as u32);
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.size += size;
        let (name, value) = (name.len() as u16, value.len() as u16);
        self.entries.push_front(Entry { start, name, value, class, tag });
    }

    /// Changes the size that the client allows itself.
    pub(super) fn resize(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict(0);
    }

    /// Drops the oldest entries until there is room.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.max_size
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= usize::from(entry.name) + usize::from(entry.value) + ENTRY_OVERHEAD;
        }
    }

    /// Closes the gap that dropped texts left, when it is larger than what is moved.
    fn compact(&mut self) {
        let used = self.text.len();
        let gap = match self.entries.back() {
            Some(oldest) => oldest.start.wrapping_sub(self.base) as usize,
            None => used,
        };
        if gap > used - gap + SLACK {
            self.text.drain(..gap);
            self.base = self.base.wrapping_add(gap as u32);
        }
    }
}

/// Entries 1 to 61.
//= RFC 7541, appendix A
#[rustfmt::skip]
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_churned_stays_small_and_right() {
        let mut table = DynamicTable::new();
        for n in 0..100_000_u32 {
            let value = "v".repeat(n as usize * 7 % 90) + &n.to_string();
            table.insert(Class::REGULAR, n, b"name", value.as_bytes());
            for back in 0..table.entries.len().min(3) {
                let found = table.get(back).unwrap();
                assert_eq!(*found.tag, n - back as u32);
                assert!(found.value.ends_with((n - back as u32).to_string().as_bytes()));
            }
            assert!(table.size <= TABLE_BYTES && table.text.len() <= 2 * TABLE_BYTES + SLACK);
        }
        assert!(table.held() < 16_384, "{}", table.held());
        table.resize(0);
        assert!(table.is_empty() && table.get(0).is_none());
    }

    #[test]
    fn an_entry_larger_than_the_table_empties_it() {
        let mut table = DynamicTable::new();
        table.insert(Class::REGULAR, (), b"a", b"b");
        table.insert(Class::REGULAR, (), b"a", &[b'x'; TABLE_BYTES]);
        assert!(table.is_empty() && table.size() == 0);
        table.insert(Class::REGULAR, (), b"a", &[b'x'; TABLE_BYTES - ENTRY_OVERHEAD - 1]);
        assert_eq!(table.size(), TABLE_BYTES);
    }
}
