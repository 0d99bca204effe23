//! A load generator for any etcd: closed loops over plain HTTP/2, one thread, few microseconds of
//! its own per request.
//!
//! Owns connections ([`load`]), what is asked ([`shape`]) and what is measured ([`process`] for the
//! server's CPU and memory, [`histogram`] for latencies). Never decides what is good: it prints
//! figures, and `cargo xtask bench` puts two servers' side by side.

pub mod histogram;
pub mod load;
pub mod process;
pub mod shape;

pub use histogram::Histogram;
pub use load::{Load, Measured, run};
pub use shape::Shape;
