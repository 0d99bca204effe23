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

/// The text of a system error as Go prints it: `address already in use`.
#[must_use]
pub fn error_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
