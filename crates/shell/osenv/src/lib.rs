//! The operating system behind the traits of `env`.
//!
//! Owns the real disk ([`disk::OsDisk`]), the clocks ([`clock::Clock`]) and the system's entropy
//! ([`entropy::seed`]). Never holds policy: what to sync and when is decided in `core`.

pub mod clock;
pub mod disk;
pub mod entropy;

pub use clock::Clock;
pub use disk::OsDisk;
pub use entropy::seed;
