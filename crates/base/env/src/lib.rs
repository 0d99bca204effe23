//! The seams between deterministic code and the machine it runs on.
//!
//! Owns the traits and value types through which `core` sees disk, time, randomness and simulators, and the
//! in-memory disk ([`mem::MemDisk`]) that tests and the simulator put behind them. Never touches
//! the operating system. Read next: [`disk`], [`time`], [`entropy`], [`mem`].

pub mod disk;
pub mod entropy;
pub mod hooks;
pub mod mem;
pub mod time;

pub use disk::{
    Access, Cached, Disk, Entry, File, FileKind, IoError, IoErrorKind, IoOp, MayBlock, Open, Run,
};
pub use entropy::{Entropy, SplitMix};
pub use hooks::{Hook, Hooks};
pub use time::{Instant, WallTime};
