//! How work passes between threads.
//!
//! Owns the three ways: [`Inbox`] (many producers, one consumer that takes everything at once),
//! [`Slot`] (the newest value of something, published whole) and [`replies`] (answers that find
//! their waiting future by a token). Never knows what is passed. Measured: handing over in batches
//! instead of one by one is worth a factor of 2-3 under load, the thread layout hardly anything.

mod inbox;
pub mod replies;
mod slot;
mod sync;

pub use inbox::{Full, Inbox};
pub use replies::{Replies, Wait};
pub use slot::Slot;
