//! A member as a server: configuration, listeners, threads, shutdown.
//!
//! Owns what is made of flags, environment and YAML, the threads that run the automata, the
//! sockets, and the order in which everything starts and stops. Never holds logic of the member.
//! [`run`] is also the API for embedding. Read next: [`run`], [`threads`].

pub mod identity;
pub mod listen;
pub mod run;
pub mod threads;

pub use run::{Options, RunError, Server, start};
