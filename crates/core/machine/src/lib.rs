//! The replicated state machine: the same entries give the same state on every member.
//!
//! Owns what an entry means: key-value operations, leases, membership, alarms and versions, and
//! what of them is stored. Never reads a clock or a random source, and never asks which member it
//! runs on except through [`ApplyConfig`] (invariant 5). Read next: [`command`], [`apply`], then
//! one module per kind of command; [`auth`] decides who may.

pub mod alarms;
pub mod apply;
pub mod auth;
pub mod command;
pub mod kv;
pub mod leases;
pub mod membership;
pub mod outcome;

pub use alarms::Alarms;
pub use apply::{ApplyConfig, Machine};
pub use auth::Auth;
pub use command::{Command, CommandKind};
pub use leases::Leases;
pub use membership::{Member, Members};
pub use outcome::{
    AuthReply, CommandReply, DeleteReply, Effect, OpReply, Outcome, PutReply, RangeReply, Secret,
    TxnReply,
};
