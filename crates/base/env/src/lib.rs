//! The seams between deterministic code and the machine it runs on.
//!
//! Owns the traits and value types through which `core` sees disk, time and randomness, the
//! moments at which tests make it fail ([`failpoint`]) and at which a simulator listens or meddles
//! ([`hooks`]), and the in-memory disk ([`mem::MemDisk`]) that both put behind them, and maps whose hash has its key from outside
//! ([`hash`]). Never touches
//! the operating system. Read next: [`disk`], [`time`], [`entropy`], [`failpoint`], [`hooks`],
//! [`mem`].

pub mod disk;
pub mod entropy;
pub mod failpoint;
pub mod hash;
pub mod hooks;
pub mod mem;
pub mod time;

pub use disk::{
    Access, Cached, Disk, Entry, File, FileKind, IoError, IoErrorKind, IoOp, MayBlock, Open, Run,
};
pub use entropy::{Entropy, SplitMix};
pub use failpoint::{Failpoint, Failpoints};
pub use hash::{HashSeed, KeyMap};
pub use hooks::{Hook, Hooks};
pub use time::{Instant, WallTime};
