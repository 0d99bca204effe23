//! How work passes between threads.
//!
//! Owns the four ways: [`Inbox`] (many producers, one consumer that takes everything at once),
//! [`Slot`] (the newest value of something, published whole), [`Bell`] (wakes whoever waits for
//! such a value) and [`replies`] (answers that find their waiting future by a token). Never knows what is passed. Measured: handing over in batches
//! instead of one by one is worth a factor of 2-3 under load, the thread layout hardly anything.

mod bell;
mod inbox;
pub mod replies;
mod slot;
mod sync;

pub use bell::Bell;
pub use inbox::{Full, Inbox};
pub use replies::{Replies, Wait};
pub use slot::Slot;
