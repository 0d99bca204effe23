//! The bbolt 1.5.0 file format: one writer, many snapshot readers, all I/O through [`env`].
//!
//! Owns: pages, metas, trees, the freelist, commit and check of one file, and for the bucket of
//! revisions its *fences*, by which a point read needs one page and no waiting. A [`Db`] belongs
//! to the one writer; [`ReadTx`] values go to any thread. Never: knows etcd's schema, maps the
//! file, keeps a cache of pages, reads a clock, spawns. Read next: `FORMAT.md`, then [`Db`].
//!
//! ```
//! use std::{ops::Bound, path::Path, sync::Arc};
//! use bolt::{Db, Options};
//!
//! let may = env::MayBlock::on_this_thread();
//! let disk = Arc::new(env::mem::MemDisk::new());
//! let mut db = Db::open(disk, Path::new("/db"), &may, Options::default())?;
//! let mut tx = db.begin_write();
//! tx.create_bucket(&may, b"fruit")?;
//! tx.put(&may, b"fruit", b"apple", b"red")?;
//! tx.commit(&may)?;
//! let read = db.begin_read();
//! assert_eq!(read.get(&may, b"fruit", b"apple")?.as_deref(), Some(&b"red"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
mod check;
mod commit;
mod db;
mod error;
mod fence;
mod freelist;
mod meta;
mod node;
mod open;
mod page;
mod read;
mod scan;
mod snapshot;
mod source;
mod spill;
mod window;
mod write;

pub use check::CheckError;
pub use commit::{Committed, Stage};
pub use db::{Db, Options};
pub use error::{CommitError, Corruption, Flaw, OpenError, ReadError, WriteError};
pub use page::fuzz_page;
pub use read::{Lookup, ReadTx};
pub use scan::{Pair, Scan};
pub use write::{MAX_KEY_LEN, MAX_VALUE_LEN, SuspendedTx, Visitor, WriteTx};
