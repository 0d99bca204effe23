//! Randomness from the operating system.

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills `out` with random bytes that nobody can guess.
///
/// # Panics
/// As [`seed`].
pub fn secret(out: &mut [u8]) {
    for part in out.chunks_mut(256) {
        let n = getrandom(&mut *part, GetRandomFlags::empty()).expect("the kernel has getrandom");
        assert_eq!(n, part.len(), "getrandom fills up to 256 bytes at once");
    }
}

/// 64 random bits to seed a generator with.
///
/// # Panics
/// If the kernel has no random source, which no supported kernel lacks.
#[must_use]
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    let n = getrandom(&mut bytes, GetRandomFlags::empty()).expect("the kernel has getrandom");
    assert_eq!(n, bytes.len(), "getrandom fills up to 256 bytes at once");
    u64::from_ne_bytes(bytes)
}
