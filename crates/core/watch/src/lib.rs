//! Watchers as cursors over the revision log.
//!
//! A watcher is a position, never a queue. Three positions have names: the hub's (everyone whose
//! client keeps up), a stream's (its client's window is full), a watcher's own (it reads history).
//! What moves a position forward is a walk over the newest [`store::View`]; nothing waits in memory
//! for a client, so a client that stopped reading costs its watchers' size and stalls nobody.
//!
//! Owns: which watchers exist, which events each still gets, matching, filters, the bytes of
//! events. Never: knows connections, channels, clocks or threads; a caller passes Views in, takes
//! responses out through a [`Sink`], and runs [`ReadJob`]s where blocking is allowed.
//!
//! Invariant 8: a watch carries each event once, in revision order, transactions whole, or is
//! cancelled as etcd cancels it.
//!
//! Read next: [`hub`], [`walk`], [`history`]; then [`matcher`] and [`events`].

pub mod events;
pub mod history;
pub mod hub;
mod interval;
pub mod matcher;
pub mod walk;

#[cfg(test)]
mod tests;

pub use events::split_events;
pub use history::{CatchUp, Chunk, ReadJob};
pub use hub::{Create, CreateError, Filter, Flow, Response, Sink, StreamId, WatchHub};
pub use matcher::Keys;
pub use walk::{Resumed, Step};
