//! Multi-version key-value store over bolt: key index, revision log, views.
pub mod batch;
pub mod body;
pub mod bucket;
mod by_value;
pub mod error;
mod index;
pub mod kv;
pub mod range;
mod render;
pub mod rev;
pub mod revlog;
pub mod store;
pub mod values;
pub mod view;
pub mod write;
mod backend;
mod bolt { pub use crate::backend::*; }

pub use index::read::KeyParts;
pub use batch::{Batch, Event};
pub use body::{Piece, RangeBody};
pub use bucket::{Bucket, Op, meta};
pub use error::{CompactError, RangeError, RecoverError, ValueError};
pub use kv::{BadKeyValue, KeyValue};
pub use range::{KeyRef, RangeQuery, Ranged, SortOrder, SortTarget, ValueRef};
pub use rev::Rev;
pub use revlog::{Released, Tail, WATCH_TAIL_BYTES};
pub use store::{Store, UNCOMMITTED_LIMIT_BYTES};
pub use values::Lookup;
pub use view::{View, encode_deleted};
pub use write::{Deleted, WriteTxn};
