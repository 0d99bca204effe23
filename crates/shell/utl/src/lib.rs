//! etcdutl: offline work on snapshots and databases.
//!
//! Owns: the commands, how they print, and restoring a member from a snapshot. Never: talks to a
//! server; writes to the file it is asked about. Not here yet: defrag, migrate.
//! Read next: [`commands`], [`snapshot`], [`restore`].

pub mod commands;
pub mod restore;
pub mod snapshot;

use std::ffi::OsString;

use cli::{Exit, Found};

/// Runs a command line and returns the exit code.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let args = match cli::texts(args) {
        Ok(args) => args,
        Err(exit) => return exit.tell(),
    };
    let (command, values) = match cli::find(&commands::ETCDUTL, &args) {
        Found::Run(command, values) => (command, values),
        Found::Help(text) => {
            print!("{text}");
            return 0;
        }
        Found::Refused(text) => {
            eprintln!("{text}");
            return Exit::ERROR;
        }
    };
    match command(&values) {
        Ok(()) => 0,
        Err(exit) => exit.tell(),
    }
}
