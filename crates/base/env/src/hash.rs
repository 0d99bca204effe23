//! Hash maps whose keys strangers choose.
//!
//! The standard `HashMap` draws the key of its hash from the operating system, each map anew: core
//! may not (invariant 1). A hash without a key would let a client choose keys that collide and
//! make each look-up as long as the map. So the key comes in as a value.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;

use siphasher::sip::SipHasher13;

use crate::entropy::Entropy;

/// The secret key of a hash map's hash, SipHash-1-3 (Aumasson, Bernstein: SipHash, 2012).
#[derive(Clone, Copy)]
pub struct HashSeed(u64, u64);

impl HashSeed {
    /// Draws a key. Maps of one process may share it.
    pub fn draw(entropy: &mut dyn Entropy) -> Self {
        Self(entropy.next_u64(), entropy.next_u64())
    }
}

/// Keeps the key out of logs.
impl fmt::Debug for HashSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashSeed(..)")
    }
}

impl BuildHasher for HashSeed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// A map by keys that strangers choose: made with `KeyMap::with_hasher(seed)`, looked up, and never
/// iterated, for the order depends on the seed.
pub type KeyMap<K, V> = HashMap<K, V, HashSeed>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix;

    #[test]
    fn a_hash_depends_on_its_seed_alone() {
        let seed = |n| HashSeed::draw(&mut SplitMix::new(n));
        assert_eq!(seed(1).hash_one(b"key"), seed(1).hash_one(b"key"));
        assert_ne!(seed(1).hash_one(b"key"), seed(2).hash_one(b"key"));
        let mut map = KeyMap::with_hasher(seed(1));
        map.insert("k", 1);
        assert_eq!((map.get("k"), map.get("l")), (Some(&1), None));
    }
}
