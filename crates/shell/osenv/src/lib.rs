//! The operating system behind the traits of `env`.
//!
//! Owns the real disk ([`disk::OsDisk`]), the clocks ([`clock::Clock`]), the system's entropy
//! ([`entropy::seed`]) and how a thread waits for an inbox ([`receive::RecvBlocking`]). Never holds policy: what to sync and when is decided in `core`.

pub mod clock;
pub mod disk;
pub mod entropy;
pub mod receive;

pub use clock::Clock;
pub use disk::OsDisk;
pub use entropy::seed;
pub use receive::RecvBlocking;
