//! etcdutl: offline work on snapshots and databases.
//!
//! Owns: the commands, how they print, and restoring a member from a snapshot. Never: talks to a
//! server; writes to the file it is asked about. Not here yet: defrag, migrate.
//! Read next: [`commands`], [`snapshot`], [`restore`].

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod commands;
pub mod restore;
pub mod snapshot;

use std::ffi::OsString;

/// Runs a command line and returns the exit code.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    cli::run(&commands::ETCDUTL, args, |command, values| command(&values))
}
