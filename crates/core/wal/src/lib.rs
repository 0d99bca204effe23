//! etcd's write-ahead log and `.snap` files, byte for byte (see `FORMAT.md`).
//!
//! Owns records, frames, the CRC chain, segments, cutting, repair, release and purge of segments,
//! and the envelope of snapshot files. Never decides when to write or sync, and never retries: an
//! error from a write or sync poisons the log (invariant 10). Read next: [`record`], [`reader`],
//! [`writer`], [`snap`].

pub mod error;
pub mod reader;
pub mod record;
pub mod segment;
pub mod snap;
pub mod writer;

pub use error::{ReadError, WriteError};
pub use reader::{Log, read_all, repair, snapshots};
pub use record::{Record, RecordType};
pub use writer::Wal;
