//! etcdctl: one function per command, over the client.
//!
//! Owns: the tree of commands, global flags and their environment, requests built from arguments,
//! and how answers are printed. Never: speaks a transport itself. Not here yet, and refused with a
//! text that says so: discovery by DNS.
//! Read next: [`commands`], [`session`], [`print`], then one module per kind of command.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod auth;
pub mod check;
pub mod commands;
pub mod downgrade;
pub mod endpoint;
pub mod environment;
pub mod json;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod maintenance;
pub mod member;
pub mod mirror;
pub mod move_leader;
pub mod print;
pub mod program;
pub mod role;
pub mod session;
pub mod txn;
pub mod user;
pub mod watch;
pub mod words;

use std::ffi::OsString;

use cli::Exit;

/// Runs a command line and returns the exit code. The environment gives `ETCDCTL_*`.
pub fn run(
    args: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> u8 {
    let environment = environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    cli::run(&commands::ETCDCTL, args, |command, values| -> Result<(), Exit> {
        command(&session::Context::new(values, environment)?)
    })
}
