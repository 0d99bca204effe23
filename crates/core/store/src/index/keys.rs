//! Sorted byte strings in one immutable buffer.
//!
//! Layout: `[start; n] [head u16; n] [common prefix] [suffix 0] [suffix 1] …`. A start is the
//! offset of a suffix behind the prefix, `u16` while all suffixes together are below 64 KiB and
//! `u32` beyond, so keys of any size work. A head is the first two bytes of the suffix as a
//! big-endian number: the search scans that dense array and then compares few suffixes, which
//! beats a binary search over scattered bytes.
//!
//! Invariants: keys ascend strictly; the prefix is common to all keys (not always the longest);
//! a buffer never changes, so every version of a node with the same keys shares it.

use std::cmp::Ordering;
use std::sync::Arc;

/// Sorted, prefix-compressed keys of one node. Cloning shares the buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    count: u32,
    prefix_len: u32,
    wide: bool,
    buffer: Arc<[u8]>,
}

/// Rounds a size up to the allocator's class (four classes per doubling), so that the slack it
/// would waste becomes usable capacity.
pub(crate) fn size_class(bytes: usize) -> usize {
    if bytes <= 64 {
        return bytes.next_multiple_of(16);
    }
    let shift = (usize::BITS - 1 - (bytes - 1).leading_zeros()) - 2;
    bytes.next_multiple_of(1 << shift)
}

/// Length of the longest common prefix.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let limit = a.len().min(b.len());
    let mut at = 0;
    while at + 8 <= limit && a[at..at + 8] == b[at..at + 8] {
        at += 8;
    }
    while at < limit && a[at] == b[at] {
        at += 1;
    }
    at
}

/// The first two bytes of `first ++ second` as a number that orders like them; missing bytes are 0.
fn head(first: &[u8], second: &[u8]) -> u16 {
    let mut bytes = first.iter().chain(second).copied();
    let high = bytes.next().unwrap_or(0);
    u16::from_be_bytes([high, bytes.next().unwrap_or(0)])
}

fn to_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a node's keys stay far below 4 GiB: nodes split by bytes")
}

impl Keys {
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the buffer.
    pub(crate) fn size_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn start_width(&self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    fn heads_at(&self) -> usize {
        self.start_width() * self.len()
    }

    fn prefix_at(&self) -> usize {
        self.heads_at() + 2 * self.len()
    }

    fn suffixes_at(&self) -> usize {
        self.prefix_at() + self.prefix_len as usize
    }

    fn start(&self, i: usize) -> usize {
        let b = &self.buffer;
        if self.wide {
            u32::from_le_bytes([b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]]) as usize
        } else {
            usize::from(u16::from_le_bytes([b[2 * i], b[2 * i + 1]]))
        }
    }

