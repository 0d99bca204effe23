//! Multi-version key-value store over bolt: key index, revision log, views.
//!
//! Values are a log, the index is a tree: what a change stored is found by its revision, in memory
//! while the revision log holds it and else in the database; which changes a key has is known by
//! the index alone. The thread that applies owns a [`Store`] and publishes a [`View`] after each
//! group; everyone else reads Views.
//!
//! Owns: etcd's buckets and their bytes (`FORMAT.md`), the key index, the revision log, ranges and
//! their bodies, compaction, hashes,
//! defragmentation, recovery. Never: knows RPC types or raft, keeps a clock,
//! decides when to commit or compact; blocks a thread that has no [`env::MayBlock`].
//!
//! Read next: [`store`], [`mod@write`], [`view`], then [`range`] and [`body`]; the index is described
//! in `index/mod.rs`.
//!
//! ```
//! use store::{RangeQuery, Store};
//! use types::{Index, LeaseId, Term};
//!
//! let mut store = Store::empty();
//! let mut txn = store.begin();
//! txn.put(b"fruit/apple", b"red", LeaseId(0));
//! txn.put(b"fruit/lemon", b"yellow", LeaseId(0));
//! assert_eq!(txn.end().0, 2);
//! let batch = store.seal(Index(1), Term(1), None);
//! let view = store.publish();
//! assert_eq!(batch.events().count(), 2);
//! let fruits = view.range(&RangeQuery::between(b"fruit/", b"fruit0"))?;
//! assert_eq!((fruits.count, fruits.more), (2, false));
//! # Ok::<(), store::RangeError>(())
//! ```

pub mod batch;
pub mod body;
pub mod bucket;
mod by_value;
pub mod commit;
pub mod compact;
pub mod counts;
pub mod defrag;
pub mod error;
pub mod hash;
mod index;
pub mod kv;
mod plan;
pub mod range;
pub mod recover;
mod render;
pub mod rev;
pub mod revlog;
pub mod store;
pub mod values;
pub mod view;
pub mod watch;
pub mod write;

pub use batch::{Batch, Event};
pub use body::{Piece, RangeBody};
pub use bucket::{Bucket, Op, meta};
pub use commit::{create_buckets, database_options};
pub use compact::{Compacted, Step};
pub use counts::Counts;
pub use defrag::{Defrag, DefragError};
pub use error::{CompactError, RangeError, RecoverError, ValueError};
pub use hash::{CompactionHashes, DatabaseHasher, KvHash, KvHasher};
pub use index::read::KeyParts;
pub use kv::{BadKeyValue, KeyValue, fuzz_key_value, kvs_field_len, put_kvs_field};
pub use range::{KeyRef, RangeQuery, Ranged, SortOrder, SortTarget, ValueRef};
pub use rev::{Rev, RevKey};
pub use revlog::{Released, Tail, WATCH_TAIL_BYTES};
pub use store::{Store, StoreLimits, UNCOMMITTED_LIMIT_BYTES};
pub use values::Lookup;
pub use view::{View, encode_deleted};
pub use watch::{Change, History};
pub use write::{Deleted, WriteTxn};
