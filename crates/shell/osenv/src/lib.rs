//! The operating system behind the traits of `env`.
//!
//! Owns the real disk ([`disk::OsDisk`]), the clocks ([`clock::Clock`]), the system's entropy
//! ([`entropy::seed`]), how a thread waits for an inbox ([`receive::RecvBlocking`]) and the texts of
//! its errors ([`error_text()`]). Never holds policy: what to sync and when is decided in `core`.

pub mod clock;
pub mod disk;
pub mod entropy;
pub mod error_text;
pub mod receive;

pub use clock::Clock;
pub use disk::OsDisk;
pub use entropy::{secret, seed};
pub use error_text::error_text;
pub use receive::RecvBlocking;