    /// What all keys begin with.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.buffer[self.prefix_at()..self.suffixes_at()]
    }

    /// Key `i` less the prefix.
    pub(crate) fn suffix(&self, i: usize) -> &[u8] {
        let base = self.suffixes_at();
        let end = if i + 1 < self.len() { base + self.start(i + 1) } else { self.buffer.len() };
        &self.buffer[base + self.start(i)..end]
    }

    /// A copy of key `i`.
    pub(crate) fn key(&self, i: usize) -> Vec<u8> {
        [self.prefix(), self.suffix(i)].concat()
    }

    /// The place of `key`: `Ok` if it is there, `Err` where it would go.
    pub(crate) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let shared = key.len().min(prefix.len());
        match key[..shared].cmp(&prefix[..shared]) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.len()),
            Ordering::Equal if key.len() < prefix.len() => return Err(0),
            Ordering::Equal => {}
        }
        let suffix = &key[prefix.len()..];
        let wanted = head(suffix, &[]);
        let (mut low, mut high) = (0u16, 0u16);
        for pair in self.buffer[self.heads_at()..self.prefix_at()].chunks_exact(2) {
            let found = u16::from_le_bytes([pair[0], pair[1]]);
            low = low.wrapping_add(u16::from(found < wanted));
            high = high.wrapping_add(u16::from(found <= wanted));
        }
        let (mut low, mut high) = (usize::from(low), usize::from(high));
        while low < high {
            let middle = (low + high) / 2;
            match self.suffix(middle).cmp(suffix) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Builds from `n` suffixes given as two pieces each, behind a prefix given as two pieces.
    fn build<'a>(
        prefix: (&[u8], &[u8]),
        n: usize,
        suffix: impl Fn(usize) -> (&'a [u8], &'a [u8]),
    ) -> Self {
        let prefix_len = prefix.0.len() + prefix.1.len();
        let total: usize = (0..n).map(|i| suffix(i).0.len() + suffix(i).1.len()).sum();
        let wide = total > usize::from(u16::MAX);
        let width = if wide { 4 } else { 2 };
        let mut buffer = Vec::with_capacity((width + 2) * n + prefix_len + total);
        let mut at = 0;
        for i in 0..n {
            buffer.extend_from_slice(&to_u32(at).to_le_bytes()[..width]);
            at += suffix(i).0.len() + suffix(i).1.len();
        }
        for i in 0..n {
            let (a, b) = suffix(i);
            buffer.extend_from_slice(&head(a, b).to_le_bytes());
        }
        buffer.extend_from_slice(prefix.0);
        buffer.extend_from_slice(prefix.1);
        for i in 0..n {
            let (a, b) = suffix(i);
            buffer.extend_from_slice(a);
            buffer.extend_from_slice(b);
        }
        Self { count: to_u32(n), prefix_len: to_u32(prefix_len), wide, buffer: buffer.into() }
    }

    /// From `n` keys that ascend strictly.
    pub(crate) fn from_sorted<'a>(n: usize, key: impl Fn(usize) -> &'a [u8]) -> Self {
        if n == 0 {
            return Self::default();
        }
        let shared = common_prefix(key(0), key(n - 1));
        Self::build((&key(0)[..shared], &[]), n, |i| (&key(i)[shared..], &[]))
    }

    /// The keys `from..to`.
    pub(crate) fn slice(&self, from: usize, to: usize) -> Self {
        if from == to {
            return Self::default();
        }
        let more = common_prefix(self.suffix(from), self.suffix(to - 1));
        Self::build((self.prefix(), &self.suffix(from)[..more]), to - from, |i| {
            (&self.suffix(from + i)[more..], &[])
        })
    }

    /// The keys whose place passes `keep`.
    pub(crate) fn retain(&self, keep: impl Fn(usize) -> bool) -> Self {
        let kept: Vec<usize> = (0..self.len()).filter(|&i| keep(i)).collect();
        let (Some(&first), Some(&last)) = (kept.first(), kept.last()) else {
            return Self::default();
        };
        let more = common_prefix(self.suffix(first), self.suffix(last));
        Self::build((self.prefix(), &self.suffix(first)[..more]), kept.len(), |i| {
            (&self.suffix(kept[i])[more..], &[])
        })
    }

    /// These keys, then `middle` if given, then `other`, all ascending.
    pub(crate) fn concat(&self, middle: Option<&[u8]>, other: &Self) -> Self {
        let all: Vec<Vec<u8>> = (0..self.len())
            .map(|i| self.key(i))
            .chain(middle.map(<[u8]>::to_vec))
            .chain((0..other.len()).map(|i| other.key(i)))
            .collect();
        Self::from_sorted(all.len(), |i| &all[i])
    }

    /// Removes key `i`.
    pub(crate) fn remove(&mut self, i: usize) {
        *self = self.retain(|j| j != i);
    }

    /// Puts `key` at place `i`, as [`Keys::search`] gave it.
    pub(crate) fn insert(&mut self, i: usize, key: &[u8]) {
        let n = self.len();
        let shared = common_prefix(self.prefix(), key);
        let suffix = key.get(self.prefix_len as usize..).unwrap_or_default();
        let total = self.buffer.len() - self.suffixes_at() + suffix.len();
        if n == 0 || shared < self.prefix_len as usize || total > usize::from(u16::MAX) {
            *self = self.insert_rebuilding(i, key, if n == 0 { key.len() } else { shared });
            return;
        }
        // The common case copies the old buffer around the new key.
        let (base, heads, old) = (self.suffixes_at(), self.heads_at(), &self.buffer);
        let at = if i < n { base + self.start(i) } else { old.len() };
        let grown = u16::try_from(suffix.len()).expect("total is within u16");
        let start = u16::try_from(at - base).expect("total is within u16");
        let mut buffer = Vec::with_capacity(old.len() + 4 + suffix.len());
        buffer.extend_from_slice(&old[..2 * i]);
        buffer.extend_from_slice(&start.to_le_bytes());
        buffer.extend_from_slice(&old[2 * i..heads]);
        for pair in buffer[2 * i + 2..].chunks_exact_mut(2) {
            let moved = u16::from_le_bytes([pair[0], pair[1]]) + grown;
            pair.copy_from_slice(&moved.to_le_bytes());
        }
        buffer.extend_from_slice(&old[heads..heads + 2 * i]);
        buffer.extend_from_slice(&head(suffix, &[]).to_le_bytes());
        buffer.extend_from_slice(&old[heads + 2 * i..at]);
        buffer.extend_from_slice(suffix);
        buffer.extend_from_slice(&old[at..]);
        self.buffer = buffer.into();
        self.count += 1;
    }

    fn insert_rebuilding(&self, place: usize, key: &[u8], shared: usize) -> Self {
        let old_prefix = self.prefix().get(shared..).unwrap_or_default();
        Self::build((&key[..shared], &[]), self.len() + 1, |i| match i.cmp(&place) {
            Ordering::Less => (old_prefix, self.suffix(i)),
            Ordering::Equal => (&key[shared..], &[]),
            Ordering::Greater => (old_prefix, self.suffix(i - 1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use env::{Entropy, SplitMix};

    fn key(random: &mut SplitMix) -> Vec<u8> {
        let long = if random.below(40) == 0 { 70_000 } else { 6 };
        let len = random.below(long) as usize;
        let mut key = b"/p".repeat(random.below(3) as usize);
        key.extend((0..len).map(|_| (random.below(3) * 127) as u8));
        key
    }

    #[test]
    fn matches_a_sorted_vector_of_keys_of_all_sizes() {
        for seed in 0..60 {
            let mut random = SplitMix::new(seed);
            let (mut keys, mut model) = (Keys::default(), Vec::<Vec<u8>>::new());
            for _ in 0..120 {
                let k = key(&mut random);
                assert_eq!(keys.search(&k), model.binary_search(&k));
                match keys.search(&k) {
                    Err(i) => {
                        keys.insert(i, &k);
                        model.insert(i, k);
                    }
                    Ok(i) if random.below(2) == 0 => {
                        keys.remove(i);
                        model.remove(i);
                    }
                    Ok(_) => {}
                }
                let got: Vec<_> = (0..keys.len()).map(|i| keys.key(i)).collect();
                assert_eq!(got, model);
            }
            let cut = model.len() / 2;
            let (left, right) = (keys.slice(0, cut), keys.slice(cut, model.len()));
            let joined = left.concat(None, &right);
            assert_eq!((0..joined.len()).map(|i| joined.key(i)).collect::<Vec<_>>(), model);
        }
    }
}
