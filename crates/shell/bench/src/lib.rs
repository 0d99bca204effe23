//! Load generators for any etcd, and a comparison of two: closed loops, fixed rates and streams
//! over HTTP/2, in the clear or within TLS, as nobody or as a user ([`access`], [`guard`]).
//!
//! Owns a small gRPC client of few microseconds per request ([`client`]), a [`light`] generator
//! that spends a fraction of that, what is asked ([`shape`], [`load`], [`streams`],
//! [`million`], [`trouble`], [`handshakes`], [`logins`]), what is measured ([`process`] for the server's CPU and memory,
//! [`meter`], [`histogram`] for latencies, [`figures`]), and the table of [`cases`] with their
//! goals, which [`compare`] runs against two servers in turn, or three members of each
//! ([`cluster`]), and [`report`] prints. Never touches a server by another way than a client's.
//! Read next: [`cases`].

pub mod access;
pub mod cases;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod figures;
pub mod generator;
pub mod guard;
pub mod handshakes;
pub mod histogram;
pub mod light;
pub mod load;
pub mod logins;
pub mod meter;
pub mod million;
pub mod process;
pub mod report;
pub mod server;
pub mod shape;
pub mod streams;
pub mod trouble;

pub use access::{Access, User};
pub use compare::{Plan, compare};
pub use generator::Generator;
pub use load::{Load, block_on, run};
pub use server::Programs;
pub use shape::Shape;
