//! A disk under the real server that forgets what was not synced when the process is killed.
//!
//! Owns the disk ([`LossyDisk`]) and the faults that can be planted in it ([`Fault`]). What the
//! real directory holds at any moment is what a power cut would leave; the rest is in memory. So
//! `kill -9` of a whole server, with its threads and sockets, tests durability as a power cut
//! would. Never shipped. Read next: [`disk`], then `tests/`.

pub mod disk;
pub mod fault;
mod inode;
mod names;

pub use disk::LossyDisk;
pub use fault::{Fault, Faults};
