//! Sockets, for clients and between members: one seam, in which TLS is wrapped.
//!
//! Owns how addresses are read from URLs, how a listener is bound and what its errors say, how many
//! connections there may be, how a connection is made, and the options of both ends. Never knows a
//! protocol. Read next: [`listener`], [`secure`], [`dialer`], [`stream`].

mod address;
pub mod dialer;
pub mod limit;
pub mod listener;
pub mod secure;
pub mod stream;
mod timed;
mod watched;

pub use address::{Address, BadAddress, Remote};
pub use dialer::{Dialer, dial, look_up};
pub use limit::Limit;
pub use listener::{Accepted, BindError, Bound, Listener, Opened, Reuse, bind};
pub use secure::{Handshake, Refused, Security};
pub use stream::Stream;
pub use timed::Timed;
