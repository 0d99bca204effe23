//! How work passes between threads.
//!
//! Owns the ways: [`Inbox`] (many producers, one consumer that takes everything at once), [`Slot`]
//! (the newest value of something, published whole), [`Notifier`] (wakes whoever waits for such a
//! value) and [`Seat`] (an automaton whose turn may be taken by whoever brings it work). Never knows what is passed, and never owns a thread: who blocks on an inbox does
//! so by `osenv::RecvBlocking`. Measured: handing over in batches instead of one by one is worth a
//! factor of 2-3 under load, the thread layout hardly anything.

mod inbox;
mod notifier;
mod seat;
mod slot;
mod sync;

pub use inbox::{Full, Inbox};
pub use notifier::Notifier;
pub use seat::Seat;
pub use slot::Slot;
