//! etcdutl: offline work on snapshots and databases.
//!
//! Owns: the commands, how they print, restoring a member from a snapshot, and changes of a data
//! directory in place. Never: talks to a server; writes to a file that it is only asked about.
//! Read next: [`commands`], [`snapshot`], [`restore`], `defrag`, `migrate`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod commands;
mod defrag;
mod migrate;
pub mod restore;
pub mod snapshot;

use std::ffi::OsString;

/// Runs a command line and returns the exit code.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    cli::run(&commands::ETCDUTL, args, |command, values| command(&values))
}
