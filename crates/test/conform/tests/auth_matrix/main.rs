//! Who may call what: the same requests in the name of the same users, at this product and at
//! etcd, and answers that are equal in code and text. Where a naive reading of roles can tell who
//! is let in, it must agree with both.
//!
//! The matrix is made, not written: every method of the method table ([`rows`]) × users of every
//! shape of permission, and callers who are nobody ([`identity`]) × the conditions below.
//! [`named`] has the ways around permissions that etcd once had, each as a test of its own.

mod cell;
mod compare;
mod conditions;
mod fuzz;
mod identity;
mod model;
mod named;
mod rows;
mod rows_txn;
mod targets;
mod world;
